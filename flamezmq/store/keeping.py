"""Putting large payloads into the node's store, and what keeps them there.

A process puts by `Keeper`; what it gets is a handle to send in the payload's
place, and, where somebody here is to decide how long the object lives, a `Hold`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from flamezmq.errors import StoreFull, StoreLost
from flamezmq.store import access, gateway
from flamezmq.store.names import ids
from flamezmq.wire.handles import KEPT_BYTES, Handle, pack

#: Of what was let go of a store is told before the next put if it is so many objects, or more bytes.
MANY_GONE = 8
MANY_BYTES = 8 << 20


class Keeper(Protocol):
    """Somebody who takes payloads of `least` bytes and more."""

    least: int

    def keep(self, pieces: Sequence[Any], size: int) -> Kept | None:
        """Copy the pieces to where others find them; None: they are to travel."""
        ...


class Kept:
    """A payload that lies in a store.

    payload  its handle, to be sent
    hold     keeps it there, if that is this process's affair
    """

    __slots__ = ("hold", "payload")

    def __init__(self, payload: bytes, hold: Hold | None = None) -> None:
        self.payload, self.hold = payload, hold

    def __len__(self) -> int:
        return len(self.payload)


class Hold:
    """As long as it lives its object does.  `let_go` is told the handle, in any thread; it may not block."""

    __slots__ = ("__weakref__", "_let_go", "handle")

    def __init__(self, handle: Handle, let_go: Callable[[Handle], object]) -> None:
        self.handle, self._let_go = handle, let_go

    def keep(self) -> None:
        """Its end tells nobody: the object goes with its session."""
        self._let_go = _nobody

    def __del__(self) -> None:
        self._let_go(self.handle)


def _nobody(_: Handle) -> None:
    pass


class NodeKeeper:
    """Puts the results of tasks into the store of this executor's node.  How long they live others decide.

    has_kept  something was put since this was last set to False
    """

    least = KEPT_BYTES

    def __init__(self, store: str, session: Callable[[], str]) -> None:
        self._store, self._session = store, session
        self.has_kept = False

    def keep(self, pieces: Sequence[Any], size: int) -> Kept | None:
        """As of `Keeper`; what the store has no room for travels."""
        name = ids.next()
        try:
            handle = access.of(self._store).put(name, self._session(), pieces)
        except (StoreFull, StoreLost):
            return None
        self.has_kept = True
        return Kept(pack(handle))


class Holdings:
    """The holds of a client: finalizers note what is let go of, and `drop` tells the stores.

    later  has a function called soon, on a thread of its own; callable anywhere, in a finalizer, too
    """

    def __init__(self, later: Callable[[Callable[[], None]], None]) -> None:
        self._later = later
        self._gone: deque[Handle] = deque()
        self._homes: set[str] = set()
        self._due = False

    def hold(self, handle: Handle) -> Hold:
        """Own an object from now on."""
        self._homes.add(handle.home)
        return Hold(handle, self._let_go)

    def drop_many(self) -> None:
        """`drop`, if it is worth a message by now; otherwise that comes later."""
        gone = len(self._gone)
        if gone >= MANY_GONE or (gone and sum(handle.size for handle in list(self._gone)) > MANY_BYTES):
            self.drop()

    def drop(self) -> None:
        """Tell the stores of all that was let go of; objects of stores that are gone are gone, too."""
        self._due = False
        by_home: dict[tuple[str, str], list[bytes]] = {}
        while self._gone:
            handle = self._gone.popleft()
            by_home.setdefault((handle.home, handle.at), []).append(handle.id)
        for (home, at), names in by_home.items():
            try:
                access.of(home).drop(names)
            except StoreLost:  # it has ended, or is on another node
                if at:
                    gateway.discard(at, names)

    def close(self) -> None:
        """Hang up; what is let go of from now on is dropped with its session."""
        for home in self._homes:
            access.of(home).close()
        gateway.close()

    def _let_go(self, handle: Handle) -> None:
        self._gone.append(handle)
        if not self._due:
            self._due = True
            self._later(self.drop)
