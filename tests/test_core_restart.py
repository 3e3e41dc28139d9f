"""Ctrl-C between any two steps: the next call finishes what was begun; nothing is lost or doubled.

`torn` runs a call and raises in it after so many bytecodes of the core, as an
interrupt would; each test tears its call at every place where it can be torn.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from flamezmq.core import caller, lineage, link, orders
from flamezmq.core.caller import FINISHED, Calls
from flamezmq.core.link import Link
from flamezmq.core.orders import Orders
from flamezmq.wire import codec
from flamezmq.wire import messages as m
from tests.core_calls import Future, Name, answer, calls_with, everything, link_up, submits, tell

FILES = (caller.__file__, lineage.__file__, orders.__file__, link.__file__)
PAYLOADS: list[Any] = [b"a", b"b" * 3000, [b"c", b"buffer"], b"d"]


def torn(call: Callable[[], Any], after: int) -> bool:
    """Whether it was torn: False when the call had ended before."""
    left = after

    def trace(frame: FrameType, event: str, _arg: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in FILES:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def every_place(make: Callable[[], tuple[Any, Callable[[], Any]]]) -> Iterator[Any]:
    """For each place in the call: what was made for it, after the call was torn there."""
    after = 0
    while True:
        made, call = make()
        if not torn(call, after):
            assert after > 20, "nothing was torn"
            return
        yield made
        after += 1


def check(calls: Calls) -> None:
    calls.heavy_bytes = sum(calls.heavy.values())  # an interrupt may falsify it, see there
    calls.check()


def sent(kept: Link) -> list[m.Submit]:
    """What arrives: the connection is dialled anew after an interrupt."""
    kept.cut()
    assert kept.begin(2, 0)
    kept.check()
    return submits(kept)


Made = tuple[Calls, list[Future], Link]


def to_be_staged() -> tuple[Made, Callable[[], Any]]:
    calls, futures = calls_with(PAYLOADS, [1, 2, 1, 3])
    calls.forget = [9]
    kept = link_up()
    return (calls, futures, kept), lambda: calls.stage(kept, 10, tell)


EVERYTHING = list(zip(range(4), (1, 2, 1, 3), PAYLOADS, strict=True))


def test_a_submit_that_is_torn_anywhere_goes_out_once() -> None:
    for calls, futures, kept in every_place(to_be_staged):
        while calls.stage(kept, 10, tell):
            pass
        assert everything(sent(kept)) == EVERYTHING
        assert calls.unfinished == 4
        assert calls.pending == dict(enumerate(futures))
        check(calls)


def test_it_may_be_torn_again_while_it_is_finished() -> None:
    for first in range(0, 300, 30):

        def make(first: int = first) -> tuple[Made, Callable[[], Any]]:
            made, call = to_be_staged()
            torn(call, first)
            return made, call

        for calls, _, kept in every_place(make):
            while calls.stage(kept, 10, tell):
                pass
            assert everything(sent(kept)) == EVERYTHING


def test_more_that_is_submitted_in_between_comes_after_it() -> None:
    for calls, _, kept in every_place(to_be_staged):
        calls.outbox.append((Future(), Name(4), b"later"))
        while calls.stage(kept, 10, tell):
            pass
        assert everything(sent(kept)) == [*EVERYTHING, (4, 4, b"later")]
        check(calls)


def test_what_is_cancelled_in_between_either_went_out_or_did_not() -> None:
    for calls, futures, kept in every_place(to_be_staged):
        taken = calls.take_from_outbox(futures[1])
        while calls.stage(kept, 10, tell):
            pass
        payloads = [payload for _, _, payload in everything(sent(kept))]
        assert payloads == [payload for payload in PAYLOADS if not taken or payload != PAYLOADS[1]]
        assert calls.unfinished == len(payloads)
        check(calls)


def test_another_message_does_not_take_the_place_of_one_that_was_torn() -> None:
    """Whoever commits next finishes first what was begun, as the client's host does."""
    for calls, _, kept in every_place(to_be_staged):
        other, _ = calls_with([b"other"], [5])
        calls.complete(kept)
        other.stage(kept, 10, tell)
        while calls.stage(kept, 10, tell):
            pass
        messages = sent(kept)
        mine = [message for message in messages if message.inputs != [b"other"]]
        assert everything(mine) == EVERYTHING
        assert len(messages) == len(mine) + 1


def test_an_order_that_is_torn_anywhere_goes_out_once() -> None:
    def make() -> tuple[tuple[Orders, Link], Callable[[], Any]]:
        said, kept = Orders(), link_up()
        for request in range(3):
            said.append(m.Query(1, request))
        return (said, kept), lambda: said.stage(kept)

    for said, kept in every_place(make):
        said.complete(kept)
        kept.enqueue([codec.encode(m.Close(7))], 1)
        said.stage(kept)
        kept.cut()
        assert kept.begin(2, 0)
        messages = [codec.decode("client", frames[0]) for _, frames in kept.outgoing()]
        assert [message.request for message in messages if type(message) is m.Query] == [0, 1, 2]
        assert messages.count(m.Close(7)) == 1


def applied(failed: list[int]) -> Callable[[], tuple[Made, Callable[[], Any]]]:
    def make() -> tuple[Made, Callable[[], Any]]:
        (calls, futures, kept), stage = to_be_staged()
        stage()
        message = answer(0, [b"A", b"B", b"C", b"D"], failed)
        calls.message = message  # type: ignore[attr-defined]
        return (calls, futures, kept), lambda: calls.on_results(message, [], tell)

    return make


def test_results_that_are_torn_anywhere_are_applied_again_and_nobody_is_told_twice() -> None:
    for failed in ([], [1, 2]):
        for calls, futures, _ in every_place(applied(failed)):
            calls.on_results(calls.message, [], tell)
            assert [future._value for future in futures] == [b"A", b"B", b"C", b"D"]
            assert [future._state for future in futures] == [FINISHED] * 4
            assert [future._form for future in futures] == [
                caller.RAW_ERROR if position in failed else caller.RAW for position in range(4)
            ]
            assert [future.told for future in futures] == [[], [FINISHED], [], [FINISHED]]
            assert calls.unfinished == 0
            check(calls)


def test_what_the_user_read_in_between_stays_as_he_has_read_it() -> None:
    for calls, futures, _ in every_place(applied([])):
        read = [future for future in futures if future._state is FINISHED]
        for future in read:
            future._form, future._value = caller.VALUE, "unpickled"
        calls.on_results(calls.message, [], tell)
        assert all(future.outcome == (FINISHED, caller.VALUE, "unpickled") for future in read)


def test_an_end_of_everything_that_is_torn_anywhere_is_finished_by_the_next() -> None:
    error = RuntimeError("gone")

    def make() -> tuple[Made, Callable[[], Any]]:
        (calls, futures, kept), _ = to_be_staged()
        calls.stage(kept, 2, tell)
        return (calls, futures, kept), lambda: calls.fail_all(error, tell)

    for calls, futures, _ in every_place(make):
        calls.fail_all(error, tell)
        assert [future.outcome for future in futures] == [(FINISHED, caller.ERROR, error)] * 4
        assert all(len(future.told) <= 1 for future in futures)
        assert calls.unfinished == 0


def test_a_link_that_is_torn_anywhere_is_mended_by_the_next_epoch() -> None:
    def make() -> tuple[Link, Callable[[], Any]]:
        kept = link_up()
        kept.enqueue([b"0"], 1)
        kept.outgoing()

        def call() -> None:
            kept.enqueue([b"1"], 10)
            kept.commit([b"2"], 100)
            kept.outgoing()
            kept.acknowledged(1)
            kept.applied(1, 1)
            kept.ack_riding()

        return kept, call

    for kept in every_place(make):
        kept.cut()
        assert kept.begin(2, kept._forgotten)
        kept.check()
        numbers = [number for number, _ in kept.outgoing()]
        assert numbers == list(range(kept._forgotten + 1, kept.sent + 1))
        assert kept.bytes_kept == sum(size for _, _, size in kept._kept)
