"""What a detached session keeps: how its tasks have ended, for whoever asks later.

An end is kept as the message that told it, frames and all, in the order in which they came.  It is
*fetched* when a client has said that it is there (`Fetched`); what was sent and not confirmed when
that client died is not.  When there is no room (`Limits.max_kept_bytes`), those that were fetched are
let go, the oldest first.  What nobody has fetched is never let go: while that takes all the room, the
session gets no more executors, as one whose client does not read.

Pure: messages in, numbers out.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from flamezmq.wire import messages as m
from flamezmq.wire.joining import STRIDE

#: What an end costs beside the bytes of its message, about.
ENTRY_BYTES = 200


@dataclass(slots=True, eq=False)
class End:
    """One message that tells how tasks have ended, all of one member.

    fetched  some client has it
    gone     it was let go
    """

    message: Any
    frames: list[Any]
    ranges: list[tuple[int, int]]  # first index, and the one behind the last
    size: int
    fetched: bool = False
    gone: bool = False

    @property
    def member(self) -> int:
        return self.ranges[0][0] // STRIDE

    @property
    def count(self) -> int:
        return sum(end - first for first, end in self.ranges)


@dataclass(slots=True, eq=False)
class Shelf:
    """The ends of one session, and the tasks that they are of, or will be.

    submitted  ranges of tasks in the order of their submission, but for those whose ends were let go
    results    tasks whose ends are here
    """

    room: int
    ends: deque[End] = field(default_factory=deque)
    submitted: list[tuple[int, int]] = field(default_factory=list)
    size: int = 0
    unfetched: int = 0  # bytes
    results: int = 0

    def note_submitted(self, first: int, end: int) -> None:
        submitted = self.submitted
        if submitted and submitted[-1][1] == first:
            submitted[-1] = (submitted[-1][0], end)
        else:
            submitted.append((first, end))

    def put(self, end: End) -> None:
        self.ends.append(end)
        self.size += end.size
        self.unfetched += end.size
        self.results += end.count
        self.make_room()

    def confirm(self, end: End) -> None:
        """A client has it."""
        if not (end.fetched or end.gone):
            end.fetched = True
            self.unfetched -= end.size

    def make_room(self) -> None:
        """Let go of what was fetched, the oldest first, as far as room is needed."""
        while self.size > self.room and self.ends and self.ends[0].fetched:
            self._let_go(self.ends.popleft())
        if self.size > self.room and self.size > self.unfetched:  # newer ones were fetched before older ones
            kept: deque[End] = deque()
            for end in self.ends:
                if end.fetched and self.size > self.room:
                    self._let_go(end)
                else:
                    kept.append(end)
            self.ends = kept

    def clear(self) -> None:
        """The session is closed."""
        self.ends.clear()
        self.submitted.clear()
        self.size = self.unfetched = self.results = 0

    def is_full(self, was_full: bool) -> bool:
        """Whether nothing more is to run; it goes on when half of the room is free."""
        return self.unfetched > (self.room // 2 if was_full else self.room)

    def of_others(self, member: int) -> list[tuple[int, int]]:
        """The tasks of all members but this one, as far as their ends are here or still to come."""
        return [part for part in self.submitted if part[0] // STRIDE != member]

    def _let_go(self, end: End) -> None:
        end.gone = True
        self.size -= end.size
        self.results -= end.count
        for part in end.ranges:
            self._strike(*part)

    def _strike(self, first: int, end: int) -> None:
        """Take these tasks out of `submitted`: what was let go is old, so it stands near the front."""
        for position, (start, stop) in enumerate(self.submitted):
            if start <= first and end <= stop:
                rest = [part for part in ((start, first), (end, stop)) if part[0] < part[1]]
                self.submitted[position : position + 1] = rest
                return

    def check(self) -> None:
        """Compare every index with every other."""
        assert self.size == sum(end.size for end in self.ends), "kept bytes"
        assert self.unfetched == sum(end.size for end in self.ends if not end.fetched), "unfetched bytes"
        assert self.results == sum(end.count for end in self.ends), "kept results"
        assert self.size <= self.room or self.size == self.unfetched, "fetched ends, and no room"


def size_of(message: Any, frames: list[Any]) -> int:
    """Bytes that keeping it takes, about."""
    size = ENTRY_BYTES + sum(map(len, frames))
    if isinstance(message, m.Results):
        return size + sum(map(len, message.outputs)) + sum(message.stored[1::2])
    if isinstance(message, m.RoutedResults):
        return size + len(message.outputs) + sum(message.stored[1::2])
    if isinstance(message, m.Cancelled):
        return size + 8 * len(message.indices) + len(message.reason)
    return size
