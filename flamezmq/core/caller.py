"""The client's mind: what was submitted, what is on its way, what came back.

A submit is one append to a session's outbox; `stage` turns the outbox into
messages, `on_results` turns messages into finished futures.

Restartable: an exception (Ctrl-C) may land between any two steps.  Each change
commits by one assignment or one append, and what is found half done is finished
by the next call.  A message that is applied twice changes nothing the second
time.

Futures are opaque here but for their slots: `_index`, `_state`, `_form`,
`_value`, `_hold` if its value lies in a store (lineage has a few more), and
`_more`, which is None unless somebody must be told.  Other threads may make
`_more` at any time.  No call and no loop stands between the look at it and the
new state, so the interpreter does not switch threads in between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from flamezmq.core.certificates import certificate_of
from flamezmq.core.link import Link
from flamezmq.core.uses import Uses
from flamezmq.errors import (
    ActorDied,
    DeadlinePassed,
    FlameError,
    ProtocolError,
    TaskLost,
    TaskTimeout,
)
from flamezmq.wire import codec
from flamezmq.wire import messages as m
from flamezmq.wire.codec import join_payloads, split_payloads
from flamezmq.wire.composed import compose
from flamezmq.wire.handles import MARK, pack, unpack

if TYPE_CHECKING:
    from flamezmq.core.allowance import Allowance

# The standard library's words, because its wait() compares them.
PENDING = "PENDING"
RUNNING = "RUNNING"
CANCELLED = "CANCELLED_AND_NOTIFIED"
FINISHED = "FINISHED"
DONE = (FINISHED, CANCELLED)

# What a finished future's `_value` is; of a cancelled one (ERROR): None, or why it was; of an unmet one: the
# future that it needed, and that has no value.
RAW, RAW_ERROR, VALUE, ERROR, UNMET = 0, 1, 2, 3, 4

#: Tasks in one Submit.
SUBMIT_TASKS = 1024
#: Bytes of payload in one Submit, about.
SUBMIT_BYTES = 1 << 20
#: Tasks with a deadline are of one age if they differ by less than this part of it.
SAME_AGE = 0.01
#: Payloads below it are not counted one by one.
HEAVY_BYTES = 1 << 10

Tell = Callable[[Any, str], None]  # (future, its new state): set it, and tell those who wait, once
Record = tuple[Any, Any, Any]  # future, function name (number, blob, label, options), payload or Dependent
Need = tuple["Calls", Any]  # a future whose value a task takes, and the calls that it is one of


def weight(payload: Any) -> int:
    """Bytes of a payload with all its buffers, also if it lies in a store."""
    if type(payload) is list:
        return sum(map(len, payload))
    if type(payload) is bytes and payload[:1] == MARK:
        return unpack(payload).size
    return len(payload)


class Dependent:
    """A call that refers to something: placeholder i to the value of `needs[i]`; or to objects.

    needs  futures as the pickler leaves them; each a Need before the call goes into an outbox
    holds  what keeps objects that it refers to in their stores; let go of when the task has ended
    """

    __slots__ = ("holds", "needs", "payload")

    def __init__(self, payload: Any, needs: list[Any], holds: Sequence[Any] = ()) -> None:
        self.payload, self.needs, self.holds = payload, needs, holds

    def __len__(self) -> int:
        return weight(self.payload)

    def complete(self) -> Any:
        """The payload, call and values in one; None: a value is not here, or somebody has looked at it."""
        values = []
        for _, need in self.needs:
            state, form, value = need._state, need._form, need._value
            if state is FINISHED and need._hold is not None:  # as the task has made it
                value = pack(need._hold.handle)
            elif state is not FINISHED or form != RAW:
                return None
            values.append(own(value))
        return compose(self.payload, values) if values else self.payload


def own(payload: Any) -> Any:
    """The same in memory that nobody can change: arrays made of a result are views of its buffers."""
    return [bytes(piece) for piece in payload] if type(payload) is list else payload


@dataclass(slots=True, eq=False)
class Staged:
    """A message that is about to be committed; `number` is the one that the link will give it."""

    number: int
    frames: list[Any]
    size: int
    heavy: int
    records: int
    first_record: Any
    after: int
    needs: dict[int, list[Need]] | None
    functions: list[m.NewFunction]
    weighed: int
    holds: dict[int, Any]


class Calls:
    """One session's tasks, seen from the client.

    outbox     submitted, not yet in a message
    pending    index -> future: in a message, not ended
    committed  indices below it are in messages
    needs      index -> what the task needs: held until it has ended, for the router may ask for it
    holds      index -> what keeps the task's arguments in a store, until it has ended
    needed     (alias, index) -> future, of all that is held so, by all calls of this client
    actor      the name of its class, if this is an actor's session
    foreign    others have submitted them: they take no credit of this client's
    """

    foreign = False

    def __init__(
        self, alias: int, id: str, needed: WeakValueDictionary[tuple[int, int], Any] | None = None
    ) -> None:
        self.alias, self.id = alias, id
        self.needs: dict[int, list[Need]] = {}
        self.holds: dict[int, Any] = {}
        #: Told of each value that has come and lies in a store, with its future.
        self.take_over: Callable[[Any, Any], None] | None = None
        #: Told of each such value that nobody waits for any more.
        self.disown: Callable[[Any], None] | None = None
        self.needed = WeakValueDictionary() if needed is None else needed
        self.outbox: list[Record] = []
        self.pending: dict[int, Any] = {}
        self.committed = 0
        self.shipped: dict[int, None] = {}  # numbers of the functions that the router has
        self.heavy: dict[int, int] = {}  # index -> bytes, of large payloads on their way
        self.heavy_bytes = 0  # their sum; an interrupt may falsify it, until none is on its way
        self.outbox_bytes = 0  # of large payloads in the outbox, about; nothing when that is empty
        self.forget: list[int] = []  # numbers that no new task will quote, for the router to drop
        self.opened = False
        self.closed = False
        self.draining = ""  # why nothing more is taken, while what was submitted runs
        self.said_drained = False
        self.broken: Exception | None = None  # with it fails what is submitted yet
        self.error = ""
        self.ended_at = 0.0  # when somebody else has closed it, by the clock of the host
        self.actor = ""
        self.allowance: Allowance | None = None  # where the tenant has a quota on what is queued
        self.waits_for_room = True  # else what is over the quota fails
        self.counts: m.Counts | None = None
        self.faults = 0  # messages with an error in them, so far
        self.failed = self.cancelled = 0  # tasks that ended before the router had heard of them
        self.staged: Staged | None = None

    @property
    def named(self) -> str:
        """For people."""
        return f"actor {self.id} (of class {self.actor})" if self.actor else f"session {self.id}"

    @property
    def unfinished(self) -> int:
        return len(self.outbox) + len(self.pending)

    def unended(self) -> list[Any]:
        """The futures of those."""
        return [*self.pending.values(), *(record[0] for record in self.outbox)]

    # --- towards the router

    def complete(self, link: Link) -> None:
        """Finish what was begun, before anything else is committed to the link.

        Its number tells whether the link has it; another message must not get that number.
        """
        if self.staged is not None:
            self._complete(link, self.staged)

    def stage(self, link: Link, room: int, tell: Tell, now: float = 0.0) -> bool:
        """Commit up to `room` tasks of the outbox to the link; False when there is nothing to do.

        That is so, too, when the first task needs one that is in another outbox.
        One that needs what has ended before it was sent fails; `tell` as for `on_results`.
        """
        if self.staged is not None:
            self._complete(link, self.staged)
        records = self.outbox[: min(room, SUBMIT_TASKS)]
        if not records:
            return False
        if type(records[0][2]) is Dependent and (obstacle := self._obstacle(records[0][2])) is not None:
            if obstacle._state not in DONE:
                return False
            self._fail_first(records[0], obstacle, tell)
            return True
        self.staged = self._prepare(link, records, now)
        self._complete(link, self.staged)
        return True

    @property
    def is_obstructed(self) -> bool:
        """Nothing of the outbox can go, for the first task needs one that is in another outbox."""
        first = self.outbox[:1]
        if not first or type(first[0][2]) is not Dependent:
            return False
        obstacle = self._obstacle(first[0][2])
        return obstacle is not None and obstacle._state not in DONE

    def _obstacle(self, call: Dependent) -> Any:
        """A future that the router does not know, so that it can't be told to wait for it; None if it can.

        Those of this outbox stand before the call.
        """
        for calls, need in call.needs:
            if need._state in DONE:
                if need._index < 0:
                    return need
            elif calls is not self and calls.pending.get(need._index) is not need:
                return need
        return None

    def _fail_first(self, record: Record, need: Any, tell: Tell) -> None:
        record[0]._label = f"{record[1].label} (not sent)"
        self._finish(record[0], UNMET, need, FINISHED, tell)
        if self.outbox and self.outbox[0] is record:
            self.failed += 1
            self.outbox_bytes = max(self.outbox_bytes - weight(record[2]), 0)
            del self.outbox[0]
        self.faults += 1

    def _prepare(self, link: Link, records: list[Record], now: float) -> Staged:
        first = self.committed
        if self.heavy and next(reversed(self.heavy)) >= first:
            self._remove([index for index in self.heavy if index >= first])  # of one that was torn
        functions: list[m.NewFunction] = []
        slices: list[m.Slice] = []
        inputs: list[Any] = []
        needs: list[int] = []
        uses: Uses | None = None
        held: dict[int, list[Need]] = {}
        holds: dict[int, Any] = {}
        ages: list[float] = []
        patience = born = 0.0  # of functions with deadlines: what is younger by so much is a slice of its own
        timed = big = False
        last, begun = None, first
        size = carried = 0  # bytes of large payloads, of functions
        index = first
        for future, function, payload in records:
            if type(payload) is Dependent:
                if self._obstacle(payload) is not None:
                    break
                complete = payload.complete()
                if payload.holds or complete is not None:
                    holds[index] = [*payload.holds, *payload.needs]
                    uses = uses or Uses()
                    uses.note(index - first, payload.holds, payload.needs if complete is not None else ())
                if complete is None:
                    held[index] = payload.needs
                    for calls, need in payload.needs:
                        needs += (index - first, calls.alias, need._index)
                    complete = payload.payload
                payload = complete
            if function is not last or (patience and future.submitted - born > patience):
                if slices:
                    slices[-1].count = index - begun
                last, begun, number = function, index, function.number
                slices.append(m.Slice(number, index, 0, 1))
                if number not in self.shipped and not any(one.number == number for one in functions):
                    new = m.NewFunction(number, function.blob, function.label, function.options)
                    functions.append(new)
                    carried += len(function.blob)
                patience = function.options.deadline * SAME_AGE if function.options is not None else 0.0
                if patience:
                    timed, born = True, future.submitted
                ages.append(max(now - born, 0.0) if patience else 0.0)
            future._index = index
            if type(payload) is list:
                big = True
                size += self._weigh(index, weight(payload))
            elif len(payload) > HEAVY_BYTES:
                size += self._weigh(index, len(payload))
            inputs.append(payload)
            index += 1
            if size + carried > SUBMIT_BYTES:
                break
        if slices:
            slices[-1].count = index - begun
        count = index - first
        allowance = self.allowance
        weighed = sum(map(weight, inputs)) if allowance is not None and allowance.weighs else 0
        parts: list[int] = []
        frames: list[Any] = []
        if big:
            inputs, parts, frames = join_payloads(inputs)
        submit = m.Submit(
            self.alias, functions, self.forget, slices, inputs, parts, needs, ages if timed else []
        )
        if uses is not None:
            uses.tell(submit)
        body = codec.encode(submit)
        total = len(body) + sum(map(len, frames))
        made, needed = [body, *frames], held or None
        number = link.sent + 1
        return Staged(number, made, total, size, count, records[0], index, needed, functions, weighed, holds)

    def _weigh(self, index: int, size: int) -> int:
        if not self.heavy:
            self.heavy_bytes = 0
        self.heavy_bytes += size - self.heavy.get(index, 0)
        self.heavy[index] = size
        return size

    def _complete(self, link: Link, staged: Staged) -> None:
        """Finish what was staged; every step may have been done before."""
        if link.sent < staged.number:
            link.enqueue(staged.frames, staged.size)
        if self.outbox and self.outbox[0] is staged.first_record:
            records = self.outbox[: staged.records]
            indices = range(self.committed, staged.after)
            self.pending.update(zip(indices, [record[0] for record in records], strict=False))
            for new in staged.functions:
                self.shipped[new.number] = None
            if staged.needs is not None:
                self._hold(staged.needs)
            if staged.holds:
                self.holds.update(staged.holds)
            if self.allowance is not None:
                self.allowance.on_sent(staged.after, staged.weighed)
            self.committed = staged.after
            del self.outbox[: staged.records]
            self.outbox_bytes = max(self.outbox_bytes - staged.heavy, 0) if self.outbox else 0
            for number in self.forget:
                self.shipped.pop(number, None)  # a task that was named before ships it again
            self.forget = []
        self.staged = None

    def _hold(self, needs: dict[int, list[Need]]) -> None:
        self.needs.update(needs)
        for held in needs.values():
            for calls, need in held:
                self.needed[calls.alias, need._index] = need

    # --- from the router

    def on_results(self, message: m.Results, frames: list[Any], tell: Tell) -> int:
        """Finish futures; `tell` is called for each that somebody must be told of."""
        outputs = (
            split_payloads(message.outputs, message.parts, frames)
            if frames or message.parts
            else message.outputs
        )
        if message.stored and self.take_over is not None:
            self._take_over(message, outputs, self.take_over)
        pending = self.pending
        get = pending.get
        failed = set(message.failed) if message.failed else None
        position = 0
        ended = 0
        for part in message.slices:
            first, count = part.first, part.count
            if position + count > len(outputs):
                raise ProtocolError("results without outputs")
            if not part.attempt:  # stale: the router has passed over it
                position += count
                continue
            indices = range(first, first + count)
            if failed is None:
                here = outputs if count == len(outputs) else outputs[position : position + count]
                for future, output in zip(map(get, indices), here, strict=False):
                    if future is not None and future._state not in DONE:
                        future._value = output
                        if future._more is None:
                            future._state = FINISHED
                        else:
                            tell(future, FINISHED)
                    elif future is not None and future._more is not None:
                        tell(future, FINISHED)  # an interrupt came in between
            else:
                for offset, future in enumerate(map(get, indices), position):
                    if future is not None and future._state not in DONE:
                        future._value = outputs[offset]
                        future._form = RAW_ERROR if offset in failed else RAW
                        if future._more is None:
                            future._state = FINISHED
                        else:
                            tell(future, FINISHED)
                    elif future is not None and future._more is not None:
                        tell(future, FINISHED)
            position += count
            ended += count
            self._remove(indices)
        if failed:
            self.faults += 1  # last: who looks at it finds them
        return ended

    def _take_over(
        self, message: m.Results, outputs: list[Any], take_over: Callable[[Any, Any], None]
    ) -> None:
        """The values at these positions lie in a store, from now on for as long as their futures live."""
        stored = set(message.stored[::2])
        position = 0
        for part in message.slices:
            for at in range(position, min(position + part.count, len(outputs))) if stored else ():
                if at not in stored:
                    continue
                future = self.pending.get(part.first + at - position) if part.attempt else None
                if future is not None and (future._state not in DONE or future._hold is not None):
                    if future._hold is None:
                        take_over(future, outputs[at])
                elif self.disown is not None:
                    self.disown(outputs[at])
            position += part.count

    def _remove(self, indices: Iterable[int]) -> None:
        if self.needs:  # first: what is pending still is removed again, after an interrupt
            deque(map(self.needs.pop, indices, repeat(None)), 0)
        if self.holds:
            deque(map(self.holds.pop, indices, repeat(None)), 0)
        deque(map(self.pending.pop, indices, repeat(None)), 0)
        if self.heavy:
            self.heavy_bytes -= sum(map(self.heavy.pop, indices, repeat(0)))

    def on_lost(self, message: m.Lost, tell: Tell) -> None:
        certificate = certificate_of(message.certificate)
        task_id = f"{self.id}/{message.index}"
        error: FlameError = TaskLost(task_id, message.attempts, certificate, message.label, message.values)
        if self.actor:
            error = ActorDied(task_id, message.attempts, certificate, message.label, self.id)
        if message.timeout:  # its executor was killed for that
            error = TaskTimeout(task_id, message.timeout, message.attempts)
        self._end([message.index], ERROR, error, FINISHED, tell)
        self.faults += 1

    def on_expired(self, message: m.Expired, tell: Tell) -> None:
        for index in message.indices:
            error = DeadlinePassed(f"{self.id}/{index}", message.label, message.deadline)
            self._end([index], ERROR, error, FINISHED, tell)
        self.faults += 1

    def on_cancelled(self, message: m.Cancelled, tell: Tell) -> None:
        self._end(message.indices, ERROR, message.reason or None, CANCELLED, tell)

    def on_unmet(self, index: int, needed: tuple[int, int], tell: Tell) -> None:
        """The task will not run: what it needs has no value."""
        future = self.pending.get(index)
        if future is not None:
            need = None
            if future._state not in DONE:
                held = self.needs.get(index, ())
                need = next((need for calls, need in held if (calls.alias, need._index) == needed), None)
                need = need or self.needed.get(needed)  # which runs again, under another number
                if need is None:
                    raise ProtocolError(f"task {index} does not need {needed}")
            self._end([index], UNMET, need, FINISHED, tell)
        self.faults += 1

    def fail_all(self, error: Exception, tell: Tell) -> None:
        """The router is gone: everything that has not ended fails."""
        while self.outbox:
            self._finish_unsent(ERROR, error, FINISHED, tell)
        self._end(list(self.pending), ERROR, error, FINISHED, tell)
        self.faults += 1

    def cancel_all(self, tell: Tell, reason: str = "") -> None:
        """The session was closed (by somebody else: `reason`): what has not ended never will."""
        why = reason or None
        while self.outbox:
            self._finish_unsent(ERROR, why, CANCELLED, tell)
        self._end(list(self.pending), ERROR, why, CANCELLED, tell)

    def end_all(self, tell: Tell) -> None:
        """It is broken, or closed: nothing that is left will have a result."""
        if self.broken is not None:
            self.fail_all(self.broken, tell)
        else:
            self.cancel_all(tell, self.error)

    def on_closed_by(self, message: m.ClosedBy, tell: Tell) -> None:
        """Somebody else has closed the session, or wants it closed when what it has has ended."""
        if message.draining:
            self.draining = (
                f"{self.named} is being closed by {message.reason}: what was submitted runs, "
                "and nothing more is taken"
            )
            return
        self.error = f"{self.named} was closed by {message.reason}"
        self.closed = True
        self.cancel_all(tell, self.error)

    def on_drained(self, tell: Tell) -> None:
        """It is closed, and what it had has ended; but for what was submitted when it was too late."""
        self.error = self.draining
        self.closed = True
        self.cancel_all(tell, self.error)

    def _finish_unsent(self, form: int, value: Any, state: str, tell: Tell) -> None:
        """The last one of the outbox; another thread may put more behind it meanwhile."""
        outbox, position = self.outbox, len(self.outbox) - 1
        record = outbox[position]
        record[0]._index = -1
        self._finish(record[0], form, value, state, tell)
        if position < len(outbox) and outbox[position] is record:  # not what came behind it
            del outbox[position]

    def take_from_outbox(self, future: Any) -> bool:
        """Remove a task that no message has yet; False when it is too late."""
        outbox = self.outbox
        for position in range(self.unsent(), len(outbox)):
            if outbox[position][0] is future:
                future._index = -1  # it may have got one, for a message that was never made
                self.outbox_bytes = max(self.outbox_bytes - weight(outbox[position][2]), 0)
                del outbox[position]
                return True
        return False

    def cancel_unsent(self, wanted: Container[Any] | None, tell: Tell) -> None:
        """Cancel what no message has yet: all of it, or those futures that are `wanted`."""
        begin, end = self.unsent(), len(self.outbox)
        kept: list[Record] = []
        for record in self.outbox[begin:end]:
            if wanted is not None and record[0] not in wanted:
                kept.append(record)
                continue
            self.outbox_bytes = max(self.outbox_bytes - weight(record[2]), 0)
            self.cancelled += 1
            self._finish(record[0], ERROR, None, CANCELLED, tell)
        self.outbox[begin:end] = kept  # what was submitted meanwhile stands behind

    def fail_unsent(self, begin: int, end: int, error: Exception, tell: Tell) -> None:
        """Fail those at these places of the outbox; no message has them yet."""
        for record in self.outbox[begin:end]:
            record[0]._index = -1
            self.failed += 1
            self.outbox_bytes = max(self.outbox_bytes - weight(record[2]), 0)
            self._finish(record[0], ERROR, error, FINISHED, tell)
        del self.outbox[begin:end]
        self.faults += 1

    def unsent(self) -> int:
        """Where in the outbox those begin that are in no message, not even a staged one."""
        outbox, staged = self.outbox, self.staged
        return staged.records if staged and outbox and outbox[0] is staged.first_record else 0

    def _end(self, indices: Iterable[int], form: int, value: Any, state: str, tell: Tell) -> None:
        for index in indices:
            future = self.pending.get(index)
            if future is not None:
                self._finish(future, form, value, state, tell)
                self._remove((index,))

    @staticmethod
    def _finish(future: Any, form: int, value: Any, state: str, tell: Tell) -> None:
        if future._state not in DONE:
            future._form, future._value = form, value
            if future._more is None:
                future._state = state
                return
        if future._more is not None:
            tell(future, state)

    def check(self) -> None:
        """Compare every index with every other."""
        assert all(index < self.committed for index in self.pending)
        assert all(future._index == index for index, future in self.pending.items())
        assert set(self.heavy) <= set(self.pending)
        assert not self.heavy or self.heavy_bytes == sum(self.heavy.values())
