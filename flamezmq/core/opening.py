"""Sessions that are opened: by a client for itself; those for several are in `core/joining.py`.

Functions over the broker's state; same rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flamezmq.core import actors, applications, dispatch, printed, quotas, services
from flamezmq.core.members import Client, Effects, Session
from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker


def on_open(broker: Broker, peer: int, message: m.Open, _frames: list[Any], now: float, out: Effects) -> None:
    """Open a session of this client's own."""
    client = broker.client(peer)
    open_already = client.sessions.get(message.session)
    if open_already is not None and open_already.id == message.id:
        return  # said twice
    if open_already is not None or message.session in client.joined:
        raise ProtocolError(f"session {message.session} is open already")
    client.inner = bool(message.spec.within)
    application, spec, why_not = checked(broker, message.spec, client.inner)
    if why_not:
        out.append((peer, m.Opened(message.session, why_not), []))
        return
    session = open_session(broker, client, message, spec, application, now)
    quotas.on_open(broker, session, now, out)
    out.append((peer, m.Opened(message.session), []))


def checked(
    broker: Broker, spec: m.SessionSpec, inner: bool
) -> tuple[applications.Registered | None, m.SessionSpec, str]:
    """(its application, the spec with what that adds, why it can't be opened).

    Raises:
        ProtocolError: it asks for what there can't be.
    """
    actors.check_spec(spec)
    dispatch.check_share(spec)
    application, spec, why_not = applications.of_session(broker, spec)
    if broker.draining and not inner:
        why_not = "this router is stopping; try again later"
    return application, spec, why_not


def open_session(
    broker: Broker,
    client: Client | None,
    message: m.Open,
    spec: m.SessionSpec,
    application: applications.Registered | None,
    now: float,
) -> Session:
    """client: whose it is; None makes one that stands for several."""
    broker.last_session += 1
    client = client or Client(-broker.last_session)
    session = Session(broker.last_session, message.session, message.id, spec, client)
    session.tenant, session.application = services.tenant_of(broker, spec), application
    session.root = printed.root(broker, message.spec)
    broker.sessions[session.number] = client.sessions[session.alias] = session
    broker.records.opened(session, now)
    dispatch.enlist(broker, session, now)
    return session
