"""Backfill: what is set aside for a gang serves others while the gang waits for the rest.

A session may borrow if its tasks are short against what the gang still waits for (as in
Lifka's EASY scheduler, 1995).  When only what is lent is missing, it is called back: so
nobody delays the start by more than one short task.

Among those that may borrow it goes as everywhere: to the tenant, of that to the
priority, of that to the session that is served worst, what is lent counted in; among
equals to the one that has used least.  What can't be divided evenly goes round: once
in `ROUND_SECONDS`, at the end of a task.

Functions over the state of `gangs.Gangs`; same rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush, heapreplace, nlargest, nsmallest
from math import inf
from typing import TYPE_CHECKING

from flamezmq.fairness import EPSILON, ROUND_SECONDS, Group, Key, Party, brothers
from flamezmq.shares import Moves, Share

if TYPE_CHECKING:
    from flamezmq.gangs import Gangs

#: A session may borrow if its tasks take no more than this part of what the gang still waits for.
SHORT = 0.5
#: Of so many that have used least (and most) one is found that is to get something, if there is any.
FEW = 8
#: Where time has to pass until one may borrow, it is looked again after no less.
LEAST_SECONDS = 0.001

Place = tuple[Key, ...]


class _Ledger:
    """Who is served how well right now: what is lent counts, what is promised does not.

    lent  so many executors, by session, and by what that is a part of
    """

    def __init__(self, gangs: Gangs) -> None:
        self._clock = gangs._its._tree.clock
        self.lent: Counter[Party] = Counter()
        for share, count in Counter(gangs.lent.values()).items():
            self.add(share, count)

    def add(self, share: Share, count: int) -> None:
        for party in _line(share):
            self.lent[party] += count

    def level(self, party: Party) -> float:
        return (party.units - party.pending + self.lent[party]) / party.weight

    def place(self, share: Share, sign: int = 1) -> Place:
        """The lowest comes first; `sign` -1: the highest.  Its tenant counts before its priority."""
        keys = [(sign * self.level(party), sign * self.used(party), party.number) for party in _line(share)]
        return tuple(reversed(keys))

    def used(self, party: Party) -> float:
        return party.used_at(self._clock)

    def brings_closer(self, one: Party, other: Party) -> bool:
        """Whether these brothers are served more alike if the first one has one of the other's."""
        return self.level(other) - 1 / other.weight >= self.level(one) + 1 / one.weight - EPSILON

    def is_behind(self, one: Party, other: Party) -> bool:
        """Whether the first one has used less, by more than a round, and will not catch up as it is."""
        apart = self.used(other) - self.used(one) - ROUND_SECONDS * (1 / one.weight + 1 / other.weight)
        return apart > 0 and self.level(other) > self.level(one) + EPSILON


def lend(gangs: Gangs, moves: Moves, now: float) -> None:
    """Lend what is set aside; hand on what others have had for their turn."""
    if gangs.gathers is None or gangs.called:
        return
    turn = bool(gangs.lent) and now >= gangs.round_at
    if turn:
        gangs.round_at = now + ROUND_SECONDS
    if not gangs.aside and not turn:
        return
    borrowers = _borrowers(gangs, gangs.gathers, now)
    if borrowers:
        ledger = _Ledger(gangs)
        if gangs.aside:
            _lend_out(gangs, gangs.gathers, borrowers, ledger, moves, now)
        if turn and not gangs.aside:
            _hand_on(gangs, borrowers, ledger, moves, now)


def _borrowers(gangs: Gangs, gang: Share, now: float) -> list[Share]:
    """Those whose tasks are short enough; the others may be, when it has taken longer."""
    most = SHORT * max(gangs.longest - now, now - gangs.asked)
    found: list[Share] = []
    shortest = inf
    for share in gangs._its._hungry.values():
        has_use = share.asked - len(share.lent) > share.staying  # else it is its minimum that it lacks
        allowed = share.bound is None or share.bound.allows(share)
        if share.gang == 1 and not share.request and has_use and allowed:
            seconds = gangs.lending(share.number, gang.number)
            if seconds <= most:
                found.append(share)
            else:
                shortest = min(shortest, seconds)
    gangs.borrow_at = max(gangs.asked + shortest / SHORT, now + LEAST_SECONDS)
    return found


def _lend_out(
    gangs: Gangs, gang: Share, borrowers: list[Share], ledger: _Ledger, moves: Moves, now: float
) -> None:
    its = gangs._its
    heirs = [share for share in borrowers if share in gangs.heirs]
    gangs.heirs.clear()
    for share in heirs:
        _lend_next(gangs, gang, share, ledger, moves, now)
    heap = [(ledger.place(share), share) for share in borrowers if share.number in its._hungry]
    heapify(heap)
    while heap and gangs.aside:
        place, share = heap[0]
        latest = ledger.place(share)
        if latest != place:  # its tenant has got one meanwhile
            heapreplace(heap, (latest, share))
            continue
        heappop(heap)
        lent = _lend_next(gangs, gang, share, ledger, moves, now)
        if lent and share.number in its._hungry:
            heappush(heap, (ledger.place(share), share))


def _lend_next(gangs: Gangs, gang: Share, share: Share, ledger: _Ledger, moves: Moves, now: float) -> bool:
    """It gets one that suits it; False: there is none."""
    its = gangs._its
    executor = next((e for e in gangs.aside if its._suits(e, share.number)), None)
    if executor is None or (share.bound is not None and not share.bound.allows(share)):
        return False
    if not gangs.lent:
        gangs.round_at = now + ROUND_SECONDS
    ledger.add(share, 1)
    moves.assign.append((executor, share.number))
    del gangs.aside[executor]
    its._rooms.give_back(executor, gang)
    its._rooms.take(executor, share)
    if share.bound is not None:
        share.bound.take(executor, share, its._rooms.part(executor))
    share.have[executor], share.leaving[executor] = now, False
    share.lent[executor] = None
    gangs.lent[executor] = share
    its._serves[executor] = share.number
    its._changed(share)
    return True


def _hand_on(gangs: Gangs, borrowers: list[Share], ledger: _Ledger, moves: Moves, now: float) -> None:
    """Ask back what others are to have: as many as bring two closer, then from who has used most."""
    ripe: dict[Share, list[int]] = {}  # lent for a whole turn; the longest lent goes first
    for executor, share in reversed(gangs.lent.items()):
        if share.have[executor] + ROUND_SECONDS <= now + EPSILON:
            ripe.setdefault(share, []).append(executor)
    needy = [(ledger.place(share), share) for share in borrowers]
    wealthy = [(ledger.place(share, -1), share) for share in ripe]
    heapify(needy)
    heapify(wealthy)
    while wealthy:
        for heap, sign in ((needy, 1), (wealthy, -1)):
            while (latest := ledger.place(heap[0][1], sign)) != heap[0][0]:
                heapreplace(heap, (latest, heap[0][1]))
        one, other = needy[0][1], wealthy[0][1]
        if one is other or not ledger.brings_closer(*brothers(one, other)):
            break
        _pass_on(gangs, one, ripe[other].pop(), ledger, moves)
        if not ripe[other]:
            heappop(wealthy)
            del ripe[other]
    for party, rich in _behind(borrowers, ripe, ledger):
        one = min((share for share in borrowers if party in _line(share)), key=ledger.place)
        donors = [share for share in ripe if ripe[share] and rich in _line(share)]
        if donors:
            _pass_on(gangs, one, ripe[max(donors, key=ledger.place)].pop(), ledger, moves)


def _behind(
    borrowers: list[Share], lenders: Iterable[Share], ledger: _Ledger
) -> Iterator[tuple[Party, Party]]:
    """In each group the one that is furthest behind, and the one from which it is to get something."""
    groups: dict[Group, tuple[dict[Party, None], dict[Party, None]]] = {}
    for column, shares in enumerate((borrowers, lenders)):
        for share in shares:
            for party in _line(share):
                assert party.above is not None
                groups.setdefault(party.above, ({}, {}))[column][party] = None
    for needy, wealthy in groups.values():
        rich = nlargest(FEW, wealthy, key=lambda party: (ledger.used(party), party.number))
        poor = nsmallest(FEW, needy, key=lambda party: (ledger.used(party), party.number))
        pair = next(((one, other) for one in poor for other in rich if ledger.is_behind(one, other)), None)
        if pair is not None:
            yield pair


def _line(share: Share) -> Iterator[Party]:
    """It, and what it is a part of, but for the whole."""
    party: Party = share
    while party.above is not None:
        yield party
        party = party.above


def _pass_on(gangs: Gangs, share: Share, executor: int, ledger: _Ledger, moves: Moves) -> None:
    """It serves another one; when its task has ended it is to go on to this session."""
    ledger.add(gangs.lent[executor], -1)
    ledger.add(share, 1)
    _ask_back(gangs, executor, moves)
    gangs.passing[executor] = share


def _ask_back(gangs: Gangs, executor: int, moves: Moves) -> None:
    share = gangs.lent.pop(executor)
    del share.lent[executor]
    gangs.owed[executor] = None
    moves.reclaim.append(executor)
    gangs._its._changed(share)


def call_back(gangs: Gangs, moves: Moves) -> None:
    """Only what is lent is missing: it comes back with the end of a short task."""
    for executor in list(gangs.lent):
        _ask_back(gangs, executor, moves)
    gangs.called = True
