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
             are not to be had yet), "gang too large" (there are not so many), "tenant" (it has all that it
             may), or "beyond tenant" (it may never have so much)
    have     executors that serve it
    wanted   that it could use
    gathered of "gang": those that are reserved for it
    limits   of "tenant": what is used up, as (name, used, the most), where the name of executors is "";
             of "beyond tenant" it is what is needed, in the place of what is used
    terms    whose they are: the tenant's name, or "*"
    missing  of "no node fits": (name, asked for, the most that a node has)
    """

    cause: str
    have: int
    wanted: int
    missing: tuple[tuple[str, float, float], ...] = ()
    gathered: int = 0
    limits: tuple[tuple[str, float, float], ...] = ()
    terms: str = ""


def explain(scheduler: Scheduler, session: int) -> Waits:
    """The first reason that applies; it changes nothing.  The scheduler must know the session."""
    share = scheduler._shares[session]
    have, wanted = len(share.have), max(share.asked, share.minimum)
    if share.suspended:
        return Waits("suspended", have, wanted)
    if share.homeless:
        return Waits("no node fits", have, wanted, tuple(scheduler._rooms.missing(share)))
    if share.beyond:
        return _tenant(scheduler, share, wanted)
    if wanted <= share.staying:
        return Waits("", have, wanted)
    if have >= share.limit:
        return Waits("limit", have, wanted)
    further = share.gang if not share.lacking else 1
    if (
        share.bound is not None
        and not share.bound.allows(share, further)
        and share is not _gathers(scheduler)
    ):
        return _tenant(scheduler, share, wanted)
    if share.gang > 1 and not share.lacking:
        return _gang(scheduler, share, wanted)
    if share.coming or share.promised:
        return Waits("coming", have, wanted)
    return Waits("no room" if share.gathers or share in scheduler._stuck else "share", have, wanted)


def _gathers(scheduler: Scheduler) -> Share | None:
    return scheduler._gangs.gathers


def _tenant(scheduler: Scheduler, share: Share, wanted: int) -> Waits:
    """Its tenant has all that it may, or may never have what it needs."""
    bound, terms = share.bound, scheduler._tree.terms
    assert bound is not None
    needs = bound.needs(share.request, bound.part)
    further = share.gang if share.beyond or not share.lacking else 1
    used = {} if share.beyond else bound.used
    limits = tuple(
        (name, further * needs[name] if share.beyond else used.get(name, 0.0), bound.most[name])
        for name in bound.lacks(share, used, further)
    )
    cause, named = "beyond tenant" if share.beyond else "tenant", bound.name if bound.name in terms else "*"
    return Waits(cause, len(share.have), wanted, limits=limits, terms=named)


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
