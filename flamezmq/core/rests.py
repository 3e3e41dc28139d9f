"""Rests: executors that stay bound to a session that has nothing for them.

A session may say how long (`delay_release`): what they have loaded stays warm, and its
next task need not wait for a free one.  Its minimum stays as long as it is open.
While they rest they count for their session like any other, so where others wait
it may have to give back what is above its share; these are the first to go then.

Functions over the broker's state; same rules.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING

from flamezmq.core import wear
from flamezmq.core.members import Effects, Executor, Session

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker


def keep(broker: Broker, executor: Executor, session: Session, out: Effects) -> bool:
    """Whether it stays with its session, which has nothing for it at the moment."""
    if session.closed or executor.leaving:
        return False
    now = broker.now
    if executor.rests_since is None:
        executor.rests_since = now
        broker.scheduler.rest(executor.peer)
        if executor.bound_to != session.number and not executor.unbinding:
            wear.bind(executor, session, out)  # it may prepare itself before there is a task
    due = executor.rests_since + session.spec.delay_release
    if broker.scheduler.stays(session.number, executor.peer):
        if session.spec.gang > 1 and now >= due:
            broker.scheduler.ripen(executor.peer)  # it goes when a whole gang can go
            due = inf
        elif session.spec.gang == 1:
            due = inf  # its minimum
    elif now >= due:
        return False
    if due < inf and executor.rests_until != due:
        executor.rests_until = due
        heappush(broker.rests, (due, executor.peer))
    return True


def linger(broker: Broker, executor: Executor) -> bool:
    """Whether it stays for one more turn, though its session has nothing for it: its next task may be near.

    So who submits one task, waits for it and submits the next one has no executor bound for each.
    Only where nobody could use it now; who could in the next turn gets it in that turn.
    """
    session = executor.session
    if session is None or session.closed or session.keeps or executor.leaving or len(session.executors) > 1:
        return False
    if broker.scheduler.waiting or broker.laden or broker.paused or broker.spare or broker.unplaced:
        return False
    broker.lingering[executor.peer] = executor
    return True


def end(broker: Broker, executor: Executor) -> None:
    """It is given something again."""
    executor.rests_since, executor.rests_until = None, inf
    broker.scheduler.wake(executor.peer)


def release_due(broker: Broker) -> None:
    """Look again at those that have rested long enough."""
    rests = broker.rests
    while rests and rests[0][0] <= broker.now:
        due, peer = heappop(rests)
        executor = broker.executors.get(peer)
        if executor is not None and executor.rests_until == due:
            executor.rests_until = inf
            broker.fed[peer] = executor
