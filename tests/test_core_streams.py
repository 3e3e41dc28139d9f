"""Streams in the broker: what is sent on, who gets credit, what a death costs; and both ends' accounts."""

from __future__ import annotations

from typing import Any

import pytest

from flamezmq.client.published import Shown
from flamezmq.client.stream import Inflow
from flamezmq.errors import ProtocolError, TaskLost
from flamezmq.serialize.values import dump_value
from flamezmq.shims.streaming import KEPT_BYTES, KEPT_VALUES, LEAST_VALUES, MOST_VALUES, Outgoing
from flamezmq.wire import messages as m
from flamezmq.wire.streams import PUBLISHED, REPLAYED, STREAMED
from tests.core_calls import calls_with, link_up, tell
from tests.core_stage import CLIENT, FIRST, OTHER, Stage, raw


def stage_with(tasks: int = 1, executors: int = 1, **spec: Any) -> Stage:
    stage = Stage(executors=executors)
    stage.open(**spec)
    stage.submit(tasks)
    return stage


def queue(stage: Stage) -> list[tuple[int, int]]:
    (session,) = stage.broker.sessions.values()
    return stage.tasks(session.queue)


def part(
    first: int = 0, count: int = 1, index: int = 0, attempt: int = 1, kind: int = STREAMED
) -> m.RoutedPart:
    return m.RoutedPart(1, index, attempt, kind, first, count, 16, [], raw([b"v"] * count))


def pull(taken: int = 0, index: int = 0, attempt: int = 1, stop: bool = False) -> m.Pull:
    return m.Pull(1, index, attempt, taken, stop)


# --- what is sent on


def test_values_go_to_the_client_unread_and_under_its_own_number_of_the_session() -> None:
    stage = Stage(executors=1)
    stage.open(alias=1, client=OTHER)
    session = stage.open(alias=1)
    stage.submit()
    message = part(count=2)
    message.session = session.number

    assert session.number != session.alias
    assert stage.say(FIRST, message, [b"a buffer"]) == [(CLIENT, message)]
    assert message.session == session.alias
    assert stage.frames == [[b"a buffer"]]


@pytest.mark.parametrize("stale", [{"attempt": 2}, {"index": 7}])
@pytest.mark.parametrize("kind", [STREAMED, PUBLISHED])
def test_values_of_a_task_that_the_executor_does_not_hold_are_dropped(
    stale: dict[str, int], kind: int
) -> None:
    stage = stage_with()

    assert stage.say(FIRST, part(kind=kind, **stale)) == []
    assert stage.executor(1).stream is None


def test_values_of_a_task_that_has_ended_are_dropped() -> None:
    stage = stage_with()
    stage.finish(1)

    assert stage.say(FIRST, part()) == []


def test_only_executors_have_values_and_only_clients_pull() -> None:
    stage = stage_with()

    with pytest.raises(ProtocolError):
        stage.say(CLIENT, part())
    with pytest.raises(ProtocolError):
        stage.say(FIRST, pull())


def test_a_stream_does_not_keep_the_tasks_behind_it_from_an_idle_executor() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.teach(1e-4)
    stage.submit(4)
    stage.ready(2)
    assert len(stage.held()[0]) == 4

    for number in range(10):
        stage.now += 0.001
        stage.say(FIRST, part(first=number, index=1))
        if stage.heard(FIRST, m.Retract):
            break

    assert stage.executor(1).asked, "nothing was asked back"


def test_what_is_published_is_dropped_for_a_client_that_takes_nothing() -> None:
    stage = stage_with()
    stage.broker.on_backlog(CLIENT, True)

    assert stage.say(FIRST, part(kind=PUBLISHED)) == []
    assert [to for to, _ in stage.say(FIRST, part())] == [CLIENT], "a stream has its own bound"
    stage.broker.on_backlog(CLIENT, False)
    assert [to for to, _ in stage.say(FIRST, part(kind=PUBLISHED))] == [CLIENT]


# --- credit


def test_credit_goes_to_the_executor_that_runs_the_task() -> None:
    stage = stage_with(2, executors=2)
    (first, second) = (run.start for executor in stage.broker.executors.values() for run in executor.held)
    stage.say(FIRST, part(index=first))

    for peer, index in ((FIRST, first), (FIRST + 1, second)):  # before its first value, too
        stage.say(CLIENT, pull(5, index=index))
        assert [to for to, message in stage.said if type(message) is m.Pull] == [peer]


@pytest.mark.parametrize("late", [{"attempt": 2}, {"index": 9}])
def test_credit_for_what_nobody_holds_is_dropped(late: dict[str, Any]) -> None:
    stage = stage_with()
    stage.say(FIRST, part())

    assert stage.say(CLIENT, pull(5, **late)) == []
    assert stage.say(OTHER, pull(5)) == []


def test_a_stop_finds_whichever_run_there_is() -> None:
    stage = stage_with()
    stage.retry(1)

    stage.say(CLIENT, pull(attempt=0, stop=True))

    assert [message.stop for message in stage.heard(FIRST, m.Pull)] == [True]


def test_the_end_of_the_session_stops_its_streams() -> None:
    stage = stage_with()
    stage.say(FIRST, part())

    stage.say(CLIENT, m.Close(1))

    (stop,) = stage.heard(FIRST, m.Pull)
    assert (stop.stop, stop.index, stop.session) == (True, 0, 1)


def test_a_stream_that_shows_itself_after_the_end_of_its_session_is_stopped() -> None:
    stage = stage_with()
    stage.say(CLIENT, m.Close(1))

    stage.say(FIRST, part())

    assert [message.stop for message in stage.heard(FIRST, m.Pull)] == [True]
    assert stage.heard(CLIENT, m.RoutedPart) == []


# --- deaths


def test_a_stream_of_which_nothing_was_delivered_runs_again() -> None:
    stage = stage_with()

    stage.dies(1, running=0)

    assert stage.heard(CLIENT, m.Lost) == []
    assert queue(stage) == [(0, 2)]


def test_a_stream_that_was_delivered_in_part_is_lost_and_its_error_says_how_much_had_come() -> None:
    stage = stage_with()
    stage.say(FIRST, part(count=3))
    stage.say(FIRST, part(first=3, count=4))

    stage.dies(1, running=0)

    (lost,) = stage.heard(CLIENT, m.Lost)
    assert (lost.index, lost.values) == (0, 7)
    assert queue(stage) == []
    calls, (future,) = calls_with([b""])
    calls.stage(link_up(), 1, tell)
    calls.on_lost(lost, tell)
    assert isinstance(future._value, TaskLost)
    assert future._value.values == 7
    assert "7 values of its stream had come" in str(future._value)
    assert "replay=True" in str(future._value)


def test_a_stream_that_may_be_replayed_runs_again_whatever_was_delivered() -> None:
    stage = stage_with()
    stage.say(FIRST, part(count=3, kind=REPLAYED))

    stage.dies(1, running=0)

    assert stage.heard(CLIENT, m.Lost) == []
    assert queue(stage) == [(0, 2)]


def test_what_the_last_stream_of_an_executor_has_delivered_is_not_held_against_the_next_one() -> None:
    stage = stage_with(2, executors=1)
    stage.say(FIRST, part())
    stage.finish(1, count=1)
    stage.ready(2)

    stage.dies(1, running=1)

    assert stage.heard(CLIENT, m.Lost) == []
    assert stage.held() == [[(1, 2)]]


def test_a_stream_that_was_delivered_in_part_is_not_tried_again_after_its_timeout() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.submit(1, timeout=1.0, retries=3, retry_timeouts=True)
    stage.say(FIRST, part())

    stage.dies(1, running=0, overdue=True)

    (lost,) = stage.heard(CLIENT, m.Lost)
    assert lost.timeout == 1.0


# --- the executor's account


def test_a_stream_may_be_ahead_by_its_window_and_what_is_taken_makes_room() -> None:
    stream = Outgoing((1, 0, 1), False)
    for _ in range(stream.window):
        assert stream.may_go_on()
        stream.append(b"v", 0.001)

    assert not stream.may_go_on()
    stream.taken = 3
    for _ in range(3):
        assert stream.may_go_on()
        stream.append(b"v", 0.001)
    assert not stream.may_go_on()


def test_the_window_is_a_span_of_time_within_bounds() -> None:
    windows = []
    for seconds in (1e-6, 1e-3, 10.0):
        stream = Outgoing((1, 0, 1), False)
        for _ in range(200):
            stream.append(b"v", seconds)
        stream.learn()
        windows.append(stream.window)

    assert windows[0] == MOST_VALUES
    assert 40 <= windows[1] <= 60
    assert windows[2] == LEAST_VALUES


def test_large_values_use_the_window_up_by_their_bytes() -> None:
    stream = Outgoing((1, 0, 1), False)
    produced = 0
    while stream.may_go_on():
        stream.append([b"", bytes(1 << 20)], 1e-6)
        produced += 1

    assert produced == 4
    stream.taken = 1
    assert stream.may_go_on()


def test_a_replayed_stream_has_credit_for_all_that_was_taken_before() -> None:
    stream = Outgoing((1, 0, 2), True)
    stream.taken = 100
    for _ in range(100 + stream.window):
        assert stream.may_go_on()
        stream.append(b"v", 1e-6)
    assert not stream.may_go_on()


# --- the reader's account


def taken(inflow: Inflow) -> list[Any]:
    found = []
    while True:
        try:
            found.append(inflow.take())
        except IndexError:
            return found


def test_values_that_are_applied_twice_are_taken_once() -> None:
    inflow = Inflow()
    inflow.add(1, 0, ["a", "b"])
    inflow.received = 0  # an interrupt came in between: the message comes again
    inflow.add(1, 0, ["a", "b"])
    inflow.add(1, 2, ["c"])
    inflow.add(1, 2, ["c"])

    assert taken(inflow) == ["a", "b", "c"]


def test_another_run_replaces_what_was_not_taken_and_repeats_nothing_that_was() -> None:
    inflow = Inflow()
    inflow.add(1, 0, ["a", "b", "c"])
    assert inflow.take() == "a"

    inflow.add(2, 0, ["a", "b"])
    inflow.add(2, 2, ["c", "d"])

    assert taken(inflow) == ["b", "c", "d"]


def test_the_executor_is_told_when_half_of_its_window_was_taken() -> None:
    inflow = Inflow()
    inflow.window = 8
    inflow.add(1, 0, ["v"] * 8)
    for _ in range(3):
        inflow.take()
    assert not inflow.owes()
    inflow.take()
    assert inflow.owes()


def test_of_what_is_published_the_newest_values_are_kept() -> None:
    shown = Shown()
    for number in range(3 * KEPT_VALUES):
        shown.add(1, number, [b"%d" % number], print)

    assert [payload for _, payload in shown.kept] == [
        b"%d" % n for n in range(2 * KEPT_VALUES, 3 * KEPT_VALUES)
    ]
    assert shown.after(shown.last) == []


def test_of_large_published_values_one_is_kept_however_large_it_is() -> None:
    shown = Shown()
    shown.add(1, 0, [b"small"], print)
    shown.add(1, 1, [bytes(KEPT_BYTES + 1)], print)
    assert [number for (_, number), _ in shown.kept] == [2]
    shown.add(1, 2, [b"small"], print)
    assert [number for (_, number), _ in shown.kept] == [3]


def test_what_is_published_in_another_run_is_newer_and_what_comes_twice_counts_once() -> None:
    shown = Shown()
    shown.add(1, 0, [b"a", b"b"], print)
    shown.add(1, 0, [b"a", b"b"], print)
    shown.add(2, 0, [b"c"], print)

    assert [payload for _, payload in shown.kept] == [b"a", b"b", b"c"]


def test_a_slow_callback_has_one_call_due_and_finds_the_newest_values() -> None:
    shown = Shown()
    seen: list[int] = []
    errands: list[Any] = []
    shown.on_publish(seen.append, errands.append)
    for number in range(1000):
        shown.add(1, number, [dump_value(number)], errands.append)

    assert len(errands) == 1
    errands.pop()()
    assert seen == list(range(1000 - KEPT_VALUES, 1000))
    shown.add(1, 1000, [dump_value(1000)], errands.append)
    assert len(errands) == 1
