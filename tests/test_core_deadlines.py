"""Deadlines: what has not begun in time is dropped with a clear word, and nothing else is."""

from __future__ import annotations

from typing import Any

import pytest

from flamezmq.core import caller
from flamezmq.core.members import LEAST_DEADLINES, Session
from flamezmq.errors import DeadlinePassed, ProtocolError
from flamezmq.wire import messages as m
from tests.core_calls import Name, calls_with, link_up, submits, tell
from tests.core_stage import CLIENT, FIRST, OTHER, WORKER, Stage


def submit(
    stage: Stage, count: int = 1, deadline: float = 5.0, age: float = 0.0, function: int = 7, **fields: Any
) -> None:
    """Of a function of its own, so that nothing is known of its run time."""
    session = stage.broker.clients[CLIENT].sessions[1]
    options = m.Options(deadline=deadline, **fields)
    new = [] if function in session.functions else [m.NewFunction(function, b"late", "late", options)]
    part = m.Slice(function, session.next_index, count, 1)
    stage.say(CLIENT, m.Submit(1, new, [], [part], [b""] * count, [], ages=[age]))


def expired(stage: Stage) -> list[int]:
    """What the client heard of in the last turn."""
    found = stage.heard(CLIENT, m.Expired)
    assert all(message.label == "late" for message in found)
    return [index for message in found for index in message.indices]


def busy_stage(**spec: Any) -> tuple[Stage, Session]:
    """One executor, that runs task 0 for long."""
    stage = Stage(executors=1)
    session = stage.open(**spec)
    stage.submit(1)
    assert stage.holds() == [1]
    return stage, session


def test_what_has_not_begun_in_time_is_dropped_and_has_failed() -> None:
    stage, session = busy_stage()
    submit(stage, 3)
    stage.submit(1)
    assert stage.broker.next_deadline(stage.now) == 5.0
    stage.wait(4.9)
    assert expired(stage) == []

    stage.wait(0.2)
    assert stage.heard(CLIENT, m.Expired) == [m.Expired(1, [1, 2, 3], 5.0, "late")]
    assert (session.queued, session.failed, session.cancelled) == (1, 3, 0)
    assert not stage.broker.expiring
    stage.finish(1)
    assert stage.held() == [[(4, 1)]]


def test_the_time_in_the_client_counts() -> None:
    stage, _ = busy_stage()
    submit(stage, 1, deadline=5.0, age=4.0)
    stage.wait(1.1)
    assert expired(stage) == [1]
    submit(stage, 1, deadline=5.0, age=6.0)
    assert expired(stage) == [2], "it came too late"


def test_what_has_begun_may_go_on() -> None:
    stage = Stage(executors=1)
    session = stage.open()
    submit(stage, 1)
    stage.wait(6.0)
    assert stage.heard(FIRST, m.Drop) == [m.Drop(session.number, [0])]
    stage.say(FIRST, m.Retracted(session.number, []))
    assert stage.heard(CLIENT, m.Cancelled) == []
    stage.wait(60.0)
    assert stage.heard(WORKER, m.Kill) == []
    stage.finish(1)
    assert (session.succeed, session.failed, session.late, session.unwanted) == (1, 0, {}, {})


def test_what_an_executor_holds_and_has_not_begun_is_asked_back() -> None:
    stage = Stage(executors=1)
    session = stage.open()
    submit(stage, 1)
    stage.finish(1)
    submit(stage, 3)
    assert stage.holds() == [3]
    stage.wait(6.0)
    assert stage.heard(FIRST, m.Drop) == [m.Drop(1, [1, 2, 3])]
    number = stage.executor(1).held[0].function.number
    stage.say(FIRST, m.Retracted(session.number, [m.Slice(number, 2, 2, 1)]))
    assert expired(stage) == [2, 3]
    assert stage.heard(CLIENT, m.Cancelled) == []


@pytest.mark.parametrize("how", ["an error", "a death"])
def test_no_attempt_begins_later(how: str) -> None:
    stage = Stage(executors=1)
    session = stage.open()
    submit(stage, 1, retries=5)
    stage.wait(6.0)
    stage.say(FIRST, m.Retracted(session.number, []))
    if how == "an error":
        stage.retry(1)
    else:
        stage.dies(1, running=0, finished=0)
    assert expired(stage) == [0]
    assert (session.waiting, session.failed) == (0, 1)


def test_a_retry_that_waits_and_a_task_that_needs_others_are_dropped_too() -> None:
    stage = Stage(executors=1)
    session = stage.open()
    submit(stage, 1, retries=5)
    stage.retry(1, 100.0)
    stage.submit(1)
    stage.say(CLIENT, m.Submit(1, [], [], [m.Slice(7, 2, 1, 1)], [b""], [], needs=[0, 1, 1], ages=[0.0]))
    stage.submit(1, needs=[0, 1, 2])
    assert (len(session.delayed), len(session.blocked)) == (1, 2)
    stage.wait(6.0)
    assert expired(stage) == [0, 2]
    assert stage.heard(CLIENT, m.Unmet) == [m.Unmet([1, 3, 1, 2])], "and what needs it fails"
    assert session.waiting == 0


def test_who_cancels_what_is_late_has_it_cancelled() -> None:
    stage = Stage(executors=1)
    session = stage.open()
    submit(stage, 1)
    stage.wait(6.0)
    stage.say(CLIENT, m.Cancel(1, [0], True))
    stage.say(FIRST, m.Interrupted(session.number, 0, 1))
    assert [message.indices for message in stage.heard(CLIENT, m.Cancelled)] == [[0]]
    assert (session.cancelled, session.failed) == (1, 0)


def test_what_was_cancelled_before_it_was_late_is_cancelled() -> None:
    stage = Stage(executors=1)
    session = stage.open()
    submit(stage, 1)
    stage.say(CLIENT, m.Cancel(1, [0], True))
    stage.wait(6.0)
    stage.say(FIRST, m.Interrupted(session.number, 0, 1))
    assert expired(stage) == []
    assert [message.indices for message in stage.heard(CLIENT, m.Cancelled)] == [[0]]


def test_a_controller_that_wanted_it_cancelled_is_answered() -> None:
    stage = Stage(executors=1)
    session = stage.open()
    submit(stage, 1)
    stage.finish(1)
    submit(stage, 2)
    stage.say(OTHER, m.CancelTask(1, "s1", 2, "boss"))
    stage.wait(6.0)
    number = stage.executor(1).held[0].function.number
    stage.say(FIRST, m.Retracted(session.number, [m.Slice(number, 2, 1, 1)]))
    assert expired(stage) == [2]
    stage.say(FIRST, m.Retracted(session.number, []))
    assert [message.outcome for message in stage.heard(OTHER, m.Done)] == [1]


def test_a_session_that_ends_forgets_them() -> None:
    stage, _ = busy_stage()
    submit(stage, 3)
    stage.say(CLIENT, m.Close(1))
    stage.say(FIRST, m.Retracted(1, []))
    stage.finish(1)
    assert stage.broker.next_deadline(stage.now) is None
    assert not stage.broker.expiring


def test_those_that_have_ended_are_not_remembered_for_ever() -> None:
    stage = Stage(executors=1)
    session = stage.open()
    for _ in range(20 * LEAST_DEADLINES):
        submit(stage, 1, deadline=1e6)
        stage.finish(1)
    assert len(session.deadlines) <= LEAST_DEADLINES
    stage.submit(1)
    for _ in range(4 * LEAST_DEADLINES):
        submit(stage, 1, deadline=1e6)
    assert len(session.deadlines) >= 4 * LEAST_DEADLINES, "these still wait"
    stage.wait(1e6 + 1)
    assert len(expired(stage)) + session.held == 4 * LEAST_DEADLINES + 1


def test_ages_that_do_not_fit_are_refused() -> None:
    stage = Stage(executors=1)
    stage.open()
    submit = m.Submit(1, [m.NewFunction(1, b"f")], [], [m.Slice(1, 0, 1, 1)], [b""], [], ages=[1.0, 2.0])
    with pytest.raises(ProtocolError, match="one age"):
        stage.say(CLIENT, submit)


# --- the client


def test_the_client_tells_how_long_tasks_have_waited_in_it_those_of_one_age_together() -> None:
    calls, futures = calls_with([b"x"] * 6, [1, 2, 2, 2, 2, 1])
    link = link_up()
    for _, function, _ in calls.outbox:
        if function.number == 2:
            function.options = m.Options(deadline=10.0)
    for future, when in zip(futures, (0.0, 3.0, 3.05, 4.0, 4.0, 0.0), strict=True):
        future.submitted = when
    assert calls.stage(link, 100, tell, 5.0)
    message = submits(link)[0]
    assert [(part.function, part.first, part.count) for part in message.slices] == [
        (1, 0, 1), (2, 1, 2), (2, 3, 2), (1, 5, 1)
    ]  # fmt: skip
    assert message.ages == [0.0, 2.0, 1.0, 0.0]


def test_where_no_function_has_a_deadline_nothing_is_told() -> None:
    calls, _ = calls_with([b"x"] * 3)
    link = link_up()
    calls.outbox[0][1].options = m.Options(retries=1)
    assert calls.stage(link, 100, tell, 5.0)
    assert submits(link)[0].ages == []


def test_a_future_that_is_too_late_says_what_and_when() -> None:
    calls, futures = calls_with([b"x"] * 2)
    assert isinstance(calls.outbox[0][1], Name)
    calls.stage(link_up(), 100, tell, 0.0)
    calls.on_expired(m.Expired(1, [1], 2.5, "f"), tell)
    state, form, error = futures[1].outcome
    assert (state, form) == (caller.FINISHED, caller.ERROR)
    assert isinstance(error, DeadlinePassed)
    assert (error.task_id, error.name, error.seconds) == ("s/1", "f", 2.5)
    assert str(error).startswith("task s/1 (f) did not begin within 2.5 s of its submit")
    calls.check()
