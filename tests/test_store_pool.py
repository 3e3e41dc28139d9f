"""The pool of segments against a model of a system with little memory and readers that come and go."""

from __future__ import annotations

import errno

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from flamezmq.store.pool import Files, Pool, Segment
from flamezmq.store.segments import PAGE_BYTES, round_up

LIMIT, SYSTEM = 64 * PAGE_BYTES, 80 * PAGE_BYTES
MOST = 12
SIZES = st.integers(1, 24 * PAGE_BYTES)


class Memory:
    """Files that exist, those that somebody reads, and what is given back."""

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}
        self.read: set[int] = set()
        self.last = 0
        self.room = SYSTEM

    def files(self) -> Files:
        return Files(self._create, lambda fd: fd not in self.read, self._empty, self._close)

    def _create(self, size: int) -> int:
        if sum(self.sizes.values()) + size > self.room:
            raise OSError(errno.ENOSPC, "no memory")
        self.last += 1
        self.sizes[self.last] = size
        return self.last

    def _empty(self, fd: int) -> None:
        assert fd not in self.read, "memory that somebody reads was taken away"
        del self.sizes[fd]

    def _close(self, fd: int) -> None:
        del self.sizes[fd]  # its last reader frees it; the pool has nothing to do with it any more


class Segments(RuleBasedStateMachine):
    segments = Bundle("segments")

    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory()
        self.pool = Pool(LIMIT, 16 * PAGE_BYTES, self.memory.files(), MOST)
        self.used: dict[int, Segment] = {}

    @rule(target=segments, size=SIZES)
    def take(self, size: int) -> Segment | None:
        segment = self.pool.take(size)
        if segment is None:
            idle = [fd for fd in self.memory.sizes if fd not in self.memory.read]
            busy = sum(s.size for s in self.used.values())
            read = sum(self.memory.sizes[fd] for fd in self.memory.read if fd not in self._fds())
            full = busy + read + self.pool.beside + round_up(size) > min(LIMIT, self.memory.room)
            many = self.pool.count >= MOST and self.pool.count == len(self.used) + self.pool.lingers
            assert full or many, f"room, but none found: {idle}"
            return None
        assert segment.size >= size
        assert segment.fd not in self._fds(), "a segment that is in use was handed out"
        assert segment.fd not in self.memory.read, "a segment that somebody reads was handed out"
        self.used[segment.number] = segment
        return segment

    @rule(segment=segments)
    def give(self, segment: Segment | None) -> None:
        if segment is not None and segment.number in self.used:
            if not segment.sharers:
                del self.used[segment.number]
            self.pool.give(segment)

    @rule(segment=segments)
    def share(self, segment: Segment | None) -> None:
        if segment is not None and segment.number in self.used:
            segment.sharers += 1

    @rule(segment=segments)
    def read(self, segment: Segment | None) -> None:
        if segment is not None and segment.number in self.used:
            self.memory.read.add(segment.fd)

    @rule(segment=segments)
    def stop_reading(self, segment: Segment | None) -> None:
        if segment is not None:
            self.memory.read.discard(segment.fd)

    @rule(pages=st.integers(0, 80))
    def change_memory(self, pages: int) -> None:
        self.memory.room = pages * PAGE_BYTES

    @rule(pages=st.integers(0, 16))
    def use_of_the_limit_elsewhere(self, pages: int) -> None:
        self.pool.set_beside(pages * PAGE_BYTES)

    @rule()
    def sweep(self) -> None:
        self.pool.sweep()

    @invariant()
    def counts_what_there_is(self) -> None:
        assert self.pool.total == sum(self.memory.sizes.values()) <= LIMIT
        assert self.pool.count == len(self.memory.sizes) <= MOST
        free = self.pool.total - sum(s.size for s in self.used.values())
        assert 0 <= self.pool.free_bytes <= free

    def teardown(self) -> None:
        for segment in list(self.used.values()):
            for _ in range(segment.sharers + 1):
                self.pool.give(segment)
        self.memory.read.clear()
        self.pool.sweep()
        self.pool.close()
        assert not self.memory.sizes, "memory that was not given back"
        assert self.pool.total == self.pool.free_bytes == 0

    def _fds(self) -> set[int]:
        return {segment.fd for segment in self.used.values()}


TestSegments = Segments.TestCase
TestSegments.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def test_sizes_are_rounded_up_by_a_sixteenth_at_most() -> None:
    for size in (1, 4096, 4097, 65536, 65537, 10**6, 10**7 + 1, 1 << 28, (1 << 28) + 1, 3 * 10**9):
        rounded = round_up(size)
        assert size <= rounded <= max(size + size // 16 + 1, size + PAGE_BYTES)
        assert rounded % PAGE_BYTES == 0
        assert round_up(rounded) == rounded
