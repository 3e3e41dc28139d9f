"""When the broker must look, even if nobody says anything: the earliest of all that falls due.

Functions over the broker's state; same rules.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from flamezmq.core import deadlines, interrupts, quotas, spares

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker


def next_deadline(broker: Broker, now: float) -> float | None:
    """As `Broker.next_deadline`."""
    watched = broker.delaying or broker.look_at < math.inf or broker.rests or broker.going or broker.preempts
    dying = broker.mourned or broker.orphans or broker.unwanted or broker.expiring
    hungry = broker.accounts.hungry
    if not (watched or dying or hungry or broker.laden or broker.scheduler.waiting or broker.spare):
        return None
    due: list[float] = []
    if watched:
        due.append(broker.look_at)
        due += [when for when, _ in [*broker.rests[:1], *broker.preempts[:1]]]
        due += broker.going.values()
        due += [session.delayed[0][0] for session in broker.delaying.values()]
    if dying:
        due += [when for when, _ in broker.mourned.values()]
        due += broker.orphans.values()
        due += interrupts.deadlines(broker)
        due += deadlines.next_due(broker)
    if hungry:
        due.append(quotas.next_due(broker, now))
    if broker.draining:
        return min(due, default=None)  # nothing is handed out
    turn = broker.scheduler.next_turn()
    if turn is not None:
        due.append(max(turn, now + 0.001))
    if broker.laden and broker.scheduler.idle:
        due.append(now + broker.limits.overdue_seconds)
    if broker.paused or broker.spare or broker.unplaced:
        due += spares.deadlines(broker, now)
    return min(due, default=None)
