"""Who needs an object: against a model that looks at everything, each time."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flamezmq.store.holders import Holders

NAMES = [bytes([k]) * 16 for k in range(6)]
PROCESSES = (11, 12, 13)
name = st.sampled_from(NAMES)
process = st.sampled_from(PROCESSES)


class Needs(RuleBasedStateMachine):
    """What is here, who needs it; an object goes as soon as nobody does, and never sooner."""

    def __init__(self) -> None:
        super().__init__()
        self.holders = Holders()
        self.here: dict[bytes, list[bytes]] = {}  # with what it contains
        self.ever: set[bytes] = set()
        self.owned: set[bytes] = set()
        self.kept: set[bytes] = set()  # pinned, or for the rest of the session
        self.held: list[tuple[int, bytes]] = []

    @rule(
        one=name,
        others=st.lists(name, max_size=3, unique=True),
        pinned=st.booleans(),
        by=process | st.just(0),
    )
    def put(self, one: bytes, others: list[bytes], pinned: bool, by: int) -> None:
        if one in self.ever:
            return  # names are never used twice
        others = [other for other in others if other in self.ever]
        self.ever.add(one)
        self.here[one] = others
        if pinned:
            self.kept.add(one)
        if by:
            self.held.append((by, one))
        else:
            self.owned.add(one)
        self.holders.put(one, others, pinned, by)
        self.sweep([])

    @rule(one=name, by=process)
    def hold(self, one: bytes, by: int) -> None:
        self.held.append((by, one))
        self.holders.hold(by, [one])

    @rule(one=name)
    def stay(self, one: bytes) -> None:
        if one in self.here:
            self.kept.add(one)
            self.holders.stay([one])

    @rule(one=name, by=process | st.just(99))
    def let_go(self, one: bytes, by: int) -> None:
        if (by, one) in self.held:
            self.held.remove((by, one))
        elif one in self.here:
            self.owned.discard(one)
        else:
            return
        self.sweep(self.holders.let_go(by, [one]))

    @rule(by=process)
    def end(self, by: int) -> None:
        self.held = [hold for hold in self.held if hold[0] != by]
        self.sweep(self.holders.end(by))

    @rule(one=name)
    def free(self, one: bytes) -> None:
        """Somebody has it go, whoever needs it."""
        if one in self.here:
            self.sweep([one], but=one)

    def sweep(self, free: list[bytes], but: bytes = b"") -> None:
        """Have go what is said to be free, and what is free then."""
        while free:
            one = free.pop()
            if one not in self.here:
                continue
            assert one == but or not self.needed(one), "an object has gone that somebody needs"
            del self.here[one]
            self.owned.discard(one)
            self.kept.discard(one)
            free += self.holders.gone(one)

    def needed(self, one: bytes) -> bool:
        inside = any(one in others for others in self.here.values())
        return inside or one in self.owned or one in self.kept or one in {held for _, held in self.held}

    @invariant()
    def nothing_is_kept_that_nobody_needs(self) -> None:
        for one in self.here:
            assert self.needed(one), "nobody needs it, and it is here"
        self.holders.check()

    @invariant()
    def readers_are_counted(self) -> None:
        for one in NAMES:
            assert self.holders.readers(one) == len({pid for pid, held in self.held if held == one})
            assert self.holders.is_pinned(one) <= (one in self.here)


TestNeeds = Needs.TestCase
TestNeeds.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


def test_nothing_is_left_of_what_was_only_spoken_of() -> None:
    holders = Holders()
    holders.hold(11, NAMES)
    assert holders.holds(11)
    assert holders.end(11) == []
    assert not holders.holds(11)
    assert not holders._claims
