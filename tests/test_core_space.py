"""What goes to the disk of a store, and when: the rules, and whatever can happen against a simple model."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flamezmq.core.space import COMES, GOES, STAYS, Space

LIMIT, DISK = 100, 120


def nobody(_: bytes) -> bool:
    return False


def space_with(*sizes: int, disk: int = DISK) -> Space:
    space = Space(disk)
    for number, size in enumerate(sizes):
        space.add(b"%d" % number, size, size)
    return space


def test_what_was_used_least_recently_goes_first() -> None:
    space = space_with(10, 10, 10)
    space.use(b"0")

    assert space.make_room(15, nobody) == ([b"1", b"2"], [], [])


def test_what_is_on_its_way_counts_and_is_not_sent_twice() -> None:
    space = space_with(10, 10, 10)

    assert space.make_room(10, nobody).write == [b"0"]
    assert space.make_room(10, nobody).write == []
    assert space.make_room(11, nobody).write == [b"1"]
    assert space.written(b"0", True)
    assert not space.is_here(b"0")
    space.check()


def test_what_is_pinned_or_mapped_stays() -> None:
    space = space_with(10, 10, 10)
    space.pin(b"0", True)

    assert space.make_room(30, lambda name: name == b"1").write == [b"2"]
    space.pin(b"0", False)
    assert space.make_room(30, lambda name: name == b"1").write == [b"0"]


def test_what_is_used_while_it_is_written_stays_and_goes_at_once_later() -> None:
    space = space_with(10, 10)
    assert space.make_room(10, nobody).write == [b"0"]
    space.use(b"0")
    assert space.leaving == 0

    assert not space.written(b"0", True)
    space.use(b"1")

    assert space.make_room(10, nobody) == ([], [b"0"], [])
    space.check()


def test_what_came_back_goes_for_nothing_unless_the_disk_was_needed() -> None:
    space = space_with(60, 60, disk=70)
    assert space.make_room(60, nobody).write == [b"0"]
    assert space.written(b"0", True)
    space.come(b"0")
    space.came(b"0", True)

    assert space.make_room(60, nobody) == ([b"1"], [], [b"0"])
    space.check()


def test_a_full_disk_takes_nothing_and_smaller_ones_are_tried() -> None:
    space = space_with(50, 10, disk=20)

    assert space.make_room(20, nobody).write == [b"1"]
    assert not space.written(b"1", False)
    assert space.disk_used == 0
    assert space.make_room(20, nobody, disk_works=False) == ([], [], [])


class Stores(RuleBasedStateMachine):
    """A host that does what it is told: memory that is given up is gone, and so is what the disk forgets."""

    def __init__(self) -> None:
        super().__init__()
        self.space = Space(DISK)
        self.sizes: dict[bytes, int] = {}
        self.memory: set[bytes] = set()
        self.disk: set[bytes] = set()
        self.mapped: set[bytes] = set()
        self.pinned: set[bytes] = set()
        self.last = 0

    def _some(self, number: int, names: set[bytes]) -> bytes | None:
        ordered = sorted(names)
        return ordered[number % len(ordered)] if ordered else None

    @rule(size=st.integers(1, 40), pinned=st.booleans())
    def put(self, size: int, pinned: bool) -> None:
        if sum(self.sizes[name] for name in self.memory) + size > LIMIT:
            return
        self.last += 1
        name = b"%04d" % self.last
        self.sizes[name] = size
        self.memory.add(name)
        if pinned:
            self.pinned.add(name)
        self.space.add(name, size, size, pinned)

    @rule(number=st.integers(0, 50))
    def drop(self, number: int) -> None:
        name = self._some(number, set(self.sizes))
        if name is not None:
            self.space.remove(name)
            del self.sizes[name]
            for names in (self.memory, self.disk, self.mapped, self.pinned):
                names.discard(name)

    @rule(number=st.integers(0, 50))
    def read(self, number: int) -> None:
        name = self._some(number, set(self.sizes))
        if name is None:
            return
        self.space.use(name)
        if name in self.memory:
            self.mapped.add(name)
        elif self.space.moves(name) == STAYS:
            assert name in self.disk, "an object is nowhere"
            self.space.come(name)

    @rule(number=st.integers(0, 50))
    def stop_reading(self, number: int) -> None:
        self.mapped.discard(self._some(number, self.mapped) or b"")

    @rule(number=st.integers(0, 50), pinned=st.booleans())
    def pin(self, number: int, pinned: bool) -> None:
        name = self._some(number, set(self.sizes))
        if name is not None:
            self.space.pin(name, pinned)
            (self.pinned.add if pinned else self.pinned.discard)(name)

    @rule(need=st.integers(1, LIMIT), works=st.booleans())
    def make_room(self, need: int, works: bool) -> None:
        before = self.space.leaving
        write, go, forget = self.space.make_room(need, self.mapped.__contains__, works)
        assert not set(write + go) & (self.mapped | self.pinned), "what is in use was sent away"
        for name in forget:
            assert name in self.memory
            self.disk.remove(name)
        for name in go:
            assert name in self.disk, "memory is given up of what is nowhere else"
            self.memory.remove(name)
        found = before + sum(self.sizes[name] for name in write + go)
        if works and found < need:
            self._nothing_else_could_go()

    def _nothing_else_could_go(self) -> None:
        for name in self.memory - self.mapped - self.pinned:
            if self.space.moves(name) == STAYS:
                assert self.space.disk_used + self.sizes[name] > DISK, "it could have gone, and did not"

    @precondition(lambda self: self._moving(GOES))
    @rule(number=st.integers(0, 50), done=st.booleans())
    def write(self, number: int, done: bool) -> None:
        name = self._some(number, self._moving(GOES))
        assert name is not None
        if done:
            self.disk.add(name)
        if self.space.written(name, done):
            self.memory.remove(name)

    @precondition(lambda self: self._moving(COMES))
    @rule(number=st.integers(0, 50), room=st.booleans())
    def bring(self, number: int, room: bool) -> None:
        name = self._some(number, self._moving(COMES))
        assert name is not None
        if room:
            self.memory.add(name)
        self.space.came(name, room)

    def _moving(self, where: int) -> set[bytes]:
        return {name for name in self.sizes if self.space.moves(name) == where}

    @invariant()
    def nothing_is_lost_and_the_limit_of_the_disk_is_kept(self) -> None:
        self.space.check()
        assert all(self.space.is_here(name) == (name in self.memory) for name in self.sizes)
        assert self.memory | self.disk == set(self.sizes)
        assert sum(self.sizes[name] for name in self.disk) <= self.space.disk_used <= DISK


TestStores = Stores.TestCase
TestStores.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
