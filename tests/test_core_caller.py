"""The client's core: what is submitted, what comes back, and to whom it belongs."""

from __future__ import annotations

import pytest

from flamezmq.core import caller
from flamezmq.core.caller import CANCELLED, ERROR, FINISHED, PENDING, RAW, RAW_ERROR, Calls
from flamezmq.core.orders import Orders
from flamezmq.errors import ProtocolError, TaskLost
from flamezmq.wire import codec
from flamezmq.wire import messages as m
from tests.core_calls import Future, Name, answer, calls_with, everything, link_up, submits, tell

DIED = m.Died(3, 103, "node", 1, 0, 9, "SIGKILL", 0, True, 4096, ("last words",))


def staged(payloads: list, functions: list[int] | None = None) -> tuple[Calls, list[Future], list[m.Submit]]:
    calls, futures = calls_with(payloads, functions)
    link = link_up()
    while calls.stage(link, 1 << 20, tell):
        calls.check()
    return calls, futures, submits(link)


# --- towards the router


def test_the_outbox_becomes_one_message_in_the_order_of_submission() -> None:
    calls, futures, (message,) = staged([b"a", b"b", b"c"], [1, 1, 2])

    assert everything([message]) == [(0, 1, b"a"), (1, 1, b"b"), (2, 2, b"c")]
    assert [part.count for part in message.slices] == [2, 1]
    assert [future._index for future in futures] == [0, 1, 2]
    assert list(calls.pending.values()) == futures
    assert calls.outbox == []


def test_a_function_is_sent_once() -> None:
    calls, _, first = staged([b"a"], [7])
    link = link_up()
    again = Name(7)
    calls.outbox.append((Future(), again, b"b"))
    calls.stage(link, 10, tell)
    assert [new.number for new in first[0].functions] == [7]
    assert submits(link)[0].functions == []


def test_what_is_forgotten_is_said_once() -> None:
    calls, _, _ = staged([b"a"])
    calls.forget.append(1)
    link = link_up()
    for payload in (b"b", b"c"):
        calls.outbox.append((Future(), Name(2), payload))
        calls.stage(link, 10, tell)
    assert [message.forget for message in submits(link)] == [[1], []]


def test_no_more_is_staged_than_there_is_room_for() -> None:
    calls, _ = calls_with([b""] * 5)
    link = link_up()
    assert not calls.stage(link, 0, tell)
    assert calls.stage(link, 3, tell)
    assert len(calls.outbox) == 2
    assert calls.unfinished == 5


def test_messages_are_bounded_by_tasks_and_by_bytes() -> None:
    _, _, messages = staged([b""] * (caller.SUBMIT_TASKS + 1))
    assert [len(message.inputs) for message in messages] == [caller.SUBMIT_TASKS, 1]
    large = b"x" * (caller.SUBMIT_BYTES // 2 + 1)
    _, _, messages = staged([large] * 3)
    assert [len(message.inputs) for message in messages] == [2, 1]


def test_large_payloads_are_weighed_until_their_results_are_there() -> None:
    calls, _, _ = staged([b"x" * 5000, [b"p", b"y" * 100], b"small"])
    assert calls.heavy == {0: 5000, 1: 101}
    assert calls.heavy_bytes == 5101

    calls.on_results(answer(0, [b"", b"", b""]), [], tell)

    assert (calls.heavy, calls.heavy_bytes) == ({}, 0)


def test_buffers_travel_as_frames_of_their_own() -> None:
    _, _, messages = staged([b"a", [b"p", b"one", b"two"], b"c"])
    assert everything(messages)[1] == (1, 1, [b"p", b"one", b"two"])


def test_orders_go_out_in_their_order_once() -> None:
    orders, link = Orders(), link_up()
    for message in (m.Close(1), m.Query(2, 5)):
        orders.append(message)

    orders.stage(link)
    orders.stage(link)

    sent = [codec.decode("client", frames[0]) for _, frames in link.outgoing()]
    assert sent == [m.Close(1), m.Query(2, 5)]
    assert len(orders) == 0


# --- results


def test_results_finish_their_futures_and_tell_only_those_that_want_it() -> None:
    calls, futures, _ = staged([b"a", b"b", b"c"])

    assert calls.on_results(answer(0, [b"A", b"B"]), [], tell) == 2

    assert [future.outcome for future in futures[:2]] == [(FINISHED, RAW, b"A"), (FINISHED, RAW, b"B")]
    assert [future.told for future in futures] == [[], [FINISHED], []]
    assert list(calls.pending) == [2]
    calls.check()


def test_errors_among_results_are_marked() -> None:
    calls, futures, _ = staged([b"a", b"b", b"c"])
    calls.on_results(answer(0, [b"A", b"B", b"C"], failed=[1]), [], tell)
    assert [future._form for future in futures] == [RAW, RAW_ERROR, RAW]


def test_a_stale_slice_is_passed_over_with_its_outputs() -> None:
    calls, futures, _ = staged([b"a", b"b"])
    message = m.Results(
        1, [m.Slice(1, 0, 1, 0), m.Slice(1, 1, 1, 2)], [], [0.1, 0.1], [], [b"stale", b"good"]
    )

    calls.on_results(message, [], tell)

    assert futures[0]._state is PENDING
    assert futures[1]._value == b"good"


def test_results_with_buffers_are_put_together() -> None:
    calls, futures, _ = staged([b"a", b"b"])
    message = answer(0, [b"A", b"B"])
    message.parts = [1, 2]
    calls.on_results(message, [b"one", b"two"], tell)
    assert [future._value for future in futures] == [b"A", [b"B", b"one", b"two"]]


def test_results_that_lack_outputs_are_refused() -> None:
    calls, _, _ = staged([b"a", b"b"])
    message = answer(0, [b"A", b"B"])
    message.outputs.pop()
    with pytest.raises(ProtocolError):
        calls.on_results(message, [], tell)


def test_results_that_come_twice_do_not_touch_what_the_user_has_unpickled() -> None:
    calls, futures, _ = staged([b"a", b"b"])
    calls.on_results(answer(0, [b"A"]), [], tell)
    futures[0]._form, futures[0]._value = caller.VALUE, "unpickled"
    calls.pending[0] = futures[0]  # an interrupt came before it was taken out

    calls.on_results(answer(0, [b"A"]), [], tell)

    assert futures[0].outcome == (FINISHED, caller.VALUE, "unpickled")
    assert list(calls.pending) == [1]


# --- other ends


def test_a_lost_task_fails_with_its_certificate() -> None:
    calls, futures, _ = staged([b"a", b"b"])

    calls.on_lost(m.Lost(1, 1, 4, DIED), tell)
    calls.on_lost(m.Lost(1, 1, 4, DIED), tell)

    assert (futures[1]._state, futures[1]._form, futures[1].told) == (FINISHED, ERROR, [FINISHED])
    error = futures[1]._value
    assert isinstance(error, TaskLost)
    assert (error.task_id, error.attempts, error.certificate.oom) == ("s/1", 4, True)
    assert "last words" in str(error.certificate.stderr)
    assert list(calls.pending) == [0]


@pytest.mark.parametrize("how", ["fail", "cancel"])
def test_what_is_submitted_while_all_others_end_ends_with_them(how: str) -> None:
    calls, futures = calls_with([b"a", b"b"])
    late = Future()

    def submit(future: Future, state: str) -> None:
        tell(future, state)
        if future is futures[1]:
            calls.outbox.append((late, Name(1), b"c"))
            future._more = None

    futures[1]._more = futures[1]
    if how == "fail":
        calls.fail_all(ProtocolError("gone"), submit)
    else:
        calls.cancel_all(submit)

    assert calls.outbox == []
    assert [one._state for one in (*futures, late)] == [FINISHED if how == "fail" else CANCELLED] * 3


def test_cancelled_and_finished_ones_do_not_change_any_more() -> None:
    calls, futures, _ = staged([b"a", b"b"])
    calls.on_cancelled(m.Cancelled(1, [0], [1]), tell)
    calls.on_results(answer(0, [b"A", b"B"]), [], tell)
    calls.on_cancelled(m.Cancelled(1, [1], []), tell)
    assert [future._state for future in futures] == [CANCELLED, FINISHED]


def test_what_no_message_has_yet_can_be_taken_back_and_nothing_else() -> None:
    calls, futures = calls_with([b"a", b"b", b"c"])
    calls.stage(link_up(), 1, tell)

    assert calls.take_from_outbox(futures[1])
    assert not calls.take_from_outbox(futures[1])
    assert not calls.take_from_outbox(futures[0])
    assert [record[0] for record in calls.outbox] == [futures[2]]


@pytest.mark.parametrize("end", ["fail", "cancel"])
def test_at_the_end_all_end_whether_they_were_sent_or_not(end: str) -> None:
    calls, futures = calls_with([b"a", b"b", b"c"])
    calls.stage(link_up(), 2, tell)
    error = RuntimeError("the router is gone")

    if end == "fail":
        calls.fail_all(error, tell)
    else:
        calls.cancel_all(tell)

    expected = (FINISHED, ERROR, error) if end == "fail" else (CANCELLED, ERROR, None)
    assert [future.outcome for future in futures] == [expected] * 3
    assert calls.unfinished == 0
