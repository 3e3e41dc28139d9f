"""Sessions whose tenant has a quota on what is queued: `submit` waits there, or tasks fail.

The router says with the session's first `Room` that there is a quota; from then on
the session's `submit` is one that looks at it.  Others never do.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from flamezmq.core.allowance import MOST_ASKED, Allowance
from flamezmq.core.caller import Calls, weight
from flamezmq.errors import QuotaExceeded
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.client.api import Client
    from flamezmq.client.future import Future
    from flamezmq.client.session import Session


def submit(
    session: Session, allowance: Allowance, usual: Callable[..., Future], /, *args: Any, **kwargs: Any
) -> Future:
    """The session's own, and then wait until all that it has submitted is within the quota."""
    future = usual(*args, **kwargs)
    client, calls = session._client, session._calls
    outbox = calls.outbox
    if allowance.weighs and (last := outbox[-1:]):
        allowance.piled += weight(last[0][2])
    if allowance.is_exceeded(calls.committed, outbox):
        client._pump.push()  # which asks for more
        if calls.waits_for_room:
            client._wait_for_room(lambda: calls.closed or not allowance.is_exceeded(calls.committed, outbox))
    return future


def hold_up(client: Client, calls: Calls, allowance: Allowance) -> None:
    """What is in the outbox has to wait, if that is for room: ask for it, and do not look again before.

    Under the line's lock.
    """
    records = calls.outbox[:MOST_ASKED]
    if not records or calls.is_obstructed:
        if (message := allowance.give_back(calls.alias, calls.committed)) is not None:
            client._orders.append(message)
        return
    if allowance.room(calls.committed, records):
        return
    if not allowance.asked:
        client._orders.append(allowance.want(calls.alias, calls.committed, records, calls.waits_for_room))
    client._dirty.pop(calls.alias, None)


def attend(session: Session) -> None:
    """Have its `submit` look at the quota, if it has one."""
    allowance = session._calls.allowance
    if allowance is not None and "submit" not in vars(session):
        usual = {"submit": session.submit, "_submit": session._submit}
        vars(session).update({name: partial(submit, session, allowance, fn) for name, fn in usual.items()})


def on_room(client: Client, calls: Calls, message: m.Room) -> None:
    """So far it may submit now."""
    allowance = calls.allowance
    if allowance is None:
        allowance = calls.allowance = Allowance()
        session = client._sessions.get(calls.alias)
        if session is not None:
            attend(session)
    asked = allowance.asked
    allowance.on_room(message, calls.committed, calls.outbox)
    if message.over and asked and not calls.waits_for_room:
        begin = max(allowance.room(calls.committed, calls.outbox), calls.unsent())
        error = QuotaExceeded(message.tenant, message.over, message.limit)
        calls.fail_unsent(begin, asked, error, client._on_end)
    if calls.outbox or allowance.due > calls.committed:
        client._dirty[calls.alias] = calls
