"""Streams: values that running tasks give before their results, and the credit that comes back for them.

The router passes both on, and keeps one note per executor: what that streams.
It bounds nothing itself: an executor is never ahead of the reader by more than
the credit of its stream, and of what is published a client that does not take
its messages gets nothing.

Parts are no sign that an executor is free for the other tasks that it holds, so
they do not count as having heard from it: those are asked back as from any long task.

Functions over the broker's state; same rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from flamezmq.core import readers
from flamezmq.core.members import Effects, Executor, Session
from flamezmq.wire import messages as m
from flamezmq.wire.streams import PUBLISHED, REPLAYED

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker


class Streaming(NamedTuple):
    """A task that streams.

    task    its index
    values  how many were sent on to the client
    replay  it may run again although some were
    """

    session: int
    task: int
    attempt: int
    values: int
    replay: bool


def on_part(
    broker: Broker, peer: int, message: m.RoutedPart, frames: list[Any], _now: float, out: Effects
) -> None:
    """Send it on, if it is of a task that the executor holds, at this attempt."""
    executor = broker.executor_of(peer)
    session, index = executor.session, message.index
    if session is None or session.number != message.session or not _holds(executor, index, message.attempt):
        return
    if message.kind == PUBLISHED:
        if session.closed or session.client.held_back:
            return
    else:
        total, replay = message.first + message.count, message.kind == REPLAYED
        stream = executor.stream
        if stream is None or stream[:3] != (session.number, index, message.attempt):
            readers.note(broker, executor, session, index)
        executor.stream = Streaming(session.number, index, message.attempt, total, replay)
        if session.closed:  # it had begun when that was, and nobody knew that it streams
            stop(executor, session, out)
            return
        session.begun[index] = peer
    message.session = session.alias
    out.append((session.client.peer, message, frames))


def on_pull(
    broker: Broker, peer: int, message: m.Pull, _frames: list[Any], _now: float, out: Effects
) -> None:
    """Pass it on to the executor that has the task; what comes too late is dropped."""
    session = broker.client(peer).sessions.get(message.session)
    if session is None:
        return
    holder = broker.executors.get(session.begun.get(message.index, -1))
    holders = session.executors.values() if holder is None else (holder,)
    for executor in holders:
        if _holds(executor, message.index, message.attempt):
            message.session = session.number
            out.append((executor.peer, message, []))
            return


def stop(executor: Executor, session: Session, out: Effects) -> None:
    """The session is closed: nobody reads what the executor streams."""
    stream = executor.stream
    if stream and stream.session == session.number and _holds(executor, stream.task, stream.attempt):
        out.append((executor.peer, m.Pull(stream.session, stream.task, stream.attempt, 0, True), []))


def delivered(executor: Executor, session: Session, index: int, attempt: int) -> int:
    """How many values of this task the client has been sent, and must not be sent again."""
    stream = executor.stream
    if stream is None or stream.replay or stream[:3] != (session.number, index, attempt):
        return 0
    return stream.values


def _holds(executor: Executor, index: int, attempt: int) -> bool:
    """attempt: 0 for whichever it is."""
    return any(run.start <= index < run.end and attempt in (0, run.attempt) for run in executor.held)
