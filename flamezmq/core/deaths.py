"""Deaths: what a dead executor held runs again, or is lost; who is charged.

Executors run what they hold in order, and their worker has seen which task ran.
Only that one is charged.  Functions over the broker's state; same rules.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from flamezmq.core import (
    actors,
    dispatch,
    endings,
    events,
    needs,
    printed,
    retries,
    returns,
    services,
    spares,
    streams,
    unclaimed,
)
from flamezmq.core.members import Effects, Executor, Session
from flamezmq.core.tasks import Run, rejoin
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker


def bury(broker: Broker, peer: int, died: m.Died | None, now: float, out: Effects) -> None:
    """Take back what a dead executor held; charge a retry to the task that ran, to no other."""
    executor = broker.executors.pop(peer, None)
    broker.mourned.pop(peer, None)
    if executor is None:
        return
    unclaimed.on_death(broker, executor, out)
    broker.bare_since = now  # as far as it was the last one
    broker.by_name.pop((executor.token, executor.number), None)
    printed.on_executor_gone(broker, executor.token, out)
    _end_within(broker, executor, now, out)
    broker.orphans.pop(peer, None)
    broker.laden.pop(peer, None)
    spares.forget(broker, executor)
    broker.fed.pop(peer, None)
    broker.scheduler.remove_executor(peer, now)
    if executor.departing:
        broker.scheduler.expect_none()  # nobody comes in its place
    else:
        spares.on_gone(broker, executor)
    session, executor.session = executor.session, None
    if session is None:
        _answer_for(broker, executor, now, out)
        services.on_gone(broker, executor, died, now, out)
        return
    session.executors.pop(peer, None)
    events.unbound(session, now)
    events.died(session, executor, died, now)
    if executor.tasks:
        if not executor.leaving:
            session.busy -= 1
        session.held -= executor.tasks
        if not session.closed:
            before = len(out)
            lost = mourn(broker, executor, session, died, now, out)
            broker.records.lost(session, executor, out[before:], now)
            events.lost(session, executor, out[before:], now)
            needs.ended_badly(session, lost, out)
        else:
            session.cancelled += executor.tasks
    for index in [i for i, holder in session.begun.items() if holder == peer]:
        del session.begun[index]
    _answer_for(broker, executor, now, out)
    broker.fed.update(session.executors)
    if executor.aside:
        actors.on_death(broker, executor, session, died, now, out)
    broker.demand(session)
    services.on_gone(broker, executor, died, now, out)
    broker.forget_if_over(session)


def _answer_for(broker: Broker, executor: Executor, now: float, out: Effects) -> None:
    """It is dead, and took its answers with it; also those for a session that it had left already."""
    for asked, dropped in executor.asked:
        if dropped is not None and not asked.closed:
            returns.cancel(broker, asked, set(dropped), now, out)


def _end_within(broker: Broker, executor: Executor, now: float, out: Effects) -> None:
    """The tasks that its tasks have submitted end with it."""
    name = f"{executor.token}/{executor.number}"
    for session in [s for s in broker.sessions.values() if s.spec.within == name and not s.closed]:
        broker.end(session, "the executor of its task is gone", now, out)


def mourn(
    broker: Broker, executor: Executor, session: Session, died: m.Died | None, now: float, out: Effects
) -> list[int]:
    """What a dead executor held goes back, or is lost if it can't be run again; returns what is lost.

    Executors run what they hold in order.  The worker's report tells which task
    ran; those before it had finished, but their results died with it: they run
    again without a charge, and so do those that had not begun.  Without a report
    the oldest is taken for the one that ran.  A task for whose timeout it was
    killed has failed by that; whether it runs again its options say.  A stream of
    which values were delivered is lost, unless it may be replayed.  What is
    unwanted never runs again.
    """
    running, executed = _last_moments(executor, session, died)
    late = died is not None and died.overdue and not died.binding
    overdue = died.running if died and late and died.session == session.number else -1
    again: list[Run] = []
    lost: list[int] = []
    unwanted: list[int] = []
    position = 0
    for run in executor.held:
        for index in range(run.start, run.end):
            began = position <= executed
            position += 1
            if index in session.unwanted:
                unwanted.append(index)
                continue
            piece = run.between(index, index + 1)
            delivered = streams.delivered(executor, session, index, run.attempt)
            if index == overdue and run.function.timeout:
                if delivered or not retries.after_timeout(broker, session, piece, now):
                    message = _lost(executor, session, run, index, died)
                    message.timeout = run.function.timeout
                    lost.append(index)
                    out.append((session.client.peer, message, []))
                continue
            if index == running:
                session.charges[index] = session.charges.get(index, 0) + 1
            charged = session.charges.get(index, 0)
            most = session.spec.max_retries
            if (began and most == 0) or charged > most or delivered:
                lost.append(index)
                message = _lost(executor, session, run, index, died)
                message.values = delivered
                out.append((session.client.peer, message, []))
                continue
            if began:
                piece.attempt += 1
            again.append(piece)
    executor.held.clear()
    executor.tasks = 0
    dispatch.requeue(session, rejoin(again, session.retried))
    if unwanted:
        endings.unwanted(session, unwanted, now, out)
    return lost


def _last_moments(executor: Executor, session: Session, died: m.Died | None) -> tuple[int, int]:
    """(index of the task that ran or -1, position of the last task that had begun or -1)."""
    order = [i for run in executor.held for i in range(run.start, run.end)]
    if died is None:
        # Nobody saw the end: any of them may have begun.
        return order[0], len(order) - 1 if session.spec.max_retries == 0 else 0
    if died.binding:
        return -1, -1  # what it died of comes before the first task
    finished = max(died.finished - executor.finished, 0)
    if died.session == session.number and died.running in order:
        blamed = died.running if died.overdue or not died.expected else -1
        return blamed, order.index(died.running)
    # What it was to drop, and has not answered for, may have been given back before it was reached.
    dropped = {i for _, indices in executor.asked for i in indices or ()}
    executed = -1
    for position, index in enumerate(order):
        if finished <= 0:
            break
        executed = position
        finished -= index not in dropped
    return -1, executed


def _lost(executor: Executor, session: Session, run: Run, index: int, died: m.Died | None) -> m.Lost:
    """A task has failed for good; the message that says so."""
    session.failed += 1
    session.charges.pop(index, None)
    session.retried.pop(index, None)
    if died is None:
        died = unseen(executor, session, index, f"its node {executor.node} is gone")
    return m.Lost(session.alias, index, run.attempt, died, label=run.function.label)


def unseen(executor: Executor, session: Session, index: int, reason: str) -> m.Died:
    """What is said of the end of an executor that no worker has reported."""
    finished = executor.finished
    return m.Died(
        executor.number, executor.pid, executor.node, session.number, index, finished,
        "", 0, False, 0, (reason,),
    )  # fmt: skip


def kill_orphans(broker: Broker, orphans: dict[int, float], now: float, out: Effects) -> None:
    """End executors that still run a task of a session that has ended."""
    for peer, due in list(orphans.items()):
        executor = broker.executors.get(peer)
        if executor is None or not executor.tasks:
            del orphans[peer]
        elif now >= due:
            del orphans[peer]
            kill(broker, executor, m.Kill(executor.number), out)


def kill_overdue(broker: Broker, now: float, out: Effects) -> None:
    """End executors whose tasks do not keep to their timeouts.

    When a task has begun is known here only roughly, and behind a cut connection not
    at all: their worker looks at what the executor itself has written down, and does
    nothing if its task has time left.  So this may ask too early, and asks again.
    """
    grace = broker.limits.grace_seconds
    look_at = math.inf
    for executor in broker.executors.values():
        timeouts = [run.function.timeout for run in executor.held if run.function.timeout]
        if timeouts:
            due = executor.since + min(timeouts) + grace
            if now >= due:
                kill(broker, executor, m.Kill(executor.number, grace), out)
                due = now + grace
            look_at = min(look_at, due)
    broker.look_at = max(look_at, now + grace / 4)


def kill(broker: Broker, executor: Executor, order: m.Kill, out: Effects) -> None:
    """Tell the executor's worker, if it has one."""
    for worker in broker.workers.values():
        if worker.token == executor.token:
            out.append((worker.peer, order, []))
