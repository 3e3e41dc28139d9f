"""Changes: sessions that are suspended and resumed.

Of a suspended session nothing is handed out.  What runs ends; what executors hold
and have not begun is asked back, and then they serve others.  All else goes on:
tasks come in and are queued, results go out, deaths and retries are seen to.
What the tasks of its tasks need is handed out as ever, or those that run
could not end.

Functions over the broker's state; same rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flamezmq.core import control, dispatch, events
from flamezmq.core.members import Effects, Session
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker


def on_change_session(
    broker: Broker, peer: int, message: m.ChangeSession, _frames: list[Any], now: float, out: Effects
) -> None:
    """Do what is asked, all of it or nothing, and say so."""
    session = broker.records.find(message.session)
    outcome, text = control.NOT_FOUND, f"there is no session {message.session[: control.MOST_CHARACTERS]!r}"
    if session is not None:
        outcome, text = _change(broker, session, message, now, out)
    out.append((peer, m.Done(message.request, outcome, text), []))


def _change(
    broker: Broker, session: Session, message: m.ChangeSession, now: float, out: Effects
) -> tuple[int, str]:
    """(outcome, sentence)."""
    by = message.by[: control.MOST_CHARACTERS]
    if session.closed:
        return control.NOT_DONE, f"session {session.id} is closed already"
    if message.suspended is None:
        return control.NOT_DONE, f"nothing was to be changed in session {session.id}"
    if message.suspended:
        if session.suspended:
            return control.NOT_DONE, f"session {session.id} is suspended already, by {session.suspended}"
        suspend(broker, session, by, now, out)
        return control.DONE, f"session {session.id} is suspended; tasks that wait: {session.waiting:,}"
    if not session.suspended:
        return control.NOT_DONE, f"session {session.id} is not suspended"
    resume(broker, session, by, now)
    return control.DONE, f"session {session.id} is resumed; tasks that wait: {session.waiting:,}"


def suspend(broker: Broker, session: Session, by: str, now: float, out: Effects) -> None:
    """Hand out nothing more of it, and ask back what has not begun."""
    session.suspended, session.suspended_at = by or "somebody", now
    events.note(session, events.SUSPENDED, now, f"by {session.suspended}")
    for executor in session.executors.values():
        if executor.tasks:
            dispatch.ask(executor, session, 0, out)
    broker.scheduler.suspend(session.number)
    broker.demand(session)


def resume(broker: Broker, session: Session, by: str, now: float) -> None:
    """Hand out again what waits."""
    session.suspended = ""
    events.note(session, events.RESUMED, now, f"by {by or 'somebody'}")
    broker.fed.update(session.executors)
    broker.scheduler.unsuspend(session.number)
    broker.demand(session)
