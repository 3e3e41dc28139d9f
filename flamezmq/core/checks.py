"""The broker's `check`: every index is compared with every other.  For tests; it walks through everything."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from flamezmq.core import actors, commons, devices, locality, needs, quotas, readers

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker


def check(broker: Broker, mourned: Iterable[int]) -> None:
    """mourned: executors whose death was reported."""
    broker.scheduler.check()
    broker.records.check()
    devices.check(broker)
    broker.directory.check()
    known = {id(index) for index in vars(broker).values()}
    assert all(id(index) in known for index in broker.duties), "what is due was put into another dict or list"
    for session in broker.sessions.values():
        assert session.queued == sum(map(len, session.queue)), "queued"
        assert session.held == sum(e.tasks for e in session.executors.values()), "held"
        assert session.busy == sum(1 for e in session.executors.values() if e.tasks and not e.leaving), "busy"
        assert (session.client.sessions.get(session.alias) is session) != session.closed
        assert (session.number in broker.delaying) == bool(session.delayed)
        runs = [run for executor in session.executors.values() for run in executor.held]
        runs += [*session.queue, *(run for _, _, run in session.delayed)]
        indices = [i for run in runs for i in range(run.start, run.end)] + list(session.blocked)
        assert session.closed or set(session.composed) <= set(indices), "composed"
        assert len(indices) == len(set(indices)), "a task is in two places"
        alone = {run.start for run in runs if len(run) == 1}
        assert session.closed or session.retried.keys() <= alone, "retried, and in company"
        held = {i for e in session.executors.values() for run in e.held for i in range(run.start, run.end)}
        assert session.unwanted.keys() <= held, "unwanted, and held by nobody"
        assert session.late.keys() <= session.unwanted.keys()
        assert (session.number in broker.expiring) == bool(session.deadlines)
        assert not session.unwanted or broker.unwanted.get(session.number) is session
    for peer, executor in broker.executors.items():
        assert executor.peer == peer and broker.by_name[executor.token, executor.number] == peer
        assert executor.tasks == sum(map(len, executor.held))
        assert (peer in broker.laden) == (executor.tasks > 1 and not executor.aside)
        assert executor.session is None or executor.session.executors[peer] is executor
        assert not executor.exiting or executor.session is None
        assert executor.service is None or executor.service.bound[peer] is executor, "bound"
        assert not executor.unbinding or (executor.service is not None and not executor.tasks), "unbinding"
    for session in broker.parting.values():
        assert session.closed and any(executor.unbinding for executor in session.bound.values()), "parting"
    assert set(mourned) <= set(broker.executors)
    needs.check(broker)
    locality.check(broker)
    actors.check(broker)
    readers.check(broker)
    commons.check(broker)
    quotas.check(broker)
