"""Spare executors: one takes the place of an executor whose task waits for its own tasks.

A paused executor gets nothing more, gives back what it has not begun, and no
longer counts for its session.  If that leaves somebody without an executor for
longer than a moment, its worker is asked for a spare one, at most as many as it
has without them.  (Streams that wait for their readers may have twice as many:
core/readers.py.)  A spare that nobody needs for a while is told to exit.  An
actor that waits for an executor for longer than a moment is a reason, too.

A worker hears of a smaller number by a message of its own, so an executor that was told
to exit may be gone sooner, and is replaced.  Such a surplus goes as spare ones do.

No wait depends on a spare: whoever waits takes back and runs in place what
nobody has begun.  They keep the processors busy, no more.

Functions over the broker's state; same rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flamezmq import bounding
from flamezmq.core import dispatch, readers
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
    if session is None or session.number != message.session or session.actor:
        return
    if message.waits:
        pause(broker, executor, session, message.reader, now, out)
    else:
        resume(broker, executor, session, now, out)


def pause(
    broker: Broker, executor: Executor, session: Session, reader: bool, now: float, out: Effects
) -> None:
    """Its task waits for its own tasks, or for the reader of its stream."""
    if executor.paused is not None or not executor.tasks:
        return
    executor.paused, executor.reads, executor.reclaimed = now, reader, executor.leaving
    broker.paused[executor.peer] = executor
    if reader:
        readers.look(broker)
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
    reads, executor.paused, executor.reads = executor.reads, None, False
    broker.paused.pop(executor.peer, None)
    if reads:
        readers.look(broker)


def balance(broker: Broker, now: float, out: Effects) -> None:
    """Ask for spare executors, and let those go that nobody needs."""
    lacking = next(bounding.hungry(broker.scheduler), None) is not None and not broker.scheduler.idle
    pauses: dict[str, list[Executor]] = {}  # by their worker's token
    for executor in broker.paused.values():
        pauses.setdefault(executor.token, []).append(executor)
    unplaced = [n for n in broker.placing if now >= broker.unplaced[n] + PATIENCE_SECONDS]
    for worker in broker.workers.values():
        if worker.leaving:
            continue
        paused = pauses.get(worker.token, [])
        wanted = _wanted(worker, paused, now)
        here, none_idle = _actors_for(broker, worker, unplaced)
        if (lacking or none_idle) and wanted + here > worker.spare:
            retarget(broker, worker, wanted + here, worker.actors, out)
        elif worker.crowded or worker.spare > len(paused) + here:
            _let_go(broker, worker, now, out)
        else:
            worker.idle_since = None


def _actors_for(broker: Broker, worker: Worker, unplaced: list[int]) -> tuple[int, bool]:
    """Take out of `unplaced` the actors that may live here; how many, and whether they lack a free executor.

    They do if they ask for what this node has, and all that are idle are elsewhere.
    """
    sessions, scheduler = broker.sessions, broker.scheduler
    room = max(broker.limits.actors_per_worker - worker.actors, 0)
    fitting = [n for n in unplaced if not sessions[n].spec.resources or scheduler.has_room(worker.token, n)]
    for number in fitting[:room]:
        unplaced.remove(number)
    asking = any(sessions[number].spec.resources for number in fitting[:room])
    none_idle = asking and not any(_is_idle(executor) for executor in _executors_of(broker, worker))
    return len(fitting[:room]), none_idle


def _wanted(worker: Worker, paused: list[Executor], now: float) -> int:
    tasks = streams = 0
    for executor in paused:
        if executor.paused is not None and now >= executor.paused + PATIENCE_SECONDS:
            streams += executor.reads
            tasks += not executor.reads
    return readers.spares_for(worker, tasks, streams)


def _let_go(broker: Broker, worker: Worker, now: float, out: Effects) -> None:
    """Tell one to exit that has been idle for a while: one of a surplus, or else a spare one."""
    if not broker.scheduler.idle or not (idle := [e for e in _executors_of(broker, worker) if _is_idle(e)]):
        worker.idle_since = None
    elif worker.idle_since is None:
        worker.idle_since = now
    elif now >= worker.idle_since + KEEP_SECONDS:
        worker.idle_since = None
        if worker.crowded:
            surplus = _surplus(broker, worker)
            worker.crowded = surplus > 1
            _watch(broker, worker)
            if surplus <= 0:
                return  # what was one too many has died since
        else:
            _lower(broker, worker, worker.spare - 1, worker.actors, out)
        idle[-1].exiting = True
        broker.scheduler.remove_executor(idle[-1].peer, now)
        out.append((idle[-1].peer, m.Exit(), []))


def on_executor(broker: Broker, worker: Worker) -> None:
    """One more of this worker's is here: perhaps in the place of one that was to have no successor."""
    if worker.lowered and not worker.crowded:
        worker.crowded = _surplus(broker, worker) > 0
        _watch(broker, worker)


def on_gone(broker: Broker, executor: Executor) -> None:
    """It was to be replaced, perhaps, and is gone: where there were too many nobody comes in its place."""
    worker = worker_of(broker, executor)
    if worker is None or not worker.crowded:
        return
    left = sum(not broker.is_dead(one.peer) for one in _executors_of(broker, worker))
    if left >= worker.executors + worker.spare + worker.actors:
        broker.scheduler.expect_none(executor.peer)


def _surplus(broker: Broker, worker: Worker) -> int:
    """So many more are here than it was asked to have; one that is dead counts until that is reported."""
    here = sum(not e.exiting and not broker.is_dead(e.peer) for e in _executors_of(broker, worker))
    return here - (worker.executors + worker.spare + worker.actors)


def _executors_of(broker: Broker, worker: Worker) -> list[Executor]:
    return [executor for executor in broker.executors.values() if executor.token == worker.token]


def give_up_one(broker: Broker, worker: Worker, out: Effects) -> None:
    """An actor's executor ends, and nobody is to come in its place."""
    _lower(broker, worker, worker.spare, worker.actors - 1, out)


def _lower(broker: Broker, worker: Worker, spare: int, actors: int, out: Effects) -> None:
    worker.lowered = True
    retarget(broker, worker, spare, actors, out)


def retarget(broker: Broker, worker: Worker, spare: int, actors: int, out: Effects) -> None:
    """It is to have so many executors beside its own; it is told if the sum is another one than before."""
    before = worker.spare + worker.actors
    worker.spare, worker.actors = spare, actors
    _watch(broker, worker)
    if spare + actors != before and not worker.leaving:
        out.append((worker.peer, m.Target(worker.executors + spare + actors), []))


def _watch(broker: Broker, worker: Worker) -> None:
    if worker.spare or worker.crowded:
        broker.spare[worker.peer] = worker
    else:
        broker.spare.pop(worker.peer, None)


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
