"""Stores: which there are, what they have, and who has objects of a session, to hear of its end.

What the stores report stands in the directory (core/directory.py), by the tokens of their workers.

Functions over the broker's state; same rules.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from flamezmq.core.directory import Entry, Report
from flamezmq.core.members import NAME_CHARACTERS, Effects, Session, Worker
from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m
from flamezmq.wire.handles import ID_BYTES
from flamezmq.wire.objects import MOST_OBJECTS

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker


def handlers(broker: Broker) -> dict[type, Callable[..., None]]:
    """What this module does with which message."""
    return {
        m.AskStores: partial(on_ask, broker),
        m.Stocks: partial(on_stocks, broker),
        m.Stocked: partial(on_stocked, broker),
        m.WhoHas: partial(on_who_has, broker),
    }


def _worker(broker: Broker, peer: int) -> Worker:
    worker = broker.workers.get(peer)
    if worker is None:
        raise ProtocolError("this is a worker's message")
    return worker


def on_ask(
    broker: Broker, peer: int, message: m.AskStores, _frames: list[Any], _now: float, out: Effects
) -> None:
    """A client, or the task of a client, looks for the store of its node."""
    found = [worker for worker in broker.workers.values() if worker.store]
    names, at = [worker.store for worker in found], [worker.store_at for worker in found]
    nodes = [worker.node for worker in found]
    out.append((peer, m.Stores(message.request, names, at, nodes), []))


def on_stocks(
    broker: Broker, peer: int, message: m.Stocks, _frames: list[Any], _now: float, out: Effects
) -> None:
    """The first object of a session is in this worker's store; the session may have ended meanwhile."""
    _worker(broker, peer)
    session = broker.records.find(message.session)
    if session is None or session.closed:
        out.append((peer, m.Unstock(message.session), []))
    else:
        session.stores[peer] = None


def on_stocked(
    broker: Broker, peer: int, message: m.Stocked, _frames: list[Any], _now: float, _out: Effects
) -> None:
    """A store reports; what it has of sessions that have ended is not worth knowing."""
    node = _worker(broker, peer).token
    directory = broker.directory
    columns = message.ids, message.owners, message.sizes, message.marks
    if len({len(column) for column in columns}) != 1 or len(message.ids) + len(message.gone) > MOST_OBJECTS:
        raise ProtocolError("a report of a store whose columns do not fit")
    if any(len(id) != ID_BYTES for id in message.ids):
        raise ProtocolError("a report of a store of what is no object")
    if not all(-1 <= owner < len(message.sessions) for owner in message.owners):
        raise ProtocolError("a report of a store with objects of no session")
    found = [broker.records.find(session) for session in message.sessions]
    are_open = [session is not None and not session.closed for session in found]
    directory.used[node] = message.used
    directory.gone(node, message.gone)
    for at, (id, owner, size, marks) in enumerate(zip(*columns, strict=True)):
        if owner < 0 or are_open[owner]:
            session = message.sessions[owner] if owner >= 0 else ""
            name = message.names.get(at, "")[:NAME_CHARACTERS]
            directory.has(node, Report(id, session, size, marks, name, message.readers.get(at, 0)))


def on_who_has(
    broker: Broker, peer: int, message: m.WhoHas, _frames: list[Any], _now: float, out: Effects
) -> None:
    """A store looks for others that have what it is asked for."""
    own = _worker(broker, peer).token
    if len(message.ids) > MOST_OBJECTS:
        raise ProtocolError(f"more than {MOST_OBJECTS} objects are asked for at a time")
    at = {worker.token: worker.store_at for worker in broker.workers.values()}
    found: list[list[str]] = []
    for id in message.ids:
        entry = broker.directory.find(id)
        nodes = entry.nodes if entry is not None else ()
        found.append([at[node] for node in nodes if node != own and at.get(node)])
    out.append((peer, m.Holders(message.ids, found), []))


def on_end(broker: Broker, session: Session, out: Effects) -> None:
    """Its objects go."""
    for peer in session.stores:
        if peer in broker.workers:
            out.append((peer, m.Unstock(session.id), []))
    session.stores.clear()
    broker.directory.end_session(session.id)


def on_lost(broker: Broker, worker: Worker) -> None:
    """A node is gone, and what only its store had is gone with it."""
    lost: list[Entry] = broker.directory.lose(worker.token)
    if lost:
        fields = {"node": worker.node, "objects": len(lost), "bytes": sum(entry.size for entry in lost)}
        broker.events.append(("objects-lost", fields))
