"""Simulated executors and workers, by the rules of executor.py and the worker.

An executor runs what it holds in order, one task at a time.  Results leave in
batches: after FLUSH_SECONDS, before a task that is not known to be short, and
when a task turns out to be long.  It reads its line when it flushes, and while
a task runs for long (unless that task never lets go of the GIL).

An initializer is the chance, as text, that it fails; it takes some milliseconds.

A task that is interrupted ends a little later, or it does not want to: then it
goes on for ever.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any
from zlib import crc32

from flamezmq.core.backoff import pause
from flamezmq.wire import messages as m
from flamezmq.wire.codec import join_payloads, split_payloads
from flamezmq.wire.composed import decompose, is_composed
from tests.sim.ends import Dialler, Router
from tests.sim.ledger import Ledger
from tests.sim.payloads import head, is_stream
from tests.sim.services import SimService
from tests.sim.streaming import SimOutlet
from tests.sim.world import World

if TYPE_CHECKING:
    from tests.sim.inner import SimInner

FLUSH_SECONDS = 0.008
LOOK_SECONDS = 0.002
SHORT_SECONDS = 0.005
ATTEND_SECONDS = 0.02
MOST_DISTRUST = 1000
ANNOUNCED_TRUST = -10

Task = tuple[int, int, int, Any]  # function, index, attempt, payload


def answer(blob: bytes, text: bytes, values: list[bytes]) -> bytes:
    """What a function makes of a call's payload and of the values that it has waited for."""
    return blob + b"|" + text + b"".join(b"<%08x" % crc32(value) for value in values)


def run_seconds(world: World, payload: bytes) -> float:
    """Drawn from the kind of the function; see users.KINDS."""
    random, kind = world.random, payload.split(b"#")[1]
    if kind == b"tiny":
        return 1e-5 + random.random() * 1e-4
    if kind == b"short":
        return 0.0003 + random.random() * 0.003
    if kind == b"long":
        return 0.005 + random.random() * 0.08
    if kind == b"liar":  # short, until it is not
        return 0.05 + random.random() * 0.3 if random.random() < 0.04 else 1e-5 + random.random() * 2e-4
    assert kind.startswith(b"="), kind  # for tests: exactly so long
    return float(kind[1:])


class Ended:
    __slots__ = ("attempt", "failed", "first", "function", "outputs", "payloads", "seconds")

    def __init__(self, function: int, first: int, attempt: int) -> None:
        self.function, self.first, self.attempt = function, first, attempt
        self.outputs: list[Any] = []
        self.payloads: list[bytes] = []
        self.failed: list[int] = []
        self.seconds = 0.0


class SimExecutor:
    """hogging: it never reads its line while a task runs."""

    def __init__(self, worker: SimWorker, number: int) -> None:
        self.worker, self.number = worker, number
        self.world, self.ledger = worker.world, worker.ledger
        self.name = f"{worker.token}/{number}"
        self.alive = True
        self.told_to_exit = False
        self.doomed = False
        self.hogging = self.world.random.random() < 0.2
        self.session = 0
        self.running = -1  # the page: index of the task that runs
        self.finished = 0
        self.due = 0.0  # the page: when its time is over, if it has a timeout
        self.killed_overdue = False
        self.tasks: deque[Task] = deque()
        self.functions: dict[int, bytes] = {}
        self.retried: dict[int, int] = {}  # index -> how often it was sent back
        self.unwanted: dict[int, None] = {}  # indices, of the session that it serves; -1: all
        self.stuck: Task | None = None  # was interrupted, and goes on
        self.trust: dict[int, int] = {}
        self.devices: tuple[str, ...] = ()
        self.initializers: dict[int, bytes] = {}  # session -> what is to be called before its first task
        self.initialized: dict[int, None] = {}
        self.broken: dict[int, None] = {}  # sessions
        self.begun: dict[int, int] = {}  # session -> tasks that have begun here
        self.service = SimService(self)
        self.ended: list[Ended] = []
        self.attending = False
        self.paused = False
        self.inner: SimInner | None = None
        self.actor = 0  # the session whose instance lives here
        self.outlet = SimOutlet(self)
        self.busy_seconds = 0.0
        self.by_session: dict[int, float] = {}
        self._began = 0.0
        self._look_at = 0.0
        self._half = -1
        self._flush_at = 0.0
        self._task: Task | None = None
        self._inbox: deque[tuple[Any, list[Any]]] = deque()
        self.dialler = Dialler(self.world, worker.router.network, "executor", self._on_message, self._on_lost)
        self.dialler.enqueue(m.Ready(worker.node, worker.token, number, 1000 + number))

    # --- its line

    def _on_message(self, message: Any, frames: list[Any]) -> None:
        if not self.alive:
            return
        self._inbox.append((message, frames))
        if self.running < 0:
            self._flush()
            self._next()
        elif self.attending:
            self._flush()

    def _on_lost(self, reason: str) -> None:
        if self.alive:
            self.world.trace("executor", self.name, "lost the router:", reason)
            self.worker.on_exit(self, expected=False, code=70)

    def _flush(self, more: m.Begun | m.Retry | m.Interrupted | None = None) -> None:
        """Send what has ended, then apply what came."""
        if self.ended:
            slices, seconds, outputs, failed = [], [], [], []  # type: ignore[var-annotated]
            for run in self.ended:
                for payload in run.payloads if self.dialler.link.up else ():
                    self.ledger.of(payload).sent += 1
                failed += [len(outputs) + index - run.first for index in run.failed]
                outputs += run.outputs
                slices.append(m.Slice(run.function, run.first, len(run.outputs), run.attempt))
                seconds.append(run.seconds)
            self.ended = []
            column, parts, frames = join_payloads(outputs)
            results = m.Results(self.session, slices, failed, seconds, parts, column)
            self.dialler.enqueue(results, frames)
            if self.doomed:
                self.world.after(0.0, self._doom)
        if more is not None:
            self.dialler.enqueue(more)
        self._look()

    def _look(self) -> None:
        """Apply what came; what has ended may wait on."""
        while self._inbox:
            self._apply(*self._inbox.popleft())
        self.dialler.flush()

    def hang_up(self, bye: bool) -> None:
        self.dialler.close(bye)
        if self.inner is not None:
            self.inner.dialler.close(bye)

    def _doom(self) -> None:
        if self.alive:
            self.worker.kill(self, "SIGKILL")

    def _apply(self, message: Any, frames: list[Any]) -> None:
        kind = type(message)
        if kind is m.Grant:
            assert message.session == self.session, "a grant for a session that it is not bound to"
            assert not self.service.leaving, "a grant before it had unbound"
            for number in message.forget:
                self.functions.pop(number)
            for new in message.functions:
                self.functions[new.number] = new.blob
            inputs = split_payloads(message.inputs, message.parts, frames)
            used = 0
            for part, retried in zip(message.slices, message.retried, strict=False):
                assert not retried or part.count == 1
                self.retried[part.first] = retried
            for part in message.slices:
                assert part.count > 0
                assert part.function in self.functions, "a function that was never sent"
                if message.session in self.broken:
                    used += part.count
                    continue
                for index in range(part.first, part.first + part.count):
                    self.tasks.append((part.function, index, part.attempt, inputs[used]))
                    used += 1
            assert used == len(inputs)
        elif kind is m.Bind:
            assert not self.tasks, "bound while it held tasks"
            assert self.running < 0, "bound while it ran"
            assert not self.actor or message.session == self.actor, "an actor's process serves others"
            assert not self.devices or message.devices == self.devices, "a process sees other devices"
            self.session, self.devices = message.session, message.devices
            self.service.on_bind(message)
            self.retried.clear()
            self.unwanted.clear()
            if message.initializer:
                assert message.session not in self.initialized, "an initializer is sent twice"
                self.initializers[message.session] = message.initializer
        elif kind is m.Retract:
            keep = max(message.keep - 1, 0) if self.running >= 0 else message.keep
            held = list(self.tasks)
            self._give_back(held[:keep], held[keep:])
        elif kind is m.Drop:
            wanted = set(message.indices)
            kept = [task for task in self.tasks if task[1] not in wanted]
            self._give_back(kept, [task for task in self.tasks if task[1] in wanted])
        elif kind is m.Pull:
            self.outlet.on_pull(message)
        elif kind is m.Interrupt:
            if message.session == self.session:
                self.unwanted.update(dict.fromkeys(message.indices or [-1]))
                self._ring()
        elif kind is m.Unbind:
            self.service.on_unbind(message.session)
        else:
            assert kind is m.Exit
            self.told_to_exit = True

    def _give_back(self, kept: list[Task], back: list[Task]) -> None:
        self.tasks = deque(kept)
        for _, index, _, _ in back:
            self.retried.pop(index, None)
        slices = [m.Slice(function, index, 1, attempt) for function, index, attempt, _ in back]
        self.dialler.enqueue(m.Retracted(self.session, slices))

    @property
    def preparing(self) -> bool:
        """Whether an initializer runs, and not yet the task."""
        return self.running >= 0 and self.session in self.initializers

    def _ring(self) -> None:
        """The attendant: interrupt what runs if it is not wanted."""
        task = self._task
        if task is None or not self.attending or self.preparing:
            return
        if -1 in self.unwanted or task[1] in self.unwanted:
            self.world.after(self.world.random.random() * 0.02, self._hit, task)

    def _hit(self, task: Task) -> None:
        if not self.alive or self._task is not task or self.stuck is task:
            return
        if self.world.random.random() < 0.2:
            self.stuck = task
            return
        if self.paused:
            self._pause(task, False)
        self.outlet.interrupt()
        self._task, self.attending = None, False
        self.running, self.due = -1, 0.0
        self.finished += 1
        self.retried.pop(task[1], None)
        if self.inner is not None:
            self.inner.end(True)
        self.ledger.of(head(task[3])).interrupted += 1
        self._flush(m.Interrupted(self.session, task[1], task[2]))
        self._next()

    # --- its work

    def _next(self) -> None:
        if not self.alive or self.running >= 0:
            return
        if not self.tasks:
            self._flush()
            if not self.tasks:
                if self.told_to_exit and not self.service.leaving:
                    self.service.end()
                    self.worker.on_exit(self, expected=True, code=0)
                return
        now = self.world.now
        if now >= self._look_at:
            if now >= self._flush_at or len(self.tasks) == self._half:
                self._flush()
                self._flush_at = now + FLUSH_SECONDS
                self._half = len(self.tasks) // 2 or -1
            else:
                self._look()
            self._look_at = now + LOOK_SECONDS
            if not self.tasks:  # they were retracted just now
                self._next()
                return
        task = self._task = self.tasks.popleft()
        if self.session in self.initializers:
            self._initialize(task)
            return
        if self.service.is_due(self.session):
            self.service.enter(task)
            return
        self._check_limits()
        function, index, attempt, payload = task
        text = head(payload)
        self.running, self._began = index, now
        self.ledger.of(text).begins.append((self.name, attempt))
        trust = self.trust.get(function, 0)
        if trust <= ANNOUNCED_TRUST:
            self._flush(m.Begun(self.session, index, attempt))
        elif trust <= 0 and self.ended:
            self._flush()
        if is_stream(payload):
            self.outlet.begin(task)
            return
        seconds = run_seconds(self.world, text)
        _, _, timeout = self._options(function)
        self.due = now + timeout if timeout else 0.0
        if b"#hangs" in text and timeout and self.world.random.random() < 0.7:
            seconds = 1e6
        if b"#poison" in text:
            self.world.after(seconds / 2, self._poisoned, task)
            return
        self.world.after(seconds, self._end, task)
        if seconds > ATTEND_SECONDS and not self.hogging:
            self.world.after(ATTEND_SECONDS * (1 + self.world.random.random()), self._attend, task)
        if seconds > SHORT_SECONDS and self.worker.pauses and self.world.random.random() < self.worker.pauses:
            self.world.after(seconds / 3, self._pause, task, True)

    def _options(self, function: int) -> tuple[int, float, float]:
        """(retries, backoff, timeout) of a function: its pickle tells, as in life."""
        retries, backoff, timeout = (self.functions[function].split(b":") + [b"0", b"0", b"0"])[2:5]
        return int(retries), float(backoff), float(timeout)

    def _initialize(self, task: Task) -> None:
        """Before the first task of a session, which is charged if this process dies meanwhile."""
        self.running = task[1]
        self.ledger.of(head(task[3])).begins.append((self.name, task[2]))
        self.attending = not self.hogging
        self.world.after(self.world.random.random() * 0.01, self._end_initializer, task)

    def _end_initializer(self, task: Task) -> None:
        if not self.alive or self._task is not task:
            return
        self.ledger.of(head(task[3])).begins.pop()  # it has not begun, after all
        self._task, self.attending, self.running = None, False, -1
        self.initialized[self.session] = None
        self.tasks.appendleft(task)
        if self.world.random.random() < float(self.initializers.pop(self.session)):
            self.tasks.clear()
            self.broken[self.session] = None
            self.dialler.enqueue(m.Broken(self.session, self.name, "RuntimeError: weather", ""))
        self._flush()
        self._next()

    def _check_limits(self) -> None:
        """What the session has asked for holds whenever a task begins."""
        session = self.worker.router.broker.sessions.get(self.session)
        self.service.check_bound(self.session)
        self.begun[self.session] = self.begun.get(self.session, 0) + 1
        if session is not None:
            most = session.spec.max_tasks_per_child
            assert not most or self.begun[self.session] <= most, "a process that runs too many tasks"
            assert not session.spec.initializer or self.session in self.initialized, "not initialized"
            if session.actor and self._task is not None:
                _, index, attempt, _ = self._task
                self.actor = session.number
                self.ledger.calls.setdefault(session.id, []).append((index, attempt, self.name))

    def _poisoned(self, task: Task) -> None:
        if self.alive and self._task is task:
            self.worker.kill(self, "SIGSEGV")

    def _attend(self, task: Task) -> None:
        if self.alive and self._task is task and self.running >= 0:
            self.attending = True
            self._flush(m.Begun(self.session, task[1], task[2]))
            self._ring()

    def _pause(self, task: Task, waits: bool) -> None:
        """Its task waits for tasks of its own, or goes on."""
        if self.alive and self._task is task:
            self.paused = waits
            if not head(task[3]).startswith(self.worker.node.encode()):  # else they would be ever more
                self._has_tasks_of_its_own(waits)
            self.dialler.enqueue(m.Waiting(self.session, waits))
            self._flush()
            if waits:
                self.world.after(self.world.random.random() * 0.05, self._pause, task, False)

    def _has_tasks_of_its_own(self, waits: bool) -> None:
        if self.inner is None:
            from tests.sim.inner import SimInner

            self.inner = SimInner(self)
        if waits:
            self.inner.begin()
        elif self.world.random.random() < 0.5:
            self.inner.ask_back()

    def _end(self, task: Task) -> None:
        if not self.alive or self._task is not task or self.stuck is task:
            return
        if self.paused:
            self.world.after(0.01, self._end, task)
            return
        function, index, attempt, payload = task
        now = self.world.now
        seconds = now - self._began
        self._task, self.attending = None, False
        self.running, self.due = -1, 0.0
        self.finished += 1
        self.busy_seconds += seconds
        self.by_session[self.session] = self.by_session.get(self.session, 0.0) + seconds
        text = head(payload)
        retried = self.retried.pop(index, 0)
        fails = b"#raises" in text or (b"#flaky" in text and self.world.random.random() < 0.6)
        if self.inner is not None:
            self.inner.end(fails)
        retries, backoff, _ = self._options(function)
        if fails and retried < retries:
            self.ledger.of(text).sent_back += 1
            back = m.Retry(self.session, m.Slice(function, index, 1, attempt), pause(backoff, retried))
            self._flush(back)
            self._next()
            return
        self.ledger.of(text).finished += 1
        last = self.ended[-1] if self.ended else None
        if (
            last is None
            or last.function != function
            or last.attempt != attempt
            or last.first + len(last.outputs) != index
        ):
            last = Ended(function, index, attempt)
            self.ended.append(last)
        call, *values = decompose(payload) if is_composed(payload) else [payload]
        said = answer(self.functions[function], text, [head(value) for value in values])
        last.outputs.append([said, *call[1:]] if type(call) is list else said)
        if fails:
            last.failed.append(index)
        last.payloads.append(text)
        last.seconds += seconds
        if seconds < SHORT_SECONDS:
            self.trust[function] = self.trust.get(function, 0) + 1
        else:
            self.trust[function] = -min(int(seconds / SHORT_SECONDS), MOST_DISTRUST)
        self._next()


class SimWorker:
    """Forks executors, reports their deaths, replaces them."""

    def __init__(
        self, router: Router, ledger: Ledger, node: str, life: int, executors: int, pauses: float = 0.0
    ) -> None:
        self.router, self.ledger, self.world = router, ledger, router.world
        self.node, self.token = node, f"{node}.{life}"
        self.life, self.size, self.pauses = life, executors, pauses
        self._forking = 0
        self.alive = True
        self.closing = False
        self.executors: dict[int, SimExecutor] = {}
        self.retired: list[SimExecutor] = []
        self._last_number = 0
        self.dialler = Dialler(self.world, router.network, "worker", self._on_message, self._on_lost)
        register = m.Register(node, self.token, 1, float(executors), 1 << 30, executors, 2, (), ("0", "1"))
        register.store = f"{self.token}-store"
        self.dialler.enqueue(register)
        self._fill(0.0, 0.005)

    def _fill(self, least: float, spread: float) -> None:
        while len(self.executors) + self._forking < self.size:
            self._forking += 1
            self.world.after(least + self.world.random.random() * spread, self._fork)

    def _fork(self) -> None:
        self._forking -= 1
        if self.alive and not self.closing:
            self._last_number += 1
            self.executors[self._last_number] = SimExecutor(self, self._last_number)

    def _on_message(self, message: Any, frames: list[Any]) -> None:
        if type(message) is m.Kill:
            executor = self.executors.get(message.number)
            if executor is None or not executor.alive:
                return
            if message.grace >= 0 and not 0.0 < executor.due <= self.world.now - message.grace:
                return  # its task has time left
            runs = executor.session, executor.running
            if message.index >= 0 and (runs != (message.session, message.index) or executor.preparing):
                return  # another one runs
            self.world.trace("killed by order", executor.name)
            executor.killed_overdue = message.grace >= 0
            self.kill(executor, "SIGKILL", expected=True)
        elif type(message) is m.Target:
            self.size = message.executors
            self._fill(0.001, 0.01)
        elif type(message) is m.Flush:
            self.world.after(self.world.random.random() * 0.002, self._flush, message.request)

    def _flush(self, request: int) -> None:
        if self.alive:
            self.dialler.send(m.Flushed(request))

    def _on_lost(self, reason: str) -> None:
        """The router does not want it any more: it ends, and its executors with it."""
        self.crash()

    def kill(self, executor: SimExecutor, how: str, expected: bool = False) -> None:
        """The executor dies now; its page stays."""
        self.world.trace(
            executor.name, "dies by", how, "running", executor.running, "finished", executor.finished
        )
        if executor.running >= 0 and not expected and not executor.service.entering:
            assert executor._task is not None
            self.ledger.of(head(executor._task[3])).took_down += 1
        self._gone(executor, how, 0, expected)

    def on_exit(self, executor: SimExecutor, expected: bool, code: int) -> None:
        self.world.trace(executor.name, "exits with", code)
        if executor.running >= 0 and not expected and executor._task and not executor.service.entering:
            self.ledger.of(head(executor._task[3])).took_down += 1
        self._gone(executor, "", code, expected)

    def _gone(self, executor: SimExecutor, signal: str, code: int, expected: bool) -> None:
        executor.alive = False
        executor.service.check_calls()
        executor.hang_up(bye=not signal and expected)
        self.retired.append(self.executors.pop(executor.number))
        if executor.killed_overdue:
            assert executor._task is not None
            self.ledger.of(head(executor._task[3])).overdue += 1
        died = m.Died(
            executor.number, 1000 + executor.number, self.node, executor.session, executor.running,
            executor.finished, signal, code, False, 0, (), expected, executor.killed_overdue,
            executor.service.entering,
        )  # fmt: skip
        random = self.world.random
        self.world.after(random.choice((0.0, random.random() * 0.03)), self._report, died)
        self._fill(0.001, 0.01)

    def _report(self, died: m.Died) -> None:
        if self.alive:
            self.dialler.send(died)

    def crash(self) -> None:
        """It dies, and its executors with it; nobody reports."""
        if not self.alive:
            return
        self.world.trace("worker", self.token, "is gone")
        self.alive = False
        for executor in self.executors.values():
            executor.alive = False
            executor.hang_up(bye=False)
            self.retired.append(executor)
        self.executors.clear()
        self.dialler.close(bye=False)

    def drain(self, seconds: float) -> None:
        """It leaves in order: its executors end what they run, for so long, and exit."""
        if self.closing or not self.alive:
            return
        self.world.trace("worker", self.token, "drains for", seconds)
        self.closing = True
        self.dialler.send(m.Leave())
        self._drained(self.world.now + seconds)

    def _drained(self, until: float) -> None:
        if not self.alive:
            return
        if self.world.now >= until:
            for executor in list(self.executors.values()):
                self.kill(executor, "SIGTERM", expected=True)
        if self.executors:
            self.world.after(0.01, self._drained, until)
        else:
            self.world.after(0.05, self._bye)  # all deaths are reported by then

    def leave(self) -> None:
        """An orderly end: executors first."""
        self.closing = True
        for executor in list(self.executors.values()):
            self.kill(executor, "SIGTERM", expected=True)
        self.world.after(0.1, self._bye)

    def _bye(self) -> None:
        self.alive = False
        self.dialler.close(bye=True)
