"""What the broker has to do though nobody says anything, and when: the earliest of all that falls due.

Functions over the broker's state; same rules.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from flamezmq.core import (
    actors,
    changes,
    deadlines,
    deaths,
    interrupts,
    locality,
    needs,
    preempts,
    quotas,
    rests,
    retries,
    services,
    spares,
)
from flamezmq.core.members import Effects

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker


def see_to(broker: Broker, now: float, out: Effects) -> None:
    """Do what is due, and what had to wait for the end of a turn."""
    if broker.mourned:
        for peer, (due, died) in list(broker.mourned.items()):
            if now >= due or broker.executors[peer].finished >= died.finished:
                deaths.bury(broker, peer, died, now, out)
    if broker.orphans:
        deaths.kill_orphans(broker, broker.orphans, now, out)
    if broker.expiring:
        deadlines.drop_late(broker, now, out)
    if broker.unwanted:
        interrupts.kill_stubborn(broker, now, out)
    if broker.delaying:
        retries.release_due(broker, now)
    if broker.drained:
        changes.close_drained(broker, now, out)
    if now >= broker.look_at:
        deaths.kill_overdue(broker, now, out)
    if broker.owing:
        needs.fetch(broker, out)
    if broker.gated:
        actors.open_gates(broker)
    if broker.rests:
        rests.release_due(broker)
    if broker.preempts:
        preempts.kill_due(broker, now, out)
    if broker.going:
        services.look(broker, now)
    if broker.holding_out:
        locality.look(broker, now)


def next_deadline(broker: Broker, now: float) -> float | None:
    """As `Broker.next_deadline`."""
    timed = any(broker.duties) or broker.look_at < math.inf
    hungry = broker.accounts.hungry
    if not (timed or hungry or broker.laden or broker.spare or broker.scheduler.waiting):
        return None
    due: list[float] = []
    if broker.look_at < math.inf:
        due.append(broker.look_at)
    if timed:
        due += [when for when, _ in [*broker.rests[:1], *broker.preempts[:1]]]
        due += broker.going.values()
        due += [until for _, until in broker.holding_out.values()]
        due += [session.delayed[0][0] for session in broker.delaying.values()]
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
