"""The allowance of a session whose tenant has a quota: so far it may submit.

What does not fit stays in the outbox, and the router is asked for more.  Each change
is one assignment, as in core/caller.py, and may be made twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from flamezmq.core.caller import Record, weight
from flamezmq.wire import messages as m

#: Of an outbox, no more is looked at or asked for at a time.
MOST_ASKED = 4096


class Allowance:
    """until: tasks with indices below it may be submitted.

    most    bytes that may be submitted in all; None: they do not count
    asked   so many tasks were asked for; 0: none are
    due     of what it was given as an answer, tasks with indices below it were asked for
    piled   bytes in the outbox, about
    """

    __slots__ = ("_sent", "asked", "due", "most", "piled", "until")

    def __init__(self) -> None:
        self.until = self.asked = self.due = self.piled = 0
        self.most: int | None = None
        self._sent = (0, 0)  # indices below it have been counted, and their bytes

    @property
    def weighs(self) -> bool:
        return self.most is not None

    def on_sent(self, after: int, size: int) -> None:
        """Tasks with indices below `after` are in messages, the latest ones with so many bytes."""
        before, sent = self._sent
        if after > before:
            self._sent = after, sent + size
            self.piled = max(self.piled - size, 0)

    def room(self, committed: int, outbox: Sequence[Record], most: int = MOST_ASKED) -> int:
        """How many tasks of the front of the outbox may be submitted."""
        tasks = max(min(self.until - committed, most), 0)
        if self.most is None or not tasks:
            return tasks
        left, count = self.most - self._sent[1], 0
        for record in islice(outbox, tasks):
            left -= weight(record[2])
            if left < 0:
                break
            count += 1
        return count

    def is_exceeded(self, committed: int, outbox: Sequence[Record]) -> bool:
        """Whether the outbox holds more than may be submitted."""
        waiting = len(outbox)
        if waiting > self.until - committed:
            return waiting > 0
        if self.most is None or self._sent[1] + self.piled <= self.most:
            return False
        return self.room(committed, outbox, waiting) < waiting

    def on_room(self, message: m.Room, committed: int, outbox: Sequence[Record] = ()) -> None:
        """So far it may submit now."""
        if message.bytes is not None and not self.weighs:  # from now on they count
            self.piled = sum(weight(record[2]) for record in outbox)
        self.most, self.until = message.bytes, message.until
        if self.asked:
            self.due = min(message.until, committed + self.asked)
        self.asked = 0

    def give_back(self, alias: int, committed: int) -> m.WantRoom | None:
        """Nothing of the outbox can go: what was asked for and is not needed now, others may have."""
        if committed >= self.due:
            return None
        self.due, self.until = 0, committed
        return m.WantRoom(alias, 0, 0, 0)

    def want(self, alias: int, committed: int, records: Sequence[Record], waits: bool) -> m.WantRoom:
        """The question for room for these; at least one, and no more than `MOST_ASKED`."""
        sizes = [weight(record[2]) for record in records] if self.weighs else [0]
        self.asked, self.until = len(records), committed
        sent = self._sent[1] if self.weighs else None
        return m.WantRoom(alias, self.asked, sum(sizes), sizes[0], waits, sent)
