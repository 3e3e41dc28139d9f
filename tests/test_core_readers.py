"""Streams that wait for their readers: how many may, and who goes on; the broker alone."""

from __future__ import annotations

from flamezmq.wire import messages as m
from tests.core_stage import FIRST, OTHER, WORKER, Stage


def held_back(executors: int, streams: int, tasks: int) -> Stage:
    """So many streams of session s1 wait for their readers; each had its executor, or a spare one."""
    stage = Stage(executors)
    stage.open()
    stage.submit(tasks)
    for number in range(1, streams + 1):
        if number > executors:
            stage.ready(number)
        stage.streams(number)
        stage.wait(0.05)
    return stage


def test_no_more_streams_begin_when_two_for_each_executor_wait_and_all_else_goes_on() -> None:
    stage = held_back(executors=2, streams=4, tasks=9)
    assert stage.broker.readers.full
    stage.ready(5)
    assert stage.executor(5).session is None, "five more are queued, but would stream as the others do"

    other = stage.open(alias=2, client=OTHER)
    stage.submit(3, alias=2, client=OTHER)
    assert stage.executor(5).session is other


def test_each_stream_that_waits_has_a_spare_executor_that_serves_the_others() -> None:
    stage = held_back(executors=2, streams=4, tasks=9)
    stage.open(alias=2, client=OTHER)
    stage.submit(3, alias=2, client=OTHER)
    stage.wait(0.05)
    assert stage.broker.workers[WORKER].spare == 4


def test_streams_go_on_to_begin_when_one_is_read() -> None:
    stage = held_back(executors=1, streams=2, tasks=9)
    stage.ready(3)
    assert stage.holds() == [1, 1, 0]

    stage.reads_on(1)
    assert not stage.broker.readers.full
    assert sum(stage.holds()) >= 3


def test_streams_go_on_to_begin_when_an_executor_dies_or_a_node_comes() -> None:
    stage = held_back(executors=1, streams=2, tasks=9)
    stage.dies(2, running=1)
    assert not stage.broker.readers.full

    stage = held_back(executors=1, streams=2, tasks=9)
    stage.say(6, m.Register("another", "more", 2, 2.0, 1 << 30, 1))
    assert not stage.broker.readers.full


def test_a_function_that_never_streamed_is_handed_out_whatever_the_streams_do() -> None:
    stage = held_back(executors=1, streams=2, tasks=2)
    stage.ready(3)
    stage.submit(1, function=2)
    assert stage.executor(3).tasks == 1


def test_what_waits_for_tasks_of_its_own_does_not_keep_streams_from_beginning() -> None:
    stage = Stage(1)
    session = stage.open()
    stage.submit(9)
    stage.streams(1)
    stage.wait(0.05)
    stage.ready(2)
    stage.say(FIRST + 1, m.Waiting(session.number, True))
    assert not stage.broker.readers.full


def test_a_stream_of_an_actor_is_not_kept_from_beginning_for_it_has_its_own_process() -> None:
    stage = held_back(executors=1, streams=2, tasks=2)
    actor = stage.open(7, initializer=b"make", restarts=0)
    stage.ready(3)
    stage.submit(1, function=7, alias=7)
    stage.streams(3)
    assert list(actor.executors) == [FIRST + 2]

    stage.submit(1, function=7, alias=7)
    stage.finish(3, seconds=1.0, count=1)
    assert stage.holds() == [1, 1, 1]
