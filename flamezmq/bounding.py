"""Bounding: how tenants are kept to what they may have, and still have all of that.

A tenant that has all that it may is passed over where executors are handed out or
reclaimed between tenants, so what it leaves goes to others; among its own sessions
fairness goes on: one gives back, another gets.  Where that is not one for one (a gang,
a request that is larger than what one of them gives back) room is made: so many of its
own are given back as it takes, and what they leave is kept for the one that waits.

Functions over the scheduler's state; same rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from flamezmq.bounds import EXECUTORS, Bound
from flamezmq.fairness import EPSILON, QUANTUM_SECONDS
from flamezmq.retracts import pass_by, retract
from flamezmq.shares import Moves, Share, Terms

if TYPE_CHECKING:
    from flamezmq.scheduler import Scheduler


def set_tenant(
    its: Scheduler,
    name: str,
    weight: float | None,
    max_executors: int | None,
    resources: Mapping[str, float] | None,
) -> None:
    """As `Scheduler.set_tenant`."""
    tree = its._tree
    before = tree.terms_of(name)
    most = dict(before.most if resources is None else resources)
    executors = before.most.get(EXECUTORS, 0.0) if max_executors is None else max_executors
    most.pop(EXECUTORS, None)
    if executors:
        most[EXECUTORS] = executors
    tree.set_terms(name, Terms(before.weight if weight is None else weight, most))
    for share in its._shares.values():
        tenant = tree.tenant_of(share)
        if share.counts and (share.bound.most if share.bound else {}) != tree.terms_of(tenant).most:
            _rebind(its, share, tenant)


def _rebind(its: Scheduler, share: Share, tenant: str) -> None:
    """Other limits count for its tenant."""
    if share is its._gangs.gathers:
        its._gangs.abandon()
    tree = its._tree
    old, terms = share.bound, tree.terms_of(tenant)
    if old is not None:
        for executor in share.have:
            old.give_back(executor)
        leave(its, share)
    if terms.most:
        enter(its, share, tenant)
        assert share.bound is not None
        for executor in share.have:
            share.bound.take(executor, share, its._rooms.part(executor))
    its._changed(share)


def enter(its: Scheduler, share: Share, tenant: str) -> None:
    """If there are limits for its tenant, they count for it from now on."""
    tree = its._tree
    most = tree.terms_of(tenant).most
    if not most or not share.counts:
        return
    bound = tree.bounds.get(tenant)
    if bound is None or bound.most != most:
        bound = tree.bounds[tenant] = Bound(tenant, dict(most), part=its._rooms.least_part())
        tree.excess[bound] = None
    bound.join(share)
    tree.stale[share] = None
    share.see_terms()
    assess(share)


def leave(its: Scheduler, share: Share) -> None:
    """No limits count for it any more; it has no executors."""
    bound, tree = share.bound, its._tree
    if bound is None:
        return
    bound.leave(share)
    share.beyond = False
    share.see_terms()
    if bound.members:
        tree.stale[next(iter(bound.members))] = None
        return
    tree.excess.pop(bound, None)
    tree.group_of(bound).full = False
    if tree.bounds.get(bound.name) is bound:
        del tree.bounds[bound.name]


def assess(share: Share) -> None:
    """See whether its tenant may have what an executor of it takes, or a gang."""
    share.beyond = share.bound is not None and not share.bound.could(share)


def on_nodes(its: Scheduler) -> None:
    """Nodes have come or gone: executors may have other parts of them, and sessions other places."""
    for share in its._shares.values() if its._rooms.demanding else ():
        if share.request:
            its._rooms.assess(share)
            its._changed(share)
    part = its._rooms.least_part()
    for bound in its._tree.bounds.values():
        if bound.part != part and "cpu" in bound.most:
            bound.set_part(part)
            for share in bound.members:
                assess(share)
                its._changed(share)


def note(share: Share, hungry: bool) -> None:
    """What it asks for or has is another number; hungry: it wants more than it has."""
    bound = share.bound
    assert bound is not None
    if hungry:
        bound.hungry[share.number] = share
    else:
        bound.hungry.pop(share.number, None)
    if bound.reserved is share and not (share.gathering if share.gang > 1 else hungry):
        bound.keep(share, 0)


def hungry(its: Scheduler) -> Iterator[Share]:
    """Sessions that could use an executor that came now: not those whose tenant has all that it may."""
    shut = sum(len(bound.hungry) for bound in its._tree.bounds.values() if bound.shut)
    if len(its._hungry) > shut:
        for share in its._hungry.values():
            if share.bound is None or not share.bound.shut:
                yield share


# --- less


def cut(its: Scheduler, moves: Moves) -> None:
    """Reclaim what tenants have above what they may have: as between sessions, and then of minima, too."""
    for bound in list(its._tree.excess):
        if not bound.is_passed(bound.used):
            del its._tree.excess[bound]
            continue
        its._tree.settle()
        leaving = [executor for share in bound.members for executor in share.leaving]
        used = bound.without(leaving)
        while bound.is_passed(used):
            donor = its._tree.wealthiest(its._tree.group_of(bound)) or _last(bound)
            if donor is None:
                break
            for executor in retract(its, donor, moves):
                for name, amount in bound.serving[executor].items():
                    used[name] -= amount


def _last(bound: Bound) -> Share | None:
    return next((share for share in reversed(bound.members) if share.staying), None)


def to_spare(share: Share) -> int:
    """Executors that others of its tenant give back, or could be made to."""
    spare = 0
    for other in share.bound.members if share.bound is not None else ():
        spare += sum(other.leaving.values())
        if other is not share and not other.young:
            spare += max((other.whole if other.gang > 1 else other.staying) - other.minimum, 0)
    return spare


# --- among its own sessions


def may_move(its: Scheduler, share: Share, donor: Share, moves: Moves, now: float) -> bool:
    """Whether what the donor gives back is of use to it.  Where its tenant may have no more, room is made."""
    bound = share.bound
    if bound is None or (bound is donor.bound and not share.request):
        return True
    may_reserve = bound.reserved in (None, share)
    if bound.allows(share) and (may_reserve or not share.request):
        return True
    if share.request and bound.reserved is None:
        _make_room(its, share, donor, moves, now)
    pass_by(its, share, now)
    its._tree.rank(share)
    return False


def _make_room(its: Scheduler, share: Share, donor: Share, moves: Moves, now: float) -> None:
    """Have others of its tenant give back what is lacking, and keep that for it."""
    bound = share.bound
    assert bound is not None
    soon = [e for other in bound.members for e, free in other.leaving.items() if free]
    used = bound.without(soon)
    order = sorted(
        (
            (other is not donor, executor not in other.resting, -other.level, executor, other)
            for other in bound.members
            for executor in other.have
            if executor not in other.leaving
        ),
        key=lambda one: one[:4],
    )
    going: dict[int, Share] = {}
    taken: dict[Share, int] = {}
    for _, _, _, executor, other in order:
        lacks = bound.lacks(share, used)
        if not lacks:
            break
        spared = other.staying - taken.get(other, 0) <= other.minimum or other.young
        owed = other is donor or other.level > share.level + EPSILON or share.expected < share.minimum
        new = now < other.have[executor] + QUANTUM_SECONDS  # it has its turn
        of_use = any(bound.serving[executor][name] for name in lacks)
        if other is not share and owed and of_use and not (spared or new):
            taken[other] = taken.get(other, 0) + 1
            for name, amount in bound.serving[executor].items():
                used[name] -= amount
            going[executor] = other
    if bound.lacks(share, used):
        return
    bound.keep(share, 1)
    for executor, other in going.items():
        other.leaving[executor] = True
        its._promises.offer(executor)
        moves.reclaim.append(executor)
        other.whole = other.staying // other.gang * other.gang if other.gang > 1 else 0
        its._note(other)
        its._tree.rank(other)
