"""Stores: which there are, and which of them have objects of a session, so that they hear of its end.

Functions over the broker's state; same rules.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from flamezmq.core.members import Effects, Session
from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker


def handlers(broker: Broker) -> dict[type, Callable[..., None]]:
    """What this module does with which message."""
    return {m.AskStores: partial(on_ask, broker), m.Stocks: partial(on_stocks, broker)}


def on_ask(
    broker: Broker, peer: int, message: m.AskStores, _frames: list[Any], _now: float, out: Effects
) -> None:
    """A client, or the task of a client, looks for the store of its node."""
    names = [worker.store for worker in broker.workers.values() if worker.store]
    out.append((peer, m.Stores(message.request, names), []))


def on_stocks(
    broker: Broker, peer: int, message: m.Stocks, _frames: list[Any], _now: float, out: Effects
) -> None:
    """The first object of a session is in this worker's store; the session may have ended meanwhile."""
    if peer not in broker.workers:
        raise ProtocolError("this is a worker's message")
    session = broker.records.find(message.session)
    if session is None or session.closed:
        out.append((peer, m.Unstock(message.session), []))
    else:
        session.stores[peer] = None


def on_end(broker: Broker, session: Session, out: Effects) -> None:
    """Its objects go."""
    for peer in session.stores:
        if peer in broker.workers:
            out.append((peer, m.Unstock(session.id), []))
    session.stores.clear()
