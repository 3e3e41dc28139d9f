"""The segments of a node: those that hold an object, those that are leased, those that are free.

A segment is handed out again only if nobody uses it (`segments.is_unused`).  One
whose object is gone, but not its readers, *lingers*: it counts into the limit,
and is looked at again when room is needed.

What the file system does comes in through `files`, so that tests can stand in
for it; no clock, no thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from flamezmq.store import segments


class Files(NamedTuple):
    """The calls that a pool makes; by default those of `segments`."""

    create: Callable[[int], int] = segments.create
    is_unused: Callable[[int], bool] = segments.is_unused
    empty: Callable[[int], None] = segments.empty
    close: Callable[[int], None] = os.close


class Segment:
    """number: never used twice.  size: bytes, all of them allocated.  fresh: it was never given back.

    sharers  objects that have it, beside one
    """

    __slots__ = ("fd", "fresh", "number", "sharers", "size")

    def __init__(self, number: int, fd: int, size: int) -> None:
        self.number, self.fd, self.size = number, fd, size
        self.fresh = True
        self.sharers = 0

    def __repr__(self) -> str:
        return f"Segment({self.number}, {self.size:,} bytes)"


class Pool:
    """All segments of a node.

    limit    bytes that all of them may have together, with what is `beside`
    reserve  bytes of free ones that are kept when nobody needs room
    most     how many there may be: each is an open file of this process
    beside   bytes of the same limit that somebody else uses (`set_beside`)
    total    bytes that they have
    count    how many there are
    """

    def __init__(self, limit: int, reserve: int, files: Files | None = None, most: int = 1 << 30) -> None:
        self.limit, self.reserve, self.most = limit, reserve, most
        self.files = files or Files()
        self.total = self.free_bytes = self.beside = self.count = 0
        self._last = 0
        self._free: dict[int, list[Segment]] = {}  # size -> the ones used last at the end
        self._lingering: dict[int, Segment] = {}

    def take(self, size: int) -> Segment | None:
        """A segment for `size` bytes, a free one if there is one that fits; None: there is no room.

        What is free in other sizes goes first, then what lingers is looked at.
        """
        size = segments.round_up(size)
        if size > self.limit:
            return None
        found = self._take_free(size)
        if found is None and not self._fits(size):
            self.sweep()
            found = self._take_free(size)
            if found is None:
                self.shrink(self.limit - self.beside - size, self.most - 1)
        if found is not None:
            return found
        if not self._fits(size):
            return None
        return self._create(size)

    def set_beside(self, size: int) -> None:
        """So many bytes of the limit are used by somebody else; free segments make room for them."""
        self.beside = size
        if self.total + size > self.limit:
            self.shrink(self.limit - size)

    def make_beside(self, size: int) -> bool:
        """Whether somebody else may use `size` more bytes of the limit; free segments make room for them."""
        if self.total + self.beside + size > self.limit:
            self.sweep()
            self.shrink(self.limit - self.beside - size)
        return self.total + self.beside + size <= self.limit

    def lacks(self, size: int) -> int:
        """Bytes that others must give up for a segment of `size`; at least 1 if there are too many segments.

        0: the limits allow it; if it could not be had all the same, the system has less than they say.
        """
        missing = self.total + self.beside + segments.round_up(size) - self.limit
        return max(missing, int(self.count >= self.most))

    def take_some(self, size: int, most: int) -> list[Segment]:
        """So many for `size` bytes at most, of those that are free."""
        taken: list[Segment] = []
        while len(taken) < most and (found := self._take_free(segments.round_up(size))) is not None:
            taken.append(found)
        return taken

    def give(self, segment: Segment) -> None:
        """Its object is gone, or one of those that share it; or it was leased and not filled."""
        if segment.sharers:
            segment.sharers -= 1
            return
        segment.fresh = False
        if self.files.is_unused(segment.fd):
            self._set_free(segment)
        else:
            self._lingering[segment.number] = segment

    def sweep(self) -> None:
        """Look whether what lingered is used by nobody any more."""
        for number, segment in list(self._lingering.items()):
            if self.files.is_unused(segment.fd):
                del self._lingering[number]
                self._set_free(segment)

    def shrink(self, total: int, count: int = 1 << 30) -> None:
        """Give free segments back to the system, large ones first.

        Until there are at most `count`, and they have at most `total` bytes.
        """
        for size in sorted(self._free, reverse=True):
            kept = self._free[size]
            while kept and (self.total > total or self.count > count):
                self._discard(kept.pop(0))
                self.free_bytes -= size
            if not kept:
                del self._free[size]

    @property
    def lingers(self) -> int:
        """How many segments wait for their last reader."""
        return len(self._lingering)

    def close(self) -> None:
        """Give all back that holds no object."""
        self.shrink(-1)
        for segment in self._lingering.values():
            self.let_go(segment)
        self._lingering.clear()

    def let_go(self, segment: Segment) -> None:
        """This one is no longer ours: its memory goes with its last reader."""
        self.total -= segment.size
        self.count -= 1
        self.files.close(segment.fd)

    def _fits(self, size: int) -> bool:
        return self.total + self.beside + size <= self.limit and self.count < self.most

    def _take_free(self, size: int) -> Segment | None:
        kept = self._free.get(size)
        if not kept:
            return None
        segment = kept.pop()
        if not kept:
            del self._free[size]
        self.free_bytes -= size
        return segment

    def _set_free(self, segment: Segment) -> None:
        self._free.setdefault(segment.size, []).append(segment)
        self.free_bytes += segment.size
        if self.free_bytes > self.reserve:
            self.shrink(self.total - (self.free_bytes - self.reserve))

    def _create(self, size: int) -> Segment | None:
        try:
            fd = self.files.create(size)
        except OSError:  # the system has less than the limit says
            self.sweep()
            self.shrink(-1)
            try:
                fd = self.files.create(size)
            except OSError:
                return None
        self._last += 1
        self.count += 1
        self.total += size
        return Segment(self._last, fd, size)

    def _discard(self, segment: Segment) -> None:
        """A free one; a writer may still have it mapped."""
        self.total -= segment.size
        self.count -= 1
        self.files.empty(segment.fd)
