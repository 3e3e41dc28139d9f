"""What waits in clients for room under their tenant's quota: for those who ask why nothing goes on.

The router does not have these tasks.  It knows who has asked for room, for how many, and since when.

Functions over the broker's state; same rules.  Nothing here changes anything.
"""

from __future__ import annotations

from flamezmq.core.members import NAME_CHARACTERS, Session
from flamezmq.core.quotas import short_of, usage
from flamezmq.wire import messages as m
from flamezmq.wire.joining import STRIDE


def has(session: Session, index: int) -> bool:
    """Whether a task that will get this index waits so."""
    meter = session.meter
    leeway = meter.leeways.get(index // STRIDE) if meter is not None else None
    if meter is None or leeway is None or leeway not in meter.account.asking:
        return False
    return 0 <= index - leeway.next_index < meter.account.asking[leeway][0].tasks


def explain(session: Session, why: m.Why, now: float) -> None:
    """How many tasks of the session wait so, since when, and for which quota."""
    meter = session.meter
    if meter is None:
        return
    account = meter.account
    asking = [account.asking[one] for one in meter.leeways.values() if one in account.asking]
    if not asking:
        return
    used, wanted = usage(account), asking[0][0]
    why.unsent, why.unsent_since = (
        sum(want.tasks for want, _ in asking),
        now - min(when for _, when in asking),
    )
    why.tenant, why.quota = account.name[:NAME_CHARACTERS], short_of(account, used, wanted)
    if why.quota == "queued_tasks":
        why.quota_limit, why.quota_used, why.quota_ahead = account.terms.queued_tasks, used.tasks, used.ahead
    else:
        why.quota_limit, why.quota_used, why.quota_ahead = (
            account.terms.queued_bytes,
            used.bytes,
            used.bytes_ahead,
        )
