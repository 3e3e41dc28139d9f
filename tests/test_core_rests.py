"""Executors that stay bound without anything to do: delay_release, and minima."""

from __future__ import annotations

import pytest

from flamezmq.errors import ProtocolError
from flamezmq.states import ExecutorState
from flamezmq.wire import messages as m
from tests.core_stage import CLIENT, FIRST, OTHER, WORKER, Stage


def bound(stage: Stage, alias: int = 1, client: int = CLIENT) -> list[int]:
    """Numbers of the executors that serve the session."""
    session = stage.broker.clients[client].sessions[alias]
    return sorted(executor.number for executor in session.executors.values())


def test_an_executor_rests_as_long_as_its_session_says_and_is_free_then() -> None:
    stage = Stage(executors=1)
    stage.open(delay_release=30.0)
    stage.submit(1)
    stage.finish(1)
    assert bound(stage) == [1]

    assert stage.broker.next_deadline(stage.now) == 30.0
    stage.wait(29.0)
    assert bound(stage) == [1]
    stage.wait(1.0)
    assert bound(stage) == []
    assert stage.broker.next_deadline(stage.now) is None


def test_without_a_delay_it_is_free_in_the_next_turn() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.submit(1)
    stage.finish(1)
    assert bound(stage) == [1], "its next task may be near"
    assert stage.broker.next_deadline(stage.now) is None, "nobody has to wake up for that"
    stage.turn()
    assert bound(stage) == []


def test_tasks_that_are_submitted_one_after_the_other_have_their_executor_bound_once() -> None:
    stage = Stage(executors=2)
    session = stage.open()
    for _ in range(5):
        stage.submit(1)
        (number,) = bound(stage)
        stage.finish(number)
    assert session.succeed == 5
    assert session.events is not None
    assert session.events.rows[-1].count == 1


def test_one_that_lingers_is_had_in_the_same_turn_by_whoever_needs_it() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.open(alias=2)
    stage.submit(1)
    stage.finish(1)
    assert bound(stage) == [1]

    stage.submit(1, alias=2)

    assert (bound(stage), bound(stage, 2), stage.holds()) == ([], [1], [1])


def test_nothing_lingers_while_somebody_waits() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.open(alias=2)
    stage.submit(1)
    stage.submit(1, alias=2)

    stage.finish(1)

    assert (bound(stage), bound(stage, 2)) == ([], [1])


def test_one_that_lingers_ends_with_its_session_and_when_its_worker_leaves() -> None:
    stage = Stage(executors=2)
    session = stage.open()
    stage.submit(1)
    (number,) = bound(stage)
    stage.finish(number)
    stage.say(CLIENT, m.Close(1))
    assert not session.executors
    assert stage.broker.scheduler.idle == 2

    stage.open(alias=2)
    stage.submit(1, alias=2)
    (number,) = bound(stage, 2)
    stage.finish(number)
    stage.say(WORKER, m.Leave())
    assert stage.heard(stage.executor(number).peer, m.Exit)


def test_whoever_asks_sees_one_that_lingers_as_idle() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.submit(1)
    stage.finish(1)

    stage.say(OTHER, m.Ask(1, 1))

    (answer,) = stage.heard(OTHER, m.Answer)
    assert [(row.state, row.session) for row in answer.executors] == [(ExecutorState.IDLE, "")]


def test_one_that_rests_gets_the_next_task_of_its_session_and_its_time_begins_anew() -> None:
    stage = Stage(executors=2)
    stage.open(delay_release=10.0)
    stage.submit(1)
    stage.finish(1 if bound(stage) == [1] else 2)
    [number] = bound(stage)
    stage.wait(9.0)

    stage.submit(1)
    assert [type(message) for _, message in stage.said] == [m.Grant], "no Bind: it is bound"
    stage.finish(number)
    stage.wait(9.0)
    assert bound(stage) == [number]
    stage.wait(1.0)
    assert bound(stage) == []


def test_one_that_rests_is_had_by_a_session_that_has_less_than_its_share() -> None:
    stage = Stage(executors=4)
    stage.open(delay_release=1e12)
    stage.teach(1.0)
    stage.submit(4)
    for number in (1, 2, 3, 4):
        stage.finish(number, 1.0)
    assert bound(stage) == [1, 2, 3, 4]

    stage.open(client=OTHER)
    stage.submit(8, client=OTHER)

    assert len(bound(stage)) == len(bound(stage, client=OTHER)) == 2


def test_a_session_that_is_closed_keeps_nobody() -> None:
    stage = Stage(executors=2)
    stage.open(delay_release=1e12, min_executors=1)
    stage.submit(2)
    stage.finish(1)
    stage.finish(2)
    assert stage.broker.scheduler.idle == 0

    stage.say(CLIENT, m.Close(1))

    assert stage.broker.scheduler.idle == 2
    assert not stage.broker.sessions


def test_a_minimum_is_bound_before_there_is_a_task() -> None:
    stage = Stage(executors=3)
    stage.open(min_executors=2, initializer=b"prepare")

    assert len(bound(stage)) == 2
    binds = stage.heard(FIRST + 1, m.Bind) + stage.heard(FIRST + 2, m.Bind)
    assert [bind.initializer for bind in binds] == [b"prepare"] * 2
    stage.submit(2)
    assert not [message for _, message in stage.said if type(message) is m.Bind]


def test_a_minimum_stays_and_what_is_above_it_goes() -> None:
    stage = Stage(executors=3)
    stage.open(min_executors=1, delay_release=5.0)
    stage.teach(1.0)
    stage.submit(3)
    for number in (1, 2, 3):
        stage.finish(number, 1.0)
    stage.wait(4.9)
    assert len(bound(stage)) == 3

    stage.wait(1000.0)

    assert len(bound(stage)) == 1
    assert stage.broker.next_deadline(stage.now) is None, "nobody waits for that one to go"


def test_one_of_a_minimum_that_dies_is_replaced() -> None:
    stage = Stage(executors=2)
    stage.open(min_executors=1)
    [number] = bound(stage)

    stage.lose(FIRST + number - 1)

    assert bound(stage) == [3 - number]


def test_a_minimum_is_taken_from_those_who_have_borrowed_it() -> None:
    stage = Stage(executors=2)
    stage.open(client=OTHER)
    stage.submit(10, client=OTHER)
    assert bound(stage, client=OTHER) == [1, 2]

    stage.open(min_executors=1)
    for number in (1, 2):
        stage.finish(number, 1.0)

    assert len(bound(stage)) == 1


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    stage = Stage(executors=1)
    with pytest.raises(ProtocolError, match="weight"):
        stage.open(weight=weight)


def test_a_suspended_session_keeps_nobody_and_has_its_minimum_again_when_it_goes_on() -> None:
    stage = Stage(executors=2)
    stage.open(min_executors=1, delay_release=1e12)
    assert len(bound(stage)) == 1

    stage.say(CLIENT, m.ChangeSession(1, "s1", "me", True))
    assert bound(stage) == []
    stage.say(CLIENT, m.ChangeSession(2, "s1", "me", False))
    assert len(bound(stage)) == 1
