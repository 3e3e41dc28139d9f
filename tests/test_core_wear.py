"""Initializers, tasks per process, and sessions that are broken: what the broker makes of them."""

from __future__ import annotations

import pytest

from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m
from tests.core_stage import CLIENT, FIRST, WORKER, Stage

#: So long that each task goes to an executor of its own.
LONG = 0.01


def bindings(stage: Stage, number: int = 1) -> list[tuple[int, bytes]]:
    return [(bind.session, bind.initializer) for bind in stage.heard(FIRST + number - 1, m.Bind)]


def exits(stage: Stage) -> list[int]:
    """Numbers of the executors that were told to exit in the last turn."""
    return [peer - FIRST + 1 for peer, message in stage.said if type(message) is m.Exit]


def broken(stage: Stage, number: int, session: int) -> None:
    stage.say(FIRST + number - 1, m.Broken(session, f"node/{number}", "ValueError: no", "Traceback ..."))


# --- initializers


def test_each_process_gets_the_initializer_once_however_often_it_is_bound() -> None:
    stage = Stage(executors=2)
    first = stage.open(initializer=b"prepare")
    other = stage.open(alias=2)

    stage.submit(2)
    assert bindings(stage, 1) == bindings(stage, 2) == [(first.number, b"prepare")]
    stage.finish(1, LONG)
    stage.finish(2, LONG)
    stage.submit(2, alias=2)
    assert bindings(stage, 1) == bindings(stage, 2) == [(other.number, b"")]
    stage.finish(1, LONG)
    stage.finish(2, LONG)

    stage.submit(2)
    assert bindings(stage, 1) == bindings(stage, 2) == [(first.number, b"")]


def test_a_successor_gets_the_initializer_again() -> None:
    stage = Stage(executors=1)
    session = stage.open(initializer=b"prepare")
    stage.submit(1)

    stage.dies(1, running=0)
    stage.ready(2)

    assert bindings(stage, 2) == [(session.number, b"prepare")]


def test_the_task_before_which_an_initializer_kills_its_process_is_charged() -> None:
    stage = Stage(executors=1)
    stage.open(initializer=b"kill", max_retries=1)
    stage.submit(1)

    stage.dies(1, running=0)
    stage.ready(2)
    stage.dies(2, running=0)

    assert [lost.index for lost in stage.heard(CLIENT, m.Lost)] == [0], "else it would go on for ever"


# --- broken sessions


def test_a_broken_session_is_closed_and_the_client_is_told_why() -> None:
    stage = Stage(executors=2)
    session = stage.open(initializer=b"fail", forward_output=False)
    stage.submit(10)

    broken(stage, 1, session.number)

    assert stage.heard(CLIENT, m.Broken) == [m.Broken(1, "node/1", "ValueError: no", "Traceback ...")]
    assert stage.heard(CLIENT, m.Closed) == [m.Closed(1)]
    assert session.closed
    assert stage.heard(FIRST + 1, m.Retract), "what the others hold is asked back"
    assert exits(stage) == [1], "nobody knows what an initializer has left that failed half-way"


def test_what_a_broken_session_has_printed_comes_before_it_is_closed() -> None:
    stage = Stage(executors=1)
    session = stage.open(initializer=b"fail")
    stage.submit(1)

    broken(stage, 1, session.number)
    assert not stage.heard(CLIENT, m.Closed)
    stage.say(WORKER, m.Printed(1, 1, "no", 0))
    assert [output.text for output in stage.heard(CLIENT, m.Output)] == ["no"]
    stage.say(WORKER, m.Flushed(session.number))
    assert stage.heard(CLIENT, m.Closed)


def test_a_session_breaks_once_and_each_process_that_says_so_is_replaced() -> None:
    stage = Stage(executors=2)
    session = stage.open(initializer=b"fail")
    stage.submit(2)

    broken(stage, 1, session.number)
    broken(stage, 2, session.number)

    assert not stage.heard(CLIENT, m.Broken)
    assert exits(stage) == [2]
    stage.say(FIRST + 1, m.Retracted(session.number, []))
    assert not stage.broker.sessions, "nothing of it is left"


def test_a_session_without_an_initializer_can_not_break() -> None:
    stage = Stage(executors=1)
    session = stage.open()
    stage.submit(1)
    with pytest.raises(ProtocolError, match="no initializer"):
        broken(stage, 1, session.number)
    assert not session.closed


def test_submits_to_a_broken_session_come_late_and_change_nothing() -> None:
    stage = Stage(executors=1)
    session = stage.open(initializer=b"fail")
    stage.submit(1)
    broken(stage, 1, session.number)
    state = stage.state()

    stage.say(CLIENT, m.Submit(1, [], [], [m.Slice(1, 1, 1, 1)], [b""], []))

    assert stage.state() == state


# --- tasks per process


def test_a_process_is_given_no_more_tasks_than_it_may_run_and_is_then_replaced() -> None:
    stage = Stage(executors=1)
    stage.open(max_tasks_per_child=3)
    stage.teach(1e-5)

    stage.submit(10)
    assert stage.holds() == [2]
    stage.finish(1, count=1)
    assert stage.holds() == [1], "it has had its three"
    assert exits(stage) == []
    stage.finish(1)

    assert exits(stage) == [1]
    assert stage.executor(1).session is None


def test_its_successor_goes_on_where_it_was() -> None:
    stage = Stage(executors=1)
    stage.open(max_tasks_per_child=1)
    stage.submit(3)
    stage.finish(1)

    stage.dies(1, finished=1, expected=True)
    stage.ready(2)

    assert stage.held() == [[(1, 1)]]


def test_what_was_taken_back_before_it_began_does_not_count() -> None:
    stage = Stage(executors=1)
    session = stage.open(max_tasks_per_child=3)
    stage.teach(1e-5)
    stage.submit(2)

    stage.say(CLIENT, m.Cancel(1, [2]))
    stage.say(FIRST, m.Retracted(session.number, [m.Slice(1, 2, 1, 1)]))
    stage.submit(5)

    assert stage.holds() == [2]


def test_tasks_of_other_sessions_do_not_count() -> None:
    stage = Stage(executors=1)
    stage.open(max_tasks_per_child=2)
    stage.open(alias=2)
    for _ in range(5):
        stage.submit(1, alias=2)
        stage.finish(1)

    stage.submit(1)
    stage.finish(1)
    assert exits(stage) == []
    stage.submit(1)
    stage.finish(1)
    assert exits(stage) == [1]


def test_a_session_that_is_over_is_not_remembered() -> None:
    stage = Stage(executors=1)
    stage.open(max_tasks_per_child=5, initializer=b"prepare")
    stage.submit(1)
    stage.finish(1)
    assert stage.executor(1).taken

    stage.say(CLIENT, m.Close(1))

    assert not stage.executor(1).taken


# --- limits


def test_a_session_is_served_by_no_more_executors_than_it_asks_for() -> None:
    stage = Stage(executors=3)
    session = stage.open(max_executors=2)

    stage.submit(10)

    assert sorted(stage.holds()) == [0, 1, 1]
    stage.finish(next(e.number for e in session.executors.values()), LONG)
    assert len(session.executors) == 2
