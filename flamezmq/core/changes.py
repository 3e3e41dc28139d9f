"""Changes: sessions that are suspended and resumed, or drained, or get another share.

Of a suspended session nothing is handed out.  What runs ends; what executors hold
and have not begun is asked back, and then they serve others.  All else goes on:
tasks come in and are queued, results go out, deaths and retries are seen to.
What the tasks of its tasks need is handed out as ever, or those that run
could not end.

A session is drained together with its client.  That is told, takes nothing more, and
says when all that was submitted is with the router; when that has ended the session is
closed.  So nothing that `submit` has taken is lost on the way.

Functions over the broker's state; same rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from flamezmq.core import control, dispatch, events
from flamezmq.core.members import Effects, Session
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker

#: What of a `ChangeSession` is a part of the session's spec.
SHARES = ("weight", "priority", "min_executors", "max_executors")


def on_close(
    broker: Broker, peer: int, message: m.Close, _frames: list[Any], now: float, out: Effects
) -> None:
    """Its client closes the session; at once, or when what it has has ended."""
    session = broker.session(peer, message.session)
    if session is None:
        out.append((peer, m.Closed(message.session), []))
    elif message.drained and session.draining:
        broker.drained[session.number] = session
    else:
        broker.close_session(session, "closed by its client", now, out)


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
    shares = {name: getattr(message, name) for name in SHARES if getattr(message, name) is not None}
    if shares:
        return _set(broker, session, shares, by, now)
    if message.drain:
        return _drain(session, by, now, out)
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


def _set(broker: Broker, session: Session, shares: dict[str, Any], by: str, now: float) -> tuple[int, str]:
    if session.actor or session.spec.within:
        whose = "an actor" if session.actor else "a task"
        return control.NOT_DONE, f"session {session.id} is that of {whose}: it has no share of its own"
    spec = replace(session.spec, **shares)
    if 0 < spec.max_executors < spec.min_executors:
        both = f"min_executors={spec.min_executors}, max_executors={spec.max_executors}"
        return control.NOT_DONE, f"session {session.id} can't have {both}"
    if 0 < spec.max_executors < spec.gang:
        return control.NOT_DONE, (
            f"session {session.id} gets executors {spec.gang} at a time (its gang): "
            f"max_executors={spec.max_executors} would be less than one"
        )
    session.spec = spec
    session.keeps = session.keeps or bool(spec.min_executors)
    broker.scheduler.set(
        session.number,
        weight=spec.weight,
        priority=spec.priority,
        minimum=spec.min_executors,
        limit=spec.max_executors,
    )
    for inner in broker.sessions.values():
        if inner.root is session and not inner.closed:  # it counts for the session that it is from
            broker.scheduler.set(inner.number, weight=spec.weight, priority=spec.priority)
    broker.fed.update(session.executors)  # one that rests may have to go
    broker.demand(session)
    text = ", ".join(f"{name}={value:g}" for name, value in shares.items())
    events.note(session, events.CHANGED, now, f"{text}, by {by or 'somebody'}")
    return control.DONE, f"session {session.id} has {text} from now on"


def _drain(session: Session, by: str, now: float, out: Effects) -> tuple[int, str]:
    if session.draining:
        return control.NOT_DONE, f"session {session.id} is being closed already, by {session.draining}"
    if session.actor or session.spec.within:
        whose = "an actor" if session.actor else "a task"
        return control.NOT_DONE, f"session {session.id} is that of {whose}: it can be closed, not drained"
    session.draining = by or "somebody"
    events.note(session, events.DRAINING, now, f"by {session.draining}")
    out.append((session.client.peer, m.ClosedBy(session.alias, session.draining, True), []))
    left = session.waiting + session.held
    text = (
        f"session {session.id} takes no more tasks, and is closed when those that it has have ended: {left:,}"
    )
    if session.suspended:
        text += f"; it is suspended, by {session.suspended}: resume it, or they never end"
    return control.DONE, text


def close_drained(broker: Broker, now: float, out: Effects) -> None:
    """Those of which nothing is left, and nothing comes any more."""
    for session in list(broker.drained.values()):
        if not session.waiting and not session.held:
            broker.close_session(session, f"closed by {session.draining}", now, out)


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
    broker.scheduler.suspend(session.number, False)
    broker.demand(session)
