"""Simulated streams: tasks that give values before their results, and readers that are slow, or go away.

A stream's payload ends in "#stream:COUNT:REPLAY".  Both ends keep their accounts
as in life: `Outgoing` in the executor, `Inflow` at the reader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flamezmq.client.stream import Inflow
from flamezmq.core import caller
from flamezmq.shims.streaming import LEAST_VALUES, Outgoing
from flamezmq.wire import messages as m
from flamezmq.wire.codec import join_payloads, split_payloads
from flamezmq.wire.streams import PUBLISHED, REPLAYED, STREAMED
from tests.sim.payloads import head, stream_terms

if TYPE_CHECKING:
    from tests.sim.nodes import SimExecutor, Task
    from tests.sim.users import Future, SimSession

#: Seconds that a value of these kinds takes to make, at most.
STEP_SECONDS = 0.004
#: A wait for the reader that lasts longer is told to the router.
PAUSE_SECONDS = 0.01


class SimOutlet:
    """Of one executor.  One value after the other, as far as the credit goes; then the task ends."""

    def __init__(self, executor: SimExecutor) -> None:
        self.executor, self.world = executor, executor.world
        self._task: Task | None = None
        self._stream: Outgoing | None = None
        self._early: dict[tuple[int, int], None] = {}  # stopped before it began
        self._waits = self._said = False
        self._published = 0

    def begin(self, task: Task) -> None:
        executor = self.executor
        key = (executor.session, task[1], task[2])
        self._task = task
        self._stream = stream = Outgoing(key, stream_terms(task[3])[1])
        stream.window = LEAST_VALUES
        stream.stopped = key[:2] in self._early
        self._early.clear()
        self._waits, self._said, self._published = False, False, 0
        executor.attending = not executor.hogging
        self._later()

    def _later(self) -> None:
        self.world.after(self.world.random.random() * STEP_SECONDS, self._step, self._task)

    def _step(self, task: Task) -> None:
        stream = self._stream
        if not self._runs(task) or stream is None:
            return
        if stream.stopped or stream.produced == stream_terms(task[3])[0]:
            self._send(stream)
            self.executor._end(task)
            return
        if not stream.may_go_on():
            self._waits = self.executor.attending = True  # until credit comes, or has come already
            self._send(stream)
            self.world.after(PAUSE_SECONDS, self._pause, task, stream.taken)
            return
        name = b"%d" % stream.produced
        stream.append(name if stream.produced % 3 else [name, b"a buffer"], 0.0)
        if self.world.random.random() < 0.7:
            self._send(stream)
        if self.world.random.random() < 0.1:
            self._publish(stream)
        self._later()

    def _pause(self, task: Task, taken: int) -> None:
        """It has waited for a while, unless the reader has moved since."""
        stream = self._stream
        waits = self._waits and not self._said
        if waits and stream is not None and self._runs(task) and stream.taken == taken:
            self._say_waiting(True)
            self.executor._flush()

    def _say_waiting(self, waits: bool) -> None:
        self._said = waits
        self.executor.dialler.enqueue(m.Waiting(self.executor.session, waits, True))

    def interrupt(self) -> None:
        """The task is given up."""
        if self._said:
            self._say_waiting(False)

    def _runs(self, task: Task) -> bool:
        executor = self.executor
        return executor.alive and executor._task is task and executor.stuck is not task

    def _send(self, stream: Outgoing) -> None:
        if stream.values:
            kind = REPLAYED if stream.replay else STREAMED
            column, parts, frames = join_payloads(stream.values)
            count = len(stream.values)
            part = m.Part(*stream.key, kind, stream.sent, count, stream.window, parts, column)
            self.executor.dialler.enqueue(part, frames)
            stream.sent += count
            stream.values = []
        self.executor._flush()

    def _publish(self, stream: Outgoing) -> None:
        part = m.Part(*stream.key, PUBLISHED, self._published, 1, 1, [], [b"p%d" % self._published])
        self._published += 1
        self.executor.dialler.enqueue(part)

    def on_pull(self, message: m.Pull) -> None:
        stream = self._stream
        running = stream is not None and self._task is not None and self._runs(self._task)
        if stream is None or not running or stream.key[:2] != (message.session, message.index):
            if message.stop:
                self._early[message.session, message.index] = None
            return
        assert message.attempt in (0, stream.key[2])
        assert message.taken <= stream.sent or stream.replay, "credit for what was never sent"
        stream.taken = max(stream.taken, message.taken)
        stream.stopped = stream.stopped or message.stop
        if self._waits:
            self._waits = False
            if self._said:
                self._say_waiting(False)
            self._later()


class Reader:
    """Reads one stream, in its own time."""

    def __init__(self, session: SimSession, future: Future) -> None:
        self.session, self.future = session, future
        self.world = session.user.world
        self.inflow = Inflow()
        self.got: list[Any] = []
        self.published = (0, -1)
        self.slow = self.world.random.choice((0.0, 0.001, 0.05))
        self.leaves_after = self.world.random.choice((-1, -1, -1, 0, 3))
        self._due = False

    def on_part(self, message: m.Part, frames: list[Any]) -> None:
        payloads = split_payloads(message.values, message.parts, frames)
        assert len(payloads) == message.count
        if message.kind == PUBLISHED:
            number = (message.attempt, message.first)
            assert number > self.published, "published twice"
            self.published = number
            return
        inflow = self.inflow
        if inflow.closed:
            self._say(m.Pull(self.session.calls.alias, message.index, message.attempt, 0, True))
            return
        again = message.attempt != inflow.attempt
        assert not (again and inflow.received) or stream_terms(self.future.payload)[1], "it runs again"
        assert message.first == (0 if again else inflow.received), "values are missing"
        inflow.window = message.window
        inflow.add(message.attempt, message.first, payloads)
        ahead = inflow.received - max(inflow.told, inflow.taken if again else 0)
        assert ahead <= message.window, f"{ahead} values ahead of the reader"
        if again and inflow.taken:
            self._say(m.Pull(self.session.calls.alias, message.index, message.attempt, inflow.taken))
            inflow.told = inflow.taken
        self._later()

    def _later(self) -> None:
        if not self._due:
            self._due = True
            self.world.after(self.world.random.random() * self.slow, self._read)

    def _read(self) -> None:
        self._due = False
        inflow, done = self.inflow, self.future._state in caller.DONE
        if inflow.closed or self.session.user.gone:
            return
        if len(self.got) == self.leaves_after and not done:
            self._leave()
            return
        if self._take() and not self.session.closing:
            if inflow.owes() and not done:
                pull = m.Pull(self.session.calls.alias, self.future._index, inflow.attempt, inflow.taken)
                self._say(pull)
                inflow.told, inflow.untold_bytes = inflow.taken, 0
            self._later()

    def _take(self) -> bool:
        try:
            self.got.append(self.inflow.take())
        except IndexError:
            return False
        return True

    def _leave(self) -> None:
        """As `client.stream.stop`."""
        self.inflow.closed = True
        user, session = self.session.user, self.session
        user.cancel(session, [self.future], running=False)
        if self.future._state not in caller.DONE:
            self._say(m.Pull(session.calls.alias, self.future._index, 0, 0, True))

    def _say(self, message: m.Pull) -> None:
        user = self.session.user
        if not user.gone and not self.session.closing:
            user.dialler.send(message)

    def check(self) -> None:
        """When the task has ended: each value once, in order, and none is missing if it has ended well."""
        while not self.inflow.closed and self._take():
            pass
        future, name = self.future, head(self.future.payload).decode()
        count, replay = stream_terms(future.payload)
        got = [head(payload) for payload in self.got]
        assert got == [b"%d" % number for number in range(len(got))], f"{name} gave {got}"
        if future._state == caller.FINISHED and future._form == caller.RAW and not self.inflow.closed:
            assert len(got) == count, f"{name} gave {len(got)} of {count} values"
        values = getattr(future._value, "values", None)
        if isinstance(values, int) and values:
            assert not replay, f"{name} might have run again"
            assert self.inflow.closed or values == len(got), f"{name}: {values} were sent on, {len(got)} came"
