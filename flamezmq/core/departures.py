"""Leaving in order: a worker that drains, and a router that does.

What runs may end, what has not begun goes elsewhere, and nobody is charged.
Functions over the broker's state; same rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flamezmq.core import joining
from flamezmq.core.dispatch import ask, dismiss, let_run_dry
from flamezmq.core.members import Effects, Executor

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker


def see_off(broker: Broker, executor: Executor, now: float, out: Effects) -> None:
    """Its worker leaves: it gets nothing more, what it has not begun goes elsewhere, and then it exits."""
    if executor.departing:
        return
    executor.departing = executor.reclaimed = True  # also when a pause of its task is over
    session = executor.session
    if executor.exiting:
        return
    if session is None:
        dismiss(broker, executor, now, out)
        return
    let_run_dry(broker, executor, session)
    broker.scheduler.retire(executor.peer, soon=False)
    if executor.tasks > 1:
        ask(executor, session, 1, out)
    elif not executor.tasks:
        broker.fed[executor.peer] = executor


def drain(broker: Broker, out: Effects, now: float = 0.0) -> None:
    """The router is about to end: grant nothing more, open no session, ask back what has not begun."""
    broker.draining, broker.drains_since = True, now
    for executor in broker.executors.values():
        if executor.session is not None and executor.tasks > 1:
            ask(executor, executor.session, 1, out)


def clients_at_rest(broker: Broker) -> list[int]:
    """Clients for whom nothing runs, and whose tasks have nothing more to say.

    Tasks that run are themselves clients, if they have submitted any: those are not among them.
    """
    busy = {e.session.client.peer for e in broker.executors.values() if e.session is not None and e.tasks}
    busy.update(session.client.peer for session, _ in broker.flushing.values())
    busy.update(joining.busy_members(broker, busy))
    return [peer for peer in outer_clients(broker) if peer not in busy]


def outer_clients(broker: Broker) -> list[int]:
    """Clients that are no tasks."""
    return [peer for peer, client in broker.clients.items() if not client.inner]
