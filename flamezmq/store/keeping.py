"""Putting large payloads into the node's store, and what keeps them there.

A process puts by `Keeper`; what it gets is a handle to send in the payload's
place, and, where somebody here is to decide how long the object lives, a `Hold`.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any, Protocol
from weakref import WeakValueDictionary

from flamezmq.errors import StoreFull, StoreLost
from flamezmq.store import access
from flamezmq.store import messages as s
from flamezmq.store.names import ids
from flamezmq.wire.handles import KEPT_BYTES, Handle, pack

#: Of what was let go of a store is told before the next put if it is so many objects, or more bytes.
MANY_GONE = 8
MANY_BYTES = 8 << 20


def _gateway() -> ModuleType:
    """The way to stores of other nodes; its sockets are loaded where somebody needs them."""
    from flamezmq.store import gateway

    return gateway


class Keeper(Protocol):
    """Somebody who takes payloads of `least` bytes and more."""

    least: int

    def keep(self, pieces: Sequence[Any], size: int, contains: Sequence[bytes] = ()) -> Kept | None:
        """Copy the pieces to where others find them; None: they are to travel.

        contains: ids of the objects that references in it stand for
        """
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

    __slots__ = ("__weakref__", "_let_go", "handle", "stays")

    def __init__(self, handle: Handle, let_go: Callable[[Handle], object]) -> None:
        self.handle, self._let_go = handle, let_go
        self.stays = False

    def stay(self) -> None:
        """Somebody may have a reference of whom nothing is known: the object stays until its session ends."""
        if not self.stays:
            self.stays = True
            _stay(self.handle)

    def __del__(self) -> None:
        self._let_go(self.handle)


class NodeKeeper:
    """Puts the results of tasks into the store of this executor's node.  How long they live others decide.

    has_kept  something was put since this was last set to False
    last      id of what was put last; empty: nothing was
    """

    least = KEPT_BYTES

    def __init__(self, store: str, session: Callable[[], str]) -> None:
        self._store, self._session = store, session
        self.has_kept = False
        self.last = b""

    def keep(self, pieces: Sequence[Any], size: int, contains: Sequence[bytes] = ()) -> Kept | None:
        """As of `Keeper`; what the store has no room for travels."""
        name = ids.next()
        outlive_elsewhere(contains, self._store)
        about = access.About(s.RESULT, contains)
        try:
            handle = access.of(self._store).put(name, self._session(), pieces, about)
        except (StoreFull, StoreLost):
            return None
        self.has_kept, self.last = True, name
        return Kept(pack(handle))


class Holdings:
    """Holds of this process: finalizers note what is let go of, and `drop` tells the stores.

    later  has a function called soon, on a thread of its own; callable anywhere, in a finalizer, too
    """

    def __init__(self, later: Callable[[Callable[[], None]], None]) -> None:
        self._later = later
        self._gone: deque[Handle] = deque()
        self._homes: set[str] = set()
        self._due = False
        self._pid = os.getpid()

    def hold(self, handle: Handle) -> Hold:
        """Own an object from now on; what this process holds already it holds once."""
        found = _live.get(handle.id)
        if found is not None:
            return found
        self._homes.add(handle.home)
        hold = _live[handle.id] = Hold(handle, self._let_go)
        return hold

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
        if self._pid != os.getpid():
            return  # what a forked child lets go of its parent may still have
        for (home, at), names in by_home.items():
            try:
                access.of(home).drop(names)
            except StoreLost:  # it has ended, or is on another node
                if at:
                    _gateway().discard(at, names)

    def close(self) -> None:
        """Hang up; what is let go of from now on is dropped with its session."""
        for home in self._homes:
            access.of(home).close()
        if (used := sys.modules.get("flamezmq.store.gateway")) is not None:
            used.close()

    def _let_go(self, handle: Handle) -> None:
        self._gone.append(handle)
        if not self._due:
            self._due = True
            self._later(self.drop)


#: By the ids of their objects; each process holds an object once.
_live: WeakValueDictionary[bytes, Hold] = WeakValueDictionary()
#: Those who can have `arrivals` dropped: the threads of the clients that are open in this process.
helpers: list[Callable[[Callable[[], None]], None]] = []


def _soon(deed: Callable[[], None]) -> None:
    """By the thread of some client; without one, when this process has to do with a store again."""
    if helpers:
        helpers[-1](deed)
    else:
        arrivals._due = False


#: The holds of what came here by references.
arrivals = Holdings(_soon)


def _stay(handle: Handle) -> None:
    try:
        access.of(handle.home).tell(s.Stay, [handle.id])
    except StoreLost:  # it has ended, or is on another node
        if handle.at:
            _gateway().stay(handle.at, [handle.id])


def outlive_elsewhere(names: Iterable[bytes], home: str) -> None:
    """An object in the store `home` contains these; those of other stores it can't hold, so they stay.

    Until their session ends, that is.
    """
    for name in names:
        hold = _live.get(name)
        if hold is not None and hold.handle.home != home:
            hold.stay()


def arrive(handle: Handle) -> Hold | None:
    """A reference to this object has come, from whomever: hold it.

    None: its store is on another node, and keeps no books of the processes of this one; so the object is to
    stay until its session ends.
    """
    found = _live.get(handle.id)
    if found is not None:
        return found
    try:
        access.of(handle.home).tell(s.Hold, [handle.id])
    except StoreLost:
        if handle.at:
            _gateway().stay(handle.at, [handle.id])
        return None
    arrivals.drop()
    return arrivals.hold(handle)


def _forked() -> None:
    global arrivals
    _live.clear()
    helpers.clear()
    arrivals = Holdings(_soon)


os.register_at_fork(after_in_child=_forked)
