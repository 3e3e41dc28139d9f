"""Which session gets which executors.

Executors are shared evenly between the sessions that can use them (by weight),
and none idles while a session could use it.  A session that has less than its
share gets an executor as soon as one is free, or as soon as a session with more
has finished what one of its executors holds (a *reclaim*).  Where there are
more sessions than executors they take turns of `QUANTUM_SECONDS`, the one that
has used least coming first.

Pure and event-driven: the broker reports demand and idle executors, `decide`
answers with moves.  Its cost grows with the number of sessions that wait, not
with the number of tasks.  The same calls give the same moves.
"""

from __future__ import annotations

from dataclasses import dataclass, field

#: How long a session keeps an executor for itself while others have none.
QUANTUM_SECONDS = 0.005


@dataclass(slots=True)
class Share:
    """A session, as the scheduler sees it.

    wanted   executors that it could use now
    have     executors that serve it, in the order in which it got them; value: since when
    leaving  those of them that are to be given back
    used     executor-seconds it has had, over its weight, counted up to `counted`
    """

    weight: float
    wanted: int = 0
    have: dict[int, float] = field(default_factory=dict)
    leaving: dict[int, None] = field(default_factory=dict)
    used: float = 0.0
    counted: float = 0.0

    @property
    def level(self) -> float:
        """How well it is served; the lowest is served next."""
        return (len(self.have) - len(self.leaving)) / self.weight

    def count(self, now: float) -> None:
        self.used += len(self.have) * (now - self.counted) / self.weight
        self.counted = now


@dataclass(slots=True)
class Moves:
    """What is to be done: give `assign`ed executors to sessions; let `reclaim`ed ones run dry."""

    assign: list[tuple[int, int]] = field(default_factory=list)
    reclaim: list[int] = field(default_factory=list)


class Scheduler:
    """Sessions and executors are integers; nodes, gangs and localities will be arguments of `add_*`."""

    def __init__(self) -> None:
        self._shares: dict[int, Share] = {}
        self._free: dict[int, int] = {}  # executor -> the session it served last (0: none); latest last
        self._serves: dict[int, int] = {}  # executor -> session
        self._hungry: dict[int, None] = {}  # sessions with fewer executors than they want
        self._active = 0  # sessions that want any

    # --- what the broker reports

    def add_session(self, session: int, now: float, weight: float = 1.0) -> None:
        """A new session starts level with the least served one, not ahead of everybody."""
        active = [share.used for share in self._shares.values() if share.wanted]
        self._shares[session] = Share(weight, used=min(active, default=0.0), counted=now)

    def remove_session(self, session: int) -> None:
        """Forget it; its executors must have been released."""
        share = self._shares.pop(session)
        assert not share.have
        self._active -= share.wanted > 0
        self._hungry.pop(session, None)

    def want(self, session: int, executors: int) -> None:
        """The session could use so many executors now."""
        share = self._shares[session]
        self._active += (executors > 0) - (share.wanted > 0)
        share.wanted = executors
        self._note(session, share)

    def add_executor(self, executor: int) -> None:
        self._free[executor] = 0

    def remove_executor(self, executor: int, now: float) -> None:
        if executor in self._serves:
            self.release(executor, now)
        self._free.pop(executor, None)

    def release(self, executor: int, now: float) -> None:
        """The executor holds nothing and its session has nothing for it."""
        session = self._serves.pop(executor)
        share = self._shares[session]
        share.count(now)
        del share.have[executor]
        share.leaving.pop(executor, None)
        self._free[executor] = session
        self._note(session, share)

    # --- what it answers

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
        if not self._hungry:
            return moves
        while self._free and self._hungry:
            session = self._neediest()
            executor = self._pick(session)
            self._give(executor, session, now)
            moves.assign.append((executor, session))
        if self._hungry and not self._free:
            self._reclaim(moves, now)
        return moves

    def next_turn(self) -> float | None:
        """When a session's quantum ends that another waits for; None if nobody waits."""
        if not self._hungry:
            return None
        starving = any(not self._shares[s].have for s in self._hungry)
        if not starving:
            return None
        starts = [
            since
            for share in self._shares.values()
            for e, since in share.have.items()
            if e not in share.leaving
        ]
        return min(starts) + QUANTUM_SECONDS if starts else None

    # --- how

    def _note(self, session: int, share: Share) -> None:
        if share.wanted > len(share.have):
            self._hungry[session] = None
        else:
            self._hungry.pop(session, None)

    def _neediest(self) -> int:
        shares = self._shares
        if len(self._hungry) == 1:
            return next(iter(self._hungry))
        return min(self._hungry, key=lambda s: (shares[s].level, shares[s].used))

    def _pick(self, session: int) -> int:
        """A free executor: one that served this session before (it is warm), else the latest freed."""
        latest = None
        for executor in reversed(self._free):
            if self._free[executor] == session:
                return executor
            latest = executor if latest is None else latest
        assert latest is not None
        return latest

    def _give(self, executor: int, session: int, now: float) -> None:
        del self._free[executor]
        share = self._shares[session]
        share.count(now)
        share.have[executor] = now
        self._serves[executor] = session
        self._note(session, share)

    def _reclaim(self, moves: Moves, now: float) -> None:
        """Ask for executors back, one for each session that would be better off with it."""
        shares = self._shares
        promised = sum(len(share.leaving) for share in shares.values())
        for session in sorted(self._hungry, key=lambda s: (shares[s].level, shares[s].used)):
            share = shares[session]
            if promised > 0:  # one is on its way already
                promised -= 1
                continue
            donor = max(shares.values(), key=lambda other: (other.level, other.used))
            if donor is share or not self._fair(share, donor, now):
                break
            executor = next(e for e in reversed(donor.have) if e not in donor.leaving)
            donor.leaving[executor] = None
            moves.reclaim.append(executor)

    @staticmethod
    def _fair(share: Share, donor: Share, now: float) -> bool:
        """Would moving one executor from donor to share bring them closer, or is it share's turn?"""
        if len(donor.have) == len(donor.leaving):
            return False
        if donor.level - 1 / donor.weight >= share.level + 1 / share.weight:
            return True
        if share.have:
            return False
        donor.count(now)
        oldest = min(since for e, since in donor.have.items() if e not in donor.leaving)
        return now - oldest >= QUANTUM_SECONDS and share.used <= donor.used

    def statistics(self) -> dict[str, int]:
        return {"sessions": len(self._shares), "free": len(self._free), "serving": len(self._serves)}

    def check(self) -> None:
        """Compare every index with every other."""
        serves = {e: s for s, share in self._shares.items() for e in share.have}
        assert serves == self._serves
        assert not set(serves) & set(self._free)
        assert self._active == sum(1 for share in self._shares.values() if share.wanted)
        for session, share in self._shares.items():
            assert set(share.leaving) <= set(share.have)
            assert (session in self._hungry) == (share.wanted > len(share.have)), session
