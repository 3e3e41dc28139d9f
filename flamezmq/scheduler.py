"""Which session gets which executors.

Executors are shared between tenants evenly, between the priorities of a tenant, and
between the sessions of a priority by their weights (see `fairness.py`); none idles
while a session could use it.  A session that has less than its share gets an
executor as soon as one is free, or as soon as a session with more has finished what
one of its executors holds (a *reclaim*: that executor is *promised* to the one that
waits).  What can't be divided evenly goes round: where there are more sessions than
executors they take turns of `QUANTUM_SECONDS`, the one that has used least coming
first; what was used while nobody had to wait does not count.

An executor that is to be given back no longer counts for the session that it
still serves: what that session has queued waits for another one.  One that does
not suit any session that waits is to be replaced by a fresh one.

A session may have a limit: it never serves more executors at a time, and there
those that it is to give back do count.  Its minimum is served before anything else
and never taken away while it is open, whether it has work or not.  Where the minima
are more than there is, those who came first have theirs.

Pure and event-driven: the broker reports demand and idle executors, `decide`
answers with moves.  Its cost depends neither on the number of tasks nor, but for
logarithms, on that of sessions.  The same calls give the same moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf

from flamezmq import backfill, bounding, reclaims, scheduler_check
from flamezmq.fairness import QUANTUM_SECONDS as QUANTUM_SECONDS
from flamezmq.fairness import reweigh
from flamezmq.gangs import Gangs
from flamezmq.idle import Idle
from flamezmq.picking import free_on, pick
from flamezmq.promises import Promises
from flamezmq.rooms import Rooms
from flamezmq.shares import LEAST_ENTER_SECONDS, NO_LIMIT, Share, Tree
from flamezmq.shares import Moves as Moves

#: When nobody has waited for so long, it is forgotten who has used how much.
FORGET_SECONDS = 1.0


def _always(_executor: int, _session: int) -> bool:
    return True


def _never(_session: int, _other: int) -> float:
    return inf


def _nowhere(_session: int) -> list[str]:
    return []


class Scheduler:
    """Sessions and executors are integers.

    suits: whether an executor can serve a session as it is.
    lending: seconds until an executor that begins a task of one session can serve another; inf: unknown.
    wishes: nodes on which a session would like its next executors to be, of those in `choosy`.
    """

    def __init__(
        self,
        suits: Callable[[int, int], bool] = _always,
        lending: Callable[[int, int], float] = _never,
        wishes: Callable[[int], list[str]] = _nowhere,
    ) -> None:
        self._suits, self._wishes = suits, wishes
        self.choosy: dict[int, None] = {}
        self._wished: dict[int, list[str]] = {}  # in this decision: what is left of their wishes
        self._shares: dict[int, Share] = {}
        self._free = Idle()
        self._serves: dict[int, int] = {}  # executor -> session
        self._ending: dict[int, int] = {}  # executor that is replaced -> the session that waits (0: none)
        self._ended: dict[int, int] = {}  # the same, of those whose successors have not come yet
        self._early = 0  # of those that end, so many may have a successor here already
        self._hungry: dict[int, Share] = {}  # sessions with fewer executors than they want
        self._over: dict[int, Share] = {}  # sessions with more executors than they may have
        self._active = 0  # sessions that ask for any
        self._tree = Tree()
        self._promises = Promises(self._tree)
        self._rooms = Rooms()
        self._gangs = Gangs(self, lending)
        self._stuck: dict[Share, None] = {}  # sessions for which no room could be made
        self._retry_at = 0.0
        self._contended = False  # sessions wait for each other: what they use is counted
        self._seen = 0.0  # the latest time that was said
        self._calm = 0.0  # since when nobody waits

    # --- what the broker reports

    def add_session(
        self,
        session: int,
        now: float,
        weight: float = 1.0,
        limit: int = 0,
        minimum: int = 0,
        tenant: str = "",
        priority: int = 0,
        request: Mapping[str, float] | None = None,
        enters: float = 0.0,
        gang: int = 1,
        counts: bool = True,
    ) -> None:
        """A new session.

        weight: of its share, among the sessions of its tenant with the same priority
        limit: of executors that serve it at a time; 0: none
        minimum: executors that it has as long as it is open; no more than the limit counts
        request: what each of its executors needs of its node (see `resources.py`)
        enters: seconds that an executor takes to enter its service; below 0: nobody knows, 0: it has none
        gang: it gets so many at a time (see `gangs.py`); minimum and limit count in whole gangs
        counts: False: what it has is not counted against the limits of its tenant
        """
        asks = dict(request or {})
        share = Share(session, weight, limit=limit or NO_LIMIT, request=asks, enters=enters, gang=gang)
        share.counts = counts
        share.set_minimum(minimum)
        share.see_terms()
        self._shares[session] = share
        if share.request:
            self._rooms.open(share, [*self._serves, *self._gangs.aside])
        self._tree.join(share, tenant, priority)
        bounding.enter(self, share, tenant)
        self._note(share)

    def remove_session(self, session: int) -> None:
        """Forget it; its executors must have been released."""
        share = self._shares[session]
        assert not share.have
        share.suspended = True  # it wants nothing more
        share.see_terms()
        self._note(share)
        del self._shares[session]
        self._rooms.demanding -= bool(share.request)
        self._stuck.pop(share, None)
        self.choosy.pop(session, None)
        for executor in share.warm:
            self._free.forget(executor)
        for executor in share.coming:
            (self._ending if executor in self._ending else self._ended)[executor] = 0
        share.coming.clear()
        bounding.leave(self, share)
        self._tree.leave(share)

    def want(self, session: int, executors: int) -> None:
        """The session could use so many executors now, not counting those that are to be given back."""
        share = self._shares[session]
        if share.asked != executors:
            share.asked = executors
            self._note(share)

    def set(
        self,
        session: int,
        *,
        weight: float | None = None,
        priority: int | None = None,
        minimum: int | None = None,
        limit: int | None = None,
        whole: bool = True,
    ) -> None:
        """Change what was said when the session was added; what it has above a new limit is reclaimed.

        whole: False: it gives back one by one from now on, and gets no more in gangs
        """
        share = self._shares[session]
        if limit is not None:
            share.limit = limit or NO_LIMIT
        if whole is False:
            self._gangs.dissolve(share)
        share.set_minimum(share.minimum if minimum is None else minimum)
        share.see_terms()
        if weight is not None:
            reweigh(share, weight, self._tree.clock)
        if priority is not None:
            tenant = self._tree.leave(share)
            self._tree.join(share, tenant, priority)
        self._changed(share)

    def set_tenant(
        self,
        name: str,
        weight: float | None = None,
        max_executors: int | None = None,
        resources: Mapping[str, float] | None = None,
    ) -> None:
        """What counts for a tenant from now on; "*": for those that are not named.  None: as it was.
        What it has above a new limit is reclaimed.

        weight: of its share, among tenants that have any work; 1.0 if nothing was ever said
        max_executors: that serve all its sessions at a time; 0: no limit
        resources: the most that these may have of their nodes; what is not named has no limit
        """
        bounding.set_tenant(self, name, weight, max_executors, resources)

    def learn_enter(self, session: int, seconds: float) -> None:
        """An executor has entered its service; how long that takes is known better now."""
        share = self._shares[session]
        share.enters = max(seconds, LEAST_ENTER_SECONDS)
        self._tree.stale[share] = None

    def suspend(self, session: int, suspended: bool = True) -> None:
        """It gets nothing as long as it is suspended; what it has is reclaimed."""
        share = self._shares[session]
        share.suspended = suspended
        share.see_terms()
        self._changed(share)

    def add_node(self, node: str, has: Mapping[str, float], executors: int) -> None:
        """A node has come, or has another size now: what it has, and how many executors share that."""
        self._rooms.add_node(node, has, executors)
        bounding.on_nodes(self)

    def remove_node(self, node: str) -> None:
        """It is gone, and so are its executors, or will be."""
        self._rooms.remove_node(node)
        bounding.on_nodes(self)

    def add_executor(self, executor: int, node: str = "") -> None:
        """A new one is here, and free."""
        if node:
            self._rooms.add_executor(executor, node)
        self._free[executor] = 0
        if self._ended:
            self._came(next(iter(self._ended)))
        elif self._early < len(self._ending):
            self._early += 1

    def expect_none(self, executor: int | None = None) -> None:
        """It has ended, and has no successor; None: a worker is gone, and nobody knows which have one."""
        for ended in list(self._ended):
            if executor is None or ended == executor:
                self._came(ended)

    def _came(self, ended: int) -> None:
        """The successor of this one is here; or nobody waits for it any more."""
        session = self._ended.pop(ended)
        self._gangs.coming.pop(ended, None)
        if session:
            share = self._shares[session]
            del share.coming[ended]
            self._changed(share)

    def remove_executor(self, executor: int, now: float) -> None:
        """The executor is gone, whatever it did."""
        if executor in self._serves:
            self.release(executor, now)
        self._gangs.remove(executor)
        self._rooms.remove_executor(executor)
        if executor in self._free:
            self._unwarm(executor)
        elif executor in self._ending:
            self._ended[executor] = self._ending.pop(executor)
            if self._early:
                self._early -= 1
                self._came(executor)

    def set_aside(self, executor: int, now: float) -> None:
        """The executor is the actor's that it serves, and nobody else's; that keeps what it asked for."""
        self._rooms.set_aside(executor, self._shares[self._serves[executor]])
        self.remove_executor(executor, now)

    def put_back(self, executor: int) -> None:
        """What was set aside with this executor is free again."""
        self._rooms.put_back(executor)

    def has_room(self, node: str, session: int) -> bool:
        """Whether one more executor of this node could serve the session, if that has a request."""
        return self._rooms.has_room(node, self._shares[session])

    def release(self, executor: int, now: float) -> None:
        """The executor holds nothing and its session has nothing for it."""
        self._tick(now)
        session = self._serves.pop(executor)
        share = self._shares[session]
        del share.have[executor]
        self._rooms.give_back(executor, share)
        if share.bound is not None:
            share.bound.give_back(executor)
        if executor in share.leaving:
            del share.leaving[executor]
            self._promises.is_free(executor)
            self._gangs.forget(executor)
        if executor in share.resting:
            del share.resting[executor]
            share.ripe.pop(executor, None)
        self._free[executor] = session
        if share.enters:
            self._free.keep_warm(executor)
        share.warm[executor] = None
        self._changed(share)

    def wear_out(self, executor: int, now: float) -> None:
        """The executor, which holds nothing, ends, and a fresh one comes: for its session, if that waits."""
        session = self._serves[executor]
        self.release(executor, now)
        self._unwarm(executor)
        share = self._shares[session]
        waits = share.lacking
        self._ending[executor] = session if waits else 0
        if waits:
            share.coming[executor] = None
            self._changed(share)

    def retire(self, executor: int, soon: bool = True) -> None:
        """The executor takes no more: its session needs another one as soon as it can be had.

        soon: it will be free as soon as it has run dry; not so one that waits, or that is to exit
        """
        session = self._serves.get(executor)
        if session is not None:
            self._promises.withdraw(executor)
            self._gangs.forget(executor)
            share = self._shares[session]
            share.leaving[executor] = soon
            if soon:
                self._promises.offer(executor)
            self._changed(share)

    def resume(self, executor: int) -> None:
        """The executor takes tasks again, after `retire`."""
        session = self._serves.get(executor)
        if session is not None:
            self._promises.withdraw(executor)
            self._gangs.forget(executor)
            share = self._shares[session]
            share.leaving.pop(executor, None)
            self._changed(share)

    def rest(self, executor: int) -> None:
        """The executor holds nothing, and stays with its session; it is the first to be given back."""
        self._shares[self._serves[executor]].resting[executor] = None

    def ripen(self, executor: int) -> None:
        """One that rests, of a session with gangs: it may go as soon as a whole gang may."""
        share = self._shares[self._serves[executor]]
        share.ripe[executor] = None
        self._note(share)

    def wake(self, executor: int) -> None:
        """It holds something again."""
        share = self._shares[self._serves[executor]]
        share.resting.pop(executor, None)
        share.ripe.pop(executor, None)

    # --- what it answers

    @property
    def coming(self) -> int:
        """Executors that are to come in the place of others."""
        return len(self._ending) + len(self._ended)

    @property
    def idle(self) -> int:
        """Executors that serve nobody."""
        return len(self._free)

    @property
    def crowded(self) -> bool:
        """There are more sessions than executors for them: they take turns."""
        return self._active > len(self._serves) + len(self._free) + len(self._gangs.aside)

    @property
    def waiting(self) -> bool:
        """Some session could use more executors than it has, or is to have fewer."""
        gangs = self._gangs
        return bool(self._hungry or self._over or gangs.waiting or gangs.gathers or self._tree.excess)

    def stays(self, session: int, executor: int) -> bool:
        """Whether the session's minimum or a gang keeps this executor, even without anything to do."""
        share = self._shares[session]
        least = share.whole if share.gang > 1 else share.minimum
        return least >= share.staying and executor not in share.leaving and not share.suspended

    def is_awaited(self, executor: int) -> bool:
        """Whether a session waits for this one."""
        awaited = executor in self._promises.waiters or executor in self._gangs.owed
        return awaited or self._rooms.is_reserved(executor)

    def decide(self, now: float) -> Moves:
        """Hand out what is free, then ask those above their share to give back."""
        moves = Moves()
        self._tick(now)
        if self._over:
            reclaims.cut(self, moves)
        if self._tree.excess:
            bounding.cut(self, moves)
        if self._stuck and (self._free or now >= self._retry_at):
            for share in self._stuck:
                share.passed = False
                self._tree.stale[share] = None
            self._stuck.clear()
        gangs = self._gangs.busy
        if gangs or self._gangs.young:
            self._gangs.step(moves, now)
        if self._free and self._hungry:
            self._hand_out(moves, now)
        scarce = not self._free or self._rooms.demanding or self._tree.bounds
        lacking = self._hungry and scarce and self._is_contended()
        if lacking or (gangs and self._serves):
            if not self._contended:
                self._contend(now)
            if lacking:
                reclaims.reclaim(self, moves, now)
        elif self._contended:
            self._relax()
        if gangs:
            backfill.lend(self._gangs, moves, now)
        return moves

    def next_turn(self) -> float | None:
        """When a session's turn ends that another waits for; None if nobody waits for time to pass."""
        group = self._tree.dues.first() if self._contended and self._hungry else None
        dues = [self._retry_at] if self._stuck else []
        turn = self._gangs.next_turn() if self.waiting else None
        if turn is not None:
            dues.append(turn)
        return min(dues if group is None else [*dues, group.due], default=None)

    # --- how

    def _changed(self, share: Share) -> None:
        """It has other executors now, or others are promised to it."""
        self._note(share)
        self._tree.stale[share] = None

    def _note(self, share: Share) -> None:
        """What it asks for or has is another number now."""
        wanted = max(share.asked - len(share.lent), 0) if share.lent else share.asked
        if share.bounded:
            barred = share.suspended or share.homeless or share.beyond
            wanted = 0 if barred else max(wanted, share.minimum)
        if (wanted > 0) is not share.active:
            share.active = wanted > 0
            self._active += 1 if share.active else -1
        if share.bounded:
            if share.gang > 1:
                wanted = self._gangs.note(share, wanted, self._seen)
            wanted = min(wanted, share.limit - len(share.leaving))
            if share.bound is not None:
                bounding.note(share, wanted > share.staying)
        share.wanted = wanted
        staying = len(share.have) - len(share.leaving)
        if wanted > staying:
            self._hungry[share.number] = share
        elif share.number in self._hungry:
            del self._hungry[share.number]
            if self._contended and not self._hungry and not self._gangs.busy:
                self._relax()
        expected = staying
        if share.coming or share.promised or share.gathers:
            self._expect_less(share)
            expected = share.expected
        if (wanted > expected) is not share.hungry:
            self._tree.stale[share] = None
        if share.bounded or self._over:
            self._see_surplus(share)

    def _expect_less(self, share: Share) -> None:
        """Give up what is to come for it above what it wants."""
        while share.promised and share.wanted < share.expected:
            self._promises.renounce(share)
        if share.gathers and share.wanted < share.expected:
            self._rooms.abandon(share)
            self._tree.stale[share] = None

    def _see_surplus(self, share: Share) -> None:
        if share.staying > share.most:
            self._over[share.number] = share
        else:
            self._over.pop(share.number, None)

    def _tick(self, now: float) -> None:
        if self._contended:
            self._tree.clock += now - self._seen
        self._seen = now

    def _is_contended(self) -> bool:
        """Whether somebody who waits could get what another one has."""
        return len(self._hungry) > 1 or len(next(iter(self._hungry.values())).have) < len(self._serves)

    def _contend(self, now: float) -> None:
        """From now on sessions wait for each other."""
        self._contended = True
        if now - self._calm > FORGET_SECONDS:
            for share in self._shares.values():
                self._tree.forgive(share)
                self._tree.stale[share] = None

    def _relax(self) -> None:
        self._contended = False
        self._calm = self._seen

    def _hand_out(self, moves: Moves, now: float) -> None:
        """One by one, each to the session that is served worst."""
        passed: list[Share] = []
        while self._free and self._hungry:
            share = self._next_served()
            if share is None:
                break
            if share.bound is not None and not share.bound.allows(share):
                self._pass_over(share, passed)
                continue
            executor = pick(self, share)
            if executor is not None:
                self._give(executor, share, now)
                moves.assign.append((executor, share.number))
            elif share.lacking or share.promised or (share.gathers and not share.coming):
                # The one that nobody has used for the longest.
                executor = next((e for e in self._free.oldest() if self._fits(e, share)), None)
                if executor is None:
                    self._pass_over(share, passed)
                    continue
                if share.promised:
                    self._promises.renounce(share)  # a fresh one comes sooner
                self._unwarm(executor)
                self._ending[executor] = share.number
                share.coming[executor] = None
                moves.replace.append((executor, share.number))
                self._changed(share)
            else:
                self._pass_over(share, passed)
        self._wished.clear()
        for share in passed:
            share.passed = share in self._stuck
            self._tree.stale[share] = None

    def _pass_over(self, share: Share, passed: list[Share]) -> None:
        """Nothing that is free is of use to it."""
        share.passed = True
        passed.append(share)
        self._tree.stale[share] = None
        for executor in [e for e in share.promised if e in self._promises.kept]:
            self._promises.withdraw(executor)  # for whom it may be of use

    def fits(self, executor: int, session: int) -> bool:
        """Whether its node has room for one of this session, and it is not set aside for a gang."""
        return executor not in self._gangs.aside and self._fits(executor, self._shares[session])

    def has_free(self, node: str, session: int) -> bool:
        """Whether an executor of this node is free that could serve the session."""
        return free_on(self, self._shares[session], node) is not None

    def _fits(self, executor: int, share: Share) -> bool:
        """Whether its node has what the session's executors need, and its tenant may have it."""
        if share.bound is not None and not share.bound.allows(share, part=self._rooms.part(executor)):
            return False
        return not self._rooms.demanding or self._rooms.fits(executor, share)

    def _next_served(self) -> Share | None:
        """Who lacks some of its minimum, then who was promised one, then who is served worst."""
        if len(self._hungry) == 1:
            share = next(iter(self._hungry.values()))
            return None if share.passed else share
        self._tree.settle()
        if self._tree.below and (below := self._tree.first_below()) is not None:
            return below
        if self._promises.kept:
            return self._promises.waiters[next(iter(self._promises.kept))]
        for share in self._promises.waiters.values():
            if not share.passed and (share.bound is None or not share.bound.shut):
                return share
        found = self._tree.neediest()
        return found or next((share for share in bounding.hungry(self) if not share.passed), None)

    def _give(self, executor: int, share: Share, now: float) -> None:
        if share.promised and executor not in share.promised:
            self._promises.renounce(share)  # it gets this one instead
        self._unwarm(executor)
        share.have[executor] = now
        self._rooms.take(executor, share)
        if share.bound is not None:
            share.bound.take(executor, share, self._rooms.part(executor))
        self._serves[executor] = share.number
        self._changed(share)

    def _unwarm(self, executor: int) -> None:
        """It is not free any more."""
        if executor in self._promises.kept:
            self._promises.withdraw(executor)
        last = self._free.take(executor)
        if last:
            del self._shares[last].warm[executor]

    # --- for those who look on

    def statistics(self) -> dict[str, int]:
        return {"sessions": len(self._shares), "free": len(self._free), "serving": len(self._serves)}

    def check(self) -> None:
        """Compare every index with every other."""
        scheduler_check.check(self)
