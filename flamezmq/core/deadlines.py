"""Deadlines: a task that has not begun in time is dropped, and fails with that.

The time counts from the submit, which the client tells as an age: clocks of two
machines have nothing in common.  Each slice of a function with a deadline has
an entry in its session's heap until it is due; who has ended by then is found
nowhere any more.  What an executor holds is asked back.  If it has begun it may
go on, but it is *late*: should it come back, to run again, it is dropped then.

Functions over the broker's state; same rules.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from math import inf
from typing import TYPE_CHECKING

from flamezmq.core import endings, needs, retries
from flamezmq.core.members import LEAST_DEADLINES, Effects, Session
from flamezmq.core.tasks import Function, extract
from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker


def check_ages(message: m.Submit) -> None:
    if len(message.ages) != len(message.slices):
        raise ProtocolError("one age is due for each slice")


def note(broker: Broker, session: Session, message: m.Submit, now: float) -> None:
    """These have come in, some of them with deadlines."""
    entries = session.deadlines
    for part, age in zip(message.slices, message.ages, strict=True):
        function = session.functions[part.function]
        if function.options is not None and function.options.deadline:
            heappush(entries, (now + function.options.deadline - age, part.first, part.count, function))
    if entries:
        broker.expiring[session.number] = session
    if len(entries) >= session.most_deadlines:
        _forget_ended(session)


def _forget_ended(session: Session) -> None:
    """Entries whose tasks have all ended go; the rest may double before this is done again."""
    held = [run for executor in session.executors.values() for run in executor.held]
    runs = [*session.queue, *held, *(run for _, _, run in session.delayed)]
    spans = sorted([(run.end, run.start) for run in runs] + [(i + 1, i) for i in session.blocked])
    alive = []
    for entry in session.deadlines:
        position = bisect_left(spans, (entry[1] + 1, 0))  # the first that ends behind its first task
        if position < len(spans) and spans[position][1] < entry[1] + entry[2]:
            alive.append(entry)
    session.deadlines = alive
    heapify(alive)
    session.most_deadlines = max(2 * len(alive), LEAST_DEADLINES)


def drop_late(broker: Broker, now: float, out: Effects) -> None:
    """Whose time is over."""
    for session in list(broker.expiring.values()):
        due: dict[int, Function] = {}
        while session.deadlines and session.deadlines[0][0] <= now:
            _, first, count, function = heappop(session.deadlines)
            due.update(dict.fromkeys(range(first, first + count), function))
        if not session.deadlines:
            del broker.expiring[session.number]
        if due:
            _drop(broker, session, due, now, out)


def _drop(broker: Broker, session: Session, due: dict[int, Function], now: float, out: Effects) -> None:
    gone = extract(session.queue, set(due))
    session.queued -= len(gone)
    if session.delayed:
        gone += retries.cancel(broker, session, set(due))
    if session.blocked:
        gone += needs.cancel(session, list(due))
    endings.expired(session, {index: due[index] for index in gone}, now, out)
    for executor in session.executors.values():
        held = (i for run in executor.held for i in range(run.start, run.end) if i in due)
        indices = [i for i in held if i not in session.unwanted]  # of those it is known how they are to end
        if indices:
            session.late.update({index: due[index] for index in indices})
            session.unwanted.update(dict.fromkeys(indices, inf))
            broker.unwanted[session.number] = session
            executor.asked.append((session, indices))
            out.append((executor.peer, m.Drop(session.number, indices), []))
    broker.demand(session)


def next_due(broker: Broker) -> Iterable[float]:
    return [session.deadlines[0][0] for session in broker.expiring.values()]


def forget(broker: Broker, session: Session) -> None:
    """The session ends."""
    session.deadlines.clear()
    session.late.clear()
    broker.expiring.pop(session.number, None)
