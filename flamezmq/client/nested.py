"""The client inside a task: nested tasks.

Who waits here runs what it waits for.  In this order: its own tasks that were
not sent, newest first (depth first, so that a deep recursion does not go
breadth first); then what it can take back from the router; and when all that is
left has begun elsewhere it says so, and its executor is replaced by a spare one
until it goes on.  Tasks of strangers never run on a waiter's stack.

No wait can be a deadlock: what a waiter waits for runs on another executor, or
here, and whoever runs it may wait in the same way.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from msgspec import structs

from flamezmq.client.api import Client
from flamezmq.client.arguments import reduce_client, value_payload
from flamezmq.client.future import Future
from flamezmq.client.objects import InPlaceKeeper
from flamezmq.client.published import publish_here
from flamezmq.client.session import CANCEL_SECONDS, Session
from flamezmq.core.caller import DONE, FINISHED, RAW, RAW_ERROR, RUNNING, Calls, Dependent, Record
from flamezmq.core.nested import NestedCalls, OrderedCalls
from flamezmq.errors import DeadlinePassed
from flamezmq.running import Current, in_place
from flamezmq.serialize.failures import dump_error
from flamezmq.serialize.functions import load_function
from flamezmq.serialize.pickler import add_reducer
from flamezmq.serialize.values import Unfed, dump_value, load_call
from flamezmq.shims.attempts import in_place as call_in_place
from flamezmq.shims.interrupts import interrupts, unbroken
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.executor import Executor

#: A wait that is over sooner is not worth a spare executor.
SPARE_SECONDS = 0.002
#: Frames of Python that a task in place may need beside those of the user's functions.
FRAMES_PER_TASK = 40
#: So many tasks in place stand on one thread's stack; the next one gets a thread of its own.
DEPTH_PER_THREAD = 100
#: Deeper than this, something recurses without end.
MOST_DEPTH = 20_000
#: Functions of more bytes that tasks have left are thrown away when the next one ends.
MOST_LOADED_BYTES = 1 << 20
#: The stack of such a thread.
STACK_BYTES = 64 << 20
#: Unlike nested tasks, what a service is to do can't be run in place by who waits for it.
NO_SERVICES = (
    "a task can't open a session with an application: it would keep its executor while it waits for the "
    "service, which needs one, too. Open the session in your program, and pass futures from one to the "
    "other: service.submit(client.submit(fn, x))"
)
#: What sessions of nested tasks can't ask for, with what they have.
_OF_THE_OUTER = {
    "tenant": "",
    "priority": 0,
    "weight": 1.0,
    "min_executors": 0,
    "delay_release": 0.0,
    "resources": (),
    "gang": 1,
    "preempt_after": 0.0,
}

_depth: ContextVar[int] = ContextVar("flamezmq_depth", default=0)


def _tries_again(attempt: int) -> None:
    """What runs in place sees in `flm.current()` which attempt it is."""
    here = in_place.get()
    if here is not None:
        in_place.set(replace(here, attempt=attempt))


class NestedClient(Client):
    """Made by `flm.current().client`; one per executor process, for one task after the other."""

    _eager = False  # most are waited for at once, and run here
    _may_stream = False

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._loaded: dict[int, Callable[..., Any]] = {}  # functions that ran in place, by number
        self._loaded_bytes = 0  # of their pickles
        self._ended_here: deque[Future] = deque()  # tasks that ran in place, and that some may need
        self._look = False  # others may have ended, too
        self._in_place = 0  # how many have run so, for their names
        self._ending: dict[int, NestedCalls] = {}  # sessions of tasks that have ended before their own tasks
        self._aside: dict[int, NestedCalls] = {}  # sessions with tasks that need others
        self._in_place_keeper = InPlaceKeeper()
        self._promoted = 0  # how often some of these have got what they need
        super().__init__(executor.config.address, forward_output=True)
        self._objects.ends_with_process = True

    # --- the executor's side

    def task_ended(self, failed: bool) -> None:
        """The task that used this client is over: what it has left goes on without it, or is cancelled."""
        for session in list(self._sessions.values()):
            calls = session._calls
            assert isinstance(calls, NestedCalls)
            self._sessions.pop(calls.alias, None)
            if failed:
                session._cancel_rest()
            calls.let_go(failed)
            self._ending[calls.alias] = calls
        self._default = None
        self._ended_here.clear()
        if self._loaded_bytes > MOST_LOADED_BYTES:
            self._loaded.clear()  # what each task makes anew would stay here for ever
            self._loaded_bytes = 0
        self._close_ended()
        self._pump.push(look=False)

    def _close_ended(self) -> None:
        for alias, calls in list(self._ending.items()):
            if not calls.unfinished:
                del self._ending[alias]
                if calls.asked_to_open or calls.opened:
                    self._orders.append(m.Close(alias))
                self._forget(alias)

    # --- sessions

    def _new_calls(self, alias: int, id: str, ordered: bool = False) -> Calls:
        return OrderedCalls(alias, id) if ordered else NestedCalls(alias, id)

    def _session_of_objects(self, id: str) -> str:
        return self._executor.root_id  # a reference may be what the task returns

    def _environment(self) -> m.Environment:
        return self._executor.home.environment or super()._environment()

    def _spec(self, **asked: Any) -> m.SessionSpec:
        if asked.get("application"):
            raise ValueError(NO_SERVICES)
        for what in ("initializer", "max_tasks_per_child"):
            if asked.get(what) and asked.get("restarts", -1) < 0:
                raise ValueError(f"{what} is not for nested tasks: who waits for them runs them in place")
        for what, usual in _OF_THE_OUTER.items():
            if asked.get(what, usual) != usual:
                raise ValueError(f"{what} is not for nested tasks: they count for the session of their task")
        spec = super()._spec(**asked)
        return structs.replace(spec, outer=self._executor.session)

    def _within(self) -> str:
        return f"{self._executor.config.token}/{self._executor.config.number}"

    def _own(self) -> Session:
        """The session of the task that runs; the router hears of it with the first task that is sent."""
        session = self._default
        if session is None:
            with self._own_lock:
                session = self._default
                if session is None:
                    self._check_open()
                    session = self._new_session("nested")
                    self._default = session
        return session

    def _take_needs(self, future: Future, function: Any, call: Dependent) -> bool:
        calls = future._session._calls
        may_wait = super()._take_needs(future, function, call)
        future._label = f"{function.label} (nested)"
        if may_wait and not call.needs:
            return True
        if may_wait:
            assert isinstance(calls, NestedCalls)
            if isinstance(calls, OrderedCalls):  # calls behind it must not come before it
                self._wait(lambda: all(need._state in DONE for _, need in call.needs), None)
            calls.put_aside((future, function, call))
            self._aside[calls.alias] = calls
            if isinstance(calls, OrderedCalls):
                self._promote()
        return False

    def _promote(self) -> None:
        """Let those go on that have got what they need."""
        self._look = False
        self._ended_here.clear()
        with self._apply_lock:
            self._promote_those_after(None)

    def _promote_what_follows(self) -> None:
        """The same, for those that need what has just run here."""
        if self._look:
            self._promote()
        with self._apply_lock:
            while self._ended_here and self._aside:
                self._promote_those_after(self._ended_here.popleft())

    def _promote_those_after(self, ended: Future | None) -> None:
        for alias, calls in list(self._aside.items()):
            if calls.promote(value_payload, self._on_end, ended):
                self._promoted += 1
                if calls.outbox:
                    self._dirty[alias] = calls
            if not calls.aside:
                self._aside.pop(alias, None)

    def _stage(self) -> None:
        if self._aside:
            self._promote()
        if self._dirty:
            for calls in list(self._dirty.values()):
                if not calls.opened and not calls.asked_to_open:  # type: ignore[attr-defined]
                    self._open(calls)
        super()._stage()

    def _open(self, calls: Calls) -> None:
        assert isinstance(calls, NestedCalls)
        if calls.room() > 0 and calls.outbox:
            calls.asked_to_open = True
            self._orders.append(m.Open(calls.alias, calls.id, self._spec(name="nested")))
            self._orders.stage(self._line.link)

    def _room(self, calls: Calls) -> int:
        assert isinstance(calls, NestedCalls)
        return min(calls.room(), super()._room(calls))

    def _apply(self, message: Any, frames: list[Any]) -> None:
        if type(message) is m.Taken:
            calls = self._calls.get(message.session)
            if calls is not None:
                calls.on_taken(message)  # type: ignore[attr-defined]
            return
        super()._apply(message, frames)
        self._look = True
        if type(message) is m.Cancelled:  # what was taken back lies in the outbox again
            calls = self._calls.get(message.session)
            if calls is not None and calls.outbox:
                self._dirty[calls.alias] = calls
        if self._ending:
            self._close_ended()

    # --- waiting

    def _wait(self, done: Callable[[], bool], deadline: float | None) -> bool:
        if self._closed or self._errands.is_here():
            return self._drive(done, deadline)
        while not done():
            if deadline is not None and monotonic() >= deadline:
                return False
            record = self._newest()
            if record is not None:
                self._run_here(record)
            elif not self._take_back(done) and not self._stand_aside(done, deadline):
                return False
        return True

    def _wait_for_room(self, there_is_room: Callable[[], bool]) -> None:
        """A nested submit never blocks."""

    def _newest(self) -> Record | None:
        if self._aside:
            self._promote_what_follows()
        record = self._take_newest()
        if record is None and self._aside:
            self._promote()
            record = self._take_newest()
        return record

    def _take_newest(self) -> Record | None:
        with self._apply_lock:
            for calls in reversed(list(self._dirty.values())):
                record = calls.take_newest() if isinstance(calls, NestedCalls) else None
                if record is not None:
                    return record
        return None

    def _take_back(self, done: Callable[[], bool]) -> bool:
        """Ask for what was sent and has perhaps not begun; True when something can be run here now."""
        asked: list[NestedCalls] = []
        with self._apply_lock:
            for calls in self._calls.values():
                assert isinstance(calls, NestedCalls)
                indices = calls.ask_back()
                if indices:
                    self._orders.append(m.Cancel(calls.alias, indices))
                    asked.append(calls)
        if asked:
            self._drive(
                lambda: done() or not any(calls.wanted for calls in asked), monotonic() + CANCEL_SECONDS
            )
        return done() or any(calls.outbox for calls in asked)

    def _stand_aside(self, done: Callable[[], bool], deadline: float | None) -> bool:
        """All that is left has begun elsewhere: let another executor take this one's place.

        Until it is done, or something else can go on; False when the deadline passes first.
        """
        before = self._promoted

        def enough() -> bool:
            return done() or self._promoted != before

        soon = monotonic() + SPARE_SECONDS
        if self._drive(enough, soon if deadline is None else min(soon, deadline)):
            return True
        main = threading.current_thread() is threading.main_thread()
        if not main or (deadline is not None and deadline <= soon):
            return self._drive(enough, deadline)
        try:
            self._executor.pause(True)
            return self._drive(enough, deadline)
        finally:
            self._executor.pause(False)

    # --- running in place

    def _run_here(self, record: Record) -> None:
        depth = _depth.get() + 1
        token = _depth.set(depth)
        try:
            if depth % DEPTH_PER_THREAD:
                self._run(record, depth)
            else:
                self._run_in_a_thread(record, depth)
        finally:
            _depth.reset(token)

    @unbroken  # else the thread would go on by itself
    def _run_in_a_thread(self, record: Record, depth: int) -> None:
        """With a fresh stack: this one is deep."""
        before = threading.stack_size(STACK_BYTES)
        try:
            run = copy_context().run
            thread = threading.Thread(target=run, args=(self._run, record, depth), name="flm-deeper")
            thread.start()
        finally:
            threading.stack_size(before)
        thread.join()

    def _run(self, record: Record, depth: int) -> None:
        future, function, payload = record
        future._state = RUNNING
        session = future._session
        self._in_place += 1
        limit = sys.getrecursionlimit()
        future._place = f"~{self._in_place}"
        name = f"{session.id}/{future._place}"
        token = in_place.set(Current(name, session.id, 1, partial(publish_here, future)))
        form = RAW
        output: Any = b""
        try:
            sys.setrecursionlimit(limit + FRAMES_PER_TASK)
            if depth > MOST_DEPTH:
                raise RecursionError(f"more than {MOST_DEPTH} nested tasks wait for each other")
            if future.submitted and monotonic() - future.submitted >= function.options.deadline:
                raise DeadlinePassed(f"{function.label} (nested)", function.label, function.options.deadline)
            args, kwargs = load_call(payload.payload if type(payload) is Dependent else payload)
            call = self._loaded.get(function.number)
            if call is None:
                call = self._loaded[function.number] = call_in_place(
                    load_function(function.blob), _tries_again
                )
                self._loaded_bytes += len(function.blob)
            output = dump_value(call(*args, **kwargs), keeper=self._in_place_keeper)
        except Unfed as error:
            form, output = RAW_ERROR, dump_error(error.lost.of_task(name))
        except BaseException as error:
            form, output = RAW_ERROR, dump_error(error)
            if interrupts.has_hit():
                raise  # the task that waits for this one is to end
        finally:
            sys.setrecursionlimit(limit)
            in_place.reset(token)
            with self._apply_lock:
                if form == RAW_ERROR:
                    future._label = f"{function.label} (nested)"
                    session._calls.faults += 1
                session._calls._finish(future, form, output, FINISHED, self._on_end)
                if self._aside:
                    self._ended_here.append(future)


add_reducer(NestedClient, reduce_client)
