"""Tasks that are cancelled while an executor holds them: each ends once, and no neighbour pays for it."""

from __future__ import annotations

from typing import Any

import pytest

from flamezmq.core.members import Session
from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m
from tests.core_stage import CLIENT, FIRST, OTHER, WORKER, Stage

GRACE = 1.0


def stage_with(tasks: int, executors: int = 1, **spec: Any) -> tuple[Stage, Session]:
    """The first task runs on the first executor, which holds them all if it is alone."""
    stage = Stage(executors=executors, grace_seconds=GRACE, orphan_seconds=GRACE)
    session = stage.open(**spec)
    stage.teach(1e-4)
    stage.submit(tasks)
    assert sum(stage.holds()) == tasks
    return stage, session


def cancel(stage: Stage, *indices: int) -> list[tuple[int, Any]]:
    return stage.say(CLIENT, m.Cancel(1, list(indices), True))


def interrupted(stage: Stage, index: int, attempt: int = 1, number: int = 1) -> list[tuple[int, Any]]:
    return stage.say(FIRST + number - 1, m.Interrupted(1, index, attempt))


def retracted(stage: Stage, session: Session, *indices: int, attempt: int = 1) -> list[tuple[int, Any]]:
    function = next(iter(session.labels))
    slices = [m.Slice(function, index, 1, attempt) for index in indices]
    return stage.say(FIRST, m.Retracted(session.number, slices))


def told(stage: Stage) -> list[tuple[list[int], list[int]]]:
    """(cancelled, refused) of what the client heard in the last turn."""
    return [(message.indices, message.refused) for message in stage.heard(CLIENT, m.Cancelled)]


def test_what_runs_is_interrupted_and_the_answer_is_its_end() -> None:
    stage, session = stage_with(2)

    assert cancel(stage, 1) == [(FIRST, m.Drop(1, [1])), (FIRST, m.Interrupt(1, [1]))]
    assert retracted(stage, session) == []
    interrupted(stage, 1)

    assert told(stage) == [([1], [])]
    assert (session.cancelled, session.held, session.unwanted) == (1, 1, {})
    stage.finish(1)
    assert (session.succeed, session.cancelled) == (2, 1)
    stage.wait(5.0)
    assert stage.heard(WORKER, m.Kill) == []


def test_what_had_not_begun_is_given_back_and_nobody_is_killed_for_it() -> None:
    stage, session = stage_with(3)
    cancel(stage, 2)
    retracted(stage, session, 2)
    assert told(stage) == [([2], [])]
    stage.wait(5.0)
    assert stage.heard(WORKER, m.Kill) == []
    assert stage.held() == [[(1, 1), (3, 1)]]


def test_without_the_word_what_runs_is_left_alone() -> None:
    stage, session = stage_with(2)
    assert stage.say(CLIENT, m.Cancel(1, [1])) == [(FIRST, m.Drop(1, [1]))]
    retracted(stage, session)
    assert told(stage) == [([], [1])]
    assert not session.unwanted


def test_a_result_that_was_quicker_counts() -> None:
    stage, session = stage_with(2)
    cancel(stage, 1)
    stage.finish(1, count=1)
    assert told(stage) == [([], [1])]
    assert len(stage.heard(CLIENT, m.RoutedResults)) == 1
    retracted(stage, session)
    assert interrupted(stage, 1) == [], "it had ended before that"
    assert (session.succeed, session.cancelled, session.held) == (2, 0, 1)


def test_who_goes_on_is_killed_after_the_grace_time_and_has_not_failed_but_is_cancelled() -> None:
    stage, session = stage_with(3, max_retries=0)
    cancel(stage, 1)
    retracted(stage, session)
    stage.wait(GRACE * 0.9)
    assert stage.heard(WORKER, m.Kill) == []
    deadline = stage.broker.next_deadline(stage.now)
    assert deadline is not None
    assert deadline <= stage.now + GRACE * 0.2

    stage.wait(GRACE * 0.2)
    assert stage.heard(WORKER, m.Kill) == [m.Kill(1, -1.0, 1, 1)]
    stage.wait(GRACE * 1.1)
    assert stage.heard(WORKER, m.Kill) == [m.Kill(1, -1.0, 1, 1)], "its worker may have seen another task run"

    stage.dies(1, running=1, finished=1, expected=True)
    assert told(stage) == [([1], [])]
    assert stage.heard(CLIENT, m.Lost) == []
    assert stage.tasks(session.queue) == [(2, 1), (3, 1)], "its neighbours had not begun"
    assert not session.charges


@pytest.mark.parametrize("expected", [False, True])
def test_what_is_unwanted_never_runs_again_however_its_executor_dies(expected: bool) -> None:
    stage, session = stage_with(3)
    cancel(stage, 2, 3)
    stage.dies(1, running=1, finished=1, expected=expected)
    assert told(stage)[0] == ([2, 3], [])
    assert stage.tasks(session.queue) == [(1, 2)]


def test_a_task_that_is_sent_back_to_run_again_does_not() -> None:
    stage = Stage(executors=1)
    session = stage.open()
    stage.submit(1, retries=5)
    cancel(stage, 0)
    stage.retry(1)
    assert told(stage) == [([0], [])]
    assert (session.queued, session.cancelled) == (0, 1)


def test_what_comes_back_by_another_way_is_cancelled_as_well() -> None:
    """It was asked back for an idle executor before anybody cancelled it."""
    stage, session = stage_with(3)
    executor = stage.executor(1)
    executor.asked.append((session, None))
    cancel(stage, 3)
    retracted(stage, session, 2, 3)
    assert told(stage) == [([3], [])]
    retracted(stage, session)
    assert told(stage) == [([], [3])], "the answer to the question that came too late; it is cancelled"
    assert (session.cancelled, session.waiting + session.held) == (1, 2)


def test_what_needs_it_does_not_run() -> None:
    stage, session = stage_with(1)
    stage.submit(1, needs=(0, 1, 1))
    cancel(stage, 1)
    retracted(stage, session)
    interrupted(stage, 1)
    assert stage.heard(CLIENT, m.Unmet) == [m.Unmet([1, 2, 1, 1])]


def test_an_answer_that_nobody_waits_for_is_refused_and_one_of_an_old_attempt_is_stale() -> None:
    stage, _ = stage_with(2)
    with pytest.raises(ProtocolError, match="not sent"):
        interrupted(stage, 1)
    cancel(stage, 1)
    assert interrupted(stage, 1, attempt=2) == []
    assert interrupted(stage, 77) == []
    assert stage.holds() == [2]


def test_somebody_else_may_have_it_interrupted_and_is_told_how_that_ended() -> None:
    stage, session = stage_with(2)
    stage.say(OTHER, m.CancelTask(1, "s1", 1, "boss"))
    retracted(stage, session)
    assert [(one.request, one.outcome) for one in stage.heard(OTHER, m.Done)] == [(1, 1)]

    stage.say(OTHER, m.CancelTask(2, "s1", 1, "boss", True))
    assert stage.heard(FIRST, m.Interrupt) == [m.Interrupt(1, [1])]
    retracted(stage, session)
    assert stage.heard(OTHER, m.Done) == []
    interrupted(stage, 1)
    assert [(one.request, one.outcome) for one in stage.heard(OTHER, m.Done)] == [(2, 0)]
    assert stage.heard(CLIENT, m.Cancelled) == [m.Cancelled(1, [1], [], "cancelled by boss")]


def test_who_insists_while_another_waits_for_the_same_task_has_it_interrupted() -> None:
    stage, session = stage_with(2)
    stage.say(OTHER, m.CancelTask(1, "s1", 1, "boss"))
    stage.say(CLIENT, m.Cancel(1, [1], True))
    retracted(stage, session)
    retracted(stage, session)
    interrupted(stage, 1)
    assert [(one.request, one.outcome) for one in stage.heard(OTHER, m.Done)] == [(1, 0)]


def test_what_runs_of_a_session_that_ends_is_interrupted_and_killed_if_it_goes_on() -> None:
    stage, session = stage_with(2)
    stage.say(CLIENT, m.Close(1))
    assert stage.heard(FIRST, m.Retract) == [m.Retract(1, 0)]
    assert stage.heard(FIRST, m.Interrupt) == [m.Interrupt(1, [])]
    retracted(stage, session, 2)

    stage.wait(GRACE * 1.1)
    assert stage.heard(WORKER, m.Kill) == [m.Kill(1)]
    stage.dies(1, running=1, finished=1, expected=True)
    assert not stage.broker.sessions


def test_an_executor_that_lets_go_of_a_closed_session_serves_the_next_one_and_lives() -> None:
    stage, session = stage_with(1)
    stage.open(2)
    stage.say(CLIENT, m.Close(1))
    retracted(stage, session)
    interrupted(stage, 1)
    stage.submit(1, alias=2)
    assert stage.holds() == [1]
    stage.wait(GRACE * 5)
    assert stage.heard(WORKER, m.Kill) == []


def test_a_session_that_is_closed_forgets_whom_it_had_interrupted() -> None:
    stage, session = stage_with(1)
    cancel(stage, 1)
    stage.say(CLIENT, m.Close(1))
    retracted(stage, session)
    retracted(stage, session)
    interrupted(stage, 1)
    assert stage.heard(CLIENT, m.Cancelled) == []
    assert not stage.broker.unwanted
    assert not stage.broker.sessions
