"""Opening ahead: what a process will read next is opened with what it reads now, by one question.

A question costs two wake-ups, of the store and of who asks; a descriptor more in
its answer costs some microseconds.  How many are opened is learned from whether
the last ones were read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from flamezmq.errors import StoreLost
from flamezmq.store import access
from flamezmq.wire.handles import Handle, is_handle, unpack

#: So many at most, and of so many bytes together.
MOST = 16
MOST_BYTES = 16 << 20


class Ahead:
    """What an executor has opened for the tasks that it holds.

    upcoming  gives their payloads, the next one first
    """

    def __init__(self, upcoming: Callable[[], Iterable[object]]) -> None:
        self._upcoming = upcoming
        self._count = 0
        self.opened: dict[bytes, list[memoryview]] = {}

    def take(self, handle: Handle) -> list[memoryview] | None:
        """The pieces of this object, writable for this process alone; None: it is to be asked for."""
        found = self.opened.pop(handle.id, None)
        if found is not None or handle.home != access.own:
            return found
        self._count = 0 if self.opened else min(2 * self._count + 1, MOST)
        self.opened.clear()  # of tasks that were taken back
        handles = [handle, *self._next(handle)]
        if len(handles) == 1:
            return None
        try:
            found, *others = access.of(handle.home).open(handles, private=True)
        except StoreLost:
            return None
        for other, pieces in zip(handles[1:], others, strict=True):
            if pieces is not None:
                self.opened[other.id] = pieces
        return found

    def _next(self, after: Handle) -> list[Handle]:
        chosen: list[Handle] = []
        left = MOST_BYTES - after.size
        for payload in self._upcoming():
            if len(chosen) >= self._count:
                break
            if not is_handle(payload):
                continue
            handle = unpack(payload)
            left -= handle.size
            if handle.home != after.home or left < 0:
                break
            chosen.append(handle)
        return chosen
