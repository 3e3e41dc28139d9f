"""Actors: sessions whose calls all run in one process, which holds one instance of a user's class.

An actor is a session whose initializer makes the instance.  It gets one executor,
as any session does, and keeps it: from then on that executor stands *aside*.
The scheduler knows it no longer, nobody reclaims it, nothing is asked back from
it, and its worker is asked for another one in its place: so actors take no
executor away from the tasks, and an idle one costs memory only.  When the actor
ends so does the process: what the instance has left there ends with it.

Calls begin in the order in which they were submitted.  One that waits for the
values of others holds back those behind it.

When the process dies so does the instance.  If the actor may be restarted, what
had not begun waits for the next one, which is made before its first call; else
the client is told how it died (`Broken` with `died`), and the session is closed.
What had begun is lost, or runs again, as for any session: `max_retries` says.

Functions over the broker's state; same rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flamezmq.core import deaths, dispatch, events, spares
from flamezmq.core.members import Effects, Executor, Session, Worker
from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker


def check_spec(spec: m.SessionSpec) -> None:
    """Raises ProtocolError if an actor is described as none can be."""
    if spec.restarts < 0:
        return
    if not spec.initializer:
        raise ProtocolError("an actor without an initializer, which is to make its instance")
    if spec.max_tasks_per_child:
        raise ProtocolError("an actor's process can't be replaced after a number of tasks")


def wanted(broker: Broker, session: Session) -> int:
    """How many executors it needs from the scheduler: one, when it has calls and no process."""
    number = session.number
    was_due = number in broker.placing
    broker.placing.pop(number, None)
    if session.executors or not session.queued or not dispatch.may_have(session):
        broker.unplaced.pop(number, None)
        if was_due and not session.executors:
            look_again(broker)  # it leaves its room to another one
        return 0
    broker.unplaced.setdefault(number, broker.now)
    if not has_room(broker):
        return 0
    broker.placing[number] = None
    return 1


def has_room(broker: Broker) -> bool:
    """Whether one more may live, beside those that do and those that get the next free executors."""
    most = broker.limits.actors_per_worker * sum(not worker.leaving for worker in broker.workers.values())
    return sum(worker.actors for worker in broker.workers.values()) + len(broker.placing) < most


def settle(broker: Broker, executor: Executor, session: Session, now: float, out: Effects) -> None:
    """The scheduler has given it an executor: that stands aside, and another one comes in its place."""
    broker.scheduler.set_aside(executor.peer, now)
    executor.aside = True
    broker.demand(session)
    worker = spares.worker_of(broker, executor)
    if worker is not None:
        waiting = sum(paused.token == worker.token for paused in broker.paused.values())
        come = worker.spare > waiting  # the one that was asked for because this one was lacking
        spares.retarget(broker, worker, worker.spare - come, worker.actors + 1, out)


def attend(broker: Broker, executor: Executor, session: Session, now: float, out: Effects) -> bool:
    """Whether an actor's executor may take calls; it is told to exit if its time is over."""
    if broker.is_dead(executor.peer):
        return False
    if not executor.tasks and (session.closed or executor.worn or executor.departing):
        _dismiss(broker, executor, session, now, out)
        return False
    if executor.leaving or any(dropped is None for _, dropped in executor.asked):
        return False  # what it is to give back comes before what waits
    return bool(session.queued) and dispatch.may_have(session)


def _dismiss(broker: Broker, executor: Executor, session: Session, now: float, out: Effects) -> None:
    """It exits, and nobody comes in its place."""
    executor.session, executor.leaving, executor.exiting, executor.aside = None, False, True, False
    del session.executors[executor.peer]
    broker.scheduler.put_back(executor.peer)
    events.unbound(session, now)
    worker = spares.worker_of(broker, executor)
    if worker is not None:
        spares.give_up_one(broker, worker, out)
    out.append((executor.peer, m.Exit(), []))
    if executor.departing:
        _lost_instance(broker, executor, session, None, "its node leaves", now, out)
    look_again(broker)
    broker.demand(session)
    broker.forget_if_over(session)


def on_death(
    broker: Broker, executor: Executor, session: Session, died: m.Died | None, now: float, out: Effects
) -> None:
    """Its executor is dead; what it held was seen to."""
    executor.aside = False
    broker.scheduler.put_back(executor.peer)
    worker = spares.worker_of(broker, executor)
    if worker is not None:  # it has forked another one already: a spare one, until it is needed
        spares.retarget(broker, worker, worker.spare + (not worker.leaving), worker.actors - 1, out)
    _lost_instance(broker, executor, session, died, f"its node {executor.node} is gone", now, out)
    look_again(broker)


def _lost_instance(
    broker: Broker,
    executor: Executor,
    session: Session,
    died: m.Died | None,
    reason: str,
    now: float,
    out: Effects,
) -> None:
    """There is none now: the next call makes another one, or nothing does."""
    if session.closed or session.number not in executor.taken:
        return  # none was made there
    session.deaths += 1
    if session.deaths <= session.spec.restarts:
        broker.demand(session)
        return
    died = died or deaths.unseen(executor, session, -1, reason)
    out.append(
        (session.client.peer, m.Broken(session.alias, executor.name, "", "", died, session.deaths), [])
    )
    broker.close_session(session, f"its actor died on {executor.name}", now, out)


def on_worker(broker: Broker, worker: Worker, out: Effects) -> None:
    """A worker is here; its executors may have been quicker, and stand aside already."""
    aside = sum(_is_of(executor, worker) for executor in broker.executors.values())
    spares.retarget(broker, worker, worker.spare, aside, out)
    look_again(broker)


def look_again(broker: Broker) -> None:
    """There is room for others; who has waited for longest comes first."""
    for number in list(broker.unplaced):
        if number not in broker.placing:
            broker.demand(broker.sessions[number])


def gate(session: Session) -> int:
    """Index of the first call that waits for values, and holds back those behind it."""
    return next(iter(session.blocked))


def open_gates(broker: Broker) -> None:
    """Calls that were held back may go on: the one before them has got what it needs, or will not run."""
    for number, index in list(broker.gated.items()):
        session = broker.sessions.get(number)
        if session is not None and session.blocked and gate(session) == index:
            continue
        if session is not None and session.blocked:
            broker.gated[number] = gate(session)
        else:
            del broker.gated[number]
        if session is not None:
            broker.fed.update(session.executors)


def check(broker: Broker) -> None:
    """Compare every index with every other."""
    for worker in broker.workers.values():
        assert worker.actors == sum(_is_of(executor, worker) for executor in broker.executors.values())
    for session in broker.sessions.values():
        if session.actor:
            assert len(session.executors) <= 1, "an actor with two processes"
            assert all(executor.aside for executor in session.executors.values())
            starts = [run.start for run in session.queue]
            assert starts == sorted(starts), "an actor's calls are out of order"
            assert list(session.blocked) == sorted(session.blocked)
    for executor in broker.executors.values():
        assert not executor.aside or (executor.session is not None and executor.session.actor)
    assert all(broker.sessions[number].actor for number in broker.unplaced)
    assert broker.placing.keys() <= broker.unplaced.keys()
    gated = {number for number, session in broker.sessions.items() if session.actor and session.blocked}
    assert gated <= set(broker.gated)


def _is_of(executor: Executor, worker: Worker) -> bool:
    return executor.aside and executor.token == worker.token
