"""Gangs: sessions that get their executors n at a time, in one moment, or none.

When a gang's turn has come, it *gathers*: what falls free is set aside for it, and as
many as it still lacks are reclaimed from those above their share.  Only one gathers at
a time, so two never hold halves of the cluster against each other.  A turn comes as in
weighted fair queueing, when its session (or tenant) has used no more than the one that
is served best, so small sessions, however many, can't starve a large one.

What is set aside need not idle: while the gang waits for tasks of others to end, it is
lent to sessions whose tasks are short against that (see `backfill.py`).

An executor of a gang that dies is replaced before all others; the rest work on.  What
a session has is given back in whole gangs as well.

Pure; the state of the scheduler that all this is about is changed here too.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from flamezmq import backfill, bounding
from flamezmq.fairness import EPSILON, QUANTUM_SECONDS, ROUND_SECONDS, Party, brothers, turn_of_many
from flamezmq.retracts import retract
from flamezmq.shares import Moves, Share

if TYPE_CHECKING:
    from flamezmq.scheduler import Scheduler

#: A fresh executor is taken to be here after so long.
FRESH_SECONDS = 0.05


class Gangs:
    """waiting   sessions that could use a further gang, and since when
    young     sessions that have got a gang just now, which they keep until then, the first one first
    gathers   the one for which executors are set aside
    aside     free executors that it has already
    lent      those that serve others meanwhile
    owed      those that run dry for it
    passing   of these, those that were lent, and go on to these borrowers if the gang still waits
    heirs     borrowers for whom one of these has come
    coming    those that did not suit it and end, so that fresh ones come
    """

    def __init__(self, scheduler: Scheduler, lending: Callable[[int, int], float]) -> None:
        self._its = scheduler
        self.lending = lending
        self.waiting: dict[Share, float] = {}
        self.gathers: Share | None = None
        self.young: dict[Share, float] = {}
        self.aside: dict[int, None] = {}
        self.lent: dict[int, Share] = {}
        self.owed: dict[int, None] = {}
        self.passing: dict[int, Share] = {}
        self.heirs: dict[Share, None] = {}
        self.coming: dict[int, None] = {}
        self.asked = 0.0  # when executors were reclaimed last
        self.longest = 0.0  # when the last one of them is believed to come
        self._since = 0.0  # since when the one that gathers has waited
        self.called = False  # what was lent is called back
        self.round_at = 0.0  # when it is looked at who is to borrow next
        self.borrow_at = inf  # when another session may borrow, if nothing changes
        self._looked = -inf  # when turns were looked at last
        self._due: float | None = None
        self._first: Share | None = None  # whose turn it is; it can't gather yet

    # --- what sessions ask for

    def note(self, share: Share, wanted: int, now: float) -> int:
        """What it asks for or has has changed; returns how many executors it is to have one by one.

        These are the ones that fill its gangs up again.
        """
        n = share.gang
        staying = share.staying
        most = 0 if share.suspended else share.limit // n * n
        demand = min(-(-wanted // n) * n, most)
        share.whole = min(share.whole, most, -(-staying // n) * n)
        while share.whole - demand >= n and staying - len(share.ripe) <= share.whole - n:
            share.whole -= n  # one has nothing to do any more
        further = share.whole + n
        able = demand >= further and further + len(share.leaving) <= share.limit
        if share is self.gathers and not able:
            self.abandon()
        if share is self._first and not able:
            self._first = None
        if share.young and not share.whole:
            share.young = False
            del self.young[share]
        self._await(share, able and not share.gathering, now)
        return min(demand, share.whole)

    def _await(self, share: Share, waits: bool, now: float) -> None:
        if waits == share.waits:
            return
        share.waits = waits
        if not waits:
            del self.waiting[share]
        else:
            self.waiting[share] = now
            self._looked = -inf
        self._its._tree.note_waiting(share)

    def dissolve(self, share: Share) -> None:
        """It gives back one by one from now on, and gets nothing in gangs."""
        if share.gathering:
            self.abandon()
        self._await(share, False, 0.0)
        if share.young:
            share.young = False
            del self.young[share]
        if share is self._first:
            self._first = None
        share.gang, share.whole = 1, 0

    # --- what happens to executors

    def forget(self, executor: int) -> None:
        """It is not one of those that come any more."""
        self.owed.pop(executor, None)
        heir = self.passing.pop(executor, None)
        if heir is not None:
            self.heirs[heir] = None
        borrower = self.lent.pop(executor, None)
        if borrower is not None:
            del borrower.lent[executor]

    def remove(self, executor: int) -> None:
        """It is gone, and may have been set aside."""
        if executor in self.aside and self.gathers is not None:
            del self.aside[executor]
            self._its._rooms.give_back(executor, self.gathers)

    # --- what the scheduler decides

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self.gathers)

    def step(self, moves: Moves, now: float) -> None:
        """Gather further, start what can be started, and see whose turn it is."""
        self._age(now)
        self._its._tree.settle()
        if self.gathers is not None:
            self._gather(moves, now)
        for share in list(self.waiting):
            while share.waits and self._may_start(share):
                for executor in self._usable(share):
                    self._its._unwarm(executor)
                    self.aside[executor] = None
                self._start(share, list(self.aside)[-share.gang :], moves, now)
                self._its._tree.settle()
        if self.waiting and self.gathers is None:
            self._see_turns(moves, now)

    def next_turn(self) -> float | None:
        """When one may begin to gather, if nothing changes."""
        dues = [self.young[share] for share in self.young][:1]
        if self._due is not None and self.waiting and self.gathers is None:
            dues.append(self._due)
        if self.lent and self._its._hungry:
            dues.append(self.round_at)
        if self.aside and self._its._hungry and not self.called and self.borrow_at < inf:
            dues.append(self.borrow_at)
        return min(dues, default=None)

    def _age(self, now: float) -> None:
        """Those whose turn is over may have to give back."""
        while self.young:
            share, until = next(iter(self.young.items()))
            if until > now:
                return
            del self.young[share]
            share.young = False
            self._its._tree.stale[share] = None
            self._looked = -inf

    def _may_start(self, share: Share) -> bool:
        """Whether enough is free, and nobody who waits is served worse."""
        if self._first is not None and self._first is not share:
            return False
        if len(self._its._free) < share.gang or self._short(share) or len(self._usable(share)) < share.gang:
            return False
        return self._is_next(share)

    def _is_next(self, share: Share) -> bool:
        """Whether nobody who waits would be served worse then."""
        its = self._its
        if share.whole + share.gang <= share.minimum:
            return True
        if its._tree.below:
            return False
        party: Party = share
        gain = share.gang * share.unit
        while party.above is not None:
            needy = party.above.needy.first()
            if needy is not None and needy is not party:
                after = (party.units + gain) / party.weight
                if after > (needy.units + gain) / needy.weight + EPSILON:
                    return False
            party = party.above
        return True

    def _usable(self, share: Share) -> list[int]:
        """So many free executors as a gang needs, if there are."""
        found: list[int] = []
        its = self._its
        for executor in its._free.latest():
            if executor in its._promises.kept or not its._suits(executor, share.number):
                continue
            if self._fits(executor, share):
                found.append(executor)
                its._rooms.take(executor, share)  # they have to fit together
                if len(found) == share.gang:
                    break
        for executor in found:
            its._rooms.give_back(executor, share)
        return found

    def _start(self, share: Share, executors: list[int], moves: Moves, now: float) -> None:
        """It gets them all."""
        its = self._its
        whole = share.whole
        for executor in executors:
            del self.aside[executor]
            its._free[executor] = 0
            its._give(executor, share, now)
            moves.assign.append((executor, share.number))
        share.whole = whole + share.gang
        share.gathering = 0
        share.young = True
        self.young.pop(share, None)
        self.young[share] = now + ROUND_SECONDS
        if self._first is share:
            self._first = None
        its._changed(share)

    # --- gathering

    def _see_turns(self, moves: Moves, now: float) -> None:
        """The one that has waited longest of those whose turn has come goes first, and none passes it."""
        again = self._looked + QUANTUM_SECONDS
        if now < again and (self._due is None or now < self._due):
            if self._due is None:
                self._due = again  # something may have changed since
            return
        self._looked, self._due, self._first = now, None, None
        its = self._its
        for share in sorted(self.waiting, key=self.waiting.__getitem__):
            short = self._short(share)
            if self._lacks(share) > self._to_spare(share) or short > bounding.to_spare(share):
                continue
            when = self._turn(share, now)
            enough = len(its._free) - len(its._promises.kept) >= share.gang
            if enough and not short and self._is_next(share):
                when = now  # some of those that are free do not suit it, and are to be replaced
            if when is None:
                continue
            if when <= now:
                self._first = share
                if self._lacks(share) <= self._to_spare(share, at_once=True):
                    self._begin(share, moves, now)
                return
            self._due = when if self._due is None else min(self._due, when)

    def _fits(self, executor: int, share: Share) -> bool:
        """Whether its node has room; what its tenant may have is asked for the whole gang."""
        rooms = self._its._rooms
        return not rooms.demanding or rooms.fits(executor, share)

    @staticmethod
    def _short(share: Share) -> int:
        """How many of its tenant's executors are to be given back before that may have this gang."""
        return 0 if share.bound is None else share.bound.short(share, share.gang)

    def _lacks(self, share: Share) -> int:
        return share.gang - len(self._usable(share))

    def _to_spare(self, share: Share, at_once: bool = False) -> int:
        """Executors that others could be made to give back, or that can be replaced.

        at_once: not counting gangs whose turn is not over
        """
        its = self._its
        promises = its._promises
        spare = len(promises.unclaimed) + len(promises.waiters)  # who waits for those is asked for them then
        spare += sum(not its._suits(e, share.number) for e in its._free if e not in promises.kept)
        for other in its._shares.values():
            if other.have and other is not share and not (at_once and other.young):
                spare += max((other.whole if other.gang > 1 else other.staying) - other.minimum, 0)
        return spare

    def _turn(self, share: Share, now: float) -> float | None:
        """When it is fair that it gets a gang; None: not before something changes."""
        if share.whole + share.gang <= share.minimum:
            return now
        its = self._its
        gain = share.gang * share.unit
        lacks, short = self._lacks(share), self._short(share)
        best: float | None = None
        party: Party = share
        while party.above is not None:
            if short and party.above is its._tree.root:
                break  # what its tenant may not have is of no use to it
            wealthy = party.above.wealthy.first()
            donor = None if wealthy is None or wealthy is party else its._tree.wealthiest(wealthy)
            if donor is not None and wealthy is not None:
                loss = min(max(lacks, donor.chunk) * donor.unit, wealthy.units)
                when = turn_of_many(party, wealthy, gain, loss, self.waiting[share], its._tree.clock, now)
                if when is not None and (best is None or when < best):
                    best = when
            party = party.above
        return best if best is not None else self._turn_of_young(share, gain, lacks, now)

    def _turn_of_young(self, share: Share, gain: float, lacks: int, now: float) -> float | None:
        """As `_turn`, where others have just got what they have: it waits, but nobody is to pass."""
        for other in self.young:
            if other is not share and other.whole > other.minimum:
                one, its = brothers(share, other)
                loss = min(max(lacks, other.chunk) * other.unit, its.units)
                since = self.waiting[share]
                when = turn_of_many(one, its, gain, loss, since, self._its._tree.clock, now)
                if when is not None:
                    return when
        return None

    def _begin(self, share: Share, moves: Moves, now: float) -> None:
        self._since = self.waiting[share]
        self._await(share, False, now)
        share.gathering = share.gang
        if share.bound is not None:
            share.bound.keep(share, share.gang)
        self.gathers = share
        self.heirs.clear()
        self.longest = self.asked = now
        self._its._tree.rank(share)
        self._gather(moves, now)

    def _gather(self, moves: Moves, now: float) -> None:
        """Set aside what is free, ask for what is missing; start it when all are here."""
        share = self.gathers
        assert share is not None
        its = self._its
        short = self._short(share)
        for executor in self._usable(share)[: max(share.gang - len(self.aside) - short, 0)]:
            its._unwarm(executor)
            its._rooms.take(executor, share)
            self.aside[executor] = None
        if len(self.aside) == share.gang and not short:
            executors = list(self.aside)
            self._let_go()
            for executor in executors:
                its._rooms.give_back(executor, share)
            self.gathers = None
            self._start(share, executors, moves, now)
            return
        missing = self._missing(share)
        if missing < 0:
            self._let_go(-missing)
        elif missing > 0 and not self._ask(share, missing, moves, now):
            self.abandon()
            return
        if self.lent and len(self.aside) + len(self.lent) + len(self.passing) == share.gang:
            backfill.call_back(self, moves)

    def _missing(self, share: Share) -> int:
        return share.gang - len(self.aside) - len(self.lent) - len(self.owed) - len(self.coming)

    def _ask(self, share: Share, missing: int, moves: Moves, now: float) -> bool:
        """Replace free ones that do not suit it, reclaim from others; False: there are not enough."""
        its = self._its
        if missing > self._to_spare(share):
            return False
        self.called = False
        lacking = missing
        for executor in [e for e in its._free.oldest() if e not in its._promises.kept][:missing]:
            if not its._suits(executor, share.number) and self._fits(executor, share):
                its._unwarm(executor)
                its._ending[executor] = 0
                self.coming[executor] = None
                moves.replace.append((executor, share.number))
                self.longest = max(self.longest, now + FRESH_SECONDS)
                missing -= 1
        for executor in list(its._promises.unclaimed)[:missing]:
            its._promises.withdraw(executor)
            donor = its._shares[its._serves[executor]]
            donor.leaving[executor] = False
            self._expect(executor, donor, now)
            missing -= 1
        short = self._short(share)
        if share.bound is not None:
            short -= sum(executor in share.bound.serving for executor in self.owed)
        while missing > 0:
            own = its._tree.group_of(share.bound) if share.bound is not None and short > 0 else None
            donor_now = its._tree.wealthiest(own)
            if donor_now is None:
                break  # later
            taken = self._take(donor_now, missing, moves, now)
            missing, short = missing - taken, short - taken
        if missing < lacking:
            self.asked = now
        return True

    def _take(self, donor: Share, most: int, moves: Moves, now: float) -> int:
        """Reclaim one executor, or one gang; of that it gets what it lacks, the others the rest."""
        its = self._its
        going = retract(its, donor, moves)
        for executor in going[:most]:
            its._promises.withdraw(executor)
            donor.leaving[executor] = False  # it goes to nobody else
            self._expect(executor, donor, now)
        return min(len(going), most)

    def _expect(self, executor: int, donor: Share, now: float) -> None:
        """It comes when its task ends."""
        self.owed[executor] = None
        seconds = self.lending(donor.number, donor.number)
        if seconds < inf:
            self.longest = max(self.longest, now + seconds)

    def _let_go(self, most: int | None = None) -> None:
        """So many (or all) of those that have not come are not needed any more."""
        its = self._its
        going = [*self.owed, *self.lent]
        for executor in going[:most]:
            borrower = self.lent.get(executor)
            self.forget(executor)
            share = its._shares[its._serves[executor]]
            if borrower is not None:
                del share.leaving[executor]  # it may keep it
            else:
                share.leaving[executor] = True
                its._promises.offer(executor)
            its._changed(share)
        if most is None:
            self.coming.clear()

    def abandon(self) -> None:
        """It gathers no more: all that is reserved is free for others."""
        share, self.gathers = self.gathers, None
        assert share is not None
        its = self._its
        self._let_go()
        for executor in self.aside:
            its._rooms.give_back(executor, share)
            its._free[executor] = 0
        self.aside.clear()
        share.gathering = 0
        if share.bound is not None:
            share.bound.keep(share, 0)
        its._changed(share)
        if share.waits:
            self.waiting[share] = self._since

    # --- for those who look on

    def gathered(self, share: Share) -> int:
        """How many are reserved for it, whether they serve others at the moment or not."""
        return len(self.aside) + len(self.lent) if share is self.gathers else 0

    def check(self) -> None:
        """Compare every index with every other."""
        its = self._its
        shares = its._shares.values()
        assert set(self.waiting) == {share for share in shares if share.waits}
        gathering = [share for share in shares if share.gathering]
        assert gathering == ([self.gathers] if self.gathers else [])
        assert set(self.young) == {share for share in shares if share.young}
        assert self.gathers or not (self.aside or self.lent or self.owed or self.coming)
        lent = {executor: share for share in shares for executor in share.lent}
        assert lent == self.lent
        for executor in [*self.lent, *self.owed]:
            assert its._shares[its._serves[executor]].leaving[executor] is False
        assert not set(self.aside) & (set(its._free) | set(its._serves))
        assert set(self.passing) <= set(self.owed)
        assert set(self.coming) <= set(its._ending) | set(its._ended)
        for share in shares:
            if share.gang > 1:
                assert not share.whole % share.gang
                assert share.whole <= share.limit
                assert share.staying > share.whole - share.gang
            else:
                assert not share.whole and not share.gathering and not share.waits
