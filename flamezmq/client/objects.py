"""What a client has to do with stores: its own large arguments, and the results that lie in one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from flamezmq.client import inquiry
from flamezmq.client.future import Future
from flamezmq.core.caller import RAW
from flamezmq.errors import FlameError, ObjectLost, StoreFull, StoreLost
from flamezmq.running import in_place
from flamezmq.store import access
from flamezmq.store.gateway import Gateways
from flamezmq.store.keeping import Hold, Holdings, Kept, helpers, outlive_elsewhere
from flamezmq.store.messages import OF_PROCESS
from flamezmq.store.names import ids
from flamezmq.store.sameness import Contents
from flamezmq.wire import messages as m
from flamezmq.wire.handles import KEPT_BYTES, Handle, pack, unpack

#: A node without a store: so often the router is asked whether there is one now.
ASK_SECONDS = 1.0
#: The worker of an embedded cluster is there in so long, and looked for so often.
START_SECONDS, START_LOOK_SECONDS = 5.0, 0.01

if TYPE_CHECKING:
    from flamezmq.client.api import Client
    from flamezmq.client.session import Session


class Objects:
    """One per client.

    store              the name of the store of this node; "": as far as is known there is none
    gateways           the stores that are put through if there is none
    ends_with_process  what it puts is not needed any more when this process has ended
    """

    def __init__(self, client: Client, ends_with_process: bool = False) -> None:
        self._client, self.ends_with_process = client, ends_with_process
        self.holdings = Holdings(client._errands.add_late)
        helpers.append(client._errands.add_late)
        self.store = access.own
        self.gateways = Gateways()
        self._asked_at = -inf
        self._has_waited = False

    def find(self, wait: bool = False) -> str:
        """The store of this node, or "".  Asks the router, and again now and then while there is none.

        wait: for its answer, also where a `submit` may not; and for the worker of a cluster of our own
        """
        if self.store or not (wait or self._client._may_wait()):
            return self.store
        with suppress(FlameError):  # the router is gone: whoever wanted this hears of that
            if wait and not self._has_waited and self._client._cluster is not None:
                self._wait_for_one()
            elif monotonic() - self._asked_at >= ASK_SECONDS:
                self._ask()
        return self.store

    def _wait_for_one(self) -> None:
        """The first thing that many a program does is to put what its tasks will need."""
        deadline = monotonic() + START_SECONDS
        self._ask()
        while not self.store and monotonic() < deadline:
            self._client._drive(lambda: False, monotonic() + START_LOOK_SECONDS)
            self._ask()
        self._has_waited = True

    def _ask(self) -> None:
        self._asked_at = monotonic()
        stores = inquiry.exchange(self._client, m.AskStores)
        self.store = next(filter(access.is_here, stores.names), "")
        self.gateways.known = {name: at for name, at in zip(stores.names, stores.at, strict=False) if at}
        self.gateways.nodes = dict(zip(stores.names, stores.nodes, strict=False))

    def put_elsewhere(
        self, name: bytes, session: str, pieces: Sequence[Any], about: access.About, wait: bool
    ) -> Handle | None:
        """Through the store of another node; None: where that may not be waited for, or nobody takes it.

        Nor does it take what has references in it: their objects may be in another store.
        """
        if about.contains or not (wait or self._client._may_wait()):
            return None
        return self.gateways.put(name, session, pieces, about.terms, about.name)

    def own(self, future: Future, payload: Any) -> None:
        """The value of this future, which has come, lies in a store: for as long as the future lives.

        In a session of several clients others may fetch it, too: then, until the session ends.
        """
        session = future._session
        handle = unpack(payload)
        future._hold = Hold(handle, _keep) if session._shared else self.holdings.hold(handle)
        session._kept.add(future)
        session._reading.came(future, handle)

    def disown(self, payload: Any) -> None:
        """Nobody waits for this value, which has come and lies in a store."""
        self.holdings.hold(unpack(payload))  # and lets go, unless somebody has it after all

    def close(self) -> None:
        """Hang up."""
        with suppress(ValueError):
            helpers.remove(self._client._errands.add_late)
        self.holdings.close()

    def take_home(self, session: Session) -> None:
        """The session ends, and its objects with it: map those that are the values of futures.

        Together they may be more than memory has: what is on the disk comes as far as there is room.
        """
        by_home: dict[str, dict[Future, Hold]] = {}
        for future in list(session._kept):
            hold, future._hold = future._hold, None
            if hold is not None and future._form == RAW:
                by_home.setdefault(hold.handle.home, {})[future] = hold
        session._kept.clear()
        for home, holds in by_home.items():
            with suppress(FlameError):  # who looks at one that is gone is told
                handles = [hold.handle for hold in holds.values()]
                for future, found in zip(holds, self._pieces(home, handles), strict=True):
                    if found is not None and future._form == RAW:
                        future._value = found

    @staticmethod
    def _pieces(home: str, handles: list[Handle]) -> Iterator[list[memoryview] | None]:
        """Of each; ends by ObjectLost when their node is lost, so that it is waited for once."""
        if access.is_here(home):
            yield from access.of(home).open(handles, private=True, modest=True)
            return
        for handle in handles:
            try:
                yield access.fetch(handle)
            except ObjectLost as error:
                if error.node:
                    raise
                yield None


def _keep(_: Handle) -> None:
    """It goes with its session."""


class InPlaceKeeper:
    """Of the results of tasks that run in place: they stay in this process, but for those with references.

    The objects of these are held by what contains them, wherever the result goes on to.
    """

    least = 1 << 62

    def keep(self, pieces: Sequence[Any], size: int, contains: Sequence[bytes] = ()) -> Kept | None:
        """As of `Keeper`; the future holds what is kept."""
        here = in_place.get()
        publish: Any = here._publish if here is not None else None
        if publish is None:
            return None
        future: Future = publish.args[0]
        session = future._session
        kept = session._keeper.keep(pieces, size, contains)
        if kept is not None:
            future._hold = kept.hold
            session._kept.add(future)
        return kept


class SessionKeeper:
    """Puts the large arguments of a session's tasks into the store of this node.

    session  by its id, with whose end they go
    """

    least = KEPT_BYTES

    def __init__(self, objects: Objects, session: str) -> None:
        self._objects, self.session = objects, session
        self.contents = Contents()

    def keep(self, pieces: Sequence[Any], size: int, contains: Sequence[bytes] = ()) -> Kept | None:
        """As of `Keeper`; what the store has no room for travels."""
        try:
            about = access.About(contains=contains)
            handle = self.put(ids.next(), pieces, self._objects.find(), about)
        except StoreFull:
            return None
        return None if handle is None else Kept(pack(handle), self.hold(handle))

    def put(
        self,
        name: bytes,
        pieces: Sequence[Any],
        store: str,
        about: access.About = access.NOTHING,
        wait: bool = False,
    ) -> Handle | None:
        """Copy the pieces into this store, or into another node's if it is ""; None: there is none in reach.

        wait: for that of another node, where a `submit` may not; and for room, as long as the store's
            settings say, where memory and disk are full

        Raises:
            StoreFull: it has no room.
        """
        holdings = self._objects.holdings
        holdings.drop_many()
        if not store:
            return self._objects.put_elsewhere(name, self.session, pieces, about, wait)
        outlive_elsewhere(about.contains, store)
        if self._objects.ends_with_process:
            about = about._replace(terms=about.terms | OF_PROCESS)
        try:
            try:
                return access.of(store).put(name, self.session, pieces, about)
            except StoreFull:
                holdings.drop()  # perhaps there is room now
                return access.of(store).put(name, self.session, pieces, about, patient=wait)
        except StoreLost:
            self._objects.store = ""  # another one may come
            return None

    def share(self, name: bytes, like: Handle, about: access.About) -> Handle | None:
        """Make object `name` of the bytes of another one in the same store; None: that can't be."""
        if self._objects.ends_with_process:
            about = about._replace(terms=about.terms | OF_PROCESS)
        try:
            return access.of(like.home).share(name, self.session, like, about)
        except StoreLost:
            return None

    def find(self) -> str:
        """The store of this node, or ""; waits for it to be named."""
        return self._objects.find(wait=True)

    def hold(self, handle: Handle) -> Hold:
        """Own it from now on."""
        return self._objects.holdings.hold(handle)
