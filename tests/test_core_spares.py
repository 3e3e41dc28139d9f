"""Executors whose task waits for its own tasks, and spare ones in their place: the broker alone."""

from __future__ import annotations

from flamezmq.core import departures, spares
from flamezmq.wire import messages as m
from tests.core_stage import CLIENT, FIRST, OTHER, WORKER, Stage


def waiting(stage: Stage, number: int, waits: bool = True) -> None:
    session = stage.executor(number).session
    assert session is not None
    stage.say(FIRST + number - 1, m.Waiting(session.number, waits))


def busy(stage: Stage) -> int:
    """The one executor that holds tasks."""
    (number,) = (executor.number for executor in stage.broker.executors.values() if executor.tasks)
    return number


def test_an_executor_that_waits_gets_nothing_more_and_gives_back_what_has_not_begun() -> None:
    stage = Stage(1)
    stage.open()
    stage.teach(1e-3)
    stage.submit(10)
    assert stage.holds() == [10]

    waiting(stage, 1)
    assert stage.heard(FIRST, m.Retract) == [m.Retract(1, 1)]
    stage.say(FIRST, m.Retracted(1, [m.Slice(1, 2, 9, 1)]))
    stage.submit(5)
    assert stage.holds() == [1]

    waiting(stage, 1, False)
    assert stage.holds() == [10]


def test_a_long_wait_brings_a_spare_executor_and_a_long_quiet_sends_one_away() -> None:
    stage = Stage(1)
    stage.open()
    stage.submit(2)
    waiting(stage, 1)
    assert stage.heard(WORKER, m.Target) == []

    due = stage.broker.next_deadline(stage.now)
    assert due is not None
    stage.now = due
    stage.turn()
    assert stage.heard(WORKER, m.Target) == [m.Target(2)]
    stage.ready(2)
    assert stage.holds() == [1, 1], "the spare one has what nobody else could run"

    stage.finish(2)
    waiting(stage, 1, False)
    stage.finish(1)
    assert stage.heard(WORKER, m.Target) == []
    due = stage.broker.next_deadline(stage.now)
    assert due is not None
    assert due > stage.now + spares.KEEP_SECONDS / 2
    stage.now = due
    stage.turn()
    assert stage.heard(WORKER, m.Target) == [m.Target(1)]
    gone = [peer for peer, message in stage.said if isinstance(message, m.Exit)]
    assert len(gone) == 1
    stage.dies(gone[0] - FIRST + 1, finished=1, signal="", expected=True)
    assert len(stage.broker.executors) == 1
    assert stage.broker.next_deadline(stage.now) is None


def test_there_are_at_most_as_many_spare_executors_as_others() -> None:
    stage = Stage(2)
    stage.open()
    stage.submit(20)
    for number in range(1, 5):
        if number > 2:
            stage.ready(number)
        waiting(stage, number)
        stage.wait(0.05)
    assert stage.broker.workers[WORKER].spare == 2


def test_nobody_is_forked_for_a_wait_while_another_executor_is_free() -> None:
    stage = Stage(2)
    stage.open()
    stage.submit(1)
    waiting(stage, busy(stage))
    stage.wait(1.0)
    assert stage.broker.workers[WORKER].spare == 0


def test_a_session_whose_executor_waits_gets_another_one_from_who_has_more() -> None:
    stage = Stage(2)
    stage.open(1)
    stage.open(1, OTHER)
    stage.submit(1)
    waits = busy(stage)
    waiting(stage, waits)
    stage.submit(4, client=OTHER)
    stage.submit(4)
    other = 3 - waits
    for _ in range(20):
        if stage.executor(other).tasks:
            stage.finish(other, 1e-3)
        stage.wait(0.01)
    assert stage.executor(waits).paused is not None
    assert stage.executor(waits).tasks == 1
    assert [s.succeed for s in stage.broker.sessions.values()] == [4, 4]


def test_the_tasks_of_a_dead_task_are_cancelled() -> None:
    stage = Stage(2)
    stage.open()
    stage.submit(1)
    number = busy(stage)
    nested = stage.open(1, OTHER, within=f"token/{number}")
    stage.submit(5, client=OTHER)

    stage.dies(number, running=0)

    assert nested.closed
    assert nested.cancelled == 4
    assert nested.held == 1
    stage.wait(stage.broker.limits.orphan_seconds + 0.1)
    assert stage.heard(WORKER, m.Kill) == [m.Kill(3 - number)], "the one that runs on gets no more time"
    assert not stage.broker.sessions[1].closed


def test_a_client_inside_a_task_hears_which_of_its_tasks_were_taken() -> None:
    stage = Stage(1)
    stage.open(1, OTHER, within="token/9")
    stage.submit(1, client=OTHER)
    assert stage.heard(OTHER, m.Taken) == [m.Taken(1, [0])]
    stage.open()
    stage.submit(1)
    assert stage.heard(CLIENT, m.Taken) == []


def test_an_executor_that_dies_while_it_waits_is_mourned_like_any_other() -> None:
    stage = Stage(1)
    session = stage.open()
    stage.submit(2)
    waiting(stage, 1)
    stage.dies(1, running=0)
    stage.ready(2)
    assert not stage.broker.paused
    assert session.held + session.queued == 2


def test_a_spare_executor_that_idles_while_its_worker_leaves_keeps_nobody_awake() -> None:
    stage = Stage(1)
    stage.open()
    stage.submit(2)
    waiting(stage, 1)
    stage.wait(0.05)
    stage.ready(2)
    stage.finish(2)
    waiting(stage, 1, False)
    assert stage.broker.workers[WORKER].idle_since is not None

    stage.say(WORKER, m.Leave())
    stage.wait(2 * spares.KEEP_SECONDS)
    due = stage.broker.next_deadline(stage.now)
    assert due is None or due > stage.now


def test_a_router_that_drains_asks_for_no_spare_executors_and_sleeps() -> None:
    stage = Stage(1)
    stage.open()
    stage.submit(2)
    waiting(stage, 1)
    departures.drain(stage.broker, [])
    stage.wait(0.05)
    assert stage.heard(WORKER, m.Target) == []
    due = stage.broker.next_deadline(stage.now)
    assert due is None or due > stage.now + 0.05


def test_a_pause_ends_with_its_task_even_if_nobody_says_so() -> None:
    stage = Stage(1)
    stage.open()
    stage.submit(1)
    waiting(stage, 1)
    stage.finish(1)
    assert not stage.broker.paused
    stage.submit(1)
    waiting(stage, 1)
    assert list(stage.broker.paused) == [FIRST]


def test_executors_that_wait_are_not_taken_for_ones_that_will_be_free_soon() -> None:
    stage = Stage(4)
    stage.open(1)
    stage.open(2)
    stage.submit(50, alias=1)
    for number in (1, 2, 3):
        waiting(stage, number)
    stage.submit(5, alias=2)
    stage.wait(1.0)
    assert stage.executor(4).leaving, "the other session gets its turn"
    stage.finish(4, seconds=1.0)
    session = stage.executor(4).session
    assert session is not None
    assert session.alias == 2
