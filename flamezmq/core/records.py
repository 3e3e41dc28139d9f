"""Records: what the broker keeps for those who look after the fact, all of it bounded.

Sessions by their id, those that have ended, what ended in each of late, and what
was printed.  Per message or per session, nothing per task.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

from flamezmq.core.logs import Logs
from flamezmq.core.members import NAME_CHARACTERS, RECENT_SLICES, Executor, Session
from flamezmq.wire import messages as m

#: Sessions that have ended and are remembered.
ENDED_SESSIONS = 256
#: Of a session: names of functions that are remembered.
LABELS = 256


class Ended(NamedTuple):
    """Slices that ended together, as `Session.recent` has them.  Stale ones have an attempt of 0.

    `failed` are positions in them; seconds of -1: lost with the executor
    """

    executor: str
    slices: list[m.Slice]
    seconds: list[float]
    failed: list[int]
    when: float


class Records:
    """`ended`: sessions that nobody serves any more; `logs`: what was printed."""

    def __init__(self) -> None:
        self.ended: deque[Session] = deque()  # the one that ended first comes first
        self.logs = Logs()
        self._by_id: dict[str, Session] = {}

    def find(self, id: str) -> Session | None:
        """The session of this id that was opened last, open or ended."""
        return self._by_id.get(id[:NAME_CHARACTERS])

    # --- what the broker reports

    def opened(self, session: Session, now: float) -> None:
        session.opened_at = now
        session.id = session.id[:NAME_CHARACTERS]
        self._by_id[session.id] = session

    def over(self, session: Session) -> None:
        """It is closed, and nobody serves it any more."""
        session.begun.clear()
        session.charges.clear()
        if session.spec.within:  # a task's own: there may be very many
            self._forget(session)
            return
        self.ended.append(session)
        if len(self.ended) > ENDED_SESSIONS:
            self._forget(self.ended.popleft())

    def _forget(self, session: Session) -> None:
        if self._by_id.get(session.id) is session:
            del self._by_id[session.id]

    @staticmethod
    def shipped(session: Session, function: int, label: str) -> None:
        """The session has a function of this (router's) number."""
        session.labels[function] = label[:NAME_CHARACTERS]
        if len(session.labels) > LABELS:
            del session.labels[next(iter(session.labels))]

    @staticmethod
    def many_results(session: Session, executor: Executor, message: m.RoutedResults, now: float) -> None:
        """A message of many slices has ended; the last ones are remembered."""
        surplus = len(message.slices) - RECENT_SLICES
        passed = sum(part.count for part in message.slices[:surplus])
        failed = [position - passed for position in message.failed if position >= passed]
        last = message.slices[surplus:], message.seconds[surplus:]
        session.recent.append((executor.name, *last, failed, now))

    @staticmethod
    def lost(
        session: Session, executor: Executor, effects: Iterable[tuple[int, Any, Any]], now: float
    ) -> None:
        """Those of its tasks that are given up, as their client is told."""
        for _, message, _ in effects:
            if type(message) is m.Lost:
                part = m.Slice(-1, message.index, 1, message.attempts)
                session.recent.append((executor.name, [part], [-1.0], [0], now))

    def check(self) -> None:
        """Compare every index with every other."""
        self.logs.check()
        assert len(self.ended) <= ENDED_SESSIONS
        assert all(session.closed and not session.executors for session in self.ended)
