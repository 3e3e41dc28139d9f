"""Events: what has happened to a session, for people; bounded, and nothing per task.

Each session keeps its last `MOST_EVENTS` (a nested one, of which there may be very many,
none).  What may happen often is one row in `MERGE_SECONDS`, which counts; and that
executors come and go is one row until something else happens.  That a session was
opened is known to it anyway, and made into a row when somebody asks.

Functions over sessions; same rules as the broker's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from flamezmq.errors import last_words
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.core.members import Executor, Session

#: Of one session.
MOST_EVENTS = 64
#: What happens again so soon is counted in the row that is there.
MERGE_SECONDS = 1.0
#: Of what a row says.
MOST_CHARACTERS = 300

OPENED = "opened"
BOUND = "bound"
DIED = "executor died"
LOST = "task lost"
RETRIED = "task retried"
TIMED_OUT = "task timed out"
PREEMPTED = "preempted"
LATE = "task too late"
BROKEN = "initializer failed"
BIND_FAILED = "bind failed"
STOPPED = "stopped"
UNBIND_FAILED = "unbind failed"
HELD_BACK = "held back"
GOES_ON = "goes on"
SUSPENDED = "suspended"
RESUMED = "resumed"
CHANGED = "changed"
DRAINING = "draining"
CLOSED = "closed"
#: What may happen often.
_MERGED = frozenset((DIED, LOST, RETRIED, TIMED_OUT, PREEMPTED, LATE, BIND_FAILED, UNBIND_FAILED))


class Event:
    """A row: of `kind`, first at `when`, `count` times until `until`; the rest is of the latest time.

    most, left  executors that served the session at a time; that did at last (BOUND)
    """

    __slots__ = ("count", "executor", "kind", "left", "most", "number", "task", "text", "until", "when")

    def __init__(self, number: int, kind: str, when: float) -> None:
        self.number, self.kind, self.when = number, kind, when
        self.until, self.count = when, 0
        self.text = self.executor = ""
        self.task = -1
        self.most = self.left = 0


class Events:
    """Those of one session; `last` number was given to the latest (1 is for its opening)."""

    __slots__ = ("bound", "last", "rows")

    def __init__(self) -> None:
        self.rows: deque[Event] = deque(maxlen=MOST_EVENTS)
        self.last = 1
        self.bound: Event | None = None  # the latest row, if it is one of BOUND

    def add(self, kind: str, now: float) -> Event:
        self.last += 1
        event = Event(self.last, kind, now)
        self.rows.append(event)
        self.bound = event if kind == BOUND else None
        return event


def of(session: Session) -> Events | None:
    """Where its events go; None: nowhere."""
    if session.events is None and not session.spec.within:
        session.events = Events()
    return session.events


# --- what the broker reports


def note(
    session: Session,
    kind: str,
    now: float,
    text: str = "",
    task: int = -1,
    executor: str = "",
    count: int = 1,
) -> None:
    """Something has happened.

    text: whatever is to be said of it; by whom, or how
    task: index of the one that it is about
    """
    events = of(session)
    if events is None:
        return
    event = None
    if kind in _MERGED:
        event = next((e for e in reversed(events.rows) if e.kind == kind), None)
    if event is None or now - event.until >= MERGE_SECONDS:
        event = events.add(kind, now)
    event.until = now
    event.count += count
    event.text, event.task, event.executor = text[:MOST_CHARACTERS], task, executor


def bound(session: Session, executor: Executor, now: float) -> None:
    """One more executor serves it."""
    events = session.events or of(session)
    if events is None:
        return
    event = events.bound
    if event is None:
        event = events.add(BOUND, now)
    event.executor = event.executor or executor.name  # the row may have begun with one that left
    event.count += 1
    event.until = now
    event.left = serving = len(session.executors)
    if serving > event.most:
        event.most = serving


def served_since(session: Session) -> float:
    """Since when as many executors serve it as do now, as far as that is remembered."""
    rows = session.events.rows if session.events is not None else ()
    return next((event.until for event in reversed(rows) if event.kind == BOUND), session.opened_at)


def unbound(session: Session, now: float) -> None:
    """One less does."""
    events = session.events
    if events is None or session.closed:
        return
    event = events.bound
    if event is None:
        event = events.add(BOUND, now)
        event.most = len(session.executors) + 1
    event.until = now
    event.left = len(session.executors)


def died(session: Session, executor: Executor, how: m.Died | None, now: float) -> None:
    """An executor that served it is dead, and was not told to end."""
    if how is None:
        note(session, DIED, now, f"its node {executor.node} is gone, or can't be reached", -1, executor.name)
    elif not how.expected:
        task = how.running if how.session == session.number else -1
        note(session, DIED, now, in_a_line(how), task, executor.name)


def lost(
    session: Session, executor: Executor, effects: Iterable[tuple[int, object, object]], now: float
) -> None:
    """Those of its tasks that are given up, as their client is told."""
    for _, message, _ in effects:
        if isinstance(message, m.Lost):
            if message.timeout:
                text = f"after {message.timeout:g} s"
                note(session, TIMED_OUT, now, text, message.index, executor.name)
            else:
                plural = "" if message.attempts == 1 else "s"
                text = f"given up after {message.attempts} attempt{plural}"
                note(session, LOST, now, text, message.index, executor.name)


def in_a_line(how: m.Died) -> str:
    """A death, as far as its worker has seen it."""
    words = [how.signal or f"exit code {how.exit_code}"]
    if how.oom:
        words.append("out of memory")
    if how.rss_bytes:
        words.append(f"{how.rss_bytes / (1 << 20):.0f} MiB in use")
    last = last_words(how.stderr, 1)
    return ", ".join(words) + (f": {last[0]}" if last else "")


# --- what is answered


def rows(session: Session, after: int, now: float) -> Iterator[m.EventRow]:
    """Those with greater numbers, oldest first."""
    if after < 1:
        host = session.spec.environment.host
        yield m.EventRow(1, now - session.opened_at, OPENED, 1, 0.0, f"by a client on {host}" if host else "")
    for e in session.events.rows if session.events is not None else ():
        if e.number > after:
            lasted = e.until - e.when
            about = e.text, e.task, e.executor, e.most, e.left
            yield m.EventRow(e.number, now - e.when, e.kind, e.count, lasted, *about)
