"""Giving back: what a session gives back, and that nothing can be had for one at the moment.

Functions over the scheduler's state; same rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flamezmq.shares import Moves, Share

if TYPE_CHECKING:
    from flamezmq.scheduler import Scheduler

#: Where no room could be made for a session, it is tried again after so long.
RETRY_SECONDS = 0.05


def retract(its: Scheduler, donor: Share, moves: Moves) -> list[int]:
    """It is to give one back, or a whole gang; nobody waits for these yet."""
    going: list[int] = []
    for _ in range(donor.chunk):
        executor = donor.first_to_go
        donor.leaving[executor] = True
        its._promises.offer(executor)
        going.append(executor)
    if donor.gang > 1:
        donor.whole -= donor.gang
    moves.reclaim += going
    its._note(donor)
    its._tree.rank(donor)
    return going


def pass_by(its: Scheduler, share: Share, now: float) -> None:
    """Nothing can be done for it now; it is looked at again when something is free, or after a while."""
    share.passed = True
    if not its._stuck:
        its._retry_at = now + RETRY_SECONDS
    its._stuck[share] = None
