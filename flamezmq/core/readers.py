"""Streams that wait for their readers, and how many of them may: the rest of the cluster goes on.

A stream that is far enough ahead of its reader holds its executor and computes
nothing, for as long as its reader likes.  A spare executor takes the place of each
(core/spares.py), twice as many as a node has executors of its own.  But only as
many streams wait as leave a node's own number of executors free: when that many
do, no more tasks of functions that stream are handed out, and everything else is.

That a function streams is known as soon as one of its tasks has sent a value, so
the first one of each may begin whenever it likes.

Functions over the broker's state; same rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flamezmq.core.members import Executor, Session, Worker
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker

#: So many streams may wait for their readers, for each executor that a node has without spare ones.
STREAMS_PER_EXECUTOR = 2


class Readers:
    """One for all sessions.

    full   as many streams wait for their readers as may
    since  when that began
    """

    def __init__(self) -> None:
        self.full = False
        self.since = 0.0


def note(broker: Broker, executor: Executor, session: Session, index: int) -> None:
    """A task that the executor holds has sent a value: its function streams.

    Actors have processes of their own, so their streams hold nothing that others could use.
    """
    if session.actor:
        return
    session.readers = broker.readers
    for run in executor.held:
        if run.start <= index < run.end:
            run.function.streams = True


def kept_out(session: Session) -> bool:
    """Whether what is next in the queue would stream, while as many streams wait for readers as may."""
    readers = session.readers
    return bool(readers is not None and readers.full and session.queue and session.queue[0].function.streams)


def spares_for(worker: Worker, tasks: int, streams: int) -> int:
    """How many spare executors a node may have.

    tasks, streams: so many of its executors wait for tasks of their task, and for readers
    """
    others = min(tasks + streams, worker.executors)
    return others + min(max(streams - worker.executors, 0), worker.executors)


def look(broker: Broker) -> None:
    """Streams have begun or ceased to wait for their readers, or there is room for more of them."""
    readers, reading = broker.readers, _reading(broker)
    full = 0 < STREAMS_PER_EXECUTOR * _own_executors(broker) <= len(reading)
    if full == readers.full:
        return
    readers.full, readers.since = full, max((e.paused or 0.0 for e in reading), default=0.0)
    for session in broker.sessions.values():
        if session.readers is not None:
            broker.demand(session)
            broker.fed.update(session.executors)


def explain(broker: Broker, session: Session, why: m.Why, now: float) -> None:
    """Say how many streams hold executors, if that is why there are too few; sets no cause."""
    computing = sum(e.paused is None and not (e.exiting or e.aside) for e in broker.executors.values())
    if computing < _own_executors(broker) or kept_out(session):
        _tell(_reading(broker), why, now)


def explain_own(session: Session, why: m.Why, now: float) -> None:
    """Say how many streams of a session wait for their readers."""
    _tell([executor for executor in session.executors.values() if executor.reads], why, now)


def _tell(reading: list[Executor], why: m.Why, now: float) -> None:
    if reading:
        why.streams = len(reading)
        why.streams_since = now - min(e.paused or now for e in reading)


def check(broker: Broker) -> None:
    """Compare every index with every other."""
    for executor in broker.executors.values():
        assert not executor.reads or broker.paused.get(executor.peer) is executor, "reads, and is not paused"
    assert not broker.readers.full or _reading(broker), "full, and nobody waits for a reader"


def _reading(broker: Broker) -> list[Executor]:
    return [executor for executor in broker.paused.values() if executor.reads]


def _own_executors(broker: Broker) -> int:
    return sum(worker.executors for worker in broker.workers.values() if not worker.leaving)
