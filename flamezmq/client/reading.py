"""Reading results: what lies in the store of this node is opened for several futures at a time.

Who looks at one result looks at the next one soon.  A question to the store
costs two wake-ups; a descriptor more in its answer costs some microseconds.  So
with the value of a future those of the next ones, by their numbers in the
session, are mapped, if they have come: twice as many each time, and none if the
last ones were not looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from flamezmq.core.caller import RAW
from flamezmq.errors import StoreLost
from flamezmq.store import access
from flamezmq.store.ahead import MOST, MOST_BYTES
from flamezmq.wire.handles import Handle

if TYPE_CHECKING:
    from flamezmq.client.future import Future

#: In a future's dict, what was opened for it: it goes with the future.
OPENED = "_opened"
#: By the id of the object, of this process: whose value it is.
_whose: WeakValueDictionary[bytes, Future] = WeakValueDictionary()


class Reading:
    """The results of one session that have come, and lie in a store."""

    def __init__(self) -> None:
        self._by_index: WeakValueDictionary[int, Future] = WeakValueDictionary()
        self._ahead: WeakValueDictionary[int, Future] = WeakValueDictionary()  # opened by the last question
        self._count = 0

    def came(self, future: Future, handle: Handle) -> None:
        """Its value is this object."""
        if not access.own:  # an executor looks ahead for its tasks
            access.look_ahead = take
            _whose[handle.id] = self._by_index[future._index] = future

    def take(self, future: Future, handle: Handle) -> list[memoryview] | None:
        """The pieces of its value, writable for this process alone; None: they are to be asked for."""
        self._by_index.pop(future._index, None)
        opened: list[memoryview] | None = future.__dict__.pop(OPENED, None)
        if opened is not None:
            return opened
        unread = [one for one in self._ahead.values() if one.__dict__.pop(OPENED, None) is not None]
        self._count = 0 if unread else min(2 * self._count + 1, MOST)
        self._ahead.clear()
        others = self._next(future._index, handle)
        if not others:
            return None
        try:
            found, *pieces = access.of(handle.home).open([handle, *others.values()], private=True)
        except StoreLost:
            return None
        for one, its in zip(others, pieces, strict=True):
            if its is not None:
                one.__dict__[OPENED] = its
                self._ahead[one._index] = one
        return found

    def _next(self, index: int, after: Handle) -> dict[Future, Handle]:
        chosen: dict[Future, Handle] = {}
        left = MOST_BYTES - after.size
        for number in range(index + 1, index + 1 + self._count):
            future = self._by_index.get(number)
            hold = future._hold if future is not None else None
            if future is None or hold is None or future._form != RAW:
                break
            left -= hold.handle.size
            if hold.handle.home != after.home or left < 0:
                break
            chosen[future] = hold.handle
        return chosen


def take(handle: Handle) -> list[memoryview] | None:
    """The pieces of an object, if it is the value of a future here, and in the store of this node."""
    future = _whose.pop(handle.id, None)
    if future is None or not access.is_here(handle.home):
        return None
    return future._session._reading.take(future, handle)
