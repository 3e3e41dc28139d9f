"""What a session waits for, as facts; others make sentences of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flamezmq.scheduler import Scheduler
    from flamezmq.shares import Share


@dataclass(frozen=True, slots=True)
class Waits:
    """Why a session gets no further executor.

    cause    "" (it lacks none), "suspended", "limit" (it has as many as it may), "no node fits" (none has
             what an executor of it needs), "no room" (those that have do something else), "coming" (one is
             on its way), "share" (others have what it does not have), "gang" (so many as it gets at a time
             are not to be had yet), or "gang too large" (there are not so many)
    have     executors that serve it
    wanted   that it could use
    gathered of "gang": those that are reserved for it
    missing  of "no node fits": (name, asked for, the most that a node has)
    """

    cause: str
    have: int
    wanted: int
    missing: tuple[tuple[str, float, float], ...] = ()
    gathered: int = 0


def explain(scheduler: Scheduler, session: int) -> Waits:
    """The first reason that applies; it changes nothing.  The scheduler must know the session."""
    share = scheduler._shares[session]
    have, wanted = len(share.have), max(share.asked, share.minimum)
    if share.suspended:
        return Waits("suspended", have, wanted)
    if share.homeless:
        return Waits("no node fits", have, wanted, tuple(scheduler._rooms.missing(share)))
    if wanted <= share.staying:
        return Waits("", have, wanted)
    if have >= share.limit:
        return Waits("limit", have, wanted)
    if share.gang > 1 and not share.lacking:
        return _gang(scheduler, share, wanted)
    if share.coming or share.promised:
        return Waits("coming", have, wanted)
    return Waits("no room" if share.gathers or share in scheduler._stuck else "share", have, wanted)


def _gang(scheduler: Scheduler, share: Share, wanted: int) -> Waits:
    """It has whole gangs, and could use another one."""
    have = len(share.have)
    if wanted <= share.whole:
        return Waits("", have, wanted)
    if share.whole + share.gang > share.limit:
        return Waits("limit", have, wanted)
    gangs = scheduler._gangs
    if share.gang > len(scheduler._serves) + len(scheduler._free) + len(gangs.aside):
        return Waits("gang too large", have, wanted)
    return Waits("gang", have, wanted, gathered=gangs.gathered(share))


def gangs(scheduler: Scheduler, session: int, size: int) -> tuple[int, int, int]:
    """Of a session that gets `size` executors at a time: that, the whole gangs that it has, and how many
    executors are reserved for a further one (-1: none is gathered).
    """
    share = scheduler._shares.get(session)
    if size == 1 or share is None:
        return size, 0, -1
    return size, share.whole // size, scheduler._gangs.gathered(share) if share.gathering else -1


def is_homeless(scheduler: Scheduler, session: int) -> bool:
    """Whether no node could ever serve the session, as it is now."""
    return scheduler._shares[session].homeless
