"""The overview: what the router tells those who look from outside.

An `Ask` is answered in one message of at most `MOST_ROWS` rows, whatever the
router holds; so is the work: queues are walked for `MOST_RUNS` runs.  The answer
says how much more there is.  Ages go out, not times: the core has no clock.
No row holds anything that a client has pickled.

Functions over the broker's state; same rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import chain, groupby, islice
from typing import TYPE_CHECKING, Any, TypeVar

from flamezmq import waits
from flamezmq.core import commons, departures, dispatch, events, explain, unsent
from flamezmq.core.directory import Entry
from flamezmq.core.logs import Piece
from flamezmq.core.members import NAME_CHARACTERS, Effects, Executor, Session, Worker
from flamezmq.core.records import Ended
from flamezmq.errors import ProtocolError
from flamezmq.states import ExecutorState, NodeState, SessionState, TaskState
from flamezmq.version import __version__
from flamezmq.wire import messages as m
from flamezmq.wire.objects import COPY, PINNED, SPILLED

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker

#: Rows of one answer.
MOST_ROWS = 256
#: Runs of a queue that are looked at for one answer.
MOST_RUNS = 4096
#: Characters of all log rows of one answer, about; one row may have more.
MOST_CHARACTERS = 64 << 10

#: Nodes that a row of an object names.
MOST_NODES = 64

T = TypeVar("T")


def on_ask(broker: Broker, peer: int, message: m.Ask, _frames: list[Any], now: float, out: Effects) -> None:
    """Answer a question.

    Raises:
        ProtocolError: its earlier answers pile up unread.
    """
    if broker.clients[peer].held_back:
        raise ProtocolError("take the answers that wait for you before you ask on")
    for executor in list(broker.lingering.values()):
        dispatch.release(broker, executor, now, out)  # it is as good as free, and shall be seen so
    out.append((peer, _ANSWERS[message.kind](broker, message, now), []))


def on_query(
    broker: Broker, peer: int, message: m.Query, _frames: list[Any], _now: float, out: Effects
) -> None:
    """Count the tasks of a client's session."""
    s = broker.session(peer, message.session)
    if s is not None:
        running = _running(s)
        counts = (s.waiting + s.held - running, running, s.succeed, s.failed, s.cancelled)
        out.append((peer, m.Counts(s.alias, message.request, *counts, s.suspended), []))


def _page(rows: Iterator[T], limit: int) -> tuple[list[T], int]:
    """The first rows, and how many follow."""
    page = list(islice(rows, max(0, min(limit, MOST_ROWS))))
    return page, sum(1 for _ in rows)


# --- sessions


def _sessions(broker: Broker, ask: m.Ask, now: float) -> m.Answer:
    records = broker.records
    if ask.session:
        session = records.find(ask.session)
        if session is None:
            return m.Answer(ask.request, _no_session(ask.session))
        return m.Answer(ask.request, sessions=[_session_row(broker, session, now)])
    found: Iterable[Session] = broker.sessions.values()
    if ask.closed:
        found = merge(sorted(records.ended, key=_number), found, key=_number)
    wanted = (s for s in found if s.number > ask.after and (ask.closed or not s.closed))
    page, more = _page(wanted, ask.limit)
    return m.Answer(ask.request, sessions=[_session_row(broker, session, now) for session in page], more=more)


def _number(session: Session) -> int:
    return session.number


def _no_session(id: str) -> str:
    return f"there is no session {id[:NAME_CHARACTERS]!r}, nor one that has ended of late"


def _running(session: Session) -> int:
    return sum(1 for executor in session.executors.values() if executor.tasks)


def _session_state(s: Session) -> SessionState:
    if s.closed:
        return SessionState.CLOSED
    if s.suspended:
        return SessionState.SUSPENDED
    return SessionState.DRAINING if s.draining else SessionState.OPEN


def _session_row(broker: Broker, s: Session, now: float) -> m.SessionRow:
    spec, running = s.spec, _running(s)
    return m.SessionRow(
        s.number,
        s.id,
        _session_state(s),
        spec.name[:NAME_CHARACTERS],
        spec.application[:NAME_CHARACTERS],
        spec.tenant[:NAME_CHARACTERS],
        spec.priority,
        spec.weight,
        spec.max_retries,
        spec.environment.host[:NAME_CHARACTERS],
        len(s.executors),
        s.waiting + s.held - running,
        running,
        s.succeed,
        s.failed,
        s.cancelled,
        s.seconds,
        now - s.opened_at,
        now - s.closed_at if s.closed else -1.0,
        s.ending,
        *commons.row(broker, s),
        *waits.gangs(broker.scheduler, s.number, spec.gang),
        spec.min_executors,
        spec.max_executors,
        spec.resources,
        *broker.directory.of_session(s.id),
    )


def _no_task(session: Session, index: int) -> str:
    return f"session {session.id} has no task {index}"


# --- executors and nodes


def _executors(broker: Broker, ask: m.Ask, now: float) -> m.Answer:
    found = (
        executor
        for executor in broker.executors.values()
        if executor.peer > ask.after and (not ask.executor or executor.name == ask.executor)
    )
    page, more = _page(found, ask.limit)
    if ask.executor and not page:
        return m.Answer(ask.request, _no_executor(ask.executor))
    return m.Answer(ask.request, executors=[_executor_row(broker, e, now) for e in page], more=more)


def _no_executor(name: str) -> str:
    return f"there is no executor {name[:NAME_CHARACTERS]!r}, nor one whose log is still kept"


def _executor_row(broker: Broker, e: Executor, now: float) -> m.ExecutorRow:
    if broker.is_dead(e.peer):
        state = ExecutorState.DEAD
    elif e.exiting or e.departing or (e.leaving and e.paused is None):
        state = ExecutorState.DRAINING
    else:
        state = ExecutorState.IDLE if e.session is None else ExecutorState.BOUND
    return m.ExecutorRow(
        e.peer,
        e.name,
        state,
        e.session.id if e.session is not None else "",
        e.node[:NAME_CHARACTERS],
        e.pid,
        e.tasks,
        e.held[0].start if e.tasks else -1,
        now - e.since if e.tasks else -1.0,
        e.finished,
    )


def _nodes(broker: Broker, ask: m.Ask, now: float) -> m.Answer:
    page, more = _page((w for w in broker.workers.values() if w.peer > ask.after), ask.limit)
    there = {worker.token: [0, 0] for worker in page}
    for executor in broker.executors.values():
        if (counts := there.get(executor.token)) is not None:
            counts[0] += 1
            counts[1] += executor.tasks > 0
    rows = [_node_row(broker, worker, there[worker.token], now) for worker in page]
    return m.Answer(ask.request, nodes=rows, more=more)


def _node_row(broker: Broker, w: Worker, counts: list[int], now: float) -> m.NodeRow:
    """counts: executors that are there, and those of them that are busy."""
    there, busy = counts
    state = NodeState.DRAINING if w.leaving else NodeState.READY if there else NodeState.STARTING
    age = now - w.since
    return m.NodeRow(
        w.peer,
        w.node[:NAME_CHARACTERS],
        state,
        w.cores,
        w.memory,
        w.gpus,
        there,
        busy,
        w.executors,
        w.pid,
        age,
        w.resources,
        broker.directory.count(w.token),
        broker.directory.used.get(w.token, 0),
        w.store_limit,
    )


# --- tasks


def _tasks(broker: Broker, ask: m.Ask, now: float) -> m.Answer:
    session = broker.records.find(ask.session)
    if session is None:
        return m.Answer(ask.request, _no_session(ask.session))
    limit = max(0, min(ask.limit, MOST_ROWS))
    running = _running(session)
    counts = {
        TaskState.RUNNING: running,
        TaskState.SUCCEED: session.succeed,
        TaskState.FAILED: session.failed,
        TaskState.PENDING: session.waiting + session.held - running,
    }

    def wanted(rows: Iterator[m.TaskRow]) -> Iterator[m.TaskRow]:
        return (row for row in rows if ask.state in (-1, row.state))

    rows = list(islice(wanted(_on_executors(session, now)), limit))
    # What waits leaves half of the room to what has ended.
    waiting = list(islice(wanted(_waiting(session, now)), limit - len(rows)))
    ended = list(islice(wanted(_ended(session, now)), limit - len(rows) - min(len(waiting), limit // 2)))
    rows += waiting[: limit - len(rows) - len(ended)] + ended
    total = sum(count for state, count in counts.items() if ask.state in (-1, state))
    more = max(total - sum(row.count for row in rows), 0)
    rows.sort(key=lambda row: row.first)
    return m.Answer(ask.request, tasks=rows, more=more)


def _on_executors(session: Session, now: float) -> Iterator[m.TaskRow]:
    """What is held: the oldest runs, the others wait there."""
    for executor in session.executors.values():
        since = now - executor.since
        oldest = True
        for run in executor.held:
            label, name, first, count = (
                run.function.label[:NAME_CHARACTERS],
                executor.name,
                run.start,
                len(run),
            )
            if oldest and count:
                yield m.TaskRow(first, 1, TaskState.RUNNING, label, run.attempt, name, since, -1.0)
                oldest, first, count = False, first + 1, count - 1
            if count:
                yield m.TaskRow(first, count, TaskState.PENDING, label, run.attempt, name, -1.0, -1.0)


def _waiting(session: Session, now: float) -> Iterator[m.TaskRow]:
    """What waits for its time, what is queued, and what waits for others; neighbours are put together."""
    for when, _, run in islice(session.delayed, MOST_RUNS):
        label, delay = run.function.label[:NAME_CHARACTERS], max(when - now, 0.0)
        yield m.TaskRow(run.start, len(run), TaskState.PENDING, label, run.attempt, "", -1.0, -1.0, delay)
    row: m.TaskRow | None = None
    blocked = (task.run() for task in session.blocked.values())
    for run in islice(chain(session.queue, blocked), MOST_RUNS):
        label = run.function.label[:NAME_CHARACTERS]
        if (
            row is not None
            and row.first + row.count == run.start
            and (row.function, row.attempt) == (label, run.attempt)
        ):
            row.count += len(run)
            continue
        if row is not None:
            yield row
        row = m.TaskRow(run.start, len(run), TaskState.PENDING, label, run.attempt, "", -1.0, -1.0)
    if row is not None:
        yield row


def _ended(session: Session, now: float) -> Iterator[m.TaskRow]:
    """What has ended of late, the latest first."""
    for ended in map(Ended._make, reversed(session.recent)):
        yield from _ended_rows(session, ended, now - ended.when)


def _ended_rows(session: Session, ended: Ended, age: float) -> Iterator[m.TaskRow]:
    """One message's slices, each cut where success and failure meet."""
    failed = set(ended.failed)
    position = 0
    for part, seconds in zip(ended.slices, ended.seconds, strict=True):
        label, each, first = session.labels.get(part.function, ""), seconds / part.count, part.first
        positions = range(position, position + part.count)
        position += part.count
        if not part.attempt:
            continue  # it was stale
        pieces = [(False, part.count)]
        if failed:
            pieces = [(bad, sum(1 for _ in some)) for bad, some in groupby(positions, failed.__contains__)]
        for bad, count in pieces:
            state = TaskState.FAILED if bad else TaskState.SUCCEED
            yield m.TaskRow(first, count, state, label, part.attempt, ended.executor, age, each)
            first += count


# --- logs


def _logs(broker: Broker, ask: m.Ask, now: float) -> m.Answer:
    records = broker.records
    session = records.find(ask.session) if ask.session else None
    if ask.session and session is None:
        return m.Answer(ask.request, _no_session(ask.session))
    if session is not None and ask.task >= session.next_index:
        return m.Answer(ask.request, _no_task(session, ask.task))
    if ask.executor and ask.executor not in records.logs:
        if not any(executor.name == ask.executor for executor in broker.executors.values()):
            return m.Answer(ask.request, _no_executor(ask.executor))
    found = list(records.logs.find(ask.executor, session.id if session else "", ask.task, ask.after))
    rows: list[m.LogRow] = []
    room = MOST_CHARACTERS
    for piece in found[: max(0, min(ask.limit, MOST_ROWS))]:
        room -= len(piece.text)
        if room < 0 and rows:
            break
        rows.append(_log_row(piece, now))
    return m.Answer(ask.request, logs=rows, more=len(found) - len(rows))


def _log_row(p: Piece, now: float) -> m.LogRow:
    return m.LogRow(p.number, now - p.when, p.executor, p.session, p.task, p.stream, p.text, p.dropped)


# --- events


def _events(broker: Broker, ask: m.Ask, now: float) -> m.Answer:
    session = broker.records.find(ask.session)
    if session is None:
        return m.Answer(ask.request, _no_session(ask.session))
    page, more = _page(events.rows(session, ask.after, now), ask.limit)
    return m.Answer(ask.request, events=page, more=more)


def _why(broker: Broker, ask: m.Ask, now: float) -> m.Answer:
    session = broker.records.find(ask.session)
    if session is None:
        return m.Answer(ask.request, _no_session(ask.session))
    if ask.task >= session.next_index and not unsent.has(session, ask.task):
        return m.Answer(ask.request, _no_task(session, ask.task))
    if ask.task < 0:
        return m.Answer(ask.request, why=[explain.of_session(broker, session, now)])
    return m.Answer(ask.request, why=[explain.of_task(broker, session, ask.task, now)])


# --- objects


def _objects(broker: Broker, ask: m.Ask, _now: float) -> m.Answer:
    if ask.session and broker.records.find(ask.session) is None:
        return m.Answer(ask.request, _no_session(ask.session))
    limit = max(0, min(ask.limit, MOST_ROWS))
    page, more = broker.directory.page(ask.after, limit, ask.session or None)
    names = {worker.token: worker.node[:NAME_CHARACTERS] for worker in broker.workers.values()}
    return m.Answer(ask.request, objects=[_object_row(entry, names) for entry in page], more=more)


def _object_row(entry: Entry, names: dict[str, str]) -> m.ObjectRow:
    """names: of nodes, by their tokens."""
    return m.ObjectRow(
        entry.number,
        entry.id,
        entry.session,
        entry.name,
        entry.size,
        [names[node] for node in entry.nodes[:MOST_NODES] if node in names],
        sum(marks & COPY for marks in entry.holders.values()),
        entry.is_marked(PINNED),
        entry.is_marked(SPILLED),
        sum(entry.readers.values()),
    )


# --- the router


def _router(broker: Broker, ask: m.Ask, now: float) -> m.Answer:
    found = broker.statistics()
    row = m.RouterRow(
        __version__,
        m.PROTOCOL,
        now - broker.born,
        len(departures.outer_clients(broker)) - 1,
        sum(not session.closed for session in broker.sessions.values()),
        len(broker.workers),
        len(broker.executors),
        found["queued"],
        found["held"],
        broker.draining,
    )
    return m.Answer(ask.request, router=[row])


_ANSWERS = (_sessions, _executors, _nodes, _tasks, _logs, _router, _events, _why, _objects)
