"""Control: closing sessions and cancelling tasks for somebody who is not their client.

The client is told by whom, in the words that the controller has given.  What an
executor holds has to be asked back first, or interrupted: the controller's
answer waits for that.

Functions over the broker's state; same rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from flamezmq.core import returns
from flamezmq.core.members import Effects, Session
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker

DONE, NOT_DONE, NOT_FOUND = 0, 1, 2
#: Of the words that say who it was.
MOST_CHARACTERS = 200


class Cancelling:
    """Tasks of one session that controllers wait for: index -> (by whom, {peer: request})."""

    def __init__(self) -> None:
        self.waiting: dict[int, tuple[str, dict[int, int]]] = {}

    def request_of(self, index: int, peer: int) -> int | None:
        """The request of this peer's that waits for it."""
        return self.waiting[index][1].get(peer) if index in self.waiting else None

    def add(self, index: int, by: str, peer: int, request: int) -> bool:
        """Whether nobody waited for it before."""
        first = index not in self.waiting
        self.waiting.setdefault(index, (by, {}))[1][peer] = request
        return first


def on_close_session(
    broker: Broker, peer: int, message: m.CloseSession, _frames: list[Any], now: float, out: Effects
) -> None:
    """As if its client had closed it; the client hears of it, and what runs must end soon."""
    session = broker.records.find(message.session)
    if session is None:
        text = f"there is no session {message.session[:MOST_CHARACTERS]!r}"
        out.append((peer, m.Done(message.request, NOT_FOUND, text), []))
        return
    if session.closed:
        out.append((peer, m.Done(message.request, NOT_DONE, f"session {session.id} is closed already"), []))
        return
    before = session.cancelled
    by = message.by[:MOST_CHARACTERS]
    out.append((session.client.peer, m.ClosedBy(session.alias, by), []))
    broker.close_session(session, f"closed by {by}", now, out)
    waited = session.cancelled - before
    text = f"session {session.id} is closed; tasks that waited and are cancelled: {waited:,}"
    out.append((peer, m.Done(message.request, DONE, text), []))


def on_cancel_task(
    broker: Broker, peer: int, message: m.CancelTask, _frames: list[Any], now: float, out: Effects
) -> None:
    session, index = broker.records.find(message.session), message.index
    why, outcome = "", NOT_FOUND
    if session is None:
        why = f"there is no session {message.session[:MOST_CHARACTERS]!r}"
    elif not 0 <= index < session.next_index:
        why = f"session {session.id} has no task {index}"
    elif session.closed:
        why, outcome = f"session {session.id} is closed: none of its tasks waits any more", NOT_DONE
    if why or session is None:
        out.append((peer, m.Done(message.request, outcome, why), []))
        return
    if session.cancelling is None:
        session.cancelling = Cancelling()
    older = session.cancelling.request_of(index, peer)
    if older is not None:  # one each, so that nobody can pile them up
        text = f"task {session.id}/{index} was asked for again: the answer goes there"
        out.append((peer, m.Done(older, NOT_DONE, text), []))
    first = session.cancelling.add(index, message.by[:MOST_CHARACTERS], peer, message.request)
    if first or message.running:
        returns.cancel(broker, session, {index}, now, out, message.running)


def tell_cancelled(session: Session, gone: list[int], refused: list[int], out: Effects) -> None:
    """Tell the session's client what is cancelled, and the controllers who wait for some of it.

    gone     these will never run
    refused  these have begun or ended, or nobody knows them
    """
    if session.cancelling is None or not session.cancelling.waiting:
        _remember(session, gone, "its client")
        out.append((session.client.peer, m.Cancelled(session.alias, gone, refused), []))
        return
    waiting = session.cancelling.waiting
    ours = [index for index in gone if index in waiting]
    for index in ours:
        reason = f"cancelled by {waiting[index][0]}"
        _remember(session, [index], waiting[index][0])
        out.append((session.client.peer, m.Cancelled(session.alias, [index], [], reason), []))
        _answer(session, [index], DONE, "is cancelled", out)
    ended = [index for index in refused if index in waiting]
    for index in ended:
        by = cancelled_by(session, index)
        words = f"was cancelled before, by {by}" if by else "has begun or ended: it is not cancelled"
        _answer(session, [index], NOT_DONE, words, out)
    gone = [index for index in gone if index not in ours]
    _remember(session, gone, "its client")
    refused = [index for index in refused if index not in ended]
    if gone or refused:
        out.append((session.client.peer, m.Cancelled(session.alias, gone, refused), []))


def _remember(session: Session, indices: list[int], by: str) -> None:
    """These were cancelled, for those who ask later; the last ranges of them."""
    first = last = -1
    for index in sorted(indices):
        if index != last + 1 or first < 0:
            if first >= 0:
                session.gone.append((first, last, by))
            first = index
        last = index
    if first >= 0:
        session.gone.append((first, last, by))


def cancelled_by(session: Session, index: int) -> str:
    """Who has cancelled this task; empty: nobody, or that was long ago."""
    return next((by for first, last, by in reversed(session.gone) if first <= index <= last), "")


def on_session_end(session: Session, out: Effects) -> None:
    """It is closed: who waits for one of its tasks waits no longer."""
    if session.cancelling is not None:
        waiting = list(session.cancelling.waiting)
        _answer(session, waiting, NOT_DONE, "belongs to a session that was closed meanwhile", out)


def _answer(session: Session, indices: Iterable[int], outcome: int, words: str, out: Effects) -> None:
    assert session.cancelling is not None
    for index in indices:
        _, requests = session.cancelling.waiting.pop(index)
        for peer, request in requests.items():
            out.append((peer, m.Done(request, outcome, f"task {session.id}/{index} {words}"), []))
