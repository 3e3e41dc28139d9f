"""Records: what the broker keeps for those who look after the fact, all of it bounded.

Sessions by their id, those that have ended, what ended in each of late, and what
was printed.  Per message or per session, nothing per task.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

from flamezmq.core.logs import Logs
from flamezmq.core.members import Executor, Session
from flamezmq.wire import messages as m

#: Sessions that have ended and are remembered.
ENDED_SESSIONS = 256
#: Of a session: slices of each message with results, names of functions.
RECENT_SLICES = 16
LABELS = 256
#: Of an id or a name that a peer has chosen, so many characters are kept and shown.
NAME_CHARACTERS = 200


class Ended(NamedTuple):
    """Slices that ended together.  `failed` are positions in them; seconds of -1: lost with the executor."""

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
        self.ended.append(session)
        if len(self.ended) > ENDED_SESSIONS:
            oldest = self.ended.popleft()
            if self._by_id.get(oldest.id) is oldest:
                del self._by_id[oldest.id]

    @staticmethod
    def shipped(session: Session, function: int, label: str) -> None:
        """The session has a function of this (router's) number."""
        session.labels[function] = label[:NAME_CHARACTERS]
        if len(session.labels) > LABELS:
            del session.labels[next(iter(session.labels))]

    @staticmethod
    def results(session: Session, executor: Executor, message: m.RoutedResults, now: float) -> None:
        """These have ended; stale slices among them have an attempt of 0."""
        slices, seconds, failed = message.slices, message.seconds, message.failed
        surplus = len(slices) - RECENT_SLICES
        if surplus > 0:
            passed = sum(part.count for part in slices[:surplus])
            slices, seconds = slices[surplus:], seconds[surplus:]
            failed = [position - passed for position in failed if position >= passed]
        session.recent.append(Ended(executor.name, slices, seconds, failed, now))

    @staticmethod
    def lost(
        session: Session, executor: Executor, effects: Iterable[tuple[int, Any, Any]], now: float
    ) -> None:
        """Those of its tasks that are given up, as their client is told."""
        for _, message, _ in effects:
            if type(message) is m.Lost:
                part = m.Slice(-1, message.index, 1, message.attempts)
                session.recent.append(Ended(executor.name, [part], [-1.0], [0], now))

    def check(self) -> None:
        """Compare every index with every other."""
        self.logs.check()
        assert len(self.ended) <= ENDED_SESSIONS
        assert all(session.closed and not session.executors for session in self.ended)
