"""Opening a session of one's own; those for several clients are in client/joining.py."""

from __future__ import annotations

import os
from time import monotonic
from typing import TYPE_CHECKING

from flamezmq.errors import Refused
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.client.api import Client
    from flamezmq.client.session import Session

#: How long opening may take.
OPEN_SECONDS = 15.0
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def fresh_id(name: str) -> str:
    """The name, and six random letters."""
    return f"{name}-{''.join(_LETTERS[byte % 62] for byte in os.urandom(6))}"


def open_session(client: Client, session: Session, spec: m.SessionSpec) -> None:
    """Have the router open it; raises as `Client.session` says, and nothing is left of it then."""
    calls = session._calls
    alias, id = calls.alias, calls.id
    try:
        client._tell(m.Open(alias, id, spec))
        client._drive(lambda: calls.opened or calls.closed or bool(calls.error), monotonic() + OPEN_SECONDS)
        if calls.error or not calls.opened:
            raise Refused(calls.error or f"the router did not open session {id} in time")
    except BaseException:  # nobody will have it, so nobody can close it
        client._orders.append(m.Close(alias))
        client._pump.arm()
        client._forget(alias)
        raise
