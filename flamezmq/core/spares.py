"""Spare executors: one takes the place of an executor whose task waits for its own tasks.

A paused executor gets nothing more, gives back what it has not begun, and no
longer counts for its session.  If that leaves somebody without an executor for
longer than a moment, its worker is asked for a spare one, at most as many as it
has without them.  A spare that nobody needs for a while is told to exit.  An
actor that waits for an executor for longer than a moment is a reason, too.

No wait depends on a spare: whoever waits takes back and runs in place what
nobody has begun.  They keep the processors busy, no more.

Functions over the broker's state; same rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flamezmq.core import dispatch
from flamezmq.core.members import Effects, Executor, Session, Worker
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker

#: A pause that is over sooner is not worth a fork.
PATIENCE_SECONDS = 0.01
#: A spare executor stays so long without anything to do.
KEEP_SECONDS = 1.0


def on_waiting(
    broker: Broker, peer: int, message: m.Waiting, _frames: list[Any], now: float, out: Effects
) -> None:
    """An executor says that its task waits, or goes on."""
    executor = broker.executor_of(peer)
    executor.heard = now
    session = executor.session
    if session is not None and session.number == message.session and not session.actor:
        (pause if message.waits else resume)(broker, executor, session, now, out)


def pause(broker: Broker, executor: Executor, session: Session, now: float, out: Effects) -> None:
    """Its task waits for its own tasks."""
    if executor.paused is not None or not executor.tasks:
        return
    executor.paused, executor.reclaimed = now, executor.leaving
    broker.paused[executor.peer] = executor
    if not executor.leaving:
        dispatch.let_run_dry(broker, executor, session)
    broker.scheduler.retire(executor.peer, soon=False)
    if executor.tasks > 1 and not executor.asked:
        dispatch.ask(executor, session, 1, out)


def resume(broker: Broker, executor: Executor, session: Session, now: float, out: Effects) -> None:
    """It goes on; so does what was due to it."""
    if executor.paused is None:
        return
    forget(broker, executor)
    if executor.reclaimed or broker.is_dead(executor.peer):
        broker.scheduler.retire(executor.peer, soon=not executor.departing)
        return
    executor.leaving = False
    if executor.tasks:
        session.busy += 1
    broker.scheduler.resume(executor.peer)
    broker.demand(session)
    broker.fed[executor.peer] = executor


def forget(broker: Broker, executor: Executor) -> None:
    """It waits no longer, or what has waited is gone."""
    executor.paused = None
    broker.paused.pop(executor.peer, None)


def balance(broker: Broker, now: float, out: Effects) -> None:
    """Ask for spare executors, and let those go that nobody needs."""
    lacking = broker.scheduler.waiting and not broker.scheduler.idle
    pauses: dict[str, list[float]] = {}  # worker's token -> since when its executors wait
    for executor in broker.paused.values():
        if executor.paused is not None:
            pauses.setdefault(executor.token, []).append(executor.paused)
    unplaced = sum(now >= since + PATIENCE_SECONDS for since in broker.unplaced.values())
    for worker in broker.workers.values():
        if worker.leaving:
            continue
        paused = pauses.get(worker.token, [])
        wanted = min(sum(now >= since + PATIENCE_SECONDS for since in paused), worker.executors)
        here = max(min(unplaced, broker.limits.actors_per_worker - worker.actors), 0)
        unplaced -= here
        if lacking and wanted + here > worker.spare:
            retarget(broker, worker, wanted + here, worker.actors, out)
        elif worker.spare > len(paused) + here:
            _let_go(broker, worker, now, out)
        else:
            worker.idle_since = None


def _let_go(broker: Broker, worker: Worker, now: float, out: Effects) -> None:
    idle = [e for e in broker.executors.values() if e.token == worker.token and _is_idle(e)]
    if not idle:
        worker.idle_since = None
    elif worker.idle_since is None:
        worker.idle_since = now
    elif now >= worker.idle_since + KEEP_SECONDS:
        worker.idle_since = None
        retarget(broker, worker, worker.spare - 1, worker.actors, out)
        idle[-1].exiting = True
        broker.scheduler.remove_executor(idle[-1].peer, now)
        out.append((idle[-1].peer, m.Exit(), []))


def retarget(broker: Broker, worker: Worker, spare: int, actors: int, out: Effects) -> None:
    """It is to have so many executors beside its own; it is told if the sum is another one than before."""
    before = worker.spare + worker.actors
    worker.spare, worker.actors = spare, actors
    if spare:
        broker.spare[worker.peer] = worker
    else:
        broker.spare.pop(worker.peer, None)
    if spare + actors != before and not worker.leaving:
        out.append((worker.peer, m.Target(worker.executors + spare + actors), []))


def deadlines(broker: Broker, now: float) -> list[float]:
    """When `balance` may find something to do."""
    due = [e.paused + PATIENCE_SECONDS for e in broker.paused.values() if e.paused is not None]
    due += [since + PATIENCE_SECONDS for since in broker.unplaced.values()]
    due = [when for when in due if when > now]
    for worker in broker.spare.values():
        if worker.idle_since is not None and not worker.leaving:
            due.append(worker.idle_since + KEEP_SECONDS)
    return due


def worker_of(broker: Broker, executor: Executor) -> Worker | None:
    """The worker that has started it, if that is still here."""
    return next((w for w in broker.workers.values() if w.token == executor.token), None)


def _is_idle(executor: Executor) -> bool:
    return executor.session is None and not executor.exiting
