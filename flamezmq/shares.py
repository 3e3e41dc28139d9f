"""The sessions as the scheduler sees them, in their tree: tenants, priorities, sessions.

A tenant has the same share as any other, however many sessions it has.  Of its
priorities the highest that has any work counts for ten times the next one, and
that for ten times all that are lower: so priority decides, and nobody starves.
Within a priority the weights of the sessions decide.

Pure; `clock` is the scheduler's.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flamezmq.bounds import Bound
from flamezmq.fairness import EPSILON, QUANTUM_SECONDS, Group, Party, Ranking, reweigh, update

#: Names all tenants that are not named.
ALL_OTHERS = "*"
#: Of a session without one.
NO_LIMIT = 1 << 62
#: What entering a service is taken for until the first executor has done it.  What is shorter is known soon;
#: and whoever is taken away while it is entering has loaded for nothing.
UNKNOWN_ENTER_SECONDS = 6.0
#: A service that takes no time is a service.
LEAST_ENTER_SECONDS = 1e-6
#: Weights of the priorities of a tenant that have any work: the highest, the next one, all others.
PRIORITY_WEIGHTS = (1.0, 0.1, 0.01)


@dataclass(slots=True, eq=False)
class Share(Party):
    """A session, as the scheduler sees it.

    minimum    executors that it has as long as it is open
    limit      executors that it may have at a time, those in `leaving` among them
    request    what each of its executors needs; empty: its part of a node
    gang       so many at a time it gets, and gives back
    unit       what one executor of it counts
    homeless   no node has what it needs
    counts     what it has is counted against the limits of its tenant, if there are any
    bound      these limits
    beyond     its tenant may not have what it needs
    gathers    the node that is reserved for one executor of it, or ""
    asked      executors that it could use now; those in `leaving` are not among them
    wanted     of what it asked for, or its minimum, as many as its limit allows
    active     it wants any
    suspended  it is to have none
    bounded    it has a limit (or its tenant has), a minimum, a request or gangs, or is suspended: it may want
               other than it asks
    whole      executors of the gangs that it has, also those of them that have died and are to be replaced
    waits      it could use a further gang
    young      what it has got last may not be taken from it yet
    gathering  executors of a further gang that are gathered for it, or 0
    passed     no free executor is of use to it
    have       executors that serve it, in the order in which it got them; value: since when
    leaving    those of them that are to be given back; value: whether they are free soon, for others
    resting    those of them that hold nothing
    ripe       of these, those that it need not keep for later
    lent       those of a gang's reservation that serve it for the time being; they are in `leaving`, too
    warm       free executors that served it last, latest last
    coming     executors that did not suit it and end (or have ended), so that fresh ones come
    promised   executors that others are to give back for it
    enters     seconds that entering its service takes; 0: it has none, below 0: nobody knows
    """

    minimum: int = 0
    limit: int = NO_LIMIT
    request: dict[str, float] = field(default_factory=dict)
    unit: float = 1.0
    homeless: bool = False
    counts: bool = True
    bound: Bound | None = None
    beyond: bool = False
    gathers: str = ""
    gang: int = 1
    whole: int = 0
    waits: bool = False
    young: bool = False
    gathering: int = 0
    asked: int = 0
    wanted: int = 0
    active: bool = False
    suspended: bool = False
    bounded: bool = False
    passed: bool = False
    have: dict[int, float] = field(default_factory=dict)
    leaving: dict[int, bool] = field(default_factory=dict)
    resting: dict[int, None] = field(default_factory=dict)
    ripe: dict[int, None] = field(default_factory=dict)
    lent: dict[int, None] = field(default_factory=dict)
    warm: dict[int, None] = field(default_factory=dict)
    coming: dict[int, None] = field(default_factory=dict)
    promised: dict[int, None] = field(default_factory=dict)
    enters: float = 0.0

    def set_minimum(self, minimum: int) -> None:
        """No more than its limit counts, and only whole gangs."""
        gang = self.gang
        self.minimum = min(-(-minimum // gang) * gang, self.limit // gang * gang)

    def see_terms(self) -> None:
        """Its terms are others now."""
        limited = self.limit < NO_LIMIT or self.minimum > 0 or self.gang > 1 or self.bound is not None
        self.bounded = limited or self.suspended or bool(self.request)

    @property
    def staying(self) -> int:
        return len(self.have) - len(self.leaving)

    @property
    def expected(self) -> int:
        """Executors that it has and will have, without what it is to give back."""
        return len(self.have) - len(self.leaving) + self.later

    @property
    def later(self) -> int:
        """Executors that it does not have yet."""
        coming = len(self.coming)
        return coming + len(self.promised) + (bool(self.gathers) and not coming)

    @property
    def lacking(self) -> bool:
        """It could use more than it has and will have."""
        return self.wanted > self.expected

    @property
    def most(self) -> int:
        """Executors that may stay with it."""
        if self.gang > 1:
            return self.whole
        return 0 if self.suspended else self.limit

    @property
    def reload_seconds(self) -> float:
        """What it costs to take a working executor from it that comes back later."""
        return self.enters if self.enters >= 0 else UNKNOWN_ENTER_SECONDS

    @property
    def gives(self) -> bool:
        """Something of it may be taken away."""
        if self.gang > 1:
            return self.whole > self.minimum and not (self.gathering or self.young)
        return self.staying > self.minimum

    @property
    def chunk(self) -> int:
        """So many are taken away at a time."""
        return 1 if self.gang == 1 else self.staying - self.whole + self.gang

    @property
    def lowest(self) -> int:
        """Fewer than these it must not have: its minimum, and what completes its gangs."""
        return max(self.minimum if self.gang == 1 else 0, self.whole)

    @property
    def first_to_go(self) -> int:
        """Of those that stay, the one that it is to give back first: one at rest, else the latest it got."""
        for executor in self.resting:
            if executor not in self.leaving:
                return executor
        return next(executor for executor in reversed(self.have) if executor not in self.leaving)


@dataclass(frozen=True, slots=True)
class Terms:
    """weight: of a tenant's share.  most: what it may have, by name, as in `Bound`."""

    weight: float = 1.0
    most: Mapping[str, float] = field(default_factory=dict)


_NO_TERMS = Terms()


@dataclass(slots=True, eq=False)
class Tenant(Group):
    """Its sessions by priority.

    present  negative priorities that have or want anything, the highest priority first
    """

    name: str = ""
    priorities: dict[int, Priority] = field(default_factory=dict)
    present: list[int] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Priority(Group):
    """The sessions of a tenant that have the same priority.

    What they have by their minima does not count against the others of the priority: else
    these would get nothing, for good, where that is more than the share of the priority.
    """

    blind: bool = True
    priority: int = 0
    sessions: int = 0
    waiting: int = 0  # for a gang
    present: bool = False


@dataclass(slots=True)
class Moves:
    """What is to be done, as (executor, session) or executors.

    assign   free executors serve these sessions from now on
    replace  free executors that suit no session that waits are to end; the session waits for a fresh one
    reclaim  executors are to run dry, and then be released
    """

    assign: list[tuple[int, int]] = field(default_factory=list)
    replace: list[tuple[int, int]] = field(default_factory=list)
    reclaim: list[int] = field(default_factory=list)


class Tree:
    """All that have a share.

    clock   seconds for which sessions have waited for each other
    stale   sessions that have changed since they were last ranked
    below   sessions that lack some of their minimum
    uneven  groups in which something may be due to be moved
    dues    groups in which something is to be moved later
    terms   what is said of tenants, by name; what is said of ALL_OTHERS counts for those that are not named
    bounds  tenants that have limits, by name, as long as they have sessions
    excess  of these, those that may have more than they may
    """

    def __init__(self) -> None:
        self.clock = 0.0
        self.root = Group(0, 1.0)
        self.stale: dict[Share, None] = {}
        self.below: dict[Share, None] = {}
        self.uneven: dict[Group, None] = {}
        self.dues: Ranking[Group] = Ranking()
        self.terms: dict[str, Terms] = {}
        self.bounds: dict[str, Bound] = {}
        self.excess: dict[Bound, None] = {}
        self._tenants: dict[str, Tenant] = {}
        self._groups = 0

    def terms_of(self, name: str) -> Terms:
        """What counts for this tenant."""
        return self.terms.get(name) or self.terms.get(ALL_OTHERS, _NO_TERMS)

    def set_terms(self, name: str, terms: Terms) -> None:
        """From now on they count for it, or, if it is ALL_OTHERS, for those that are not named."""
        self.terms[name] = terms
        for tenant in self._tenants.values():
            weight = self.terms_of(tenant.name).weight
            if tenant.weight != weight:
                reweigh(tenant, weight, self.clock)
                self.uneven[self.root] = None

    def group_of(self, bound: Bound) -> Tenant:
        """The tenant that has these limits."""
        return self._tenants[bound.name]

    @staticmethod
    def tenant_of(share: Share) -> str:
        return _groups_of(share)[1].name

    def first_below(self) -> Share | None:
        """The first that lacks some of its minimum, and may have it."""
        if not self.bounds:
            return next(iter(self.below), None)
        return next((share for share in self.below if share.bound is None or not share.bound.full), None)

    def join(self, share: Share, name: str, priority: int) -> None:
        """It is a session of this tenant from now on."""
        tenant = self._tenants.get(name)
        if tenant is None:
            self._groups += 1
            tenant = self._tenants[name] = Tenant(self._groups, self.terms_of(name).weight, name=name)
            self.root.adopt(tenant, self.clock)
        group = tenant.priorities.get(priority)
        if group is None:
            self._groups += 1
            group = Priority(self._groups, PRIORITY_WEIGHTS[-1], priority=priority)
            tenant.priorities[priority] = group
            tenant.adopt(group, self.clock)
        group.adopt(share, self.clock)
        group.sessions += 1
        group.waiting += share.waits

    def leave(self, share: Share) -> str:
        """Take it out of its groups, and forget those that have become empty; returns its tenant's name."""
        update(share, 0.0, 0.0, 0.0, False, False, self.clock)
        self.below.pop(share, None)
        self.stale.pop(share, None)
        group, tenant = _groups_of(share)
        group.sessions -= 1
        group.waiting -= share.waits
        self._see_presence(tenant, group)
        if not group.sessions:
            del tenant.priorities[group.priority]
            self._forget(group)
        if not tenant.priorities:
            del self._tenants[tenant.name]
            self._forget(tenant)
        return tenant.name

    def settle(self) -> None:
        """Rank those that have changed."""
        while self.stale:
            self.rank(self.stale.popitem()[0])

    def rank(self, share: Share) -> None:
        """It has changed: find its new places."""
        group, tenant = _groups_of(share)
        if share.bound is not None:
            share.bound.note(share)
            tenant.full = share.bound.full
        staying, later = share.staying, share.later
        expected = staying + later
        hungry = share.wanted > expected and not share.passed
        pending = (later + share.gathering) * share.unit
        update(
            share,
            staying * share.unit + pending,
            pending,
            len(share.have) * share.unit,
            hungry,
            staying > share.minimum if share.gang == 1 else share.gives,
            self.clock,
            max(min(staying, share.minimum), 0) * share.unit if share.minimum else 0.0,
        )
        self._see_presence(tenant, group)
        if hungry and expected < share.lowest:
            self.below[share] = None
        else:
            self.below.pop(share, None)
        self.uneven[group] = self.uneven[tenant] = self.uneven[self.root] = None

    def note_waiting(self, share: Share) -> None:
        """It waits for a gang, or does so no longer: that counts as work of its priority."""
        group, tenant = _groups_of(share)
        group.waiting += 1 if share.waits else -1
        self._see_presence(tenant, group)
        party: Party = share
        while share.waits and party.above is not None:
            if not party.hungry and party.units < EPSILON:  # what it has not used in the past is no claim
                party.used = max(party.used_at(self.clock), party.above.reached - QUANTUM_SECONDS)
                party.counted = self.clock
            party = party.above

    def neediest(self, party: Party | None = None) -> Share | None:
        """The session that is to be served next, of all or of this party."""
        party = party or self.root
        while isinstance(party, Group):
            party = party.needy.first()
        assert party is None or isinstance(party, Share)
        return party

    def wealthiest(self, party: Party | None = None) -> Share | None:
        """The session that is to give back next, of all or of this party."""
        party = party or self.root
        while isinstance(party, Group):
            party = party.wealthy.first()
        assert party is None or isinstance(party, Share)
        return party

    def forgive(self, share: Share) -> None:
        """What it, and those that it is a part of, have used is forgotten."""
        party: Party | None = share
        while party is not None:
            party.used, party.counted = 0.0, self.clock
            if isinstance(party, Group):
                party.reached = 0.0
            party = party.above

    def _forget(self, group: Group) -> None:
        self.uneven.pop(group, None)
        self.dues.drop(group)
        assert group.above is not None
        group.above.needy.drop(group)
        group.above.wealthy.drop(group)

    def _see_presence(self, tenant: Tenant, group: Priority) -> None:
        """Where a priority has come to have or want anything, or ceased to, others count for less or more."""
        present = group.hungry or group.units > EPSILON or group.waiting > 0
        if present == group.present:
            return
        group.present = present
        if present:
            insort(tenant.present, -group.priority)
        else:
            tenant.present.remove(-group.priority)
        last = len(PRIORITY_WEIGHTS) - 1
        for rank, negative in enumerate(tenant.present[: last + 2]):
            other, weight = tenant.priorities[-negative], PRIORITY_WEIGHTS[min(rank, last)]
            if other.weight != weight:
                reweigh(other, weight, self.clock)

    def check(self, shares: Iterable[Share]) -> None:
        """Compare every index with every other."""
        inner: list[Group] = list(self._tenants.values())
        for tenant in self._tenants.values():
            inner += tenant.priorities.values()
            for priority in tenant.priorities.values():
                assert priority.above is tenant
                assert (-priority.priority in tenant.present) == priority.present
        below: dict[Group, list[Party]] = {group: [] for group in [self.root, *inner]}
        for party in [*shares, *inner]:
            assert party.above is not None
            below[party.above].append(party)
        for group, parties in below.items():
            assert abs(group.fixed - sum(party.fixed for party in parties)) < EPSILON
            own, theirs = _unseen(group), sum(_unseen(party) for party in parties)
            assert abs(group.units + own - sum(party.units for party in parties) - theirs) < EPSILON
            assert abs(group.rate + own - sum(party.rate for party in parties) - theirs) < EPSILON
            assert len(group.needy) == sum(party.hungry for party in parties)
            assert len(group.wealthy) == sum(party.giving for party in parties)
        for bound in self.bounds.values():
            bound.check()
            assert self._tenants[bound.name].full == bound.full
        for share in shares:
            assert (self.bounds.get(self.tenant_of(share)) if share.counts else None) is share.bound
            assert share.hungry == (share.lacking and not share.passed)
            assert abs(share.units - (share.expected + share.gathering) * share.unit) < EPSILON
            assert share.giving == share.gives
            assert (share in self.below) == (share.hungry and share.expected < share.lowest)


def _unseen(party: Party) -> float:
    return party.fixed if party.blind else 0.0


def _groups_of(share: Share) -> tuple[Priority, Tenant]:
    group = share.above
    assert isinstance(group, Priority)
    tenant = group.above
    assert isinstance(tenant, Tenant)
    return group, tenant
