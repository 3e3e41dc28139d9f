"""Reclaims: which executors are asked back, and for whom.

An executor that is asked back runs dry, and then serves another session: usually one
that waits for it already.  Where it is not at once fair to move one, it is when a turn is over.

Functions over the scheduler's state; same rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flamezmq import bounding
from flamezmq.fairness import ROUND_SECONDS, TURN_PER_CHANGE, Group, behind, fair_at
from flamezmq.retracts import pass_by, retract
from flamezmq.shares import Moves, Share

if TYPE_CHECKING:
    from flamezmq.scheduler import Scheduler

#: Looking who has fallen behind goes through all brothers: with so many more it is done less often.
MANY = 100


def cut(its: Scheduler, moves: Moves) -> None:
    """Reclaim what sessions have above what they may have."""
    for share in list(its._over.values()):
        while share.staying > share.most:
            executor = share.first_to_go
            its.retire(executor)
            moves.reclaim.append(executor)


def reclaim(its: Scheduler, moves: Moves, now: float) -> None:
    """Ask for executors back, for those who would be better off with them."""
    keeping = [bound for bound in its._tree.bounds.values() if bound.reserved is not None]
    _ask(its, moves, now)
    if its._free and its._hungry and any(bound.reserved is None for bound in keeping):
        its._hand_out(moves, now)  # what was kept for one that can't be given room now is others'


def _ask(its: Scheduler, moves: Moves, now: float) -> None:
    its._tree.settle()
    _claim(its)
    while (share := its._tree.first_below()) is not None:
        donor = its._tree.wealthiest()
        if donor is None:
            break
        _move(its, donor, share, moves, now)
    if its._tree.bounds:
        for share in [one for one in its._tree.below if one.bound is not None]:
            _serve_inside(its, share, moves, now)
    while True:
        group = its._tree.dues.first()
        if group is None or group.due > now:
            break
        its._tree.dues.drop(group)
        its._tree.uneven[group] = None
    while its._tree.uneven:
        _level_out(its, its._tree.uneven.popitem()[0], moves, now)


def _serve_inside(its: Scheduler, share: Share, moves: Moves, now: float) -> None:
    """Its tenant has all that it may: its minimum comes from what others of the tenant have above theirs."""
    assert share.bound is not None
    while share in its._tree.below:
        donor = its._tree.wealthiest(its._tree.group_of(share.bound))
        if donor is None:
            return
        _move(its, donor, share, moves, now)


def _claim(its: Scheduler) -> None:
    """The first ones get what is on its way already."""
    while its._promises.unclaimed:
        share = its._tree.first_below() or its._tree.neediest()
        if share is None or share.request:
            break
        its._promises.promise(next(iter(its._promises.unclaimed)), share)


def _level_out(its: Scheduler, group: Group, moves: Moves, now: float) -> None:
    """Move from the one that is served best to the one that is served worst, as long as that is fair."""
    its._tree.dues.drop(group)
    while True:
        needy, wealthy = group.needy.first(), group.wealthy.first()
        if needy is None or wealthy is None or needy is wealthy:
            return
        share, donor = its._tree.neediest(needy), its._tree.wealthiest(wealthy)
        assert share is not None and donor is not None
        executor = donor.first_to_go
        change = 0.0 if executor in donor.resting else donor.reload_seconds
        if len(group.needy) - wealthy.hungry == 1:  # nobody else has to wait longer for it
            change = max(change, share.enters)
        latest = donor.have[executor]
        loss = donor.unit * donor.chunk
        when = fair_at(needy, wealthy, share.unit, loss, latest, its._tree.clock, now, change)
        if when is None or when > now:
            _even_out(its, group, when, moves, now)
            return
        _move(its, donor, share, moves, now)


def _even_out(its: Scheduler, group: Group, when: float | None, moves: Moves, now: float) -> None:
    """Once in a round: move one to who has fallen behind, though others are served better, or worse.

    when: the next turn of those that are served best and worst
    """
    if len(group.needy) > 1 or len(group.wealthy) > 1:
        if now >= group.even_at:
            group.even_at = now + ROUND_SECONDS * (1 + len(group.needy) // MANY)
            pair = behind(group, its._tree.clock)
            if pair is not None:
                share, donor = its._tree.neediest(pair[0]), its._tree.wealthiest(pair[1])
                assert share is not None and donor is not None
                turn = max(donor.reload_seconds, share.enters) * TURN_PER_CHANGE
                if donor.chunk == 1 and not share.request and donor.have[donor.first_to_go] + turn <= now:
                    _move(its, donor, share, moves, now)
        when = group.even_at if when is None else min(when, group.even_at)
    if when is not None:
        group.due = when
        its._tree.dues.put(group, (when, 0.0, group.number))


def _move(its: Scheduler, donor: Share, share: Share, moves: Moves, now: float) -> None:
    """It is the turn of `share`: an executor of `donor` is to be its next one, or room is made."""
    if share.bound is not None and not bounding.may_move(its, share, donor, moves, now):
        return
    if share.request:
        _make_room(its, share, donor, moves, now)
        return
    going = retract(its, donor, moves)
    its._promises.promise(going[-1], share)
    if len(going) > 1:
        _claim(its)


def _make_room(its: Scheduler, share: Share, donor: Share, moves: Moves, now: float) -> None:
    going = its._rooms.make(share, donor, its._serves, its._shares, now)
    if share.bound is not None:
        share.bound.keep(share, 0 if going is None else 1)
    if going is None:
        pass_by(its, share, now)
    for executor in going or ():
        moves.reclaim.append(executor)
        donor = its._shares[its._serves[executor]]
        donor.leaving[executor] = False  # it goes to nobody else
        donor.whole = donor.staying // donor.gang * donor.gang if donor.gang > 1 else 0
        its._note(donor)
        its._tree.rank(donor)
    its._note(share)
    its._tree.rank(share)
