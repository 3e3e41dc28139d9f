"""Tenants, for those who look from outside: who is there, what each may have and has, and changing that.

What a tenant may have stands in `Accounts.terms`, as the settings have said it and as it was changed
since; the scheduler is told of weight and limits, `quotas.py` sees to the rest.  It is kept in memory:
a router that is started anew has what its settings say.

Functions over the broker's state; same rules.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from flamezmq.core import control, events, quotas
from flamezmq.core.members import NAME_CHARACTERS, Effects, Session
from flamezmq.core.meter import Leeway
from flamezmq.core.quotas import ALL_OTHERS
from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker

#: Rows of one answer.
MOST_ROWS = 256
#: Tenants that can be named while the router runs.
MOST_TENANTS = 10_000
#: Names that a refusal quotes.
MOST_NAMES = 20
#: What can be changed.
TERMS = ("weight", "max_executors", "resources", "queued_tasks", "queued_bytes")


def handlers(broker: Broker) -> dict[type, Any]:
    """What is done with the messages about tenants."""
    return {
        m.WantRoom: partial(quotas.on_want, broker),
        m.AskTenants: partial(on_ask, broker),
        m.SetTenant: partial(on_set, broker),
    }


def on_ask(
    broker: Broker, peer: int, message: m.AskTenants, _frames: list[Any], _now: float, out: Effects
) -> None:
    """Show who is there, by name: those that are named, and those of open sessions.

    Raises:
        ProtocolError: its earlier answers pile up unread.
    """
    if broker.clients[peer].held_back:
        raise ProtocolError("take the answers that wait for you before you ask on")
    after = message.after
    rows = [row for row in _rows(broker) if after is None or row.name > after]
    page = rows[:MOST_ROWS]
    out.append((peer, m.Tenants(message.request, page, len(rows) - len(page)), []))


def _rows(broker: Broker) -> list[m.TenantRow]:
    rows: dict[str, m.TenantRow] = {name: _row(broker, name) for name in broker.accounts.terms}
    for session in broker.sessions.values():
        row = rows.get(session.tenant)
        if row is None:
            row = rows[session.tenant] = _row(broker, session.tenant)
        row.executors += len(session.executors)
        if not session.closed and not session.spec.within:
            row.sessions += 1
            row.tasks += session.waiting
    return sorted(rows.values(), key=lambda row: row.name)


def _row(broker: Broker, name: str) -> m.TenantRow:
    accounts = broker.accounts
    terms, account = accounts.terms_of(name), accounts.of.get(name)
    row = m.TenantRow(name[:NAME_CHARACTERS], name in accounts.terms, *(getattr(terms, one) for one in TERMS))
    if account is not None:
        row.asking = len(account.asking)
        if terms.queued_bytes:
            row.bytes = quotas.usage(account).bytes
    return row


def on_set(
    broker: Broker, peer: int, message: m.SetTenant, _frames: list[Any], now: float, out: Effects
) -> None:
    """Do what is asked, all of it or nothing, and say so."""
    out.append((peer, m.Done(message.request, *_set(broker, message, now, out)), []))


def _set(broker: Broker, message: m.SetTenant, now: float, out: Effects) -> tuple[int, str]:
    """(outcome, sentence)."""
    accounts, name = broker.accounts, message.name
    known = {"", ALL_OTHERS, *accounts.terms, *(s.tenant for s in broker.sessions.values() if not s.closed)}
    if name not in known and not message.new:
        return control.NOT_FOUND, _unknown(name, known)
    changes = {one: value for one in TERMS if (value := getattr(message, one)) is not None}
    if not changes:
        return control.NOT_DONE, f"nothing was to be changed of {_whose(name)}: {', '.join(TERMS)}"
    if not name.isprintable() or len(name) > NAME_CHARACTERS:
        return (
            control.NOT_DONE,
            f"the name of a tenant has up to {NAME_CHARACTERS} characters",
        )
    if name not in accounts.terms and len(accounts.terms) >= MOST_TENANTS:
        return control.NOT_DONE, f"there are {MOST_TENANTS:,} named tenants, and no more are kept"
    terms = replace(accounts.terms_of(name), **changes)
    try:
        amounts = terms.amounts
    except ValueError as error:
        return control.NOT_DONE, str(error)
    accounts.terms[name] = terms
    broker.scheduler.set_tenant(name, terms.weight, terms.max_executors, amounts)
    text, by = _in_words(changes), message.by[: control.MOST_CHARACTERS] or "somebody"
    _follow(broker, name, f"tenant {name or 'without a name'}: {text}, by {by}", now, out)
    broker.events.append(("tenant-changed", {"tenant": name, "by": by, **changes}))
    return control.DONE, f"{_whose(name)} has {text} from now on, until the router ends"


def _follow(broker: Broker, name: str, text: str, now: float, out: Effects) -> None:
    """Tell all sessions that it is about."""
    theirs: dict[str, list[Session]] = {}
    for session in broker.sessions.values():
        tenant = session.tenant
        if tenant == name or (name == ALL_OTHERS and tenant not in broker.accounts.terms):
            if not session.closed:
                theirs.setdefault(tenant, []).append(session)
                events.note(session, events.CHANGED, now, text)
            broker.fed.update(session.executors)  # one that rests may have to go
    for tenant, sessions in theirs.items():
        quotas.retune(broker, tenant, [(session, _leeways(broker, session)) for session in sessions], out)


def _leeways(broker: Broker, session: Session) -> dict[int, Leeway]:
    """Fresh ones for all who submit to it."""
    common = broker.commons.get(session.client.peer)
    if common is None:
        return {0: Leeway(session.client.peer, session.alias, session.next_index)}
    return {one.number: Leeway(one.peer, one.alias, one.next_index) for one in common.members.values()}


def _unknown(name: str, known: set[str]) -> str:
    names = sorted(repr(one) for one in known if one not in ("", ALL_OTHERS))
    there = ", ".join([*names[:MOST_NAMES], *(["..."] if len(names) > MOST_NAMES else [])])
    are = f"those that are there: {there}; " if there else "none is there yet; "
    return (
        f"there is no tenant {name[:NAME_CHARACTERS]!r}; {are}'*' stands for all that are not named. "
        "One that has no session yet has to be said to be new (--new, new=True)"
    )


def _whose(name: str) -> str:
    if name == ALL_OTHERS:
        return "each tenant that is not named"
    return f"tenant {name}" if name else "the tenant without a name"


def _in_words(changes: dict[str, Any]) -> str:
    said = {name: f"{value:g}" if isinstance(value, float) else value for name, value in changes.items()}
    return ", ".join(f"{name}={value if value != '' else 'no limit'}" for name, value in said.items())
