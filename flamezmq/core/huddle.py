"""The huddle: while one task at a time goes to and fro, all who pass it on sleep on one processor.

A round trip wakes twelve threads, one after the other.  A kernel wakes each on
an idle processor, if there is one, and that takes many times as long as on the
one that is running already: most of the time of a round trip.  None of the
twelve ever runs beside another, so nothing is lost if they share one.

This decides when.  After `ENTER` round trips of one short task each, with
nothing else in between, the client and the executor are told where; the first
message that does not fit (a second task, another client, a task that is not
short) sends them apart.  How a host sleeps there is `net/berth.py`.
"""

from __future__ import annotations

from flamezmq.core.members import Effects
from flamezmq.wire import messages as m

#: So many lonely round trips in a row start a huddle.
ENTER = 16
#: A task that runs for so long is worth a processor of its own.
SHORT_SECONDS = 0.001


class Huddle:
    """cpu: the processor to share; negative: there is none, and nobody is ever told."""

    def __init__(self, cpu: int = -1) -> None:
        self.cpu = cpu
        self.members: dict[int, None] = {}  # peers that were told
        self._client = 0
        self._out = False  # the one task is with the router or an executor
        self._streak = 0

    @property
    def on(self) -> bool:
        return bool(self.members)

    def on_submit(self, client: int, tasks: int, out: Effects) -> None:
        """A client has submitted tasks."""
        if tasks == 1 and not self._out and client == self._client:
            self._out = True
            return
        self._spread(out)
        self._client, self._out = client, tasks == 1

    def on_results(self, executor: int, tasks: int, seconds: float, out: Effects) -> None:
        """An executor has ended tasks, which took it so long."""
        if not self._out or tasks != 1 or seconds >= SHORT_SECONDS:
            self._spread(out)
            return
        self._out = False
        self._streak += 1
        if self._streak >= ENTER and executor not in self.members and self.cpu >= 0:
            for peer in (self._client, executor):
                if peer not in self.members:
                    self.members[peer] = None
                    out.append((peer, m.Huddle(self.cpu), []))

    def _spread(self, out: Effects) -> None:
        self._streak = 0
        self._out = False
        for peer in self.members:
            out.append((peer, m.Huddle(-1), []))  # who is gone is passed over
        self.members = {}
