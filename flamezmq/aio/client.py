"""Client and Session for event loops."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack, overload

from flamezmq.aio.actor import Actor, close_actor, make_actor
from flamezmq.aio.applications import ApplicationsOfClient
from flamezmq.aio.behind import ClientBehind
from flamezmq.aio.hub import Answer, answer_of
from flamezmq.aio.inventory import ObjectsOfClient
from flamezmq.aio.joining import Joining, part
from flamezmq.aio.mapping import Mapped, WatchedSlices
from flamezmq.aio.references import References
from flamezmq.aio.steering import Steering
from flamezmq.aio.stream import Stream
from flamezmq.aio.tenants import TenantsOfClient
from flamezmq.aio.threads import in_thread
from flamezmq.client import service_session as sync_service
from flamezmq.client import session as sync
from flamezmq.client import terms
from flamezmq.client.actor import ActorSession
from flamezmq.client.arguments import reduce_client, reduce_future
from flamezmq.errors import ClientClosed
from flamezmq.serialize.pickler import Pickler, add_reducer

if TYPE_CHECKING:
    from flamezmq.client.session_options import (
        ServiceOptions,
        SessionOptions,
        SharedOptions,
        SharedServiceOptions,
    )
    from flamezmq.tenant import Tenant


class Session(Steering, Joining, References):
    """Tasks that belong together; made by `Client.session`, opened by `async with` or `open`.

    At the end of the block its tasks are awaited; they are cancelled when the block is left by an
    exception, or when the waiting is cancelled.  The event loop goes on meanwhile.
    """

    def __init__(self, client: Client, name: str, options: dict[str, Any], attaches: bool = False) -> None:
        self._client, self._attaches = client, attaches
        self._name, self._options = name, options
        self._behind: ClientBehind | None = None
        self._session: sync.Session | None = None
        self._begun = False

    async def open(self) -> Self:
        """Open it at the router: one round trip.  Raises as `flm.Client.session` does."""
        if self._begun:
            raise RuntimeError(f"session {self._name!r} has been opened already; make a new one")
        self._begun = True
        behind = self._client._opened()
        enter = behind.attach if self._attaches else behind.session
        self._session = await in_thread(
            partial(enter, self._name, **self._options), undo=partial(_leave_session, _now())
        )
        self._behind = behind
        return self

    @property
    def id(self) -> str:
        """Its name in logs and errors: the one that was asked for, or the name and six random letters."""
        return self._opened().id

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Answer:
        """Run `fn(*args, **kwargs)` on an executor; returns its Answer, an `asyncio.Future`, at once.

        Function and arguments are pickled here and now, as `flm.Session.submit` explains.

        Raises:
            ClientClosed, RouterLost: there is nobody to run it.
            RuntimeError: no event loop is running in this thread.

        Never blocks, so it is for the caller to bound what is submitted and not yet awaited (a
        `map` does that by itself).  A few microseconds.
        """
        session = self._opened()
        assert self._behind is not None
        return answer_of(self._behind, partial(session.submit, fn, *args, **kwargs))

    def map(
        self,
        fn: Callable[..., Any],
        /,
        *iterables: Iterable[Any],
        ordered: bool = True,
        chunksize: int | None = None,
    ) -> Mapped:
        """`fn(*items)` for the items of the `iterables`, in parallel; returns an asynchronous iterator.

        Items travel in slices of a few milliseconds of work; inputs are pulled, on the event loop,
        as results are taken, so endless iterables are fine.

        Args:
            ordered: results in the order of the inputs; False gives them as their slices end.
            chunksize: items per slice, from 1; None takes what fits the measured run time.

        Errors come as in `flm.Session.map`.  For a limit in time use `asyncio.timeout`.
        """
        session = self._opened()
        if isinstance(session, sync_service.ServiceSession):  # no function, but one more iterable
            fn, iterables = session.call, (fn, *iterables)  # type: ignore[arg-type]
        sync.check_map(iterables, chunksize)
        assert self._behind is not None
        return Mapped(self._behind, WatchedSlices(session, fn, iterables, ordered, chunksize, None))

    async def actor(
        self,
        cls: type,
        /,
        *args: Any,
        max_restarts: int = 0,
        max_retries: int = 0,
        resources: str | None = None,
        **kwargs: Any,
    ) -> Actor:
        """Make one instance `cls(*args, **kwargs)` in a process of its own; returns its handle.

        As `flm.Session.actor`, which explains `max_restarts`, `max_retries`, `resources`, and what is raised;
        the handle's methods return an Answer.  One round trip.
        """
        session = self._opened()
        assert self._behind is not None
        terms: Any = {"max_restarts": max_restarts, "max_retries": max_retries, "resources": resources}
        make = partial(session.actor, cls, *args, **terms, **kwargs)
        return await make_actor(self._behind, make)

    def stream(self, fn: Callable[..., Any], /, *args: Any, replay: bool = False, **kwargs: Any) -> Stream:
        """The values of the generator `fn(*args, **kwargs)`, which runs on an executor, as they come.

        Returns an asynchronous iterator.  `fn` is an ordinary generator function; `replay`, how far it
        is ahead, and its errors are as `flm.Session.stream` explains.
        """
        session = self._opened()
        assert self._behind is not None
        return Stream(self._behind, session.stream(fn, *args, replay=replay, **kwargs))

    async def aclose(self, cancel: bool = False) -> None:
        """Wait for the tasks and close the session, or leave it, if others are in it.  Idempotent.

        Args:
            cancel: do not wait; cancel what has not ended.

        When this waiting is cancelled, the tasks are.  One that is detached is closed for all.
        """
        await self._end(_close_session, cancel)

    async def _end(self, end: Callable[[threading.Event, sync.Session], None], cancel: bool) -> None:
        session = self._session
        if session is None:
            return
        hurry = _now() if cancel else threading.Event()
        await in_thread(partial(end, hurry, session), hurry=partial(_hasten, hurry, session._client))

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end(_leave_session, cancel=kind is not None)

    def _objects(self) -> sync.Session:
        return self._opened()

    def _opened(self) -> sync.Session:
        if self._session is None:
            raise ClientClosed(
                f"session {self._name} is not open; open it by `async with` or `await ...open()`"
            )
        return self._session


class ServiceSession(Session):
    """Tasks for one service; made by `Client.session(app=...)`.  As `Session` in all other ways."""

    def submit(self, /, *args: Any, **kwargs: Any) -> Answer:
        """Have the service run a task with this input; returns its Answer at once.

        As `Session.submit`, without a function: for a python service,
        `on_task_invoke(ctx, *args, **kwargs)` is called.
        """
        session = self._opened()
        assert self._behind is not None
        return answer_of(self._behind, partial(session.submit, *args, **kwargs))

    def map(  # type: ignore[override]
        self, /, *iterables: Iterable[Any], ordered: bool = True, chunksize: int | None = None
    ) -> Mapped:
        """Have the service run a task for each of the items; returns an asynchronous iterator.

        As `Session.map`, which explains `iterables`, `ordered` and `chunksize`, without a function.
        """
        sync.check_map(iterables, chunksize)
        return super().map(*iterables, ordered=ordered, chunksize=chunksize)  # type: ignore[arg-type]

    def stream(self, /, *args: Any, replay: bool = False, **kwargs: Any) -> Stream:
        """The values that the service yields for this input (`args` and `kwargs`), as they come.

        As `Session.stream`, which explains `replay`, without a function.
        """
        session = self._opened()
        assert self._behind is not None
        return Stream(self._behind, session.stream(*args, replay=replay, **kwargs))


class Client(ApplicationsOfClient, ObjectsOfClient, References, TenantsOfClient):
    """A connection to a router for event loops; without an address, to a private cluster.

    Args:
        address: "tcp://host:port" or "ipc://path"; None takes $FLAMEZMQ_ADDRESS, and without that
            starts an embedded cluster, which ends with this client; "" always starts one.
        executors: how many processes run the tasks of an embedded cluster; None means the usable
            cores.
        forward_output: print here what tasks print there.
        connect_timeout: seconds to wait for a router that does not answer yet, as in `flm.Client`.
        tenants: what each may have in an embedded cluster, as in `flm.Client`.

    Raises:
        ValueError: `executors` is no integer from 1; it or `tenants` comes together with an
            address; the address is none; something of a tenant makes no sense.
        TypeError: `tenants` has something else than names and Tenants.

    `async with` opens it, and raises what opening an `flm.Client` raises.  At the end of the block
    its tasks are awaited; they are cancelled when the block is left by an exception, or when that
    waiting is cancelled.  Several event loops, each in its thread, may use one client at a time.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        executors: int | None = None,
        forward_output: bool = True,
        connect_timeout: float | None = None,
        tenants: Mapping[str, Tenant] | None = None,
    ) -> None:
        terms.check_client(address or None, executors, connect_timeout)
        terms.check_tenants(tenants, address or None)
        self._make = partial(ClientBehind, address, executors, forward_output, connect_timeout, tenants)
        self._behind: ClientBehind | None = None
        self._begun = False
        self._own = Session(self, "client", {})

    async def open(self) -> Client:
        """Start the cluster, or connect; on a thread.  Raises StartFailed, RouterLost, Refused."""
        if self._begun:
            raise RuntimeError("this client has been opened already; make a new one")
        self._begun = True
        self._behind = await in_thread(self._make, undo=ClientBehind.close)
        try:
            await self._own.open()
        except BaseException:
            await self.aclose(cancel=True)
            raise
        return self

    @property
    def address(self) -> str:
        """The router's, once the client is open."""
        return self._opened().address

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Answer:
        """Run `fn(*args, **kwargs)` on an executor; returns its Answer, an `asyncio.Future`, at once.

        As `Session.submit`, in the client's own session.
        """
        return self._own.submit(fn, *args, **kwargs)

    def map(
        self,
        fn: Callable[..., Any],
        /,
        *iterables: Iterable[Any],
        ordered: bool = True,
        chunksize: int | None = None,
    ) -> Mapped:
        """`fn(*items)` for the items of the `iterables`, in parallel; returns an asynchronous iterator.

        As `Session.map`, which explains `ordered` and `chunksize`, in the client's own session.
        """
        return self._own.map(fn, *iterables, ordered=ordered, chunksize=chunksize)

    def stream(self, fn: Callable[..., Any], /, *args: Any, replay: bool = False, **kwargs: Any) -> Stream:
        """The values of the generator `fn(*args, **kwargs)`, which runs on an executor, as they come.

        As `Session.stream`, which explains `replay`, in the client's own session.
        """
        return self._own.stream(fn, *args, replay=replay, **kwargs)

    @overload
    def session(self, name: str = "session", **options: Unpack[SessionOptions]) -> Session: ...
    @overload
    def session(self, name: str = "session", **options: Unpack[ServiceOptions]) -> ServiceSession: ...
    @overload
    def session(self, name: str = "session", **options: Unpack[SharedOptions]) -> Session: ...
    @overload
    def session(self, name: str = "session", **options: Unpack[SharedServiceOptions]) -> ServiceSession: ...
    def session(self, name: str = "session", **options: Any) -> Session:
        """A session, to be opened by `async with`; `name` and `options` are those of `flm.Client.session`.

        With an `app` among them it is a `ServiceSession`.
        """
        return (ServiceSession if options.get("app") else Session)(self, name, options)

    def attach(self, id: str, *, over_quota: str = "wait") -> Session:
        """The session of this id, to be joined by `async with`; raises then as `flm.Client.attach` does.

        Args:
            over_quota: of what this client submits to it, as `flm.Client.session` explains; what would
                wait stays in the client, for `submit` never blocks here.
        """
        return Session(self, id, {"over_quota": over_quota}, attaches=True)

    async def actor(
        self,
        cls: type,
        /,
        *args: Any,
        max_restarts: int = 0,
        max_retries: int = 0,
        resources: str | None = None,
        **kwargs: Any,
    ) -> Actor:
        """Make one instance `cls(*args, **kwargs)` in a process of its own; returns its handle.

        As `Session.actor`, with `max_restarts`, `max_retries` and `resources`; this one ends with the
        client at the latest.
        """
        behind = self._opened()
        terms: Any = {"max_restarts": max_restarts, "max_retries": max_retries, "resources": resources}
        make = partial(behind.actor, cls, *args, **terms, **kwargs)
        return await make_actor(behind, make)

    def processes(self) -> dict[str, list[int]]:
        """Process ids of an embedded cluster, by role; a walk through /proc, some milliseconds."""
        return self._opened().processes()

    def statistics(self) -> dict[str, int]:
        """Counts, as `flm.Client.statistics`; `wake_ups` is how often event loops were woken."""
        behind = self._opened()
        return {**behind.statistics(), "wake_ups": behind.wake_ups()}

    async def aclose(self, cancel: bool = False) -> None:
        """Wait for the tasks, then hang up; an embedded cluster ends.  Idempotent.

        Args:
            cancel: do not wait; cancel what has not ended.

        When this waiting is cancelled, the tasks are.
        """
        behind = self._behind
        if behind is None:
            return
        hurry = _now() if cancel else threading.Event()
        await in_thread(partial(_close_client, hurry, behind), hurry=partial(_hasten, hurry, behind))

    async def __aenter__(self) -> Client:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose(cancel=kind is not None)

    def _objects(self) -> sync.Session:
        self._opened()
        return self._own._opened()

    def _opened(self) -> ClientBehind:
        if self._behind is None:
            raise ClientClosed("this client is not open; open it by `async with` or `await client.open()`")
        return self._behind


# --- on threads


def _now() -> threading.Event:
    """Hurry from the start."""
    event = threading.Event()
    event.set()
    return event


def _hasten(hurry: threading.Event, client: Any) -> None:
    """Wake the thread that waits for tasks: they are not waited for any more."""
    hurry.set()
    client._pump.line.wake()


def _close_session(hurry: threading.Event, session: sync.Session) -> None:
    session._stop_streams()
    session._drive(lambda: not session._calls.unfinished or hurry.is_set(), None)
    for actor in list(session._actors.values()):
        close_actor(hurry, actor)
    session.close(cancel=True)


def _leave_session(hurry: threading.Event, session: sync.Session) -> None:
    """As at the end of a `with`: one that is detached goes on."""
    if not part(hurry, session):
        _close_session(hurry, session)


def _close_client(hurry: threading.Event, client: ClientBehind) -> None:
    try:
        if not client._closed:
            for session in list(client._sessions.values()):
                if isinstance(session, ActorSession):
                    close_actor(hurry, session)
                else:
                    _leave_session(hurry, session)
    finally:
        client.close()


def _reduce_answer(pickler: Pickler, answer: Answer) -> Any:
    return reduce_future(pickler, answer._light)


add_reducer(Answer, _reduce_answer)
for _kind in (Client, Session, ServiceSession, ClientBehind):
    add_reducer(_kind, reduce_client)
