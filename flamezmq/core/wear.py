"""Wear: what a session leaves in the process of an executor, and when that is to be replaced.

A session may have an initializer, which is called once in each process, and a
limit to the tasks that one process runs.  So the broker counts, for such
sessions, the tasks that each executor was given: one that has been given any
has had the initializer, and one that has been given all that it may run is
replaced as soon as it holds nothing.  `Session.counted` says that a session is one
of these; of all others nothing is counted, and this costs them nothing.

A session whose initializer fails is broken: the router closes it by itself.
The executor has thrown away what it held of the session, and is replaced.

Functions over the broker's state; same rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flamezmq.core import events, needs
from flamezmq.core.members import Effects, Executor, Session
from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker

#: That an executor may still be given of a session that does not count them.
ENDLESS = 1 << 62


def left(executor: Executor, session: Session) -> int:
    """So many tasks of the session it may still be given."""
    most = session.spec.max_tasks_per_child
    return most - executor.taken.get(session.number, 0) if most else ENDLESS


def take(executor: Executor, session: Session, count: int) -> None:
    """It was given so many more (negative: they were taken back before they had begun)."""
    executor.taken[session.number] = executor.taken.get(session.number, 0) + count


def bind(executor: Executor, session: Session, out: Effects) -> None:
    """Tell an executor that it serves this session from now on."""
    spec = session.spec
    environment = spec.environment
    executor.environment, executor.owner, executor.tenant = environment, session.client.peer, session.tenant
    executor.bound_to, executor.served = session.number, session
    executor.past.append((session.number, session.id))
    initializer = b"" if session.number in executor.taken else spec.initializer
    service = _service(executor, session)
    root = session.root.id if session.root is not None else ""
    words = m.Bind(session.number, environment, session.id, initializer, service, executor.devices, root)
    out.append((executor.peer, words, []))


def _service(executor: Executor, session: Session) -> m.Service | None:
    """The service that it is to bind; its application is told once."""
    registered = session.application
    if registered is None:
        return None
    executor.service, executor.binding, session.bound[executor.peer] = session, True, executor
    executor.enters_at = None
    name, application = session.spec.application, registered.application
    executor.confined = application.isolation == "session"
    known = executor.applications.get(name) == registered.number
    executor.applications[name] = registered.number
    description = None if known else application
    return m.Service(name, registered.number, description, session.spec.common_data)


def is_spent(executor: Executor, session: Session) -> bool:
    """Whether it holds nothing and is to be replaced."""
    return not executor.tasks and (executor.worn or left(executor, session) <= 0)


def replace(broker: Broker, executor: Executor, session: Session, now: float, out: Effects) -> None:
    """Tell an executor that is spent to exit; its worker starts another one."""
    executor.session, executor.leaving, executor.exiting = None, False, True
    del session.executors[executor.peer]
    events.unbound(session, now)
    broker.scheduler.wear_out(executor.peer, now)
    out.append((executor.peer, m.Exit(), []))
    broker.forget_if_over(session)


def forget(broker: Broker, session: Session) -> None:
    """The session is over."""
    if session.counted:
        for executor in broker.executors.values():
            executor.taken.pop(session.number, None)


def on_broken(
    broker: Broker, peer: int, message: m.Broken, _frames: list[Any], now: float, out: Effects
) -> None:
    """The initializer has failed there: nothing more of the session will run anywhere."""
    executor = broker.executor_of(peer)
    executor.heard = now
    session = executor.session
    if session is None or session.number != message.session:
        return  # of a session that it does not serve any more
    if not session.spec.initializer:
        raise ProtocolError("the session has no initializer that could have failed")
    executor.worn = True
    events.note(session, events.BROKEN, now, message.text, -1, executor.name)
    dropped = [index for run in executor.held for index in range(run.start, run.end)]
    if dropped:
        session.held -= executor.tasks
        session.failed += executor.tasks
        executor.held.clear()
        executor.tasks = 0
        broker.took_from(executor, session)
    broker.fed[executor.peer] = executor
    if not session.closed:
        message.session = session.alias
        out.append((session.client.peer, message, []))
        needs.ended_badly(session, dropped, out)
        broker.close_session(session, f"its initializer failed: {message.text}", now, out)
