"""The executor: a process that runs tasks, one session at a time.

The main thread runs what the router has granted and does its own I/O between
tasks.  Results leave in batches, but never wait for a task that is not known to
be short: they are sent before it starts.  While a task runs for long, the
attendant thread answers the router, as far as the GIL lets it.

Rules: only `_apply` adds tasks and only the end of a task adds results; both
happen in plain appends, so that the two threads need no lock but the line's.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable
from itertools import repeat
from time import perf_counter
from typing import TYPE_CHECKING, Any

from flamezmq import page, running, streams
from flamezmq.attendant import Attendant
from flamezmq.binding import Bindings, leave_fork
from flamezmq.errors import FlameError, NoTask, ProtocolError, Unpicklable
from flamezmq.executor_config import ExecutorConfig
from flamezmq.home import Home
from flamezmq.net.line import Line
from flamezmq.serialize.failures import dump_error
from flamezmq.serialize.functions import load_function
from flamezmq.serialize.initializer import Assigned
from flamezmq.serialize.values import Unfed, dump_value, load_call
from flamezmq.shims.alarm import alarm
from flamezmq.shims.attempts import note_attempts, prepare
from flamezmq.shims.interrupts import interrupts, unbroken
from flamezmq.shims.slices import SliceResult
from flamezmq.shims.streaming import Outlet
from flamezmq.store import access, keeping
from flamezmq.store.ahead import Ahead
from flamezmq.store.keeping import Keeper, NodeKeeper
from flamezmq.store.names import name_of
from flamezmq.wire import messages as m
from flamezmq.wire.codec import join_payloads, split_payloads
from flamezmq.wire.handles import is_handle, unpack

if TYPE_CHECKING:
    from flamezmq.client.nested import NestedClient
    from flamezmq.optioned import Options

#: Finished results wait at most so long for company, and only while the next task is known to be short.
FLUSH_SECONDS = 0.008
#: Between short tasks, how often to look whether the router wants something back.
LOOK_SECONDS = 0.002
#: A task below it is short.
SHORT_SECONDS = 0.005
#: After a task that was not short, its function must show one short task for each SHORT_SECONDS that
#: it took before it is trusted again, at most so many.  (A busy machine makes any task take some.)
MOST_DISTRUST = 1000
#: A function that is distrusted so much has its tasks announced: one of them has just taken 50 ms.
ANNOUNCED_TRUST = -10
#: Results of so many bytes go out at once.
FLUSH_BYTES = 1 << 16
#: So many tasks that were sent back are remembered without asking whether they are still here.
MOST_RETRIED = 1000


class Function:
    """A function that was shipped here; unpickled when it is first called.

    trust    how many short tasks in a row it has run; what is not above 0 is not known to be short
    options  to be asked when a task has failed; None for most, and until the first call
    """

    __slots__ = ("_assigned", "_blob", "call", "number", "options", "trust")

    def __init__(self, number: int, blob: bytes, assigned: Assigned) -> None:
        self.number, self._blob, self._assigned = number, blob, assigned
        self.options: Options | None = None
        self.trust = 0
        self.call: Callable[..., Any] = self._first_call

    def _first_call(self, /, *args: Any, **kwargs: Any) -> Any:
        self._load()  # fails each task that needs it, with the reason
        return self.call(*args, **kwargs)

    @unbroken  # else an import that was interrupted fails for ever
    def _load(self) -> None:
        function = load_function(self._blob)
        self.call, self.options = prepare(function)
        self._blob = b""
        self.share_globals()

    def share_globals(self) -> None:
        """Let it see what initializers have assigned."""
        if not self._blob:
            self._assigned.share(self.call)


class Ended:
    """A run of finished tasks that were not sent yet: consecutive indices of one function.

    first    index of the first; moved on by whoever sends, under the line's lock
    since    when the first of them began (or the last before it ended)
    """

    __slots__ = ("attempt", "failed", "first", "function", "outputs", "since")

    def __init__(self, function: Function, first: int, attempt: int, since: float) -> None:
        self.function, self.first, self.attempt, self.since = function, first, attempt, since
        self.outputs: list[Any] = []
        self.failed: list[int] = []  # indices


class Executor:
    """The two threads and what they share."""

    def __init__(self, config: ExecutorConfig) -> None:
        self.config = config
        self.line = Line(config.address, "executor", self._apply)
        self.words = page.open_words(config.page_fd)
        self.session = 0
        self.tasks: deque[tuple[Function, int, int, Any]] = deque()
        self.functions: dict[int, Function] = {}
        self.ended: list[Ended] = []
        self.bindings = Bindings(self)
        self.retried: dict[int, int] = {}  # index -> how often the task was sent back
        self.forked = False
        self.terminated = False  # by SIGTERM: the task that runs is given up
        self._last_end = 0.0
        self._exit = False
        self._to_say: deque[m.Waiting] = deque()
        self.session_id = ""
        self.root_id = ""  # of the outermost session of which that is a nested one, or its own
        self.nested: NestedClient | None = None  # made by a task that asks for it
        self._nesting = threading.Lock()
        self.home = Home()
        self.keeper = NodeKeeper(name_of(config.token), lambda: self.session_id)
        self.ahead = Ahead(self._upcoming)
        self.instance: Any = None  # of the actor that lives here, if one does
        self.outlet = Outlet(self)
        self.attendant = Attendant(self)

    # --- main thread

    def serve(self) -> None:
        """Introduce itself, then run tasks until told to exit."""
        self.line.open()
        self.line.enqueue(m.Ready(self.config.node, self.config.token, self.config.number, os.getpid()))
        self.attendant.start()
        while True:
            if self.tasks:
                self._work()
                if self.ahead.opened:  # for tasks that were taken back
                    self.ahead.opened.clear()
            if self.bindings.leaving:
                self.bindings.leave()
            self._flush(wait=not self._exit)
            if self._exit and not self.tasks:
                return

    def _work(self) -> None:
        """Run what is held.  The hot loop: about 3 us a task beside the user's function."""
        words, tasks = self.words, self.tasks
        popleft = tasks.popleft
        if self.attendant.parked:
            self.attendant.rouse()
        session = words[page.SESSION] = self.session
        if session in self.bindings.due:
            self.bindings.prepare(session)
            return
        finished = words[page.FINISHED]
        now = self._last_end = perf_counter()
        flush_at, look_at = now + FLUSH_SECONDS, now + LOOK_SECONDS
        half = len(tasks) // 2 or -1
        ended: Ended | None = None
        while tasks:
            try:
                function, index, attempt, payload = popleft()
            except IndexError:
                return  # the attendant has just given it back
            words[page.RUNNING] = index + 1
            if function.trust <= 0:
                self._begin(function, index, attempt)
            if (
                ended is None
                or ended.function is not function
                or index != ended.first + len(ended.outputs)
                or attempt != ended.attempt
            ):
                with self.line.lock:
                    ended = Ended(function, index, attempt, now)
                    self.ended.append(ended)
            try:
                output = run_task(function, payload, self.keeper)
            except BaseException as error:
                if self.terminated:
                    raise
                if type(error) is Unfed:  # it has not begun: its options have nothing to say
                    error = error.lost.of_task(self.task_id())
                elif self._send_back(function, index, attempt, error):
                    if self.session != session:
                        return  # as below
                    finished, ended, half = finished + 1, None, len(tasks) // 2 or -1
                    now = self._last_end = perf_counter()
                    continue
                output = self._failure(error)
                ended.failed.append(index)
            if self.forked:
                leave_fork()
            if self.nested is not None:
                self.nested.task_ended(failed=ended.failed[-1:] == [index])
            finished += 1
            words[page.FINISHED] = finished
            words[page.RUNNING] = 0
            before, now = now, perf_counter()
            self._last_end = now
            ended.outputs.append(output)
            if now - before < SHORT_SECONDS:
                function.trust += 1
            else:
                function.trust = -min(int((now - before) / SHORT_SECONDS), MOST_DISTRUST)
            payload = None  # the user's memory is the user's
            if len(tasks) == half or now > flush_at or type(output) is list or len(output) > FLUSH_BYTES:
                self._flush()  # at half of what it held: more shall be here before the rest is done
                if self.session != session:
                    return  # it serves another one now, whose tasks are a new piece of work
                ended, half = None, len(tasks) // 2 or -1
                now = self._last_end = perf_counter()
                flush_at, look_at = now + FLUSH_SECONDS, now + LOOK_SECONDS
            elif now > look_at:
                with self.line.lock:
                    self.line.turn(0)
                    self.line.transmit()  # what is given back shall not wait for the next task
                now = perf_counter()
                look_at = now + LOOK_SECONDS
            output = None

    def _begin(self, function: Function, index: int, attempt: int) -> None:
        """Before a task that may be long: send what is finished, and say that it has begun if it is.

        What takes some milliseconds is not announced: that would cost as much as
        its result.  Nor is the very first task of a function: most are short, and
        the attendant does it if this one is not.
        """
        if function.trust <= ANNOUNCED_TRUST:
            self._flush(m.Begun(self.session, index, attempt))
        elif self.ended:
            self._flush()

    def _send_back(self, function: Function, index: int, attempt: int, error: BaseException) -> bool:
        """Whether a failed task has no result: it was interrupted, or runs again; then the router is told."""
        hit, options = interrupts.has_hit(), function.options
        if self.forked or not (hit or options):
            return False
        retried = self.retried.pop(index, 0)
        more: m.Interrupted | m.Retry
        if hit or options is None:
            more = m.Interrupted(self.session, index, attempt)
        elif options.again(error, retried) and self.outlet.may_run_again(index, attempt):
            part = m.Slice(function.number, index, 1, attempt)
            more = m.Retry(self.session, part, options.pause(retried))
        else:
            note_attempts(error, attempt)
            return False
        if self.nested is not None:
            self.nested.task_ended(failed=True)
        self.words[page.FINISHED] += 1
        self.words[page.RUNNING] = 0
        self._flush(more)
        return True

    @staticmethod
    def _failure(error: BaseException) -> bytes:
        try:
            return dump_error(error)
        except BaseException as worse:  # an exception whose own methods fail
            return dump_error(RuntimeError(f"{type(error).__qualname__} that can't be reported: {worse!r}"))

    def _flush(self, more: m.Begun | m.Retry | m.Interrupted | None = None, wait: bool = False) -> None:
        """Send what has ended, and `more`; `wait` for the next message."""
        if streams.printed:  # what has no newline yet is shown before its task has ended
            streams.flush_printed()
        with self.attendant.claim():
            self.attendant.claims = False
            self._commit(keep_open=self.words[page.RUNNING] != 0)
            if more is not None:
                self.line.enqueue(more)
            self.line.turn(-1 if wait and not self.tasks else 0)

    def _upcoming(self) -> list[Any]:
        """The payloads of the tasks that are held."""
        return [payload for _, _, _, payload in list(self.tasks)]

    # --- what a running task asks for

    def running(self) -> tuple[str, int, int] | None:
        """Session id, index and attempt of the task that runs now."""
        index = self.words[page.RUNNING] - 1
        ended = self.ended[-1:]
        return (self.session_id, index, ended[0].attempt) if index >= 0 and ended else None

    def task_id(self) -> str:
        """Of the task that runs now; not of one that it runs in place."""
        session, index, _ = self.running() or ("", 0, 0)
        return f"{session}/{index}"

    def who(self) -> tuple[str, int]:
        """Id and attempt of the task that runs now, for its own eyes."""
        try:
            task = running.current()
        except NoTask:
            return "", 1
        return task.task_id, task.attempt

    def nested_client(self) -> NestedClient:
        """The client for the tasks of tasks; connects when it is first asked for."""
        with self._nesting:
            if self.nested is None:
                from flamezmq.client.nested import NestedClient

                self.nested = NestedClient(self)
            return self.nested

    @unbroken
    def pause(self, waits: bool, reader: bool = False) -> None:
        """Tell the router that the running task waits for its own tasks or its reader, or that it goes on."""
        self._to_say.append(m.Waiting(self.session, waits, reader))
        with self.attendant.claim():
            self.attendant.claims = False
            self._commit(keep_open=True)
            self.line.turn(0)

    # --- the end

    def leave(self) -> None:
        """Hang up.  Who leaves a task half-done says no BYE: its worker tells what became of it."""
        if self.terminated:
            try:
                self._flush()
            except FlameError:
                pass  # the router is gone
        half_done = bool(self.tasks or self.words[page.RUNNING])
        self.line.close(bye=not half_done, flush=True)

    # --- both threads, under the line's lock

    def _commit(self, keep_open: bool) -> None:
        """Move finished results into the link, as one message.

        keep_open: the main thread may still add to the last run.
        """
        while self._to_say:
            self.line.enqueue(self._to_say.popleft())
        if self.outlet.streams or self.outlet.published:
            self.outlet.commit()
        runs = self.ended
        if not runs:
            return
        slices: list[m.Slice] = []
        seconds: list[float] = []
        outputs: list[Any] = []
        failed: list[int] = []
        ends = [run.since for run in runs[1:]]
        ends.append(self._last_end)
        for run, until in zip(runs, ends, strict=True):
            count = len(run.outputs)
            if not count:
                continue
            for index in [index for index in run.failed if index < run.first + count]:
                failed.append(len(outputs) + index - run.first)
                run.failed.remove(index)
            outputs += run.outputs[:count]
            slices.append(m.Slice(run.function.number, run.first, count, run.attempt))
            seconds.append(until - run.since)
            del run.outputs[:count]
            run.first += count
            run.since = until
        self.ended = runs[-1:] if keep_open else []
        if slices:
            stored: list[int] = []
            last = b""
            if self.keeper.has_kept:  # since the last message, or while this one was made
                self.keeper.has_kept = False
                for position, output in enumerate(outputs):
                    if is_handle(output):
                        handle = unpack(output)
                        stored += (position, handle.size)
                        last = handle.id
            column, parts, frames = join_payloads(outputs)
            results = m.Results(self.session, slices, failed, seconds, parts, column, stored, last)
            self.line.enqueue(results, frames)

    def _apply(self, message: Any, frames: list[Any]) -> None:
        kind = type(message)
        if kind is m.Grant:
            self._on_grant(message, frames)
        elif kind is m.Bind:
            self.session, self.session_id = message.session, message.id
            self.root_id = message.root or message.id
            keeping.arrivals.drop()
            self.bindings.on_bind(message)
            self.retried.clear()
            self.home.enter(message.environment)
            if message.devices:
                self.home.see(message.devices)
        elif kind is m.Retract:
            self._give_back(message.keep, None)
        elif kind is m.Drop:
            self._give_back(0, set(message.indices))
        elif kind is m.Interrupt:
            interrupts.note(message.session, message.indices)
        elif kind is m.Pull:
            self.outlet.on_pull(message)
        elif kind is m.Unbind:
            self.bindings.on_unbind(message)
            keeping.arrivals.drop()
        elif kind is m.Huddle:
            self.line.huddle(message.cpu)
        elif kind is m.Exit:
            self._exit = True

    def _on_grant(self, message: m.Grant, frames: list[Any]) -> None:
        for number in message.forget:
            self.functions.pop(number, None)
        for new in message.functions:
            self.functions[new.number] = Function(new.number, new.blob, self.bindings.assigned)
        if message.retried:
            self._note_retried(message)
        inputs = (
            split_payloads(message.inputs, message.parts, frames)
            if frames or message.parts
            else message.inputs
        )
        if sum(part.count for part in message.slices) != len(inputs):
            raise ProtocolError("a grant whose inputs are not those of its tasks")
        if message.session in self.bindings.broken:
            return  # the router had not heard of it yet
        used = 0
        for part in message.slices:
            function = self.functions.get(part.function)
            if function is None:
                raise ProtocolError("a grant of a function that never came")
            here = inputs if part.count == len(inputs) else inputs[used : used + part.count]
            indices = range(part.first, part.first + part.count)
            self.tasks.extend(zip(repeat(function), indices, repeat(part.attempt), here, strict=False))
            used += part.count

    def _note_retried(self, message: m.Grant) -> None:
        """Remember how often these were sent back; it is forgotten, now and then, of those that are gone."""
        if len(self.retried) > MOST_RETRIED:
            here = {index for _, index, _, _ in list(self.tasks)}
            here.add(self.words[page.RUNNING] - 1)
            self.retried = {index: count for index, count in self.retried.items() if index in here}
        for part, retried in zip(message.slices, message.retried, strict=False):
            if retried:
                self.retried[part.first] = retried

    def _give_back(self, keep: int, wanted: set[int] | None) -> None:
        """Answer Retract (all but the `keep` oldest, the running one counted) or Drop (those `wanted`).

        Everything is taken out first: the main thread may take its next task
        at any moment, and either it gets one or we do.
        """
        taken: list[tuple[Function, int, int, Any]] = []
        while self.tasks:
            try:
                taken.append(self.tasks.pop())
            except IndexError:
                break
        taken.reverse()
        if wanted is None:
            keep = max(keep - 1, 0) if self.words[page.RUNNING] else keep
            kept, back = taken[:keep], taken[keep:]
        else:
            kept = [task for task in taken if task[1] not in wanted]
            back = [task for task in taken if task[1] in wanted]
        self.tasks.extend(kept)
        slices = [m.Slice(function.number, index, 1, attempt) for function, index, attempt, _ in back]
        self.line.enqueue(m.Retracted(self.session, slices))


def run_task(function: Function, payload: Any, keeper: Keeper | None = None) -> Any:
    """Make a call, and its value a payload; all in which a task may be interrupted.

    In a slice, what can't be pickled spoils nothing but itself.
    """
    args, kwargs = load_call(payload)
    value = function.call(*args, **kwargs)
    try:
        return dump_value(value, "the result", keeper)
    except Unpicklable:
        if type(value) is not SliceResult:
            raise
    return dump_value(value.isolate(), "the result", keeper)


def main(config: ExecutorConfig) -> None:
    """Serve until told to exit, or until the router or the worker is gone."""
    executor = running.executor = Executor(config)
    access.own, access.look_ahead = name_of(config.token), executor.ahead.take
    Outlet.of_process = executor.outlet
    streams.mark_streams(executor.words)
    alarm.serve(executor.words, executor.who)
    interrupts.serve(executor.words, executor.task_id, run_task)

    def in_child() -> None:
        executor.forked = True
        alarm.abandon()
        interrupts.abandon()
        executor.line.abandon()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # of a child of the user's, `terminate` means its end

    os.register_at_fork(after_in_child=in_child)

    def on_term(*_: object) -> None:
        executor.terminated = True
        sys.exit(0)

    signal.signal(signal.SIGTERM, on_term)
    try:
        executor.serve()
    except FlameError as error:
        if executor.forked:
            leave_fork()
        print(f"flamezmq: {error}", file=sys.stderr)
        sys.exit(70)
    finally:
        if executor.forked:
            leave_fork()
        executor.bindings.end()
        if executor.nested is not None:
            executor.nested.close()
        executor.leave()
