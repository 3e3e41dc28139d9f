"""Quotas: how much of a tenant's may be queued, over all its sessions and clients.

The router never sends a task back.  It gives each session an allowance instead,
and what it has given counts as if it were queued, so that the quota is never
passed.  A session asks for more when its allowance is used up, and is given it
when there is room; a little it gets without asking, as long as its tenant's
sessions together hold no more than a quarter of the quota so.  Who has nothing
to submit keeps that little; so a tenant with many sessions may be told that it has
no room when three quarters of its quota are queued.

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
from flamezmq.core.meter import Meter
from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m

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

    asking   session -> what it wants, and since when; who has waited longest first
    running  sessions that are about to use up their allowance
    look_at  when its sessions may be counted again
    late     something has happened before that
    """

    name: str
    terms: Tenant
    sessions: dict[int, Session] = field(default_factory=dict)
    asking: dict[int, tuple[m.WantRoom, float]] = field(default_factory=dict)
    running: dict[int, None] = field(default_factory=dict)
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
        meter = session.meter
        assert meter is not None
        used.tasks += session.waiting
        used.ahead += meter.left(session)
        if meter.weighs:
            used.bytes += meter.waiting_bytes(session)
            used.bytes_ahead += meter.left_bytes
    return used


# --- what happens to sessions


def on_open(broker: Broker, session: Session, now: float, out: Effects) -> None:
    """A session is about to be opened: if its tenant has a quota, it gets its first allowance before that."""
    terms = broker.accounts.terms_of(session.tenant)
    if session.spec.within or not (terms.queued_tasks or terms.queued_bytes):
        return
    account = broker.accounts.of.get(session.tenant)
    if account is None:
        account = broker.accounts.of[session.tenant] = Account(session.tenant, terms)
    session.meter = Meter(account, bool(terms.queued_bytes))
    account.sessions[session.number] = session
    _give(account, session, None, usage(account), [])
    tell(account, session, out)


def on_submit(broker: Broker, session: Session, payloads: list[Any]) -> None:
    """It has used some of its allowance."""
    meter = session.meter
    assert meter is not None
    meter.on_submit(payloads)
    account = meter.account
    tasks, size = _ahead(account)
    short = account.terms.queued_tasks and 2 * meter.left(session) < tasks
    if short or (meter.weighs and 2 * meter.left_bytes < size):
        account.running[session.number] = None
        broker.accounts.hungry[account.name] = account


def on_want(
    broker: Broker, peer: int, message: m.WantRoom, _frames: list[Any], now: float, _out: Effects
) -> None:
    """It can't go on without more, or needs less than it has; it is seen to when the turn ends."""
    session = broker.session(peer, message.session)
    if session is None:
        return
    if session.meter is None:
        raise ProtocolError("room was asked for in a session without a quota")
    account, meter = session.meter.account, session.meter
    meter.until = min(meter.until, session.next_index)  # who asks has no use for what it could submit yet
    meter.until_bytes = min(meter.until_bytes, meter.came)
    if message.tasks:
        account.asking[session.number] = message, now
    broker.accounts.hungry[account.name] = account


def on_end(broker: Broker, session: Session) -> None:
    """It is closed, and takes up no room any more."""
    if session.meter is None:
        return
    account = session.meter.account
    session.meter = None
    for index in (account.sessions, account.asking, account.running):
        index.pop(session.number, None)
    if not account.sessions:
        broker.accounts.of.pop(account.name, None)
        broker.accounts.hungry.pop(account.name, None)


# --- giving


def look(broker: Broker, now: float, out: Effects) -> None:
    """Give room to those who need it, where there is some."""
    for account in list(broker.accounts.hungry.values()):
        account.late = now < account.look_at
        if account.late:
            continue
        account.look_at = now + COUNT_SECONDS * max(len(account.sessions) - FEW, 0)
        used = usage(account)
        for number, (want, since) in list(account.asking.items()):
            session = account.sessions[number]
            if want.waits and now - since < PATIENCE_SECONDS and not _has_portion(account.terms, used):
                break
            if not _give(account, session, want, used, out):
                break  # nobody who came later is served before: a large task would never have room
            del account.asking[number]
            account.running.pop(number, None)
        for number in account.running:
            _give(account, account.sessions[number], None, used, out)
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
    """Tasks and bytes that a session of this tenant may hold without having asked."""
    among = AHEAD_PART * max(len(account.sessions), 1)
    terms = account.terms
    return min(terms.queued_tasks // among, MOST_AHEAD), min(terms.queued_bytes // among, MOST_BYTES_AHEAD)


def _free(limit: int, used: int) -> int:
    return max(limit - used, 0) if limit else NO_LIMIT


def _has_portion(terms: Tenant, used: Usage) -> bool:
    tasks = _free(terms.queued_tasks, used.tasks + used.ahead)
    size = _free(terms.queued_bytes, used.bytes + used.bytes_ahead)
    return tasks > 0 and tasks >= terms.queued_tasks // PORTION and size >= terms.queued_bytes // PORTION


def _give(account: Account, session: Session, want: m.WantRoom | None, used: Usage, out: Effects) -> bool:
    """Let it submit what it wants, or some of it, or a little more than it has; False: that is no use to it.

    want: None if it has not asked.  Who does not wait is answered in any case.
    """
    meter, terms = session.meter, account.terms
    assert meter is not None
    had, had_bytes = meter.left(session), meter.left_bytes
    tasks = _tasks_for(account, want, had, used) if terms.queued_tasks else NO_LIMIT
    size = _bytes_for(account, want, had_bytes, used) if meter.weighs else 0
    over, limit = "", 0
    if want is not None:
        if meter.weighs and size < want.bytes:
            over, limit = "queued_bytes", terms.queued_bytes
        if tasks < want.tasks:
            over, limit = "queued_tasks", terms.queued_tasks
        if want.waits and (not tasks or (meter.weighs and size < want.first)):
            return False
    if want is not None or tasks > had or size > had_bytes:
        used.ahead += tasks - had
        used.bytes_ahead += size - had_bytes
        meter.until, meter.until_bytes = session.next_index + tasks, meter.came + size
        tell(account, session, out, over, limit)
    return True


def tell(account: Account, session: Session, out: Effects, over: str = "", limit: int = 0) -> None:
    """How far it may submit."""
    meter = session.meter
    assert meter is not None
    size = meter.until_bytes if meter.weighs else None
    out.append((session.client.peer, m.Room(session.alias, meter.until, size, over, limit, account.name), []))


def _tasks_for(account: Account, want: m.WantRoom | None, had: int, used: Usage) -> int:
    """So many tasks the session may submit from now on, who could submit `had`."""
    most = account.terms.queued_tasks
    free = _free(most, used.tasks + used.ahead)
    wanted = min(_ahead(account)[0], most // AHEAD_PART - used.ahead + had)  # without having asked
    if want is not None:
        part = max(free // len(account.asking), 1)  # of those who ask each has some
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
