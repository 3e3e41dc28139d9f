"""Events: what has happened to a session, as it is told to those who ask."""

from __future__ import annotations

import pytest

from flamezmq.client.happened import event_of, sentence
from flamezmq.core.events import MOST_EVENTS
from flamezmq.wire import messages as m
from tests.core_stage import CLIENT, FIRST, OTHER, Stage

BOSS = "the boss"


def events(stage: Stage, after: int = 0, id: str = "s1") -> list[m.EventRow]:
    stage.say(OTHER, m.Ask(1, 6, id, after=after))
    (answer,) = stage.heard(OTHER, m.Answer)
    assert not answer.error
    return list(answer.events)


def kinds(stage: Stage) -> list[str]:
    return [row.kind for row in events(stage)]


def told(stage: Stage, kind: str) -> str:
    """The only event of this kind, in words."""
    (row,) = [row for row in events(stage) if row.kind == kind]
    return sentence(row)


def test_a_session_is_opened_served_and_closed() -> None:
    stage = Stage(executors=2)
    stage.open(forward_output=False)
    stage.submit(2)
    stage.wait(2.0)
    stage.finish(1)
    stage.finish(2)
    stage.turn()
    stage.wait(1.0)
    stage.say(CLIENT, m.Close(1))

    opened, bound, closed = events(stage)
    assert (opened.number, opened.age, sentence(opened)) == (1, 3.0, "opened by a client on host")
    assert (bound.number, bound.count, bound.most, bound.left, bound.lasted) == (2, 2, 2, 0, 2.0)
    assert sentence(bound) == (
        "2 times an executor was bound, node/2 first, 2 at a time at most: in the end none serves it"
    )
    assert (closed.number, closed.age, sentence(closed)) == (3, 0.0, "closed by its client")


def test_executors_that_come_and_go_are_one_row_until_something_else_happens() -> None:
    stage = Stage(executors=1)
    stage.open()
    for _ in range(100):
        stage.submit(1)
        stage.finish(1)
        stage.wait(1.5)
    assert kinds(stage) == ["opened", "bound"]

    stage.say(OTHER, m.ChangeSession(2, "s1", BOSS, True))
    stage.say(OTHER, m.ChangeSession(3, "s1", BOSS, False))
    stage.submit(1)

    assert kinds(stage) == ["opened", "bound", "suspended", "resumed", "bound"]
    assert (told(stage, "suspended"), told(stage, "resumed")) == (
        "suspended by the boss",
        "resumed by the boss",
    )


def test_a_death_is_told_in_a_line() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.submit(1)

    stage.dies(1, running=0, oom=True, rss_bytes=3 << 30, stderr=("first", "Killed", ""))

    assert told(stage, "executor died") == (
        "executor node/1 died while it ran task 0: SIGKILL, out of memory, 3072 MiB in use: Killed"
    )


def test_an_executor_that_was_to_end_has_not_died() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.submit(1)
    stage.dies(1, running=0, expected=True)
    assert "executor died" not in kinds(stage)


def test_an_executor_that_nobody_saw_die_is_told_by_its_node() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.submit(1)
    stage.lose(FIRST)
    assert told(stage, "executor died") == (
        "executor node/1 died: its node node is gone, or can't be reached"
    )


def test_tasks_that_are_lost_run_again_or_time_out_are_told() -> None:
    stage = Stage(executors=3)
    stage.open(max_retries=0)
    stage.submit(1)
    stage.submit(1, function=2, retries=2)
    stage.submit(1, function=3, timeout=5.0)
    running = {index: number for number in (1, 2, 3) for index, _ in stage.held()[number - 1]}

    stage.dies(running[0], running=0)
    assert told(stage, "task lost").startswith("task 0 is lost, its executor node/")
    stage.retry(running[1], 0.5)
    assert told(stage, "task retried") == "task 1 is to run again: attempt 2 in 0.5 s"
    stage.dies(running[2], running=2, expected=True, overdue=True)
    assert told(stage, "task timed out").endswith("task 2 had not kept to its timeout: after 5 s")


def test_what_happens_often_is_counted_for_a_second() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.submit(30, retries=100)
    for _ in range(10):
        stage.retry(1)
        stage.wait(0.3)
    rows = [row for row in events(stage) if row.kind == "task retried"]

    assert [row.count for row in rows] == [10]
    assert sentence(rows[0]).startswith("10 tasks are to run again, the last one ")
    assert event_of(rows[0]).seconds == pytest.approx(2.7)
    stage.wait(1.1)
    stage.retry(1)
    assert len([row for row in events(stage) if row.kind == "task retried"]) == 2


def test_a_client_that_does_not_take_its_results_is_told_of() -> None:
    stage = Stage()
    stage.open()
    for held_back in (True, True, False):
        stage.broker.on_backlog(CLIENT, held_back)
    assert kinds(stage) == ["opened", "held back", "goes on"]


def test_a_failed_initializer_is_told_with_its_error() -> None:
    stage = Stage(executors=1)
    stage.open(initializer=b"i", forward_output=False)
    stage.submit(1)
    stage.say(FIRST, m.Broken(1, "node/1", "ValueError: no", "traceback"))

    assert told(stage, "initializer failed") == "the initializer failed on node/1: ValueError: no"
    assert told(stage, "closed") == "its initializer failed: ValueError: no"


def test_only_the_last_ones_are_kept_and_numbers_say_that_some_are_missing() -> None:
    stage = Stage()
    stage.open()
    for number in range(200):
        stage.say(OTHER, m.ChangeSession(2, "s1", BOSS, not number % 2))
        stage.wait(0.1)

    rows = events(stage)
    assert len(rows) == 1 + MOST_EVENTS
    assert [row.number for row in rows] == [1, *range(202 - MOST_EVENTS, 202)]
    assert [row.number for row in events(stage, after=199)] == [200, 201]


def test_a_session_that_is_not_there_is_named() -> None:
    stage = Stage()
    stage.say(OTHER, m.Ask(1, 6, "nobody"))
    (answer,) = stage.heard(OTHER, m.Answer)
    assert "nobody" in answer.error


def test_sessions_of_tasks_keep_none() -> None:
    stage = Stage(executors=1)
    session = stage.open(within="token/1")
    stage.submit(1)
    assert session.events is None


def test_an_event_of_a_newer_router_is_shown_as_it_is() -> None:
    assert sentence(m.EventRow(5, 0.0, "sublimated", 1, 0.0, "by heat")) == "sublimated by heat"
