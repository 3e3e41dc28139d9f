"""The scheduler's `check`, for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flamezmq.scheduler import Scheduler


def check(scheduler: Scheduler) -> None:
    """Compare every index with every other; it walks through everything."""
    serves = {e: s for s, share in scheduler._shares.items() for e in share.have}
    assert serves == scheduler._serves
    assert not set(serves) & set(scheduler._free)
    assert scheduler._active == sum(1 for share in scheduler._shares.values() if share.active)
    assert not set(scheduler._ending) & (set(serves) | set(scheduler._free))
    warm = {e: s for s, share in scheduler._shares.items() for e in share.warm}
    assert warm == {e: s for e, s in scheduler._free.items() if s}
    coming = {e: s for s, share in scheduler._shares.items() for e in share.coming}
    assert coming == {e: s for e, s in (scheduler._ending | scheduler._ended).items() if s}
    scheduler._promises.check(list(scheduler._shares.values()))
    assert set(scheduler._promises.kept) <= set(scheduler._free)
    scheduler._free.check()
    for session, share in scheduler._shares.items():
        assert set(share.leaving) <= set(share.have) and set(share.resting) <= set(share.have)
        assert (session in scheduler._over) == (share.staying > share.most), "more than it may have"
        assert (session in scheduler._hungry) == (share.wanted > share.staying), session
        assert not share.promised or share.expected <= share.wanted
        demand = (
            0
            if share.suspended or share.homeless or share.beyond
            else max(share.asked - len(share.lent), share.minimum)
        )
        if share.gang > 1:
            demand = min(-(-demand // share.gang) * share.gang, share.whole)
        assert share.wanted == min(demand, share.limit - len(share.leaving))
    scheduler._tree.settle()
    scheduler._tree.check(scheduler._shares.values())
    scheduler._gangs.check()
    gangs = scheduler._gangs
    aside = {executor: gangs.gathers.number for executor in gangs.aside if gangs.gathers}
    scheduler._rooms.check(scheduler._serves | aside, scheduler._shares, scheduler._free)
