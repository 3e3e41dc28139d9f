"""Who fetches from whom: in chains, never in a circle, and nobody from one that is gone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flamezmq.store.spread import HOPS, Spread

X = b"x" * 16
PEERS = st.integers(0, 6)


def seek(spread: Spread, peer: int, failed: str = "", near: bool = False) -> str:
    return spread.seek(X, peer, f"at{peer}", failed, near)[0]


def test_those_who_come_at_once_hang_on_each_other_in_a_chain() -> None:
    spread = Spread()
    assert [seek(spread, peer) for peer in range(5)] == ["", "at0", "at1", "at2", "at3"]


def test_a_long_chain_is_followed_by_another() -> None:
    spread = Spread()
    sources = [seek(spread, peer) for peer in range(3 * HOPS)]
    assert 2 <= sources.count("") <= 4
    assert max(sources.count(one) for one in set(sources) - {""}) <= 2


def test_who_has_all_of_it_serves_the_next() -> None:
    spread = Spread()
    assert seek(spread, 0) == ""
    spread.has(X, 0)
    assert seek(spread, 1) == ""  # nobody fetches from the home now
    assert seek(spread, 2) == "at0"
    assert spread.holders(X) == ["at0"]


def test_who_failed_is_named_no_more_and_hears_of_the_end_all_the_same() -> None:
    spread = Spread()
    seek(spread, 0)
    assert seek(spread, 1) == "at0"
    assert seek(spread, 1, failed="at0") == ""
    assert seek(spread, 2) == "at1"
    assert spread.forget(X) == [0, 1, 2]
    assert spread.forget(X) == []


def test_small_ones_come_from_the_home_and_their_copies_are_known() -> None:
    spread = Spread()
    assert [seek(spread, peer, near=True) for peer in range(4)] == [""] * 4
    assert spread.seek(X, 9, "", near=True)[1] == ["at0", "at1", "at2", "at3"]


def test_who_does_not_keep_it_is_sent_somewhere_and_forgotten() -> None:
    spread = Spread()
    for peer in range(100, 200):
        assert spread.seek(X, peer, "", keeps=False) == ("", [])
    assert seek(spread, 1) == ""
    assert spread.seek(X, 200, "", keeps=False) == ("at1", ["at1"])
    assert spread.seek(X, 200, "", failed="at1", keeps=False) == ("", [])
    assert spread.forget(X) == [1]


def test_nobody_is_sent_to_who_can_not_be_reached() -> None:
    spread = Spread()
    spread.seek(X, 0, "")
    assert seek(spread, 1) == ""
    assert spread.forget(X) == [0, 1]


STEP = st.one_of(
    st.tuples(st.just("seek"), PEERS, st.booleans(), PEERS),
    st.tuples(st.sampled_from(["has", "lacks"]), PEERS),
    st.tuples(st.just("forget")),
)


@given(st.lists(STEP, max_size=60))
def test_after_anything_the_counts_are_right_and_nobody_waits_in_a_circle(steps: list[tuple]) -> None:
    spread = Spread()
    for what, *rest in steps:
        if what == "seek":
            peer, failed, other = rest
            source = seek(spread, peer, f"at{other}" if failed else "")
            assert source != f"at{peer}"
            assert not failed or source != f"at{other}"
        elif what == "forget":
            spread.forget(X)
        else:
            getattr(spread, what)(X, rest[0])
        parts = list(spread._parts.get(X, {}).values())
        fetching = [part for part in parts if not part.has_all]
        for part in parts:
            assert part.serves == sum(one.source is part for one in fetching)
            seen, one = {id(part)}, part.source
            while one is not None and not part.has_all:
                assert id(one) not in seen
                seen.add(id(one))
                one = None if one.has_all else one.source
        assert spread._busy.get(X, 0) == sum(one.source is None for one in fetching)
