"""What the sessions of a tenant may have together, and what of it they have.

Executors are one of the things that are counted, beside the resources of nodes.  An
executor counts from the moment in which it is bound to the moment in which it is given
back, also while it runs dry: so a limit is never passed, whoever decided to bind it.

Pure bookkeeping; what follows for who is served is decided in `bounding.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING

from flamezmq.resources import EPSILON

if TYPE_CHECKING:
    from flamezmq.shares import Share

#: Stands for executors, among the names of resources.
EXECUTORS = ""
Kind = tuple[tuple[str, float], ...]


@dataclass(slots=True, eq=False)
class Bound:
    """A tenant that may not have all that it could use.

    most      by name, what it may have
    used      by name, what executors have that serve it
    serving   these executors, and what each has
    members   its sessions; value: executors that are to come to it from others
    pending   by name, what these will have
    kinds     what its sessions ask for, and how many ask for that
    hungry    its sessions with fewer executors than they want
    part      cores that an executor has at least, whoever it serves
    reserved  the session for which room is made, and
    reserve   for so many executors of it
    full      nobody is to get anything more for it: it has all that it may, or will have
    shut      it has all that it may
    """

    name: str
    most: dict[str, float]
    used: dict[str, float] = field(default_factory=dict)
    serving: dict[int, dict[str, float]] = field(default_factory=dict)
    members: dict[Share, int] = field(default_factory=dict)
    pending: dict[str, float] = field(default_factory=dict)
    kinds: dict[Kind, int] = field(default_factory=dict)
    hungry: dict[int, Share] = field(default_factory=dict)
    part: float = 0.0
    reserved: Share | None = None
    reserve: int = 0
    full: bool = False
    shut: bool = False

    # --- its sessions

    def join(self, share: Share) -> None:
        """It is one of its sessions from now on."""
        share.bound = self
        self.members[share] = 0
        kind = tuple(share.request.items())
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        self.see()

    def leave(self, share: Share) -> None:
        """It has no executors, and is none of its sessions any more."""
        share.bound = None
        self._expect(share, 0)
        del self.members[share]
        self.hungry.pop(share.number, None)
        if self.reserved is share:
            self.reserved = None
        kind = tuple(share.request.items())
        self.kinds[kind] -= 1
        if not self.kinds[kind]:
            del self.kinds[kind]
        self.see()

    def note(self, share: Share) -> None:
        """It has changed: see what is to come to it, but for what others of the tenant give back for it."""
        coming = len(share.coming) + sum(executor not in self.serving for executor in share.promised)
        if share.gathers and not share.coming and self.reserved is not share:
            coming += 1
        self._expect(share, coming)
        self.see()

    def _expect(self, share: Share, coming: int) -> None:
        more = coming - self.members[share]
        if more:
            self.members[share] = coming
            for name, amount in self.needs(share.request, self.part).items():
                self.pending[name] = self.pending.get(name, 0.0) + more * amount

    def set_part(self, part: float) -> None:
        """An executor has other cores at least."""
        self.part = part
        coming, self.pending = self.members, {}
        self.members = dict.fromkeys(coming, 0)
        for share, number in coming.items():
            self._expect(share, number)
        self.see()

    # --- its executors

    def take(self, executor: int, share: Share, part: float) -> None:
        """This one serves one of its sessions from now on; part: cores that it has at least."""
        needs = self.serving[executor] = self.needs(share.request, part)
        for name, amount in needs.items():
            self.used[name] = self.used.get(name, 0.0) + amount
        if self.reserved is share:
            self.reserved = None
        self.see()

    def give_back(self, executor: int) -> None:
        for name, amount in self.serving.pop(executor).items():
            self.used[name] -= amount
        if not self.serving:
            self.used.clear()  # and what sums of floats have left
        self.see()

    def keep(self, share: Share, executors: int) -> None:
        """Room for so many more of it is kept; 0: no longer, if it was."""
        if executors:
            self.reserved, self.reserve = share, executors
        elif self.reserved is share:
            self.reserved = None
        self.see()

    # --- what may be

    def needs(self, request: Mapping[str, float], part: float) -> dict[str, float]:
        """What an executor counts that serves a session with this request."""
        found = {name: request.get(name, 0.0) for name in self.most}
        if EXECUTORS in found:
            found[EXECUTORS] = 1.0
        if "cpu" in found:
            found["cpu"] = max(found["cpu"], part)
        return found

    def allows(self, share: Share, executors: int = 1, part: float | None = None) -> bool:
        """Whether so many more may serve it now."""
        return not self.lacks(share, self.used, executors, part)

    def lacks(
        self, share: Share, used: Mapping[str, float], executors: int = 1, part: float | None = None
    ) -> list[str]:
        """What there is too little of for so many more of it, if this is used."""
        needs = self.needs(share.request, self.part if part is None else part)
        kept = self._kept() if self.reserved is not share else {}
        return [
            name
            for name, most in self.most.items()
            if used.get(name, 0.0) + executors * needs[name] + kept.get(name, 0.0) > most + EPSILON
        ]

    def could(self, share: Share) -> bool:
        """Whether it could ever be served, if it were the only one."""
        needs = self.needs(share.request, self.part)
        return all(share.gang * needs[name] <= most + EPSILON for name, most in self.most.items())

    def short(self, share: Share, executors: int) -> int:
        """How many executors of the tenant have to go, about, before so many more may serve this one."""
        needs = self.needs(share.request, self.part)
        kept = self._kept() if self.reserved is not share else {}
        over = [
            (self.used.get(name, 0.0) + executors * needs[name] + kept.get(name, 0.0) - most) / needs[name]
            for name, most in self.most.items()
            if needs[name]
        ]
        return max([0, *(ceil(each - EPSILON) for each in over)])

    def is_passed(self, used: Mapping[str, float]) -> bool:
        """Whether this would be more than it may have."""
        return any(used.get(name, 0.0) > most + EPSILON for name, most in self.most.items())

    def without(self, executors: Iterable[int]) -> dict[str, float]:
        """What is used when these have been given back."""
        used = dict(self.used)
        for executor in executors:
            for name, amount in self.serving[executor].items():
                used[name] -= amount
        return used

    def _kept(self) -> dict[str, float]:
        """What is kept for the one that room is made for."""
        if self.reserved is None:
            return {}
        needs = self.needs(self.reserved.request, self.part)
        return {name: self.reserve * amount for name, amount in needs.items()}

    def see(self) -> None:
        """Something has changed: whether any of its sessions could get anything more."""
        kept = self._kept()
        self.full = self.shut = True
        if self.reserved is not None and self.reserved.gang == 1 and self.allows(self.reserved):
            self.full = self.shut = False
            return
        for kind in self.kinds:
            needs = self.needs(dict(kind), self.part)
            left = [
                most - self.used.get(name, 0.0) - needs[name] - kept.get(name, 0.0) + EPSILON
                for name, most in self.most.items()
            ]
            if min(left) >= 0:
                self.shut = False
                if all(
                    more >= self.pending.get(name, 0.0) for name, more in zip(self.most, left, strict=True)
                ):
                    self.full = False

    def check(self) -> None:
        """Compare every index with every other."""
        for name in self.most:
            total = sum(each[name] for each in self.serving.values())
            assert abs(total - self.used.get(name, 0.0)) < EPSILON * max(total, 1.0)
        assert set(self.serving) == {executor for share in self.members for executor in share.have}
        assert all(share.bound is self for share in self.members)
        assert self.reserved is None or self.reserved in self.members
        full, shut = self.full, self.shut
        self.see()
        assert (full, shut) == (self.full, self.shut)
