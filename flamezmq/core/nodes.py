"""Nodes: their workers and executors come, report deaths, leave in order, or are gone.

Functions over the broker's state; same rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flamezmq import waits
from flamezmq.core import actors, deaths, departures, dispatch, events, printed, readers, spares, stores
from flamezmq.core.members import Effects, Executor, Worker
from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker


def on_register(
    broker: Broker, peer: int, message: m.Register, _frames: list[Any], now: float, out: Effects
) -> None:
    """A worker is here; one of the same name before it has lost its place."""
    if peer in broker.clients or peer in broker.executors:
        raise ProtocolError("this peer has introduced itself as something else")
    for other in [w for w in broker.workers.values() if w.node == message.node and w.peer != peer]:
        broker.on_peer_lost(other.peer, now, out)  # its successor is here
        out.append((other.peer, m.Exit(), []))  # if it lives, it must not come back for it
    broker.workers[peer] = Worker(
        peer, message.node, message.token, message.executors, message.pid,
        message.cores, message.memory, message.gpus, now,
        resources=message.resources, devices=message.devices, store=message.store,
        store_at=message.store_at, store_limit=message.store_limit,
    )  # fmt: skip
    if message.store:
        broker.directory.homes[message.store] = message.token
    has = {one.name: one.amount for one in message.resources}
    has |= {"cpu": message.cores, "mem": float(message.memory), "gpu": float(message.gpus)}
    broker.scheduler.add_node(message.token, has, message.executors)
    printed.on_worker(broker, peer, message.token, out)
    actors.on_worker(broker, broker.workers[peer], out)
    readers.look(broker)
    broker.events.append(("node-joined", {"node": message.node, "executors": message.executors}))


def on_ready(
    broker: Broker, peer: int, message: m.Ready, _frames: list[Any], now: float, out: Effects
) -> None:
    """An executor introduces itself; one whose death was reported before is none."""
    if peer in broker.executors or peer in broker.clients or peer in broker.workers:
        raise ProtocolError("this peer has introduced itself already")
    name = (message.token, message.number)
    if name in broker.by_name:
        raise ProtocolError(f"executor {message.number} of this worker is here already")
    if name in broker._dead:
        del broker._dead[name]
        return
    executor = Executor(peer, message.node, message.token, message.number, message.pid, now)
    broker.executors[peer] = executor
    broker.by_name[name] = peer
    broker.scheduler.add_executor(peer, message.token)
    for worker in broker.workers.values():
        if worker.token == message.token:
            worker.stillborn = 0  # executors of its node can live
            spares.on_executor(broker, worker)
            if worker.leaving:
                departures.see_off(broker, executor, now, out)


def on_leave(
    broker: Broker, peer: int, _message: m.Leave, _frames: list[Any], now: float, out: Effects
) -> None:
    """A worker is about to leave: its executors exit as soon as they hold nothing."""
    worker = broker.workers.get(peer)
    if worker is None:
        raise ProtocolError("this is a worker's message")
    worker.leaving = True
    broker.events.append(("node-leaves", {"node": worker.node}))
    for executor in [e for e in broker.executors.values() if e.token == worker.token]:
        departures.see_off(broker, executor, now, out)


def on_died(broker: Broker, peer: int, message: m.Died, _frames: list[Any], now: float, out: Effects) -> None:
    """An executor's worker saw it die; what it had sent may still be on its way."""
    worker = broker.workers.get(peer)
    if worker is None:
        raise ProtocolError("this is a worker's message")
    if not message.expected:
        worker.last_death, worker.died_at = events.in_a_line(message), now
        how = {"signal": message.signal} if message.signal else {"exit_code": message.exit_code}
        broker.events.append(("executor-lost", {"executor": f"{worker.node}/{message.number}", **how}))
    name = (worker.token, message.number)
    dead = broker.by_name.get(name)
    if not message.expected and dead is None and name not in broker.buried:
        if not worker.stillborn:
            worker.failing_since = now
        worker.stillborn += 1
    if dead is None:
        if name in broker.buried:
            del broker.buried[name]
        else:
            broker._dead[name] = None
        return
    executor = broker.executors[dead]
    if executor.finished >= message.finished or executor.session is None:
        deaths.bury(broker, dead, message, now, out)
    elif dead not in broker.mourned:
        broker.mourned[dead] = (now + broker.limits.drain_seconds, message)
        dispatch.let_run_dry(broker, executor, executor.session)
        broker.scheduler.retire(dead)


def on_lost(broker: Broker, worker: Worker, now: float, out: Effects) -> None:
    """A worker is gone, whether it had said so or not, and its executors with it."""
    _leave_homeless(broker, worker, now)
    broker.alone_since = now  # as far as it was the last one
    broker.spare.pop(worker.peer, None)
    broker.events.append(("node-left" if worker.leaving else "node-lost", {"node": worker.node}))
    stores.on_lost(broker, worker)
    for number in list(broker.flushing):
        printed.flushed(broker, worker.peer, number, out)
    for executor in [e for e in broker.executors.values() if e.token == worker.token]:
        if executor.peer not in broker.mourned:  # else its death was reported, and that is acted on
            deaths.bury(broker, executor.peer, None, now, out)
    for names in (broker._dead, broker.buried):  # nobody will report them any more
        for name in [name for name in names if name[0] == worker.token]:
            del names[name]
    broker.scheduler.expect_none()


def _leave_homeless(broker: Broker, worker: Worker, now: float) -> None:
    """The node goes; sessions that no other one could serve are marked, for people who ask."""
    asking = [
        session for session in broker.sessions.values() if session.spec.resources and not session.closed
    ]
    housed = [session for session in asking if not waits.is_homeless(broker.scheduler, session.number)]
    broker.scheduler.remove_node(worker.token)
    for session in housed:
        if waits.is_homeless(broker.scheduler, session.number):
            session.homeless_since = now
