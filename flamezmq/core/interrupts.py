"""Tasks that run and are not wanted any more: interrupted, and killed with their executor if they go on.

What is cancelled while an executor holds it is *unwanted* until it is known how
it ended: it was given back, it was interrupted, it was quicker (then its result
counts), or its executor is dead.  It never runs again.  Whether it runs the
router does not know: the executor is asked to drop it and to interrupt it, and
when the grace time is over its worker is told to kill the executor if it is
that task that runs, as its page says.  So no neighbour dies for it.  (What is
late for its deadline is unwanted, too, but not interrupted: core/deadlines.py.)

Functions over the broker's state; same rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING, Any

from flamezmq.core import control, deaths, endings, retries
from flamezmq.core.members import Effects, Executor, Session
from flamezmq.core.tasks import Run
from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker


def ask(
    broker: Broker, session: Session, executor: Executor, indices: list[int], now: float, out: Effects
) -> None:
    """Interrupt these, which the executor holds and was asked to drop."""
    kill_at = now + broker.limits.grace_seconds
    for index in indices:
        session.unwanted[index] = min(session.unwanted.get(index, inf), kill_at)
        session.late.pop(index, None)  # it is cancelled now
    broker.unwanted[session.number] = session
    out.append((executor.peer, m.Interrupt(session.number, indices), []))


def ask_for_all(broker: Broker, session: Session, executor: Executor, now: float, out: Effects) -> None:
    """Interrupt what the executor runs of a session that has ended, and kill it if that goes on."""
    out.append((executor.peer, m.Interrupt(session.number, []), []))
    broker.orphans[executor.peer] = now + broker.limits.orphan_seconds


def on_interrupted(
    broker: Broker, peer: int, message: m.Interrupted, _frames: list[Any], now: float, out: Effects
) -> None:
    """A task has ended by it.  One that the executor does not hold, at this attempt, is stale."""
    executor = broker.executor_of(peer)
    executor.heard = now
    session, index = executor.session, message.index
    if session is None or session.number != message.session:
        return  # it answers a session that it does not serve any more
    held = any(run.start <= index < run.end and run.attempt == message.attempt for run in executor.held)
    if held and not session.closed and index not in session.unwanted:
        raise ProtocolError("an answer to an interrupt that was not sent")
    run = retries.take_running(executor, session, index, message.attempt, now)
    if run is None:
        return
    if session.closed:
        session.cancelled += 1
    else:
        endings.unwanted(session, [index], now, out)
    broker.took_from(executor, session)


def on_results(session: Session, message: m.RoutedResults, out: Effects) -> None:
    """Those that were quicker have ended as if nobody had cancelled them."""
    ended = [
        index
        for part in message.slices
        if part.attempt
        for index in range(part.first, part.first + part.count)
        if session.unwanted.pop(index, None) is not None
    ]
    for index in ended:
        session.late.pop(index, None)
    if ended:
        control.tell_cancelled(session, [], ended, out)


def sort_out(session: Session, runs: list[Run], now: float, out: Effects) -> list[Run]:
    """Of tasks that were given back, end those that are unwanted; returns the others."""
    gone = [index for run in runs for index in range(run.start, run.end) if index in session.unwanted]
    if not gone:
        return runs
    endings.unwanted(session, gone, now, out)
    return [part for run in runs for part in run.without(set(gone))]


def kill_stubborn(broker: Broker, now: float, out: Effects) -> None:
    """Have executors killed whose tasks go on although their grace time is over.

    The worker does nothing if another task runs there; so this asks again.
    """
    for session in list(broker.unwanted.values()):
        if not session.unwanted:
            del broker.unwanted[session.number]
            continue
        if now < min(session.unwanted.values()):
            continue
        for executor in session.executors.values():
            for index in _due(executor, session, now):
                session.unwanted[index] = now + broker.limits.grace_seconds
                deaths.kill(broker, executor, m.Kill(executor.number, -1.0, session.number, index), out)


def _due(executor: Executor, session: Session, now: float) -> Iterable[int]:
    """What it holds and should have ended by now."""
    unwanted = session.unwanted
    held = (index for run in executor.held for index in range(run.start, run.end))
    return [index for index in held if index in unwanted and unwanted[index] <= now]


def deadlines(broker: Broker) -> list[float]:
    """When `kill_stubborn` may find something to do."""
    times = [when for session in broker.unwanted.values() for when in session.unwanted.values()]
    return [when for when in times if when < inf]


def forget(broker: Broker, session: Session) -> None:
    """The session ends."""
    session.unwanted.clear()
    broker.unwanted.pop(session.number, None)
