"""Fair shares in a tree: tenants, their priorities, their sessions.

Each `Party` has a weight and holds some units (of executors).  Its *level* is what
it holds over its weight: among brothers the one with the lowest level is served
next, the one with the highest gives back.  Among equals it is the one that has
*used* least (or most) while parties had to wait for each other: units times
seconds, over its weight.

Used time grows evenly between two changes, and that of equal levels equally fast.
So an order once found stays true until something changes, and who is first is
looked up in heaps; what a change costs does not depend on how many parties there are.
Who has fallen behind in the middle is looked for once in a round (`behind`).

Weighted fair queueing, with the levels of dominant resource fairness (Ghodsi and
others, 2011) in front.  Pure: `clock` is given, and is the scheduler's, not the wall's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

#: How long a party keeps what it has for itself while its brother has nothing.
#: One that comes back has a lead of one quantum, however little it has used.
QUANTUM_SECONDS = 0.005
#: And while its brother only has less than its share, of what can't be divided.
ROUND_SECONDS = 0.1
#: Where something has to be loaded after a change, a turn lasts so many times that: a tenth of it is lost.
TURN_PER_CHANGE = 10.0
#: The turn of one with little weight is shorter, but never less than this: half of it is work.
LEAST_TURN_PER_CHANGE = 2.0
#: Levels are sums of floats: a difference below it is none.
EPSILON = 1e-6

Key = tuple[float, float, int]
Who = TypeVar("Who")


class Ranking(Generic[Who]):
    """Who is first, where everybody's key may change: a heap whose old entries are passed over.

    keys  of all that are in it
    """

    __slots__ = ("_heap", "keys")

    def __init__(self) -> None:
        self.keys: dict[Who, Key] = {}
        self._heap: list[tuple[Key, Who]] = []

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[Who]:
        return iter(self.keys)

    def put(self, who: Who, key: Key) -> None:
        """It has this key from now on.  Keys of different ones must differ."""
        if self.keys.get(who) == key:
            return
        self.keys[who] = key
        heappush(self._heap, (key, who))
        if len(self._heap) > 2 * len(self.keys) + 64:
            self._heap = [(key, who) for who, key in self.keys.items()]
            heapify(self._heap)

    def drop(self, who: Who) -> None:
        self.keys.pop(who, None)

    def first(self) -> Who | None:
        heap = self._heap
        while heap:
            key, who = heap[0]
            if self.keys.get(who) == key:
                return who
            heappop(heap)
        return None


@dataclass(slots=True, eq=False)
class Party:
    """One that gets a share.

    number   tells it from its brothers; the lowest comes first among equals
    units    that it has or will have, without what it is to give back
    pending  of them, those that it does not have yet
    rate     units that serve it now, also those that it is to give back
    fixed    of them, those that nobody can take away: what minima say
    blind    units and rate are without what is fixed
    used     seconds that it has had, times units, over its weight, counted up to `counted`
    hungry   it could use more
    giving   it has something that can be taken away
    """

    number: int
    weight: float
    above: Group | None = None
    units: float = 0.0
    pending: float = 0.0
    rate: float = 0.0
    fixed: float = 0.0
    blind: bool = False
    used: float = 0.0
    counted: float = 0.0
    hungry: bool = False
    giving: bool = False

    @property
    def level(self) -> float:
        """How well it is served; the lowest is served next."""
        return self.units / self.weight

    def used_at(self, clock: float) -> float:
        return self.used + self.rate / self.weight * (clock - self.counted)


@dataclass(slots=True, eq=False)
class Group(Party):
    """A party that is made of others.

    needy    of them, those that are hungry, the one that is served worst first
    wealthy  those that have something to give, the one that is served best first
    reached  the most that one of them had used when it was given something
    due      when something is to be moved from one of them to another
    even_at  when to look again whether one between the best and the worst served has fallen behind
    full     it may have no more than it has, so for its brothers it is not hungry
    """

    needy: Ranking[Party] = field(default_factory=Ranking)
    wealthy: Ranking[Party] = field(default_factory=Ranking)
    reached: float = 0.0
    due: float = 0.0
    even_at: float = 0.0
    full: bool = False

    def adopt(self, party: Party, clock: float) -> None:
        """A new one starts level with those that are served, not ahead of everybody."""
        party.above, party.used, party.counted = self, self.reached, clock

    def rank(self, party: Party, clock: float) -> None:
        """One of its parties has changed: find its new places."""
        slope = party.rate / party.weight
        used = party.used - slope * party.counted  # where it would be at clock 0: the same until it changes
        level = party.units / party.weight
        if party.hungry:
            self.needy.put(party, (level, used, party.number))
        else:
            self.needy.drop(party)
        if party.giving:
            self.wealthy.put(party, (-level, -used, party.number))
        else:
            self.wealthy.drop(party)


def update(
    party: Party,
    units: float,
    pending: float,
    rate: float,
    hungry: bool,
    giving: bool,
    clock: float,
    fixed: float = 0.0,
) -> None:
    """A session has changed; so have its priority and its tenant."""
    more, later, faster = units - party.units, pending - party.pending, rate - party.rate
    locked = fixed - party.fixed
    while True:
        if party.counted != clock:
            party.used, party.counted = party.used_at(clock), clock
        unseen = locked if party.blind else 0.0
        party.units += more - unseen
        party.pending += later
        party.rate += faster - unseen
        party.fixed += locked
        above = party.above
        if above is None:
            return
        if hungry and not party.hungry:
            party.used = max(party.used, above.reached - QUANTUM_SECONDS)
        if faster > 0:
            above.reached = max(above.reached, party.used)
        party.hungry, party.giving = hungry, giving
        above.rank(party, clock)
        hungry, giving = bool(above.needy.keys) and not above.full, bool(above.wealthy.keys)
        party = above


def reweigh(party: Party, weight: float, clock: float) -> None:
    """It has another weight from now on."""
    party.used, party.counted = party.used_at(clock), clock
    party.weight = weight
    if party.above is not None:
        party.above.rank(party, clock)


def brothers(one: Party, other: Party) -> tuple[Party, Party]:
    """Themselves, or what they are parts of: of the same group, in a tree where both are equally deep."""
    while one.above is not other.above:
        assert one.above is not None and other.above is not None
        one, other = one.above, other.above
    return one, other


def worthwhile(needy: Party, wealthy: Party, change: float) -> float:
    """How long a turn of one of two brothers is at least, if so many seconds are lost with it."""
    part = min(wealthy.weight / needy.weight, 1.0)
    return change * max(TURN_PER_CHANGE * part, LEAST_TURN_PER_CHANGE)


def fair_at(
    needy: Party,
    wealthy: Party,
    gain: float,
    loss: float,
    latest: float,
    clock: float,
    now: float,
    change: float = 0.0,
) -> float | None:
    """When it is fair to move something from one of two brothers to the other; None: not before one changes.

    At once if that brings them closer.  Else, if the one has less, when the
    other's turn is over and it has used at least as much.

    gain, loss: units of what is to be moved, for either
    latest: since when the other has had it
    change: seconds that are lost with it, because something has to be loaded again
    """
    if wealthy.level - loss / wealthy.weight >= needy.level + gain / needy.weight - EPSILON:
        return now
    if wealthy.level <= needy.level + EPSILON or wealthy.pending > EPSILON:
        return None
    faster = wealthy.rate / wealthy.weight - needy.rate / needy.weight
    if faster <= EPSILON:
        return None
    turn = QUANTUM_SECONDS if needy.units < EPSILON else ROUND_SECONDS
    if change:
        turn = max(turn, worthwhile(needy, wealthy, change))
    ahead = needy.used_at(clock) - wealthy.used_at(clock)
    return max(latest + turn, now + max(ahead, 0.0) / faster)


def turn_of_many(
    needy: Party, wealthy: Party, gain: float, loss: float, latest: float, clock: float, now: float
) -> float | None:
    """As `fair_at`, for what can only be moved in large pieces, from one of them and from others beside it.

    What the other still waits for makes no difference: where many small ones come and
    go there is always some, and the large one would never have its turn.
    """
    if wealthy.level - loss / wealthy.weight >= needy.level + gain / needy.weight - EPSILON:
        return now
    faster = wealthy.rate / wealthy.weight - needy.rate / needy.weight
    if wealthy.level <= needy.level + EPSILON or faster <= EPSILON:
        return None
    ahead = needy.used_at(clock) - wealthy.used_at(clock)
    return max(latest + ROUND_SECONDS, now + max(ahead, 0.0) / faster)


def behind(group: Group, clock: float) -> tuple[Party, Party] | None:
    """Two brothers: one that waits and has used less than another, which is served better right now.

    The two that are furthest apart; None where none are by more than a round of what would be moved.
    The order by level alone passes by those in the middle, which would stay below their share, or
    above it, by a part of an executor.
    """
    waiting = sorted((party.level, party.number, party) for party in group.needy)
    found, most = None, 0.0
    needy, used, place = None, 0.0, 0
    for level, _, wealthy in sorted((party.level, party.number, party) for party in group.wealthy):
        while place < len(waiting) and waiting[place][0] < level - EPSILON:
            party = waiting[place][2]
            place += 1
            if needy is None or party.used_at(clock) < used:
                needy, used = party, party.used_at(clock)
        if needy is None:
            continue
        apart = wealthy.used_at(clock) - used - ROUND_SECONDS * (1 / needy.weight + 1 / wealthy.weight)
        if apart > most:
            found, most = (needy, wealthy), apart
    return found
