"""What a store tells its router: in batches, and nothing of what came and went between two of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flamezmq.store.census import GATHER_SECONDS, Census, Fact
from flamezmq.wire.objects import COPY, MOST_OBJECTS, Stocked


def id_of(k: int) -> bytes:
    return k.to_bytes(16, "big")


class Store:
    """What is there, and a census of it; `now` goes on by itself from report to report."""

    def __init__(self) -> None:
        self.facts: dict[bytes, Fact] = {}
        self.census = Census(self.facts.get)
        self.now = 0.0

    def put(self, k: int, session: str = "s", size: int = 5, marks: int = 0) -> None:
        self.facts[id_of(k)] = Fact(session, size, marks)
        self.census.changed(id_of(k), self.now)

    def drop(self, *ks: int) -> None:
        for k in ks:
            self.facts.pop(id_of(k), None)
        self.census.gone(map(id_of, ks), self.now)

    def report(self, used: int = 0) -> Stocked | None:
        self.now += GATHER_SECONDS
        return self.census.take(self.now, used)


def test_objects_are_told_together_once_some_time_has_passed() -> None:
    store = Store()
    store.put(1, "s")
    store.put(2, "t", 7)
    store.put(3, "", 9, marks=COPY)
    assert store.census.take(store.now, 0) is None

    report = store.report(used=21)

    assert report is not None
    assert report.ids == [id_of(1), id_of(2), id_of(3)]
    assert (report.sessions, report.owners) == (["s", "t"], [0, 1, -1])
    assert (report.sizes, report.marks, report.used) == ([5, 7, 9], [0, 0, COPY], 21)
    assert store.census.due is None, "nothing more is due, so the store may sleep"


def test_what_comes_and_goes_between_two_reports_is_never_told() -> None:
    store = Store()
    for k in range(1000):
        store.put(k)
        store.drop(k)

    assert store.report() is None
    assert store.census.due is None


def test_what_was_told_and_goes_is_told_once() -> None:
    store = Store()
    store.put(1)
    store.report()
    store.drop(1, 2)

    report = store.report()

    assert report is not None
    assert report.gone == [id_of(1)]
    assert report.ids == []
    assert store.report() is None


def test_memory_that_readers_give_back_later_is_told_though_no_object_has_changed() -> None:
    store = Store()
    store.put(1)
    store.report(used=100)
    store.census.touch(store.now)

    report = store.report(used=50)

    assert report is not None
    assert (report.used, report.ids) == (50, [])
    store.census.touch(store.now)
    assert store.report(used=50) is None


def test_many_objects_are_told_in_reports_of_bounded_size_one_after_the_other() -> None:
    store = Store()
    for k in range(3 * MOST_OBJECTS + 1):
        store.put(k)
    told: list[bytes] = []
    while (report := store.report()) is not None:
        assert len(report.ids) <= MOST_OBJECTS
        assert store.census.take(store.now, 0) is None, "the next one has to wait"
        told += report.ids
    assert told == [id_of(k) for k in range(3 * MOST_OBJECTS + 1)]


DEEDS = st.lists(st.tuples(st.sampled_from(["put", "drop", "report"]), st.integers(0, 6)), max_size=80)


@given(DEEDS)
def test_who_follows_the_reports_knows_what_is_there(deeds: list[tuple[str, int]]) -> None:
    store = Store()
    known: set[bytes] = set()

    def follow() -> bool:
        report = store.report()
        if report is None:
            return False
        assert known.issuperset(report.gone), "what was never told has gone"
        known.difference_update(report.gone)
        known.update(report.ids)
        return True

    for deed, k in deeds:
        if deed == "report":
            follow()
        elif deed == "put" and id_of(k) not in store.facts:
            store.put(k)
        elif deed == "drop":
            store.drop(k)
    while follow():
        pass
    assert known == set(store.facts)
    assert store.census.due is None
