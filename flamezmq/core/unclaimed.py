"""Results that lie in a store and that will reach nobody: the store hears of them, so that they go.

Those of an executor that has died before it had sent them, and those that come
too late.  Executors say with their results which object was the last of them
(`Results.last`); the ids that a process draws ascend.

Functions over the broker's state; same rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from flamezmq.core import spares
from flamezmq.core.members import Effects, Executor
from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m
from flamezmq.wire.codec import split_payloads
from flamezmq.wire.handles import unpack

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker

_read_outputs = msgspec.msgpack.Decoder(list[bytes]).decode


def on_death(broker: Broker, executor: Executor, out: Effects) -> None:
    """What it has put as a result, and has not sent, reaches nobody."""
    worker = spares.worker_of(broker, executor)
    if worker is not None and worker.store:
        out.append((worker.peer, m.Unclaimed(executor.pid, executor.last_object), []))


def on_stale(
    broker: Broker, executor: Executor, message: m.RoutedResults, frames: list[Any], out: Effects
) -> None:
    """Nobody waits for any of these results."""
    worker = spares.worker_of(broker, executor)
    if worker is None or not worker.store:
        return
    try:
        outputs = split_payloads(_read_outputs(message.outputs), message.parts, frames)
        ids = [unpack(outputs[at]).id for at in message.stored[::2]]
    except (msgspec.DecodeError, ValueError, IndexError, ProtocolError):
        return  # what nobody can read does no harm: it goes with its session
    out.append((worker.peer, m.Discard(ids), []))
