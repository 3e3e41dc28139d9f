"""Services: when an executor binds the one of a session, and when that has to go.

An executor binds a session's service before its first task of the session, and
keeps it, also while it serves nobody, until

- another session gets the executor,
- its session is closed, or
- it is told to exit (then it calls the last hook by itself).

In the first two cases it is sent `Unbind`, and is given nothing until it has
answered.  If that takes long, it no longer counts as one that its next session
has: nobody waits for a slow hook while another executor is free.  Who closes a
session hears `Closed` when the services that are to go have gone.

How long an executor takes to enter a service is learned from the first results of each
bind: where sessions take turns, theirs are so long that this is little of them.

A bind that fails costs no task anything: the executor is replaced, and what it
held goes back.  After so many in a row as the application says, without one
that succeeds, the session is stopped as one whose initializer has failed.

Functions over the broker's state; same rules.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from flamezmq.core import dispatch, events, interrupts, printed, returns, wear
from flamezmq.core.members import Effects, Executor, Session
from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m
from flamezmq.wire.applications import SESSION_TIMEOUT_SECONDS

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker

#: What one more bind counts in how long entering a service takes.
LEARN = 0.3
#: A service that takes longer to go is not waited for if another executor is free.
SLOW_SECONDS = 0.02


def handlers(broker: Broker) -> dict[type, Any]:
    """What is done with the messages about services."""
    return {m.Unbound: partial(on_unbound, broker), m.BindFailed: partial(on_bind_failed, broker)}


def tenant_of(broker: Broker, spec: m.SessionSpec) -> str:
    """A session's tenant; that of a task's own is the tenant of the task."""
    if spec.within:
        for executor in broker.executors.values():
            if f"{executor.token}/{executor.number}" == spec.within:
                return executor.tenant
    return spec.tenant


def close(session: Session, out: Effects) -> None:
    """The session is closed: its services go, those of executors that still run its tasks a little later."""
    for executor in session.bound.values():
        if not executor.tasks:
            unbind(executor, out)


def unbind(executor: Executor, out: Effects) -> None:
    """The service that is bound there has to go.  The executor holds nothing."""
    if executor.service is not None and not executor.unbinding and not executor.exiting:
        executor.unbinding, executor.bound_to = True, 0
        out.append((executor.peer, m.Unbind(executor.service.number), []))


def watch(broker: Broker, executor: Executor, now: float) -> None:
    """A session has got an executor whose service is still to go."""
    broker.going[executor.peer] = now + SLOW_SECONDS


def look(broker: Broker, now: float) -> None:
    """Where a service takes long to go, the session that waits may have another executor."""
    for peer, due in list(broker.going.items()):
        executor = broker.executors[peer]
        if now >= due or executor.session is None:
            del broker.going[peer]
            if executor.session is not None:
                broker.scheduler.retire(peer, soon=False)
                broker.demand(executor.session)


def on_unbound(
    broker: Broker, peer: int, message: m.Unbound, _frames: list[Any], now: float, out: Effects
) -> None:
    """It has gone: the executor is free for others."""
    executor = broker.executor_of(peer)
    executor.heard = now
    session = executor.service
    if session is None or session.number != message.session or not executor.unbinding:
        raise ProtocolError("an answer to an Unbind that was not sent")
    if message.error:
        executor.worn = True  # nobody knows what it has left half-done
        events.note(session, events.UNBIND_FAILED, now, message.error, executor=executor.name)
    _let_go(broker, executor, session, out)
    serves = executor.session
    if executor.exiting:
        return
    if executor.worn or executor.confined:
        _replace(broker, executor, now, out)
    elif serves is not None:
        if not executor.leaving:
            broker.scheduler.resume(peer)
            broker.demand(serves)
        broker.fed[peer] = executor


def on_entered(broker: Broker, executor: Executor, session: Session, ran: float, now: float) -> None:
    """The first results of a bind are here: it has succeeded, and how long it took is learned.

    ran: seconds that the tasks themselves took
    """
    executor.binding, session.failed_binds = False, 0
    application = session.application
    if application is not None and executor.enters_at is not None:
        took = max(now - executor.enters_at - ran, 0.0)
        known = application.enters
        application.enters = took if known < 0 else known + LEARN * (took - known)
        broker.scheduler.learn_enter(session.number, application.enters)


def on_bind_failed(
    broker: Broker, peer: int, message: m.BindFailed, _frames: list[Any], now: float, out: Effects
) -> None:
    """What the executor held of the session goes back, uncharged; the executor is replaced."""
    executor = broker.executor_of(peer)
    executor.heard = now
    session = executor.service
    if session is None or session.number != message.session:
        raise ProtocolError("no service of that session was to be bound there")
    executor.worn = True
    _let_go(broker, executor, session, out)
    if executor.session is session and executor.tasks:
        _give_back(broker, executor, session, now, out)
    if not executor.exiting:
        _replace(broker, executor, now, out)
    _failed(broker, executor, session, message.text, message.traceback, now, out)


def _give_back(broker: Broker, executor: Executor, session: Session, now: float, out: Effects) -> None:
    """The executor has thrown away all that it holds, and nothing of it had begun: it is queued again."""
    held = {index for run in executor.held for index in range(run.start, run.end)}
    runs = dispatch.take_back(executor, session, held)
    if session.closed:
        session.cancelled += sum(map(len, runs))
    else:
        if session.unwanted:
            runs = interrupts.sort_out(session, runs, now, out)
        dispatch.requeue(session, runs)
    broker.took_from(executor, session)
    broker.demand(session)
    broker.fed.update(session.executors)
    for position, (asked, dropped) in enumerate(executor.asked):
        if dropped and asked is session and not session.closed:  # it can't tell us any more
            executor.asked[position] = asked, []
            returns.cancel(broker, session, set(dropped), now, out)


def on_gone(broker: Broker, executor: Executor, died: m.Died | None, now: float, out: Effects) -> None:
    """An executor is dead, and what was bound there with it; its tasks have gone back already."""
    session = executor.service
    if session is None:
        return
    hung = executor.unbinding
    _let_go(broker, executor, session, out)
    if died is None or died.expected:
        return
    if died.binding:
        text, trace = _how_it_died(session, died)
        _failed(broker, executor, session, text, trace, now, out)
    elif hung:
        events.note(session, events.UNBIND_FAILED, now, _how_it_hung(session, died), executor=executor.name)


def _how_it_hung(session: Session, died: m.Died) -> str:
    """What is said of a death in the last hook; where it was, if its watch has ended it (binding.py)."""
    frames = [at + 1 for at, line in enumerate(died.stderr) if line.endswith("(most recent call first):")]
    if died.signal or not frames or session.application is None:
        return events.in_a_line(died)
    grace = session.application.application.grace
    where = died.stderr[frames[-1]].strip() if frames[-1] < len(died.stderr) else "nobody knows where"
    return f"it took longer than its grace of {grace:g} s: {where}"


def _how_it_died(session: Session, died: m.Died) -> tuple[str, str]:
    """What is said of a death in a bind, and where it was, if that is known."""
    if not died.overdue or session.application is None:
        return f"the executor has died of it: {events.in_a_line(died)}", ""
    seconds = session.application.application.options.get("session_timeout", SESSION_TIMEOUT_SECONDS)
    text = (
        f"it was not ready after {seconds:g} s, so its process was ended; if its class needs longer to be "
        "loaded, or to be entered, give the application a longer session_timeout"
    )
    return text, "\n".join(died.stderr)


def _let_go(broker: Broker, executor: Executor, session: Session, out: Effects) -> None:
    """Nothing of the session is bound there any more; its client may hear that it is closed."""
    executor.service, executor.unbinding, executor.binding = None, False, False
    broker.going.pop(executor.peer, None)
    session.bound.pop(executor.peer, None)
    if session.number in broker.parting and not is_parting(session):
        del broker.parting[session.number]
        printed.flush(broker, session, out)


def is_parting(session: Session) -> bool:
    """Whether services of it are about to go."""
    return any(executor.unbinding for executor in session.bound.values())


def _replace(broker: Broker, executor: Executor, now: float, out: Effects) -> None:
    """It holds nothing, and is told to exit; its worker starts another one."""
    serves = executor.session
    if executor.aside:
        executor.worn = True  # core/actors.py sees to it
        broker.fed[executor.peer] = executor
    elif serves is not None:
        wear.replace(broker, executor, serves, now, out)
    else:
        dispatch.dismiss(broker, executor, now, out)


def _failed(
    broker: Broker, executor: Executor, session: Session, text: str, trace: str, now: float, out: Effects
) -> None:
    """A bind has failed: one more in a row; the last one that is allowed stops the session."""
    session.failed_binds += 1
    events.note(session, events.BIND_FAILED, now, text, executor=executor.name)
    if session.closed or session.application is None:
        return
    binds = session.failed_binds
    if binds >= session.application.application.bind_retries:
        events.note(session, events.STOPPED, now, f"{binds} binds in a row have failed")
        out.append(
            (session.client.peer, m.Broken(session.alias, executor.name, text, trace, binds=binds), [])
        )
        broker.close_session(session, f"its service could not be bound: {text}", now, out)
