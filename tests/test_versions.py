"""Versions of objects, as users see them: one updates or appends, others read what came."""

from __future__ import annotations

import asyncio
import functools
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

import flamezmq as flm
from flamezmq.store.access import Access
from tests.waiting import until

numpy = pytest.importorskip("numpy")

pytestmark = pytest.mark.processes
LIMIT_SECONDS = 20
LARGE = 200_000


@pytest.fixture(scope="module")
def client() -> Iterator[flm.Client]:
    with flm.Client("", executors=2) as client:
        client.submit(abs, 1).result(LIMIT_SECONDS)  # before that there may be no node, and no store
        yield client


def test_an_update_is_what_every_reference_reads_from_then_on(client: flm.Client) -> None:
    ref = client.put(numpy.zeros(LARGE))
    other = pickle.loads(pickle.dumps(ref))
    old = other.get()

    assert ref.update(numpy.ones(LARGE)) == 2
    assert ref.update({"size": 3}) == 3

    assert other.version == 1
    assert other.get() == ref.get() == {"size": 3}
    assert (other.version, other.kind) == (3, "dict of 1")
    assert old.sum() == 0, "what was read stays as it is"
    assert other == ref
    assert hash(other) == hash(ref)
    assert repr(other).endswith(": dict of 1, version 3>")


def test_a_list_grows_by_what_is_appended(client: flm.Client) -> None:
    ref = client.put([1, 2])

    assert ref.append([3]) == 2
    assert ref.append(numpy.full(LARGE, 4.0)) == 3

    first, second, third, fourth = ref.get()
    assert (first, second, third, fourth.sum()) == (1, 2, [3], 4.0 * LARGE)
    with pytest.raises(ValueError, match="read-only"):
        fourth[0] = 1
    assert repr(ref).endswith(": list, version 3>")
    ref.get().clear()
    assert len(ref.get()) == 4, "the list that was read is the reader's"


def test_a_reader_of_a_list_asks_only_for_what_came(
    client: flm.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = client.put([])
    for k in range(5):
        ref.append(k)
    assert ref.get() == [0, 1, 2, 3, 4]
    ref.append(5)
    came: list[int] = []
    real = Access.since

    def counted(access: Access, name: bytes, version: int) -> Any:
        answer = real(access, name, version)
        came.append(len(answer.parts))
        return answer

    monkeypatch.setattr(Access, "since", counted)

    assert ref.get() == [0, 1, 2, 3, 4, 5]
    assert ref.get() == [0, 1, 2, 3, 4, 5]
    assert came == [1, 0]
    assert ref.since(4) == ([3, 4, 5], 7, False)


def test_since_says_what_came_and_whether_all_is_new(client: flm.Client) -> None:
    ref = client.put(["a"])
    assert ref.since() == (["a"], 1, True)
    assert ref.since(1) == ([], 1, False)
    ref.append("b")
    ref.append("c")
    assert ref.since(1) == (["b", "c"], 3, False)
    assert ref.since(0) == (["a", "b", "c"], 3, True)
    ref.update(["d"])
    ref.append("e")
    assert ref.since(3) == (["d", "e"], 5, True)
    assert ref.since(4) == (["e"], 5, False)


def test_a_copy_of_a_list_is_the_readers_own(client: flm.Client) -> None:
    ref = client.put([])
    ref.append({"k": 1})
    ref.append(numpy.zeros(LARGE))
    ref.get()
    for mine in (ref.get(copy=True), flm.private(ref)):
        mine[0]["k"] = 2
        mine[1][:] = 5

    assert ref.get()[0] == {"k": 1}
    assert ref.get()[1].sum() == 0


def test_a_task_gets_a_version_that_is_as_new_as_that_of_who_submits_it(client: flm.Client) -> None:
    ref = client.put([1])
    assert client.submit(sum, ref).result(LIMIT_SECONDS) == 1
    ref.append(10)
    assert client.submit(sum, ref).result(LIMIT_SECONDS) == 11
    other = pickle.loads(pickle.dumps(ref))
    ref.update(numpy.ones(LARGE))
    assert client.submit(sum, other).result(LIMIT_SECONDS) == LARGE, "or newer"
    assert client.submit(lambda d: d["a"].sum(), {"a": ref}).result(LIMIT_SECONDS) == LARGE


def write(ref: flm.ObjectRef, writer: int, count: int) -> int:
    for k in range(count):
        ref.append((writer, k))
    return ref.version


def test_tasks_append_at_a_time_and_nothing_is_lost(client: flm.Client) -> None:
    ref = client.put([])
    made = [client.submit(functools.partial(write, ref, writer, 100)) for writer in range(4)]
    versions = [future.result(LIMIT_SECONDS) for future in made]

    found = ref.get()

    assert max(versions) == 401
    assert sorted(found) == [(writer, k) for writer in range(4) for k in range(100)]
    for writer in range(4):
        assert [k for one, k in found if one == writer] == list(range(100))


def counted_up(ref: flm.ObjectRef, times: int) -> int:
    """Without losing one of those that others make at a time."""
    refused = 0
    for _ in range(times):
        while True:
            value, version = ref.get(), ref.version
            try:
                ref.update(value + 1, if_version=version)
                break
            except flm.StaleVersion as error:
                refused += error.newest > error.expected
    return refused


def test_an_update_that_names_its_version_loses_none_of_others(client: flm.Client) -> None:
    ref = client.put(0)
    futures = [client.submit(functools.partial(counted_up, ref, 50)) for _ in range(2)]
    counted_up(ref, 50)
    for future in futures:
        future.result(LIMIT_SECONDS)

    assert ref.get() == 150
    assert ref.version == 151


def test_what_is_put_twice_is_two_objects_for_updates(client: flm.Client) -> None:
    value = numpy.arange(LARGE)
    one, other = client.put(value), client.put(value)
    one.update("new")

    assert (other.get() == value).all()
    assert other.version == 1
    assert one.get() == "new"


def test_references_inside_of_items_keep_their_objects(client: flm.Client) -> None:
    ref = client.put([])
    ref.append({"array": client.put(numpy.ones(LARGE))})
    ref.append(0)
    assert sum(map(len, [client.put(b"x" * LARGE).get() for _ in range(50)])) == 50 * LARGE

    assert ref.get()[0]["array"].get().sum() == LARGE


def test_an_object_that_would_contain_itself_is_refused(client: flm.Client) -> None:
    ref = client.put([])
    for deed in (ref.append, ref.update):
        with pytest.raises(ValueError, match="would contain a reference to itself"):
            deed({"me": [ref]})
    assert ref.get() == []
    assert ref.version == 1


def test_what_makes_no_sense_is_refused_and_changes_nothing(client: flm.Client) -> None:
    ref = client.put({"a": 1})
    with pytest.raises(TypeError, match=r"only to a list can be appended, and object .* is a dict"):
        ref.append(1)
    with pytest.raises(TypeError, match="only lists grow"):
        ref.since(0)
    with pytest.raises(flm.Unpicklable, match="lock"):
        ref.update(client._submit_lock)
    with pytest.raises(ValueError, match="numbered from 1"):
        ref.update(1, if_version=0)
    with pytest.raises(ValueError, match="numbered from 1"):
        ref.since(-1)
    with pytest.raises(flm.StaleVersion, match=r"newest version is 1, not 2; read it again"):
        ref.update(1, if_version=2)
    assert ref.get() == {"a": 1}
    assert ref.version == 1
    error = pickle.loads(pickle.dumps(flm.StaleVersion("ab", 2, 1)))
    assert (error.id, error.expected, error.newest) == ("ab", 2, 1)


def test_an_object_that_was_freed_can_neither_be_read_nor_changed(client: flm.Client) -> None:
    ref = client.put([])
    ref.append(numpy.zeros(LARGE))
    (view,) = ref.get()
    client.free(ref)

    for deed in (ref.get, ref.since, lambda: ref.append(1), lambda: ref.update(1)):
        with pytest.raises(flm.ObjectLost):
            deed()
    assert view.sum() == 0


def test_versions_go_with_their_session(client: flm.Client) -> None:
    with client.session("short") as session:
        ref = session.put([])
        for _ in range(3):
            ref.append(numpy.zeros(LARGE))
        ref.update(numpy.zeros(LARGE))

    def is_gone() -> bool:
        try:
            ref.get()
        except flm.ObjectLost:
            return True
        return False

    until(is_gone)


def test_a_reference_that_carries_its_value_says_that_it_has_one_version(client: flm.Client) -> None:
    carried = flm.ObjectRef(b"x" * 16, [pickle.dumps([1])], kind="list of 1")

    assert carried.get() == [1]
    with pytest.raises(ValueError, match="has one version only: no store was in reach"):
        carried.append(2)


def test_event_loops_use_versions_too(client: flm.Client) -> None:
    import flamezmq.aio as aio

    async def work() -> tuple[Any, ...]:
        async with aio.Client(client.address) as loop_client:
            ref = await loop_client.put([])
            assert ref.append(1) == 2
            assert await asyncio.to_thread(ref.append, 2) == 3
            both = await loop_client.submit(sum, ref), await loop_client.get(ref)
            ref.update(numpy.ones(LARGE), if_version=3)
            return *both, (await loop_client.get([ref]))[0].sum(), ref.version

    assert asyncio.run(work()) == (3, [1, 2], LARGE, 4)
