"""What a task has submitted: its own tasks, of which few are with the router at a time.

A task that waits for its own tasks runs those that nobody has begun itself,
newest first, so the outbox of its client is a stack of work, and the router
gets the oldest ones: those with the most work behind them.  It gets as many as
it asks for by taking them: `window` lie there for whoever is idle, and each that
is granted makes room for more.

What was sent is kept with its payload, so that it can be taken back.
Restartable, as `Calls` is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flamezmq.core.caller import Calls, Record, Staged, Tell
from flamezmq.core.link import Link
from flamezmq.wire import messages as m

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
    """

    def __init__(self, alias: int, id: str) -> None:
        super().__init__(alias, id)
        self.kept: dict[int, Record] = {}
        self.untaken: dict[int, None] = {}
        self.wanted: dict[int, None] = {}
        self.refused: dict[int, None] = {}
        self.window = 1
        self.free = False
        self.asked_to_open = False

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
