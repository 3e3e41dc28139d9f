"""What a client can do about sessions: open them, attach to those of others, make actors.

How a session of one's own is opened stands in opening.py, one for several clients in joining.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Unpack, overload

from flamezmq.client import joining, opening, terms
from flamezmq.client.defaults import Defaults
from flamezmq.client.service_session import ServiceSession
from flamezmq.client.session import Session
from flamezmq.optioned import Options

if TYPE_CHECKING:
    from flamezmq.client import session_options as o
    from flamezmq.client.actor import Actor
    from flamezmq.client.api import Client
    from flamezmq.client.joining import JoinedServiceSession as JoinedService


class SessionsOfClient:
    """The part of `Client` that is about its sessions, and those of others."""

    address: str
    _closed: str
    _sessions: dict[int, Session]

    def __repr__(self) -> str:
        if self._closed:
            return f"<flamezmq.Client: {self._closed}>"
        count = len(self._sessions)
        return f"<flamezmq.Client of {self.address}: {count} session{'' if count == 1 else 's'}>"

    @overload
    def session(self, name: str = "session", **options: Unpack[o.SessionOptions]) -> Session: ...
    @overload
    def session(self, name: str = "session", **options: Unpack[o.ServiceOptions]) -> ServiceSession: ...
    @overload
    def session(self, name: str = "session", **options: Unpack[o.SharedOptions]) -> joining.JoinedSession: ...
    @overload
    def session(self, name: str = "session", **options: Unpack[o.SharedServiceOptions]) -> JoinedService: ...
    def session(
        self,
        name: str = "session",
        *,
        max_retries: int = 3,
        tenant: str | None = None,
        priority: int = 0,
        weight: float = 1.0,
        min_executors: int = 0,
        max_executors: int | None = None,
        delay_release: float = 0.0,
        resources: str | None = None,
        preempt_after: float | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        max_tasks_per_child: int | None = None,
        task_timeout: float | None = None,
        options: Options | None = None,
        app: str = "",
        common_data: Any = None,
        gang: int = 1,
        id: str | None = None,
        detached: bool = False,
        over_quota: str = "wait",
        lineage: bool = False,
    ) -> Session:
        """Open a session: the unit of work, with its share of the executors.

        Args:
            name: the beginning of its id.
            max_retries: how often a task is started again after it took its executor down, before
                it fails with TaskLost; 0 means that no task is ever started twice (unless its options
                let it run again after an exception).
            tenant: who it is for; tenants share the executors evenly, whatever their sessions are, and
                never one after the other the same process.  All that name none are one.
            priority: of the sessions of a tenant those with a higher one get nearly all that they
                can use, ten times as much as all of the next lower one, which so never starve.
            weight: its part of what is left to the sessions of its tenant with its priority.
            min_executors: so many are bound to it as soon as they can be had, even without anything to do.
            max_executors: how many executors may serve it at a time; None means no limit.
            delay_release: seconds that an executor without anything to do stays bound to it, while
                the session has no more than its share; `math.inf`: until it is closed.
            resources: what each of its executors needs of its node, as in "cpu=2,mem=1g,gpu=1"; without
                it that is the node's cores over the number of its executors.
            preempt_after: seconds that a task may go on when its executor is due to another session;
                then it is killed, and runs again elsewhere.  None lets it end.
            initializer: called as `initializer(*initargs)` once in each executor process, before its
                first task of this session.  The globals that it assigns are there for the tasks,
                those of `__main__`, too.  If it raises, the session is broken: what has not ended, and
                later submits, fail with BrokenSession.
            initargs: pickled here and now, as the initializer is.
            max_tasks_per_child: after so many tasks of this session (a slice of a `map` is one) an
                executor process ends, and a fresh one takes its place; None means no limit.
            task_timeout: seconds that a run of one of its tasks may take, unless its options say otherwise.
            options: those of all its functions, made by `flm.options`; what a function's own options
                say comes before.
            app: the name of a registered application (see `register`), whose service runs the tasks.
                The session is a `ServiceSession` then: its `submit` and `map` take inputs and no function.
            common_data: what the service finds as `ctx.common_data`; pickled here and now.  What the
                application's shim, or its schema, does not take is refused here.
            gang: it gets executors so many at a time, all in one moment or none, also for fewer tasks, and
                gives them back so; min_executors is rounded up to whole gangs, max_executors down.
            id: of a session for several clients; the first one opens it, the others join it, and the
                last one that leaves closes it.  None: a session of its own, with a fresh id.
            detached: it stays when all clients have gone, until it is closed, and its results are kept
                for `attach`.  Not with an embedded cluster, which ends with its client.
            over_quota: what becomes of tasks beyond what its tenant may have queued: with "wait"
                `submit` blocks until there is room; with "fail" they fail with QuotaExceeded.
            lineage: a large value that is lost with its node is made again, by running its task again, at
                most `max_retries` times; so tasks should give the same value each time.  For that the
                arguments are kept as long as the value is.  Not for sessions with an id, detached ones
                and those of nested tasks.

        Raises:
            Refused: the router did not open it; it knows no such application, say.  SessionMismatch: it is
                open with another spec; SessionClosed: it was there, and is closed.
            ClientClosed, RouterLost: there is nobody to open it.
            ValueError, TypeError: an argument is none that it can be.
            Unpicklable: the initializer, or what it is to be called with, or the common data; TooLarge:
                a message does not take it.
            BadPayload: the application's shim would refuse the common data; says why.

        What one session does not use the others get.  As in Flame and IBM Symphony.  One round trip.
        """
        limits = terms.of_session(
            name=name,
            max_retries=max_retries,
            tenant=tenant,
            priority=priority,
            weight=weight,
            min_executors=min_executors,
            max_executors=max_executors,
            delay_release=delay_release,
            resources=resources,
            preempt_after=preempt_after,
            initializer=initializer,
            initargs=initargs,
            max_tasks_per_child=max_tasks_per_child,
            app=app,
            common_data=common_data,
            gang=gang,
        )
        defaults = terms.options_of_session(options, task_timeout)
        waits = terms.waits_for_room(over_quota)
        client = self._client()
        runs = terms.runs_of_lineage(lineage, max_retries, id, detached, bool(client._within()))
        client._check_open()
        if app and common_data is not None:
            client._check_common_data(app, common_data)
        if id is not None or detached:
            joining.check(client, id, detached)
            asked = client._spec(detached=detached, **limits)
            return joining.join(client, id or opening.fresh_id(name), defaults, asked, waits)
        spec = client._spec(**limits)
        session = client._new_session(name, ServiceSession if app else Session, runs)
        session._calls.waits_for_room = waits
        if isinstance(session, ServiceSession):
            session.serve(app)
        if defaults is not None:
            session._name = Defaults(client._functions, defaults).name
        opening.open_session(client, session, spec)
        return session

    def actor(
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

        As `Session.actor`, which explains `max_restarts`, `max_retries`, `resources` and all else; this
        one ends with the client at the latest.
        """
        from flamezmq.client.actor import make

        return make(self._client(), None, cls, args, kwargs, max_restarts, max_retries, resources)

    def attach(self, id: str, *, over_quota: str = "wait") -> joining.JoinedSession | JoinedService:
        """Join the session of this id, whatever it was opened with; `futures()` has what others submitted.

        Args:
            over_quota: of what this client submits to it, as `session` explains.

        Raises:
            ValueError: an argument is none that it can be.
            NotFound: there is none, or that was long ago.
            SessionClosed: it is closed; says when and by whom.
            Refused: it was opened without an id, and is one client's alone.
            ClientClosed, RouterLost: there is nobody to ask.
        """
        client = self._client()
        joining.check(client, id, False)
        waits = terms.waits_for_room(over_quota)
        client._check_open()
        return joining.join(client, id, None, None, waits)

    def _client(self) -> Client:
        """This client: nothing else is made of this class."""
        return self  # type: ignore[return-value]
