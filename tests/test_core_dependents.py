"""The client's core: calls that need the values of other futures, and interrupts in the middle of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flamezmq.core import caller
from flamezmq.core.caller import CANCELLED, ERROR, FINISHED, PENDING, UNMET, Calls, Dependent
from flamezmq.core.link import Link
from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m
from flamezmq.wire.composed import decompose
from tests.core_calls import Future, Name, answer, link_up, submits, tell
from tests.test_core_restart import check, every_place, sent


class Two:
    """Two sessions of one client, and its link."""

    def __init__(self) -> None:
        self.one = Calls(1, "one")
        self.two = Calls(2, "two", self.one.needed)
        self.link = link_up()

    def submit(self, calls: Calls, payload: Any = b"p", *needs: tuple[Calls, Future]) -> Future:
        future = Future()
        calls.outbox.append((future, Name(1), Dependent(payload, list(needs)) if needs else payload))
        return future

    def stage(self) -> None:
        """As Client._stage does."""
        moved = True
        for calls in (self.one, self.two):
            calls.complete(self.link)
        while moved:
            moved = False
            for calls in (self.one, self.two):
                while calls.outbox and calls.stage(self.link, 10, tell):
                    moved = True


def needs_of(link: Link) -> list[tuple[int, list[int]]]:
    return [(message.session, message.needs) for message in submits(link)]


# --- towards the router


def test_a_need_of_the_same_outbox_travels_in_the_same_message() -> None:
    two = Two()
    first = two.submit(two.one, b"f")
    second = two.submit(two.one, b"g", (two.one, first))
    two.submit(two.one, b"h", (two.one, first), (two.one, second))
    two.stage()
    (message,) = submits(two.link)
    assert message.needs == [1, 1, 0, 2, 1, 0, 2, 1, 1]
    assert message.inputs == [b"f", b"g", b"h"]
    assert two.one.needs == {1: [(two.one, first)], 2: [(two.one, first), (two.one, second)]}


def test_a_need_of_another_outbox_goes_first_wherever_it_stands() -> None:
    two = Two()
    a = two.submit(two.two)
    b = two.submit(two.one, b"", (two.two, a))
    c = two.submit(two.two, b"", (two.one, b))
    two.submit(two.one, b"", (two.two, c), (two.one, b))
    two.stage()
    assert needs_of(two.link) == [(2, []), (1, [0, 2, 0]), (2, [0, 1, 0]), (1, [0, 2, 1, 0, 1, 0])]


def test_while_a_need_can_not_be_sent_what_needs_it_waits_and_what_stood_before_does_not() -> None:
    two = Two()
    other = two.submit(two.two)
    two.submit(two.one)
    two.submit(two.one, b"", (two.two, other))
    assert two.one.stage(two.link, 10, tell)
    assert not two.one.stage(two.link, 10, tell), "nothing more can go before the other outbox has"
    assert len(two.one.outbox) == 1


def test_values_that_have_come_meanwhile_travel_with_the_call() -> None:
    two = Two()
    first = two.submit(two.one)
    two.stage()
    two.submit(two.one, b"call", (two.one, first))
    two.one.on_results(answer(0, [b"value"]), [], tell)
    two.stage()
    message = submits(two.link)[-1]
    assert message.needs == []
    assert decompose(message.inputs[0]) == [b"call", b"value"]
    assert two.one.needs == {}


def test_what_the_user_has_looked_at_is_left_to_the_router_to_ask_for() -> None:
    two = Two()
    first = two.submit(two.one)
    two.stage()
    two.submit(two.one, b"call", (two.one, first))
    two.one.on_results(answer(0, [b"value"]), [], tell)
    first._form, first._value = caller.VALUE, "unpickled"
    two.stage()
    assert needs_of(two.link)[-1] == (1, [0, 1, 0])
    assert two.one.needed[1, 0] is first


def test_a_need_is_held_until_its_dependent_has_ended() -> None:
    two = Two()
    first = two.submit(two.one)
    two.submit(two.two, b"", (two.one, first))
    two.stage()
    two.one.on_results(answer(0, [b"value"]), [], tell)
    del first
    assert two.one.needed[1, 0]._value == b"value"
    two.two.on_results(m.Results(2, [m.Slice(1, 0, 1, 1)], [], [0.1], [], [b""]), [], tell)
    assert two.two.needs == {}
    assert (1, 0) not in two.one.needed


# --- needs that come to nothing


@pytest.mark.parametrize("end", ["one by one", "all"])
def test_a_dependent_of_what_was_cancelled_before_it_was_sent_fails_and_so_on(end: str) -> None:
    two = Two()
    first = two.submit(two.one)
    second = two.submit(two.two, b"", (two.one, first))
    third = two.submit(two.two, b"", (two.two, second))
    fine = two.submit(two.two)
    if end == "all":
        two.one.cancel_all(tell)
    else:
        assert two.one.take_from_outbox(first)
        first._form, first._state = ERROR, CANCELLED
    two.stage()
    assert second.outcome == (FINISHED, UNMET, first)
    assert third.outcome == (FINISHED, UNMET, second)
    assert fine._index == 0
    assert two.two.failed == 2
    assert needs_of(two.link) == [(2, [])]


def test_unmet_names_the_need_that_has_no_value() -> None:
    two = Two()
    first, second = two.submit(two.one), two.submit(two.one)
    third = two.submit(two.two, b"", (two.one, first), (two.one, second))
    two.stage()
    faults = two.two.faults

    for _ in range(2):  # it may be applied again
        two.two.on_unmet(0, (1, 1), tell)

    assert third.outcome == (FINISHED, UNMET, second)
    assert two.two.faults > faults
    assert (two.two.pending, two.two.needs) == ({}, {})


def test_unmet_of_what_is_not_needed_is_a_mistake_of_the_router() -> None:
    two = Two()
    first = two.submit(two.one)
    two.submit(two.one, b"", (two.one, first))
    two.stage()
    with pytest.raises(ProtocolError):
        two.one.on_unmet(1, (1, 7), tell)


# --- interrupts


def test_a_submit_with_needs_that_is_torn_anywhere_goes_out_once() -> None:
    def make() -> tuple[tuple[Two, list[Future]], Callable[[], Any]]:
        two = Two()
        a = two.submit(two.two, b"a")
        b = two.submit(two.one, b"b", (two.two, a))
        c = two.submit(two.one, [b"c", b"buffer"], (two.one, b), (two.two, a))
        return (two, [a, b, c]), two.stage

    for two, (a, b, c) in every_place(make):
        two.stage()
        messages = sent(two.link)
        assert [(message.session, message.inputs) for message in messages] == [
            (2, [b"a"]),
            (1, [b"b", [b"c", b"buffer"]]),
        ]
        assert messages[1].needs == [0, 2, 0, 1, 1, 0, 1, 2, 0]
        assert two.one.needs == {0: [(two.two, a)], 1: [(two.one, b), (two.two, a)]}
        assert dict(two.one.needed) == {(2, 0): a, (1, 0): b}
        assert two.one.pending == {0: b, 1: c}
        check(two.one)
        check(two.two)


def test_what_is_cancelled_in_between_takes_what_needs_it_along() -> None:
    def make() -> tuple[tuple[Two, list[Future]], Callable[[], Any]]:
        two = Two()
        futures = [two.submit(two.one, b"a"), two.submit(two.one, b"b")]
        futures.append(two.submit(two.one, b"c", (two.one, futures[1])))
        futures.append(two.submit(two.one, b"d"))
        return (two, futures), two.stage

    for two, futures in every_place(make):
        taken = two.one.take_from_outbox(futures[1])
        if taken:
            futures[1]._form, futures[1]._state = ERROR, CANCELLED
        two.stage()
        payloads = [payload for message in sent(two.link) for payload in message.inputs]
        assert payloads == ([b"a", b"d"] if taken else [b"a", b"b", b"c", b"d"])
        assert futures[2]._state == (FINISHED if taken else PENDING)
        check(two.one)


def test_an_end_that_is_torn_anywhere_is_made_up_for() -> None:
    def make() -> tuple[tuple[Two, Future, Future], Callable[[], Any]]:
        two = Two()
        first = two.submit(two.one)
        second = two.submit(two.one, b"", (two.one, first))
        two.stage()
        return (two, first, second), lambda: two.one.on_unmet(1, (1, 0), tell)

    for two, first, second in every_place(make):
        two.one.on_unmet(1, (1, 0), tell)
        assert second.outcome == (FINISHED, UNMET, first)
        assert two.one.pending == {0: first}
        assert two.one.needs == {}


def test_one_that_fails_before_it_was_sent_and_is_torn_anywhere_fails_once() -> None:
    def make() -> tuple[tuple[Two, Future, Future], Callable[[], Any]]:
        two = Two()
        first = two.submit(two.one)
        second = Future(silent=False)
        two.one.outbox.append((second, Name(1), Dependent(b"", [(two.one, first)])))
        two.submit(two.one, b"after")
        two.one.take_from_outbox(first)
        first._form, first._state = ERROR, CANCELLED
        return (two, first, second), two.stage

    for two, first, second in every_place(make):
        two.stage()
        assert second.outcome == (FINISHED, UNMET, first)
        assert second.told == [FINISHED]
        assert [message.inputs for message in sent(two.link)] == [[b"after"]]
