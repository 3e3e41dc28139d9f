"""Filling segments: those that a connection may write to, with their mappings, and those that it has ahead.

A connection that puts one object after the other asks for several segments at a
time: the question costs two wake-ups, of the store and of itself, which is as
long as it takes to copy half a megabyte.  What it has ahead it may keep, for the
store lends only what lies about unused, and a bounded part of its memory.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import Any

from flamezmq.errors import StoreFull
from flamezmq.store import mapping
from flamezmq.store import messages as s
from flamezmq.store.layout import fill, write
from flamezmq.store.segments import round_up

#: Mappings of segments that a connection has filled are kept for its next puts, up to so many bytes.
KEPT_BYTES = 512 << 20
#: Segments are asked for ahead by who asks for another one of their size within so long.
SOON_SECONDS = 0.05
#: So many bytes at most.
AHEAD_BYTES = 8 << 20

Ask = Callable[[s.Question], tuple[Any, list[int]]]
Tell = Callable[[s.Question], None]


#: What to say where the system could not pass a descriptor.
NO_FILES = "this process has too many open files; let go of some, or raise its limit (ulimit -n)"


class Unpassed(Exception):
    """Descriptors that came with an answer could not be taken in: this process has too many open files."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer


class Filling:
    """Of one connection, whose questions are asked by `ask` and `tell`."""

    def __init__(self, ask: Ask, tell: Tell) -> None:
        self._ask, self._tell = ask, tell
        self._kept: OrderedDict[int, memoryview] = OrderedDict()
        self._kept_bytes = 0
        self._ahead: list[int] = []  # segments of the size that was asked for last, the next one at the end
        self._asked: tuple[int, float, int] = (0, 0.0, 0)  # size, when, how many more

    def fill(self, pieces: Sequence[Any], size: int, patient: bool = False) -> int:
        """Copy the pieces into a segment of at least `size` bytes; its number, to be put or returned.

        patient: where memory and disk are full, wait as long as the store's settings say

        Raises:
            StoreFull: there is no room for it.
        """
        size = round_up(size)
        if not self._ahead or self._asked[0] != size:
            return self._fill_next(pieces, size, patient)
        number = self._ahead.pop()
        self._kept.move_to_end(number)
        fill(self._kept[number], pieces)
        return number

    def _fill_next(self, pieces: Sequence[Any], size: int, patient: bool) -> int:
        try:
            answer, fds = self._ask(s.Lease(size, self._more(size), patient))
        except Unpassed as error:
            for one in error.answer.lent:
                self._refuse(one)
            raise StoreFull(size, 0, NO_FILES) from None
        if isinstance(answer, s.Full):
            raise StoreFull(answer.wanted, answer.limit, answer.holders)
        came = iter(fds)
        try:
            first, *others = answer.lent
            self._fill_first(pieces, first, answer.size, came)
            ahead = [one.segment for one in others if self._has_mapped(one, answer.size, came)]
        finally:
            for fd in fds:
                os.close(fd)
        self._ahead = ahead[::-1]
        self._forget()
        return int(first.segment)

    def _fill_first(self, pieces: Sequence[Any], first: s.Lent, size: int, fds: Iterator[int]) -> None:
        if first.known:
            self._kept.move_to_end(first.segment)
            fill(self._kept[first.segment], pieces)
            return
        fd = next(fds)
        if not first.fresh and self._map(first.segment, fd, size):
            fill(self._kept[first.segment], pieces)
            return
        write(fd, pieces)
        if not first.fresh:
            self._tell(s.Forget(first.segment))

    def _has_mapped(self, one: s.Lent, size: int, fds: Iterator[int]) -> bool:
        """Whether one that is ahead can be filled later; one that can't goes back."""
        if one.known:
            self._kept.move_to_end(one.segment)
            return True
        if self._map(one.segment, next(fds), size):
            return True
        self._refuse(one)
        return False

    def _refuse(self, one: s.Lent) -> None:
        self._tell(s.Return(one.segment))
        if not one.known:
            self._tell(s.Forget(one.segment))

    def _more(self, size: int) -> int:
        """How many to ask for beside one: twice as many as the last time, if that was just now."""
        now = monotonic()
        last, when, count = self._asked
        soon = last == size and now - when < SOON_SECONDS * (count + 1)
        count = min(2 * count + 1, AHEAD_BYTES // size) if soon else 0
        self._asked = size, now, count
        if not soon:
            self._give_back()
        return count

    def _give_back(self) -> None:
        """Another size is wanted now."""
        while self._ahead:
            self._tell(s.Return(self._ahead.pop()))

    def _map(self, number: int, fd: int, size: int) -> bool:
        """Whether that was possible: a process has only so many mappings (vm.max_map_count)."""
        try:
            target = mapping.writable(fd, size)
        except OSError:
            return False
        self._kept[number] = target
        self._kept_bytes += size
        return True

    def _forget(self) -> None:
        """Unmap what was not used for longest; what is ahead was used just now."""
        while self._kept_bytes > KEPT_BYTES and len(self._kept) > 1:
            number, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= len(oldest)
            self._tell(s.Forget(number))
