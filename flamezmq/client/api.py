"""The Client: a connection to a router, or, without an address, a private cluster that dies with it.

It ties the parts together: sessions (client/session.py) fill outboxes, the pump
(client/pump.py) says when to do I/O, the line (net/line.py) does it, and
what comes back goes to the calls of its session (core/caller.py).
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from flamezmq import config
from flamezmq.client import (
    arguments,
    inquiry,
    joining,
    opening,
    quota,
    roll,
    staging,
    steering,
    stream,
    surroundings,
    terms,
)
from flamezmq.client.applications import ApplicationsOfClient
from flamezmq.client.errands import Errands
from flamezmq.client.future import Future
from flamezmq.client.inventory import ObjectsOfClient
from flamezmq.client.lineage import Lineage
from flamezmq.client.mapping import Mapped
from flamezmq.client.objects import Objects
from flamezmq.client.pump import Pump
from flamezmq.client.references import ReferencesOfClient
from flamezmq.client.service_session import ServiceSession
from flamezmq.client.session import CLOSE_SECONDS, Session, hear_last_words
from flamezmq.client.sessions import SessionsOfClient
from flamezmq.client.tenants import TenantsOfClient
from flamezmq.core.caller import PENDING, RUNNING, Calls, Dependent
from flamezmq.core.orders import Orders
from flamezmq.errors import ClientClosed
from flamezmq.net.line import Line
from flamezmq.serialize.functions import FunctionTable
from flamezmq.serialize.pickler import add_reducer
from flamezmq.store.terms import terms_of
from flamezmq.wire import messages as m

#: How long opening may take.
OPEN_SECONDS = 15.0
#: That a router is waited for is said after so long.
SAY_SECONDS = 1.0
#: A router of this machine, or another one, that has been away for longer is lost.
NEAR_SECONDS, FAR_SECONDS = 1.5, 30.0

if TYPE_CHECKING:
    from flamezmq.client.embedded import Embedded
    from flamezmq.tenant import Tenant

#: Messages that are not for one session alone.
_OF_NO_SESSION = frozenset(
    (m.Huddle, m.Answer, m.Done, m.Applications, m.Tenants, m.Stores, m.Wanted, m.Unmet)
)


class Client(ApplicationsOfClient, ObjectsOfClient, ReferencesOfClient, SessionsOfClient, TenantsOfClient):
    """A connection to a router, and the way to submit tasks to it.

    Args:
        address: "tcp://host:port" or "ipc://path"; None takes $FLAMEZMQ_ADDRESS, or the one in the
            file of settings, and without these starts an embedded cluster, which ends with this
            client; "" always starts one.
        executors: how many processes run the tasks of an embedded cluster; None means the usable
            cores (by affinity and cgroup).
        forward_output: print here what tasks print there, each line with its executor's name.
        connect_timeout: seconds to wait for a router that does not answer yet, which is said on
            stderr after one; None takes the settings', 15 unless they say otherwise.
        tenants: of an embedded cluster: by name, what each tenant may have, as in
            {"labs": flm.Tenant(weight=2.0, max_executors=8)}; "*" stands for those that are not
            named.  None takes the file of settings.

    Raises:
        ConfigError: the file of settings, or a variable, says what nobody understands.
        StartFailed: the embedded cluster did not come up.
        RouterLost: nobody answers at the address.
        Refused: the router does not want us, and says why.
        ValueError: `executors` is no integer from 1; it or `tenants` comes together with an
            address; the address is none; something of a tenant makes no sense.
        TypeError: `tenants` has something else than names and Tenants.

    As a context manager it waits for its tasks at the end of the block; when the block is left
    by an exception they are cancelled.  Usable by many threads at a time, not across a fork.
    An embedded cluster costs a few tenths of a second to start: open one client for a program,
    not one for each piece of work.
    """

    _Pump = Pump

    #: A task that nothing else is on its way with leaves at once.
    _eager = True
    _may_stream = True

    def __init__(
        self,
        address: str | None = None,
        *,
        executors: int | None = None,
        forward_output: bool = True,
        connect_timeout: float | None = None,
        tenants: Mapping[str, Tenant] | None = None,
    ) -> None:
        self._closed = ""  # why nothing more can be done with it
        self._ended = False  # nothing is left to close
        self._cluster: Embedded | None = None
        self._forward_output = forward_output
        self._show = surroundings.show
        self._functions = FunctionTable()
        self._calls: dict[int, Calls] = {}
        #: Futures that others need, by session and index, as long as one of these has not ended.
        self._needed: weakref.WeakValueDictionary[tuple[int, int], Future] = weakref.WeakValueDictionary()
        self._sessions: dict[int, Session] = {}
        self._dirty: dict[int, Calls] = {}  # sessions with something in the outbox
        self._submit_lock = threading.Lock()
        self._apply_lock = threading.RLock()  # a signal handler may close while results are applied
        self._own_lock = threading.Lock()
        self._orders = Orders()  # messages of control, behind what the outboxes hold
        self._executors = executors or 4
        self._cancels: dict[tuple[int, int], bool] = {}  # (session, index) that is being cancelled: refused?
        self._last_alias = 0
        self._last_request = 0
        self._answers: dict[int, Any] = {}  # request -> what was answered; None: nothing yet
        self._default: Session | None = None
        self._closed_in_wait = False  # by a signal handler: who waited hangs up
        self._no_credit = False  # what the outboxes hold has to wait for results
        told = config.settings("client", {"address": address, "connect_timeout": connect_timeout})
        address = told["address"] or None
        terms.check_client(address, executors, told["connect_timeout"])
        theirs = terms.check_tenants(tenants, address)
        if address is None:
            from flamezmq.client.embedded import Embedded

            theirs = config.tenants() if theirs is None else theirs
            self._cluster = Embedded(executors, theirs, vars(terms_of(config.store())))
            self._cluster.spawn()
            try:
                address = self._cluster.wait(timeout=OPEN_SECONDS)
            except BaseException:
                self._cluster.stop()
                raise
        self.address = address
        self._line = Line(address, "client", self._apply, patience_seconds=told["connect_timeout"])
        if self._cluster is not None:
            self._line.guard(self._cluster.pidfd, self._how_the_cluster_ended)
        self._pump = self._Pump(self._line, self._stage, self._unsent, self._fail)
        self._errands = Errands()
        self._objects = Objects(self)
        self._lineage = Lineage(self)
        roll.clients.add(self)
        try:
            self._connect()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> None:
        line = self._line
        line.open()
        with line.lock:
            say_at = monotonic() + SAY_SECONDS
            while not line.link.up:
                line.turn(100)  # raises when its patience is over
                if monotonic() >= say_at:
                    say_at = inf
                    surroundings.say(f"flamezmq: waiting for a router at {self.address}")
            near = self.address.startswith(("ipc:", "tcp://127.", "tcp://localhost", "tcp://[::1]"))
            line.patience_seconds = NEAR_SECONDS if near else FAR_SECONDS
        self._pump.start()
        self._errands.start()

    # --- what the user calls

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Run `fn(*args, **kwargs)` on an executor; returns its Future at once.

        As `Session.submit`, in the client's own session, which is opened by the first call.
        """
        return self._own().submit(fn, *args, **kwargs)

    def map(
        self,
        fn: Callable[..., Any],
        /,
        *iterables: Iterable[Any],
        ordered: bool = True,
        chunksize: int | None = None,
        timeout: float | None = None,
        progress: str | None = None,
    ) -> Mapped:
        """`fn(*items)` for the items of the `iterables`, in parallel; returns an iterator of results.

        As `Session.map`, which explains `ordered`, `chunksize`, `timeout` and `progress`, in the
        client's own session.
        """
        return self._own().map(
            fn, *iterables, ordered=ordered, chunksize=chunksize, timeout=timeout, progress=progress
        )

    def stream(
        self, fn: Callable[..., Any], /, *args: Any, replay: bool = False, **kwargs: Any
    ) -> stream.Stream:
        """The values of the generator `fn(*args, **kwargs)`, which runs on an executor, as they come.

        As `Session.stream`, which explains `replay`, in the client's own session.
        """
        return self._own().stream(fn, *args, replay=replay, **kwargs)

    def processes(self) -> dict[str, list[int]]:
        """Process ids of an embedded cluster, by role; empty for a cluster that is not ours.

        The roles: launcher, router, worker, zygote, executors.  For monitors and tests; it walks
        through /proc, which costs some milliseconds.
        """
        return self._cluster.processes() if self._cluster is not None else {}

    def close(self) -> None:
        """Cancel what has not ended and hang up; an embedded cluster ends, running tasks with it.

        Idempotent, and bounded in time (a few seconds at worst, some tens of milliseconds mostly).
        To wait for the tasks instead, leave the client's `with` block.  A signal handler may call it.
        """
        if self._ended:
            return
        self._closed = self._closed or "this client was closed"
        roll.clients.discard(self)
        pump = getattr(self, "_pump", None)
        if pump is not None:
            self._cancel_everything()
            hear_last_words(self)
            pump.stop(CLOSE_SECONDS)
            self._closed_in_wait = pump.is_interrupted()
            if not self._closed_in_wait:
                self._hang_up()
            self._errands.stop(CLOSE_SECONDS)
            self._objects.close()
        if self._cluster is not None:
            self._cluster.stop()
        self._ended = True  # not before: one that was interrupted can be called again

    def _hang_up(self) -> None:
        if self._line.lock.acquire(timeout=CLOSE_SECONDS):
            self._line.close(bye=self._cluster is None)
            self._line.lock.release()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        try:
            if kind is None and not self._closed:
                for session in list(self._sessions.values()):
                    session.__exit__(None, None, None)
        finally:
            self.close()

    def statistics(self) -> dict[str, int]:
        """Counts for people who look for a leak or a stall: frames, reconnects, unfinished tasks, hand-offs.

        Read without a lock, in microseconds; names may come and go between versions.
        """
        return {
            **self._line.statistics(),
            "unfinished": self._unfinished(),
            "hand_offs": self._pump.hand_offs,
            "lineage_bytes": self._lineage.ledger.bytes,
        }

    # --- towards the router

    def _unfinished(self) -> int:
        return sum(calls.unfinished for calls in list(self._calls.values()))

    def _own(self) -> Session:
        session = self._default
        if session is None:
            with self._own_lock:
                session = self._default
                if session is None:
                    session = self._default = self.session("client")
        return session

    def _may_wait(self) -> bool:
        """Whether a `submit` may block here: never in a callback."""
        return not self._errands.is_here()

    def _new_session(self, name: str, kind: type[Session] = Session, runs: int = 0) -> Session:
        """runs: how often values of its tasks that are lost are made again."""
        alias, id = self._next_alias(), opening.fresh_id(name)
        calls = self._lineage.calls(alias, id, runs) if runs else self._new_calls(alias, id, kind.ordered)
        session = kind(self, calls)
        self._calls[alias] = calls
        self._sessions[alias] = session
        return session

    def _next_alias(self) -> int:
        with self._submit_lock:
            self._last_alias += 1
            return self._last_alias

    def _session_of_objects(self, id: str) -> str:
        """The session with whose end the objects of the session of this id go."""
        return id

    def _new_calls(self, alias: int, id: str, ordered: bool = False) -> Calls:
        return Calls(alias, id, self._needed)

    def _spec(self, **asked: Any) -> m.SessionSpec:
        return m.SessionSpec(
            forward_output=self._forward_output,
            environment=self._environment(),
            within=self._within(),
            **asked,
        )

    def _environment(self) -> m.Environment:
        return surroundings.environment()

    def _within(self) -> str:
        return ""

    def _forget(self, alias: int) -> None:
        self._sessions.pop(alias, None)
        self._calls.pop(alias, None)
        self._dirty.pop(alias, None)

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed(f"{self._closed}; open a new one")
        if self._line.lost is not None:
            raise self._line.lost

    def _tell(self, message: Any) -> None:
        """Send a message of control, in order with what the outboxes hold."""
        self._orders.append(message)
        self._pump.push()

    def _unsent(self) -> bool:
        """Whether there is anything that could go out."""
        return bool(self._orders or (self._dirty and not self._no_credit))

    def _stage(self) -> None:
        """Move outboxes into the link, as far as the credit goes, and orders.  Under the line's lock."""
        if not self._dirty and not self._orders:
            return
        link = self._line.link
        self._orders.complete(link)
        with self._apply_lock:
            for calls in list(self._dirty.values()):
                calls.complete(link)
        moved = True
        while moved and self._dirty:  # a task may need one of another session, which has to go first
            moved = False
            for alias, calls in list(self._dirty.items()):
                moved = staging.stage_outbox(self, alias, calls) or moved
        self._orders.stage(link)
        if self._functions.evicted:
            numbers = self._functions.take_evicted()
            for calls in list(self._calls.values()):
                calls.forget += [number for number in numbers if number in calls.shipped]

    def _room(self, calls: Calls) -> int:
        """How many tasks of this session the router may be sent now."""
        most_tasks, most_bytes = self._line.limits
        if sum(other.heavy_bytes for other in self._calls.values() if other.heavy) > most_bytes:
            return 0
        return most_tasks - sum(len(other.pending) for other in self._calls.values() if not other.foreign)

    def _take_needs(self, future: Future, function: Any, call: Dependent) -> bool:
        """Note what a new call needs; False: it is not to go to its outbox."""
        if arguments.depend(future, call, function.label):
            return True
        future._session._calls.failed += 1
        return False

    def _wait(self, done: Callable[[], bool], deadline: float | None) -> bool:
        """Wait for tasks, until `done()`; False when the deadline passes first."""
        return self._drive(done, deadline)

    def _wait_for_room(self, there_is_room: Callable[[], bool]) -> None:
        if self._may_wait():
            self._drive(there_is_room, None)

    def _drive(self, done: Callable[[], bool], deadline: float | None) -> bool:
        try:
            return self._pump.drive(done, deadline)
        finally:
            if self._closed_in_wait:
                self._hang_up()

    # --- from the router (under the line's lock)

    def _apply(self, message: Any, frames: list[Any]) -> None:
        kind = type(message)
        if kind in _OF_NO_SESSION:
            with self._apply_lock:
                if kind is m.Huddle:
                    self._line.huddle(message.cpu)
                elif kind is m.Wanted:
                    arguments.on_wanted(self, message)
                elif kind is m.Unmet:
                    arguments.on_unmet(self, message)
                else:
                    inquiry.on_answer(self, message)
            return
        calls = self._calls.get(message.session)
        if calls is None:
            return
        with self._apply_lock:
            if kind is m.Results:
                calls.on_results(message, frames, self._on_end)
            elif kind is m.Cancelled:
                calls.on_cancelled(message, self._on_end)
                for index in message.refused:
                    if (calls.alias, index) in self._cancels:
                        self._cancels[calls.alias, index] = True
            elif kind is m.Begun:
                future = calls.pending.get(message.index)
                if future is not None and future._state is PENDING:
                    future._state = RUNNING
            elif kind is m.Part:
                stream.on_part(self, calls, message, frames)
            elif kind is m.Lost:
                calls.on_lost(message, self._on_end)
            elif kind is m.Expired:
                calls.on_expired(message, self._on_end)
            elif kind is m.Counts:
                calls.counts = message
            elif kind is m.Room:
                quota.on_room(self, calls, message)
            elif kind is m.Opened:
                calls.opened, calls.error = not message.error, message.error
            elif kind is m.ClosedBy:
                steering.on_closed_by(self, calls, message)
            elif kind is m.Broken:
                from flamezmq.client.broken import on_broken

                on_broken(self, calls, message)
            elif kind is m.Closed:
                steering.on_closed(self, calls)
            elif kind in joining.KINDS:
                joining.on_message(self, calls, message)
        if kind is m.Output:
            self._errands.add(self._show, message)

    def _on_end(self, future: Any, state: str) -> None:
        future._end(state, self._errands.add)

    def _fail(self, error: Exception) -> None:
        """The line is lost: so is everything that has not ended."""
        with self._apply_lock:
            for calls in list(self._calls.values()):
                calls.fail_all(error, self._on_end)
        self._dirty.clear()

    def _how_the_cluster_ended(self) -> str:
        why = self._cluster.why_it_ended() if self._cluster is not None else ""
        return f"the embedded cluster has ended ({why or 'its launcher died'}); open a new Client"

    def _cancel_everything(self) -> None:
        with self._apply_lock:
            for calls in list(self._calls.values()):
                calls.cancel_all(self._on_end)
        self._dirty.clear()

    def _forked(self) -> None:
        """In the child of a fork: the line belongs to the parent."""
        self._closed = "this client belongs to the parent process: it can't be used after a fork"
        self._ended = True
        self._line.abandon()  # the cluster knows by itself whose it is


for _kind in (Client, Session, ServiceSession):
    add_reducer(_kind, arguments.reduce_client)
