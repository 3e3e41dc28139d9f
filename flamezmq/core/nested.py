"""What a task has submitted: its own tasks, of which few are with the router at a time.

A task that waits for its own tasks runs those that nobody has begun itself,
newest first, so the outbox of its client is a stack of work, and the router
gets the oldest ones: those with the most work behind them.  It gets as many as
it asks for by taking them: `window` lie there for whoever is idle, and each that
is granted makes room for more.

What was sent is kept with its payload, so that it can be taken back.  What needs
the values of others stays here until they are there: who waits for it runs them
first, and the router could not tell what is taken back from what is cancelled.
Restartable, as `Calls` is.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from typing import Any

from flamezmq.core.caller import (
    CANCELLED,
    DONE,
    ERROR,
    FINISHED,
    UNMET,
    Calls,
    Dependent,
    Record,
    Staged,
    Tell,
)
from flamezmq.core.link import Link
from flamezmq.wire import messages as m
from flamezmq.wire.composed import compose

#: So many tasks may lie with the router, at most, without anybody having taken them.
MOST_WINDOW = 256


class NestedCalls(Calls):
    """One session of a task.

    kept     index -> record: with the router or an executor, could be taken back
    untaken  those of them that no executor was given, as far as is known
    wanted   those that are being asked back
    refused  those that could not be had: they have begun
    window   how many may be untaken
    free     its task has ended: all goes out, nobody will run it here
    aside    future -> record with a Dependent: calls that need others, until these have ended
    waiting  future that is needed -> futures in `aside` that need it (or did)
    """

    def __init__(self, alias: int, id: str) -> None:
        super().__init__(alias, id)
        self.kept: dict[int, Record] = {}
        self.untaken: dict[int, None] = {}
        self.wanted: dict[int, None] = {}
        self.refused: dict[int, None] = {}
        self.window = 1
        self.free = False
        self.aside: dict[Any, Record] = {}
        self.waiting: dict[Any, list[Any]] = {}
        self.asked_to_open = False

    @property
    def unfinished(self) -> int:
        return len(self.aside) + super().unfinished

    def unended(self) -> list[Any]:
        return [*super().unended(), *self.aside]

    # --- what needs others

    def put_aside(self, record: Record) -> None:
        """Keep a call until it has what it needs."""
        for _, need in record[2].needs:
            self.waiting.setdefault(need, []).append(record[0])
        self.aside[record[0]] = record

    def promote(self, payload_of: Callable[[Any], Any], tell: Tell, ended: Any = None) -> bool:
        """Move to the outbox what has all that it needs, and fail what never will; whether there was any.

        payload_of: a future that has ended -> its value's payload, None if it has none
        ended: look only at what needs this one; without it all are looked at, which takes long if they
            are many
        """
        moved = False
        for future in list(self.aside) if ended is None else self.waiting.pop(ended, ()):
            record = self.aside.get(future)
            if record is not None and all(need._state in DONE for _, need in record[2].needs):
                self._promote(record, payload_of, tell)
                moved = True
        return moved

    def _promote(self, record: Record, payload_of: Callable[[Any], Any], tell: Tell) -> None:
        future, function, call = record
        values = [payload_of(need) for _, need in call.needs]
        if None in values:
            self._finish(future, UNMET, call.needs[values.index(None)][1], FINISHED, tell)
            self.failed += 1
            self.faults += 1
        elif future._state not in DONE:
            payload: Any = compose(call.payload, values)
            if call.holds or any(need._hold is not None for _, need in call.needs):
                payload = Dependent(payload, [], [*call.holds, *call.needs])
            self.outbox.append((future, function, payload))
        self.aside.pop(future, None)
        for _, need in call.needs:
            self.waiting.pop(need, None)  # it has ended: what else needs it waits for others

    def take_from_outbox(self, future: Any) -> bool:
        return self.aside.pop(future, None) is not None or super().take_from_outbox(future)

    def cancel_unsent(self, wanted: Container[Any] | None, tell: Tell) -> None:
        for future in [future for future in self.aside if wanted is None or future in wanted]:
            self.cancelled += 1
            self._finish(future, ERROR, None, CANCELLED, tell)
            self.aside.pop(future, None)
        super().cancel_unsent(wanted, tell)

    def _end_aside(self, value: Any, state: str, tell: Tell) -> None:
        while self.aside:
            future = next(reversed(self.aside))
            self._finish(future, ERROR, value, state, tell)
            self.aside.pop(future, None)
        self.waiting.clear()

    def fail_all(self, error: Exception, tell: Tell) -> None:
        self._end_aside(error, FINISHED, tell)
        super().fail_all(error, tell)

    def cancel_all(self, tell: Tell, reason: str = "") -> None:
        self._end_aside(reason or None, CANCELLED, tell)
        super().cancel_all(tell, reason)

    # --- towards the router

    def room(self) -> int:
        """How many tasks may be sent now."""
        return 1 << 30 if self.free else self.window - len(self.untaken)

    def _complete(self, link: Link, staged: Staged) -> None:
        if not self.free and self.outbox and self.outbox[0] is staged.first_record:
            records = self.outbox[: staged.records]
            indices = range(self.committed, staged.after)
            self.kept.update(zip(indices, records, strict=False))
            self.untaken.update(dict.fromkeys(indices))
        super()._complete(link, staged)

    def take_newest(self) -> Record | None:
        """The task that was submitted last and that no message has; None if there is none."""
        outbox, staged = self.outbox, self.staged
        begin = staged.records if staged and outbox and outbox[0] is staged.first_record else 0
        return outbox.pop() if len(outbox) > begin else None

    def ask_back(self) -> list[int]:
        """What could be taken back and was not asked for: the `Cancel` for it is to be sent."""
        indices = [i for i in self.kept if i not in self.refused and i not in self.wanted]
        self.wanted.update(dict.fromkeys(indices))
        return indices

    def let_go(self, failed: bool) -> None:
        """Its task has ended: nothing is taken back any more, but for what was asked back already.

        failed: it has taken its own tasks with it
        """
        self.free = True
        wanted = {} if failed else self.wanted
        self.kept = {index: record for index, record in self.kept.items() if index in wanted}
        self.untaken, self.wanted, self.refused = {}, wanted, {}

    # --- from the router

    def on_taken(self, message: m.Taken) -> None:
        """Executors were given these: somebody is hungry, so more may lie there."""
        for index in message.indices:
            self.untaken.pop(index, None)
        if not self.untaken:
            self.window = min(2 * self.window, MOST_WINDOW)

    def on_cancelled(self, message: m.Cancelled, tell: Tell) -> None:
        back = [index for index in message.indices if index in self.wanted]
        for index in back:
            record = self.kept.get(index)
            if record is not None and self.pending.get(index) is record[0]:
                future: Any = record[0]
                future._index = -1
                self.outbox.append(record)
            self._remove((index,))
        if back:
            self.window = 1
            message.indices = [index for index in message.indices if index not in back]
        for index in message.refused:
            if self.wanted.pop(index, 0) is None:
                self.refused[index] = None
        super().on_cancelled(message, tell)

    def _remove(self, indices: Iterable[int]) -> None:
        super()._remove(indices)
        if self.kept:
            for table in (self.kept, self.untaken, self.wanted, self.refused):
                for index in indices:
                    table.pop(index, None)

    def check(self) -> None:
        super().check()
        assert set(self.kept) <= set(self.pending)
        assert set(self.untaken) | set(self.wanted) | set(self.refused) <= set(self.kept)
        assert all(self.pending[index] is record[0] for index, record in self.kept.items())


class OrderedCalls(NestedCalls):
    """The calls of an actor that a task has made: they run where its instance is, and nowhere else."""

    def __init__(self, alias: int, id: str) -> None:
        super().__init__(alias, id)
        self.free = True

    def take_newest(self) -> Record | None:
        return None

    def ask_back(self) -> list[int]:
        return []
