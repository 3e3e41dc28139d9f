"""Quotas: how much of a tenant's may be queued, over all its sessions and clients.

The router never sends a task back.  It gives each session an allowance instead,
and what it has given counts as if it were queued, so that the quota is never
passed.  A session asks for more when its allowance is used up, and is given it
when there is room; a little it gets without asking, as long as its tenant's
sessions together hold no more than a quarter of the quota so.  Who has nothing
to submit keeps that little; so a tenant with many sessions may be told that it has
no room when three quarters of its quota are queued.  In a session with members each
of these has an allowance of its own; what is queued there counts until it has begun,
also when the member that has submitted it is gone.

Room is given in portions of an eighth of the quota: where tasks come and go one at a
time, each would cost messages of its own.  What is less is given after a moment.

What counts is what waits with the router; what executors hold does not.  Tasks that run
again are not asked for.  Tasks of tasks do not count: who waits for them may run them
itself, and if they waited for those that wait for them, nothing would go on.

Functions over the broker's state; same rules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flamezmq.core.members import Effects, Session, Tenant
from flamezmq.core.meter import Leeway, Meter
from flamezmq.wire import messages as m
from flamezmq.wire.joining import STRIDE

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker

#: Names all tenants that are not named.
ALL_OTHERS = "*"
#: Of a quota, sessions hold no more than this part without having asked.
AHEAD_PART = 4
#: What is less than this part of a quota is given when who asks has waited for so long.
PORTION, PATIENCE_SECONDS = 8, 0.01
#: Tasks and bytes that a session is given without having asked.
MOST_AHEAD, MOST_BYTES_AHEAD = 4096, 16 << 20
#: A tenant's sessions are counted again after so many seconds for each, if they are not few.
COUNT_SECONDS, FEW = 1e-6, 32
#: Where there is no quota.
NO_LIMIT = 1 << 60

_NOTHING = Tenant()


@dataclass(slots=True, eq=False)
class Account:
    """A tenant with a quota, and those of its sessions that count.

    leeways  of all who submit to these
    asking   who waits for more: what, and since when; who has waited longest first
    hasty    who wants more and does not wait: answered when the turn ends
    running  who is about to use up what it has
    look_at  when its sessions may be counted again
    late     something has happened before that
    """

    name: str
    terms: Tenant
    sessions: dict[int, Session] = field(default_factory=dict)
    leeways: dict[Leeway, None] = field(default_factory=dict)
    asking: dict[Leeway, tuple[m.WantRoom, float]] = field(default_factory=dict)
    hasty: dict[Leeway, m.WantRoom] = field(default_factory=dict)
    running: dict[Leeway, None] = field(default_factory=dict)
    look_at: float = 0.0
    late: bool = False


class Accounts:
    """terms: what tenants may have, by name; those of "*" are for all others.

    hungry  tenants of which some session is to be given room
    """

    def __init__(self, terms: Mapping[str, Tenant]) -> None:
        self.terms = dict(terms)
        self.of: dict[str, Account] = {}
        self.hungry: dict[str, Account] = {}

    def terms_of(self, tenant: str) -> Tenant:
        return self.terms.get(tenant) or self.terms.get(ALL_OTHERS, _NOTHING)


@dataclass(slots=True)
class Usage:
    """What of a tenant's quota is used.

    tasks, bytes              that wait
    ahead, bytes_ahead        that sessions may submit yet
    """

    tasks: int = 0
    bytes: int = 0
    ahead: int = 0
    bytes_ahead: int = 0


def usage(account: Account) -> Usage:
    """Count its sessions."""
    used = Usage()
    for session in account.sessions.values():
        meter = _meter(session)
        used.tasks += session.waiting
        if meter.weighs:
            used.bytes += meter.waiting_bytes(session)
    for leeway in account.leeways:
        used.ahead += leeway.left
        used.bytes_ahead += leeway.left_bytes
    return used


# --- what happens to sessions


def on_open(broker: Broker, session: Session, now: float, out: Effects) -> None:
    """A client is about to open a session: if its tenant has a quota, it is told first how far it may."""
    if enlist(broker, session):
        admit(session, 0, Leeway(session.client.peer, session.alias), out)


def has_quota(terms: Tenant) -> bool:
    return bool(terms.queued_tasks or terms.queued_bytes)


def enlist(broker: Broker, session: Session) -> bool:
    """Whether there is a quota for its tasks; if so they count from now on."""
    terms = broker.accounts.terms_of(session.tenant)
    if session.spec.within or not has_quota(terms):
        return False
    account = broker.accounts.of.get(session.tenant)
    if account is None:
        account = broker.accounts.of[session.tenant] = Account(session.tenant, terms)
    session.meter = Meter(account, bool(terms.queued_bytes))
    account.sessions[session.number] = session
    return True


def admit(session: Session, number: int, leeway: Leeway, out: Effects) -> None:
    """Member `number` is about to join: it gets its first allowance before that."""
    meter = session.meter
    if meter is None:
        return
    account = meter.account
    meter.leeways[number] = leeway
    account.leeways[leeway] = None
    leeway.until = leeway.next_index
    _give(account, leeway, None, usage(account), [])
    tell(account, leeway, out)


def on_submit(broker: Broker, session: Session, payloads: list[Any]) -> None:
    """Who submits has used some of its allowance."""
    meter = _meter(session)
    leeway = meter.leeways[(session.next_index - len(payloads)) // STRIDE]
    meter.on_submit(leeway, payloads)
    account = meter.account
    tasks, size = _ahead(account)
    short = account.terms.queued_tasks and 2 * leeway.left < tasks
    if short or (meter.weighs and 2 * leeway.left_bytes < size):
        account.running[leeway] = None
        broker.accounts.hungry[account.name] = account


def on_want(
    broker: Broker, peer: int, message: m.WantRoom, _frames: list[Any], now: float, _out: Effects
) -> None:
    """A session's client can't go on without more, or needs less than it has."""
    session = broker.session(peer, message.session)
    if session is not None:
        want(broker, session, 0, message, now)


def want(broker: Broker, session: Session, number: int, message: m.WantRoom, now: float) -> None:
    """It, or member `number`, can't go on without more, or needs less; it is seen to when the turn ends."""
    if session.meter is None:
        return  # its quota was taken away meanwhile; it has been told
    account, leeway = session.meter.account, session.meter.leeways[number]
    if message.sent is not None:
        leeway.came = message.sent  # what was on its way when bytes began to count we have counted alone
    leeway.until = min(leeway.until, leeway.next_index)  # who asks has no use for what it could submit yet
    leeway.until_bytes = min(leeway.until_bytes, leeway.came)
    if message.tasks and message.waits:
        since = account.asking[leeway][1] if leeway in account.asking else now
        account.asking[leeway] = message, since
    elif message.tasks:
        account.hasty[leeway] = message
    broker.accounts.hungry[account.name] = account


def on_leave(broker: Broker, session: Session, number: int) -> None:
    """A member is gone, and submits nothing more."""
    meter = session.meter
    leeway = meter.leeways.pop(number, None) if meter is not None else None
    if meter is not None and leeway is not None:
        _strike(meter.account, leeway)
        broker.accounts.hungry[meter.account.name] = meter.account


def on_end(broker: Broker, session: Session) -> None:
    """It is closed, and takes up no room any more."""
    if session.meter is None:
        return
    account, leeways = session.meter.account, session.meter.leeways
    session.meter = None
    account.sessions.pop(session.number, None)
    for leeway in leeways.values():
        _strike(account, leeway)
    if not account.sessions:
        broker.accounts.of.pop(account.name, None)
        broker.accounts.hungry.pop(account.name, None)


def _strike(account: Account, leeway: Leeway) -> None:
    account.leeways.pop(leeway, None)
    account.asking.pop(leeway, None)
    account.hasty.pop(leeway, None)
    account.running.pop(leeway, None)


# --- a quota that changes


def retune(
    broker: Broker, name: str, sessions: list[tuple[Session, dict[int, Leeway]]], out: Effects
) -> None:
    """This tenant has other terms from now on: what its clients could submit yet is given anew.

    What is queued stays.  Who asks for room is seen to when the turn ends, and hears of it then.

    sessions: those of it that are open, each with those who submit, by the number of the member
    """
    terms, account = broker.accounts.terms_of(name), broker.accounts.of.get(name)
    if account is None:
        if not has_quota(terms):
            return
        for session, leeways in sessions:
            if enlist(broker, session):
                _meter(session).leeways.update(leeways)
                _meter(session).account.leeways.update(dict.fromkeys(leeways.values()))
        account = broker.accounts.of.get(name)
        if account is None:
            return
    elif (account.terms.queued_tasks, account.terms.queued_bytes) == (terms.queued_tasks, terms.queued_bytes):
        account.terms = terms
        return
    account.terms = terms
    if not has_quota(terms):
        _lift(broker, account, out)
        return
    for session in account.sessions.values():
        _meter(session).count_bytes(bool(terms.queued_bytes))
    for leeway in account.leeways:
        leeway.until, leeway.until_bytes = leeway.next_index, leeway.came
    used = usage(account)
    for leeway in account.leeways:
        if leeway not in account.asking and leeway not in account.hasty:
            _give(account, leeway, None, used, [])
            tell(account, leeway, out)
    account.running.clear()


def _lift(broker: Broker, account: Account, out: Effects) -> None:
    """There is no quota any more: its clients hear so, and nothing is counted."""
    for leeway in account.leeways:
        leeway.until = leeway.next_index + NO_LIMIT
        tell(account, leeway, out)
    for session in list(account.sessions.values()):
        on_end(broker, session)


def check(broker: Broker) -> None:
    """Compare every index with every other."""
    for name, account in broker.accounts.of.items():
        assert account.name == name and account.terms == broker.accounts.terms_of(name)
        leeways = [one for session in account.sessions.values() for one in _meter(session).leeways.values()]
        assert set(leeways) == set(account.leeways), "who submits"
        assert {*account.asking, *account.running, *account.hasty} <= set(leeways), "nobody asks"
        assert all(_meter(session).account is account for session in account.sessions.values())
        assert not account.asking or name in broker.accounts.hungry, "nobody looks at what it asks for"
    for session in broker.sessions.values():
        if session.meter is not None:
            assert session.meter.account.sessions[session.number] is session


def _meter(session: Session) -> Meter:
    assert session.meter is not None
    return session.meter


# --- giving


def look(broker: Broker, now: float, out: Effects) -> None:
    """Give room to those who need it, where there is some."""
    for account in list(broker.accounts.hungry.values()):
        account.late = now < account.look_at
        if account.late:
            continue
        account.look_at = now + COUNT_SECONDS * max(len(account.sessions) + len(account.leeways) - 2 * FEW, 0)
        used = usage(account)
        for leeway, (wanted, since) in list(account.asking.items()):
            if now - since < PATIENCE_SECONDS and not _has_portion(account.terms, used):
                break
            if not _give(account, leeway, wanted, used, out):
                break  # nobody who came later is served before: a large task would never have room
            del account.asking[leeway]
            account.running.pop(leeway, None)
        for leeway, wanted in account.hasty.items():
            if account.asking:
                over = short_of(account, used, wanted)
                tell(account, leeway, out, over, getattr(account.terms, over))
            else:
                _give(account, leeway, wanted, used, out)
            account.running.pop(leeway, None)
        account.hasty.clear()
        for leeway in account.running:
            _give(account, leeway, None, used, out)
        account.running.clear()
        if not account.asking:
            del broker.accounts.hungry[account.name]


def next_due(broker: Broker, now: float) -> float:
    """When to look again, though nothing happens meanwhile."""
    due = math.inf
    for account in broker.accounts.hungry.values():
        whens = [account.look_at] if account.late else []
        whens += [since + PATIENCE_SECONDS for _, since in account.asking.values()]
        due = min([due, *(when for when in whens if when > now)])
    return due


def _ahead(account: Account) -> tuple[int, int]:
    """Tasks and bytes that who submits for this tenant may hold without having asked."""
    among = AHEAD_PART * max(len(account.leeways), 1)
    terms = account.terms
    return min(terms.queued_tasks // among, MOST_AHEAD), min(terms.queued_bytes // among, MOST_BYTES_AHEAD)


def _free(limit: int, used: int) -> int:
    return max(limit - used, 0) if limit else NO_LIMIT


def short_of(account: Account, used: Usage, wanted: m.WantRoom) -> str:
    """Which quota keeps those from more who want this, or wait behind somebody who does."""
    terms = account.terms
    lacks_tasks = not _free(terms.queued_tasks, used.tasks + used.ahead)
    lacks_bytes = _free(terms.queued_bytes, used.bytes + used.bytes_ahead) < max(wanted.first, 1)
    by_bytes = not terms.queued_tasks or (lacks_bytes and not lacks_tasks)
    return "queued_bytes" if by_bytes else "queued_tasks"


def _has_portion(terms: Tenant, used: Usage) -> bool:
    tasks = _free(terms.queued_tasks, used.tasks + used.ahead)
    size = _free(terms.queued_bytes, used.bytes + used.bytes_ahead)
    return tasks > 0 and tasks >= terms.queued_tasks // PORTION and size >= terms.queued_bytes // PORTION


def _give(account: Account, leeway: Leeway, want: m.WantRoom | None, used: Usage, out: Effects) -> bool:
    """Let it submit what it wants, or some of it, or a little more than it has; False: that is no use to it.

    want: None if it has not asked.  Who does not wait is answered in any case.
    """
    terms, weighs = account.terms, bool(account.terms.queued_bytes)
    had, had_bytes = leeway.left, leeway.left_bytes
    tasks = _tasks_for(account, want, had, used) if terms.queued_tasks else NO_LIMIT
    size = _bytes_for(account, want, had_bytes, used) if weighs else 0
    over, limit = "", 0
    if want is not None:
        if weighs and size < want.bytes:
            over, limit = "queued_bytes", terms.queued_bytes
        if tasks < want.tasks:
            over, limit = "queued_tasks", terms.queued_tasks
        if want.waits and (not tasks or (weighs and size < want.first)):
            return False
    if want is not None or tasks > had or size > had_bytes:
        used.ahead += tasks - had
        used.bytes_ahead += size - had_bytes
        leeway.until, leeway.until_bytes = leeway.next_index + tasks, leeway.came + size
        tell(account, leeway, out, over, limit)
    return True


def tell(account: Account, leeway: Leeway, out: Effects, over: str = "", limit: int = 0) -> None:
    """How far it may submit."""
    size = leeway.until_bytes if account.terms.queued_bytes else None
    out.append((leeway.peer, m.Room(leeway.alias, leeway.until, size, over, limit, account.name), []))


def _tasks_for(account: Account, want: m.WantRoom | None, had: int, used: Usage) -> int:
    """So many tasks it may submit from now on, who could submit `had`."""
    most = account.terms.queued_tasks
    free = _free(most, used.tasks + used.ahead)
    wanted = min(_ahead(account)[0], most // AHEAD_PART - used.ahead + had)  # without having asked
    if want is not None:
        part = max(free // max(len(account.asking), 1), 1)  # of those who wait each has some
        wanted = max(wanted, min(want.tasks, had + part) if want.waits else want.tasks)
    return max(had, min(wanted, had + free))


def _bytes_for(account: Account, want: m.WantRoom | None, had: int, used: Usage) -> int:
    """The same in bytes.  What is larger than the quota goes alone."""
    most = account.terms.queued_bytes
    free = _free(most, used.bytes + used.bytes_ahead)
    wanted = min(_ahead(account)[1], most // AHEAD_PART - used.bytes_ahead + had)
    if want is None:
        return max(had, min(wanted, had + free))
    size = max(had, min(max(want.bytes, wanted), had + free))
    if size < want.first and not used.tasks:
        used.tasks += 1
        return want.first
    return size
