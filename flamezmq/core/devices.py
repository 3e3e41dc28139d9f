"""Devices: which of a node's GPUs the process of an executor may see.

A worker names its devices; an executor that serves a session with `gpu=n` is told
which are its own (`Bind.devices`), before its first task of that.  A library that has
begun with some devices can't be given others, so a process keeps what it was given
for its life, and serves only sessions that ask for as much; one that has served anything
else before is replaced before it gets any.  What nobody uses any more goes to who needs
it, and the process that had it, to its end.

Whole devices are never shared.  Executors that ask for a fraction share one, as far
as that is to be had: the sum is kept by `rooms.py`, which does not know of pieces.

Functions over the broker's state; same rules.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from flamezmq.core import dispatch
from flamezmq.core.members import Effects, Executor, Session, Worker
from flamezmq.resources import EPSILON

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker


def suits(executor: Executor, session: Session) -> bool:
    """Whether its process may see what the session asks for, and nothing else.  It has served others."""
    if executor.devices:
        return executor.device_amount == session.gpus
    return not session.gpus


def allot(broker: Broker, executors: list[Executor], now: float, out: Effects) -> None:
    """These were bound just now, to sessions that ask for GPUs; nobody else will be in this round."""
    for executor in executors:
        session = executor.session
        worker = next((w for w in broker.workers.values() if w.token == executor.token), None)
        if session is None or worker is None or not worker.devices or executor.devices:
            continue
        executor.device_amount = session.gpus
        executor.devices = _choose(broker, worker, session.gpus, now, out)


def _choose(broker: Broker, worker: Worker, amount: float, now: float, out: Effects) -> tuple[str, ...]:
    """Those that are least to spare among what has room: a fraction goes where another one is."""
    count = ceil(amount - EPSILON)
    load = loads(broker, worker)
    while len(found := _with_room(load, amount / count)) < count:
        idle = next((e for e in _holders(broker, worker) if _is_over(broker, e)), None)
        if idle is None:
            break
        idle.devices = ()
        if idle.session is None and not idle.exiting:
            dispatch.dismiss(broker, idle, now, out)
        load = loads(broker, worker)
    rest = sorted((name for name in load if name not in found), key=load.__getitem__)
    chosen = (found + rest)[:count]
    return tuple(name for name in worker.devices if name in chosen)


def _with_room(load: dict[str, float], share: float) -> list[str]:
    """The fullest first."""
    return sorted((name for name in load if load[name] + share < 1.0 + EPSILON), key=lambda name: -load[name])


def loads(broker: Broker, worker: Worker) -> dict[str, float]:
    """How much of each of its devices executors have: 1 is all."""
    load = dict.fromkeys(worker.devices, 0.0)
    for executor in _holders(broker, worker):
        for name in executor.devices:
            if name in load:
                load[name] += executor.device_amount / len(executor.devices)
    return load


def _holders(broker: Broker, worker: Worker) -> list[Executor]:
    return [e for e in broker.executors.values() if e.devices and e.token == worker.token]


def _is_over(broker: Broker, executor: Executor) -> bool:
    """It serves nobody, or is dead."""
    return executor.session is None or broker.is_dead(executor.peer)


def check(broker: Broker) -> None:
    """Compare what executors have with what there is."""
    for worker in broker.workers.values():
        whole = [
            name
            for executor in _holders(broker, worker)
            if executor.device_amount >= 1 and not _is_over(broker, executor)
            for name in executor.devices
        ]
        assert len(whole) == len(set(whole)), "a whole device has two users"
