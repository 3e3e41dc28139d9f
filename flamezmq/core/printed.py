"""What tasks print, at the router: on to their client, and into the logs.

A closing session is flushed: its client hears `Closed` when each worker that may
have more of it has answered `Flush`.  An executor hangs up by itself, and what it has
printed comes by way of its worker, perhaps later: until that has reported its death it
is known as one that is `buried`.

Functions over the broker's state; same rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

from flamezmq.core.members import NAME_CHARACTERS, Effects, Executor, Session, Worker
from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker


def on_printed(
    broker: Broker, peer: int, message: m.Printed, _frames: list[Any], now: float, out: Effects
) -> None:
    """An executor has printed something."""
    worker = broker.workers.get(peer)
    if worker is None:
        raise ProtocolError("this is a worker's message")
    executor = _speaker(broker, worker, message.number)
    name = executor.name if executor is not None else f"{worker.node[:NAME_CHARACTERS]}/{message.number}"
    dropped = message.dropped
    for text, session, index in _pieces(executor, message):
        broker.records.logs.add(name, session, index, message.stream, text, dropped, now)
        dropped = 0
    served = executor.served if executor else None
    hearer = served and (served.root or served)
    if hearer is None or not hearer.spec.forward_output:
        return
    if not hearer.closed or hearer.number in broker.flushing or hearer.number in broker.parting:
        words = m.Output(hearer.alias, name, message.stream, message.text, message.dropped)
        out.append((hearer.client.peer, words, []))


def _speaker(broker: Broker, worker: Worker, number: int) -> Executor | None:
    name = worker.token, number
    peer = broker.by_name.get(name)
    return broker.executors[peer] if peer is not None else broker.buried.get(name)


def root(broker: Broker, spec: m.SessionSpec) -> Session | None:
    """The session whose client hears what a nested one prints; None if it is none, or nobody knows.

    Not by way of the task that has opened it: that may have ended, and its session been closed, by then.
    """
    if not spec.outer:
        return None
    executors = [e for e in broker.executors.values() if f"{e.token}/{e.number}" == spec.within]
    outer = broker.sessions.get(spec.outer)
    if outer is None or not any(spec.outer == number for e in executors for number, _ in e.past):
        return None
    return outer.root or outer


def _pieces(executor: Executor | None, message: m.Printed) -> Iterator[tuple[str, str, int]]:
    """(text, session id, index) of each piece; sessions that the executor did not serve are not believed."""
    tasks, text = message.tasks, message.text
    past = dict(executor.past) if executor is not None else {}
    latest = executor.served.id if executor is not None and executor.served is not None else ""
    used = 0
    for at in range(0, len(tasks) - len(tasks) % 3, 3):
        count, number, index = tasks[at : at + 3]
        piece = text[used : used + max(count, 0)]
        used += len(piece)
        if piece:
            known = index >= 0 and number in past
            yield piece, past[number] if known else latest, index if known else -1
    if used < len(text) or not text:
        yield text[used:], latest, -1


def speaking(broker: Broker, session: Session) -> dict[int | str, None]:
    """The workers that may still have something that tasks of the session have printed: their peers.

    Of one whose executor was quicker to come than itself, the token.
    """
    if not session.spec.forward_output:
        return {}
    peers = {worker.token: peer for peer, worker in broker.workers.items()}
    return {
        peers.get(e.token, e.token): None
        for e in chain(broker.executors.values(), broker.buried.values())
        if e.served is not None and (e.served is session or e.served.root is session)
    }


def flush(broker: Broker, session: Session, out: Effects) -> None:
    """It is closed; its client hears so when all that its tasks have printed has been sent on."""
    waiting = speaking(broker, session)
    if waiting:
        broker.flushing[session.number] = (session, waiting)
        ask(waiting, session.number, out)
    else:
        out.append((session.client.peer, m.Closed(session.alias), []))


def ask(speaking: Iterable[int | str], number: int, out: Effects) -> None:
    """Have the workers that are here send on all that was printed for a session."""
    out += [(worker, m.Flush(number), []) for worker in speaking if isinstance(worker, int)]


def on_worker(broker: Broker, peer: int, token: str, out: Effects) -> None:
    """A worker has registered: it is asked what its executors have printed before that."""
    for number, (_, waiting) in broker.flushing.items():
        if token in waiting:
            del waiting[token]
            waiting[peer] = None
            ask((peer,), number, out)


def on_executor_gone(broker: Broker, token: str, out: Effects) -> None:
    """With its last executor, a worker that has never come is not waited for any more."""
    if broker.flushing and not any(e.token == token for e in broker.executors.values()):
        for number in list(broker.flushing):
            flushed(broker, token, number, out)


def on_flushed(
    broker: Broker, peer: int, message: m.Flushed, _frames: list[Any], _now: float, out: Effects
) -> None:
    """A worker has sent on all that was printed when it was asked."""
    if peer not in broker.workers:
        raise ProtocolError("this is a worker's message")
    flushed(broker, peer, message.request, out)


def flushed(broker: Broker, worker: int | str, number: int, out: Effects) -> None:
    """This worker has no more to say for a session that is closing; the last one closes it."""
    if number in broker.flushing:
        session, waiting = broker.flushing[number]
        waiting.pop(worker, None)
        if not waiting:
            del broker.flushing[number]
            out.append((session.client.peer, m.Closed(session.alias), []))
