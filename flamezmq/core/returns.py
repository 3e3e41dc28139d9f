"""Tasks that are taken back before they have begun: cancelled, or asked back from who holds them.

What waits at the router is taken at once.  An executor is asked by `Drop` or
`Retract` (core/dispatch.py asks, too), and answers each in order; only what it
gives back is sure not to run there.

Functions over the broker's state; same rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flamezmq.core import dispatch, endings, interrupts, needs, retries
from flamezmq.core.members import Effects, Session
from flamezmq.core.tasks import Run, extract
from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker


def on_cancel(
    broker: Broker, peer: int, message: m.Cancel, _frames: list[Any], now: float, out: Effects
) -> None:
    session = broker.session(peer, message.session)
    if session is None:
        return
    cancel(broker, session, set(message.indices), now, out, message.running)


def cancel(
    broker: Broker, session: Session, wanted: set[int], now: float, out: Effects, running: bool = False
) -> None:
    """Cancel what waits, ask executors for what they hold, refuse the rest.

    running: interrupt what runs
    """
    gone = extract(session.queue, wanted)
    session.queued -= len(gone)
    if session.delayed:
        gone += retries.cancel(broker, session, wanted)
    if session.blocked:
        gone += needs.cancel(session, sorted(wanted))
    wanted.difference_update(gone)
    endings.unwanted(session, gone, now, out, _ask_back(broker, session, wanted, now, out, running))
    broker.demand(session)


def _ask_back(
    broker: Broker, session: Session, wanted: set[int], now: float, out: Effects, running: bool
) -> list[int]:
    """Drop what executors hold of `wanted`; returns the indices that nobody holds."""
    for executor in session.executors.values():
        if not wanted:
            break
        held = sorted(i for i in wanted if any(run.start <= i < run.end for run in executor.held))
        if held:
            executor.asked.append((session, held))
            out.append((executor.peer, m.Drop(session.number, held), []))
            if running:
                interrupts.ask(broker, session, executor, held, now, out)
            wanted.difference_update(held)
    return sorted(wanted)


def on_retracted(
    broker: Broker, peer: int, message: m.Retracted, _frames: list[Any], now: float, out: Effects
) -> None:
    """An executor says what it gives back: that is cancelled, or queued again for others."""
    executor = broker.executor_of(peer)
    executor.heard = now
    session, dropped = executor.asked[0] if executor.asked else (None, None)
    if session is None or session.number != message.session:
        raise ProtocolError("an answer to a question that was not asked")
    if sum(part.count for part in message.slices) > executor.tasks:
        raise ProtocolError("more is given back than it holds")
    executor.asked.popleft()
    runs: list[Run] = []
    if executor.session is session:
        back = {i for part in message.slices for i in range(part.first, part.first + part.count)}
        runs = dispatch.take_back(executor, session, back)
    if dropped is not None:
        gone = [i for run in runs for i in range(run.start, run.end)]
        refused = sorted(set(dropped).difference(gone, session.unwanted))
        if session.closed:
            session.note_cancelled(gone)
        else:
            endings.unwanted(session, gone, now, out, refused)
    elif not session.closed:
        dispatch.requeue(session, interrupts.sort_out(session, runs, now, out) if session.unwanted else runs)
    else:
        session.cancelled += sum(map(len, runs))
    if runs:
        broker.took_from(executor, session)
        broker.fed.update(session.executors)
    broker.fed[peer] = executor  # no more is asked of it: it may take more
    broker.demand(session)
