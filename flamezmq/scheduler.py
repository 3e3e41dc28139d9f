"""Which session gets which executors.

Executors are shared evenly between the sessions that can use them (by weight),
and none idles while a session could use it.  A session that has less than its
share gets an executor as soon as one is free, or as soon as a session with more
has finished what one of its executors holds (a *reclaim*).  Where there are
more sessions than executors they take turns of `QUANTUM_SECONDS`, the one that
has used least coming first; what was used while nobody had to wait does not count.

An executor that is to be given back no longer counts for the session that it
still serves: what that session has queued waits for another one.  One that does
not suit any session that waits is to be replaced by a fresh one.

A session may have a limit: it never serves more executors at a time, and there
those that it is to give back do count.  Its share of a crowded cluster is that
of any other.

Pure and event-driven: the broker reports demand and idle executors, `decide`
answers with moves.  Its cost grows with the number of sessions that wait, not
with the number of tasks.  The same calls give the same moves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

#: Of a session without one.
NO_LIMIT = 1 << 62
#: How long a session keeps an executor for itself while others have none.
#: One that comes back has a lead of one quantum, however little it has used.
QUANTUM_SECONDS = 0.005


@dataclass(slots=True)
class Share:
    """A session, as the scheduler sees it.

    asked    executors that it could use now; those in `leaving` are not among them
    limit    executors that it may have at a time, those in `leaving` among them
    wanted   of those that it asked for, as many as its limit allows
    have     executors that serve it, in the order in which it got them; value: since when
    leaving  those of them that are to be given back; value: whether they are free soon, for others
    warm     free executors that served it last, latest last
    coming   executors that did not suit it and end (or have ended), so that fresh ones come
    used     executor-seconds it has had since sessions have had to wait for each other,
             over its weight, counted up to `counted`
    """

    weight: float
    limit: int = NO_LIMIT
    asked: int = 0
    wanted: int = 0
    have: dict[int, float] = field(default_factory=dict)
    leaving: dict[int, bool] = field(default_factory=dict)
    warm: dict[int, None] = field(default_factory=dict)
    coming: dict[int, None] = field(default_factory=dict)
    used: float = 0.0
    counted: float = 0.0

    @property
    def staying(self) -> int:
        return len(self.have) - len(self.leaving)

    @property
    def level(self) -> float:
        """How well it is served; the lowest is served next."""
        return (len(self.have) - len(self.leaving) + len(self.coming)) / self.weight

    @property
    def lacking(self) -> bool:
        """It could use more than it has and will have."""
        return self.wanted > len(self.have) - len(self.leaving) + len(self.coming)


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


def _always(_executor: int, _session: int) -> bool:
    return True


class Scheduler:
    """Sessions and executors are integers; nodes, gangs and localities will be arguments of `add_*`.

    suits: whether an executor can serve a session as it is.
    """

    def __init__(self, suits: Callable[[int, int], bool] = _always) -> None:
        self._suits = suits
        self._shares: dict[int, Share] = {}
        self._free: dict[int, int] = {}  # executor -> the session it served last (0: none); latest last
        self._serves: dict[int, int] = {}  # executor -> session
        self._ending: dict[int, int] = {}  # executor that is replaced -> the session that waits (0: none)
        self._ended: dict[int, int] = {}  # the same, of those whose successors have not come yet
        self._early = 0  # of those that end, so many may have a successor here already
        self._hungry: dict[int, None] = {}  # sessions with fewer executors than they want
        self._active = 0  # sessions that ask for any
        self._contended = False  # sessions wait for each other: what they use is counted
        self._reached = 0.0  # the most that a session had used when it was given an executor
        self._next_turn: float | None = None

    # --- what the broker reports

    def add_session(self, session: int, now: float, weight: float = 1.0, limit: int = 0) -> None:
        """A new session starts level with those that are served, not ahead of everybody.

        limit: of executors that serve it at a time; 0: none
        """
        self._shares[session] = Share(weight, limit or NO_LIMIT, used=self._reached, counted=now)

    def remove_session(self, session: int) -> None:
        """Forget it; its executors must have been released."""
        share = self._shares.pop(session)
        assert not share.have
        self._active -= share.asked > 0
        self._hungry.pop(session, None)
        for executor in share.warm:
            self._free[executor] = 0
        for executor in share.coming:
            (self._ending if executor in self._ending else self._ended)[executor] = 0

    def want(self, session: int, executors: int) -> None:
        """The session could use so many executors now, not counting those that are to be given back."""
        share = self._shares[session]
        self._active += (executors > 0) - (share.asked > 0)
        share.asked = executors
        self._note(session, share)

    def add_executor(self, executor: int) -> None:
        self._free[executor] = 0
        if self._ended:
            self._came(next(iter(self._ended)))
        elif self._early < len(self._ending):
            self._early += 1

    def expect_none(self) -> None:
        """A worker is gone: nobody knows which of the executors that have ended will have successors."""
        for executor in list(self._ended):
            self._came(executor)

    def _came(self, ended: int) -> None:
        """The successor of this one is here; or nobody waits for it any more."""
        session = self._ended.pop(ended)
        if session:
            del self._shares[session].coming[ended]

    def remove_executor(self, executor: int, now: float) -> None:
        """The executor is gone, whatever it did."""
        if executor in self._serves:
            self.release(executor, now)
        if executor in self._free:
            self._unwarm(executor)
        elif executor in self._ending:
            self._ended[executor] = self._ending.pop(executor)
            if self._early:
                self._early -= 1
                self._came(executor)

    def release(self, executor: int, now: float) -> None:
        """The executor holds nothing and its session has nothing for it."""
        session = self._serves.pop(executor)
        share = self._shares[session]
        self._count(share, now)
        del share.have[executor]
        share.leaving.pop(executor, None)
        self._free[executor] = session
        share.warm[executor] = None
        self._note(session, share)

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

    def retire(self, executor: int, soon: bool = True) -> None:
        """The executor takes no more: its session needs another one as soon as it can be had.

        soon: it will be free as soon as it has run dry; not so one that waits, or that is to exit
        """
        session = self._serves.get(executor)
        if session is not None:
            share = self._shares[session]
            share.leaving[executor] = soon
            self._note(session, share)

    def resume(self, executor: int) -> None:
        """The executor takes tasks again, after `retire`."""
        session = self._serves.get(executor)
        if session is not None:
            share = self._shares[session]
            share.leaving.pop(executor, None)
            self._note(session, share)

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
        return self._active > len(self._serves) + len(self._free)

    @property
    def waiting(self) -> bool:
        """Some session could use more executors than it has."""
        return bool(self._hungry)

    def decide(self, now: float) -> Moves:
        """Hand out what is free, then ask those above their share to give back."""
        moves = Moves()
        self._next_turn = None
        if self._free and self._hungry:
            self._hand_out(moves, now)
        if self._hungry and self._serves and not self._free and self._active > 1:
            self._reclaim(moves, now)
        else:
            self._contended = False
        return moves

    def next_turn(self) -> float | None:
        """When a session's turn ends that another waits for; None if nobody waits for time to pass."""
        return self._next_turn if self._hungry else None

    # --- how

    def _note(self, session: int, share: Share) -> None:
        """What it asks for or has is another number now."""
        share.wanted = share.asked
        if share.limit < NO_LIMIT:
            share.wanted = min(share.asked, share.limit - len(share.leaving))
        if share.wanted > len(share.have) - len(share.leaving):
            if session not in self._hungry:
                self._hungry[session] = None
                share.used = max(share.used, self._reached - QUANTUM_SECONDS)
        elif session in self._hungry:
            del self._hungry[session]
            if not self._hungry:
                self._contended = False

    def _count(self, share: Share, now: float) -> None:
        used = share.used + len(share.have) * (now - share.counted) / share.weight
        share.used = max(used, self._reached - QUANTUM_SECONDS)
        share.counted = now

    def _hand_out(self, moves: Moves, now: float) -> None:
        """One by one, each to the session that is served worst."""
        waiting = dict(self._hungry)
        while self._free and waiting:
            session = self._neediest(waiting)
            share = self._shares[session]
            executor = self._pick(session, share)
            if executor is not None:
                self._give(executor, session, share, now)
                moves.assign.append((executor, session))
                if session not in self._hungry:
                    del waiting[session]
            elif share.lacking:
                executor = next(iter(self._free))  # the one that nobody has used for the longest
                self._unwarm(executor)
                self._ending[executor] = session
                share.coming[executor] = None
                moves.replace.append((executor, session))
            else:
                del waiting[session]

    def _neediest(self, waiting: dict[int, None]) -> int:
        shares = self._shares
        if len(waiting) == 1:
            return next(iter(waiting))
        return min(waiting, key=lambda s: (shares[s].level, shares[s].used))

    def _pick(self, session: int, share: Share) -> int | None:
        """A free executor: one that served this session before (it is warm), else the latest freed."""
        if share.warm:
            return next(reversed(share.warm))
        return next((executor for executor in reversed(self._free) if self._suits(executor, session)), None)

    def _give(self, executor: int, session: int, share: Share, now: float) -> None:
        self._unwarm(executor)
        self._count(share, now)
        share.have[executor] = now
        if share.used > self._reached:
            self._reached = share.used
        self._serves[executor] = session
        self._note(session, share)

    def _unwarm(self, executor: int) -> None:
        """It is not free any more."""
        last = self._free.pop(executor)
        if last:
            del self._shares[last].warm[executor]

    def _reclaim(self, moves: Moves, now: float) -> None:
        """Ask for executors back, one for each session that would be better off with it."""
        shares = self._shares
        if not self._contended:
            self._contended, self._reached = True, 0.0
            for share in shares.values():
                share.used, share.counted = 0.0, now
        promised = 0
        for share in shares.values():
            if share.have:
                promised += sum(share.leaving.values())
                self._count(share, now)
        needy = [session for session in self._hungry if shares[session].lacking]
        needy.sort(key=lambda s: (shares[s].level, shares[s].used))
        donors = [session for session, share in shares.items() if share.have]
        for session in needy[promised:]:  # the first ones get what is on its way already
            share = shares[session]
            donor = max(donors, key=lambda s: (shares[s].level, shares[s].used))
            when = self._fair_at(share, shares[donor], now) if donor != session else None
            if when is None or when > now:
                self._next_turn = when
                break
            executor = next(e for e in reversed(shares[donor].have) if e not in shares[donor].leaving)
            self.retire(executor)
            moves.reclaim.append(executor)

    @staticmethod
    def _fair_at(share: Share, donor: Share, now: float) -> float | None:
        """When it is fair to move one executor from donor to share; None: not before something changes.

        At once if that brings them closer.  Else, if the one has none at all,
        when the other's turn is over and it has used at least as much.
        """
        if not donor.staying:
            return None
        if donor.level - 1 / donor.weight >= share.level + 1 / share.weight:
            return now
        if share.level > 0:
            return None
        oldest = min(since for e, since in donor.have.items() if e not in donor.leaving)
        evened = now + (share.used - donor.used) * donor.weight / len(donor.have)
        return max(oldest + QUANTUM_SECONDS, evened)

    def statistics(self) -> dict[str, int]:
        return {"sessions": len(self._shares), "free": len(self._free), "serving": len(self._serves)}

    def check(self) -> None:
        """Compare every index with every other."""
        serves = {e: s for s, share in self._shares.items() for e in share.have}
        assert serves == self._serves
        assert not set(serves) & set(self._free)
        assert self._active == sum(1 for share in self._shares.values() if share.asked)
        assert not set(self._ending) & (set(serves) | set(self._free))
        warm = {e: s for s, share in self._shares.items() for e in share.warm}
        assert warm == {e: s for e, s in self._free.items() if s}
        coming = {e: s for s, share in self._shares.items() for e in share.coming}
        assert coming == {e: s for e, s in (self._ending | self._ended).items() if s}
        for session, share in self._shares.items():
            assert set(share.leaving) <= set(share.have)
            assert len(share.have) <= share.limit, f"session {session} has more than it may"
            assert share.wanted == min(share.asked, share.limit - len(share.leaving))
            assert (session in self._hungry) == (share.wanted > share.staying), session
