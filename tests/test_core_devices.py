"""Devices: each executor of a session with `gpu=` sees its own, and a process never sees others."""

from __future__ import annotations

import pytest

from flamezmq.client.reasons import sentences
from flamezmq.core import devices, explain
from flamezmq.core.members import Session
from flamezmq.wire import messages as m
from tests.core_stage import CLIENT, FIRST, WORKER, Stage


def node(executors: int, *names: str) -> Stage:
    """A node with these devices; its executors are fresh."""
    stage = Stage()
    stage.lose(WORKER)
    stage.say(WORKER, m.Register("node", "token", 1, 8.0, 1 << 30, executors, len(names), (), tuple(names)))
    for number in range(1, executors + 1):
        stage.ready(number)
    return stage


def gpu(amount: float) -> tuple[m.Resource, ...]:
    return (m.Resource("gpu", amount),)


def seen(stage: Stage) -> dict[int, tuple[str, ...]]:
    """What executors were told in the last turn, by number."""
    return {peer - FIRST + 1: word.devices for peer, word in stage.said if type(word) is m.Bind}


def told_to_exit(stage: Stage) -> list[int]:
    return [peer - FIRST + 1 for peer, word in stage.said if type(word) is m.Exit]


def overview(stage: Stage, alias: int) -> m.Why:
    session = stage.broker.clients[CLIENT].sessions[alias]
    return explain.of_session(stage.broker, session, stage.now)


def close(stage: Stage, alias: int = 1) -> None:
    stage.say(CLIENT, m.Close(alias))


def test_each_executor_of_a_session_sees_a_device_of_its_own() -> None:
    stage = node(4, "GPU-a", "GPU-b")
    stage.open(resources=gpu(1.0))
    stage.submit(9)
    assert sorted(seen(stage).values()) == [("GPU-a",), ("GPU-b",)]
    assert stage.broker.scheduler.idle == 2, "there are no more devices"


def actor(stage: Stage, alias: int, amount: float) -> Session:
    session = stage.open(alias, initializer=b"make", restarts=1, max_retries=0, resources=gpu(amount))
    stage.submit(1, alias=alias)
    return session


def test_an_actor_keeps_its_device_until_it_ends() -> None:
    stage = node(3, "a", "b")
    first, second = actor(stage, 1, 1.0), actor(stage, 2, 1.0)
    assert seen(stage) == {2: ("b",)}
    stage.open(3, resources=gpu(1.0))
    stage.submit(1, alias=3)
    assert seen(stage) == {}
    assert "use it for others" in sentences(overview(stage, 3))
    third = actor(stage, 4, 1.0)
    assert not third.executors
    assert "use it for others" in sentences(overview(stage, 4))

    (executor,) = first.executors.values()
    stage.finish(executor.number)
    close(stage, 1)
    assert list(seen(stage).values()) == [("a",)], "one that has waited has it"
    assert len(second.executors) == 1


def test_an_actor_that_starts_again_gets_a_device_again() -> None:
    stage = node(2, "a")
    session = actor(stage, 1, 1.0)
    assert seen(stage) == {2: ("a",)}
    stage.dies(2, running=0, finished=0)
    stage.submit(1, alias=1)
    assert seen(stage) == {1: ("a",)}
    assert list(session.executors) == [FIRST]


def test_an_actor_with_a_device_takes_no_core_from_the_tasks() -> None:
    stage = node(2, "a")
    actor(stage, 1, 1.0)
    stage.ready(3)
    stage.open(2)
    stage.submit(8, alias=2)
    assert stage.holds() == [1, 1, 1]


def test_an_actor_that_asks_for_cores_has_them() -> None:
    stage = node(2, "a")  # of 8 cores
    stage.open(1, initializer=b"make", restarts=0, resources=(m.Resource("cpu", 5.0),))
    stage.submit(1, alias=1)
    stage.ready(3)
    stage.open(2)
    stage.submit(8, alias=2)
    assert sorted(stage.holds()) == [0, 0, 1], "3 cores are left, and an executor has 4"


def test_an_actor_gets_an_executor_of_the_node_that_has_devices_whoever_idles_elsewhere() -> None:
    stage = node(1, "a")
    stage.open(9)
    stage.submit(1, alias=9)
    stage.say(WORKER + 1, m.Register("plain", "plain", 1, 8.0, 1 << 30, 1))
    stage.ready(5, token="plain")
    session = actor(stage, 1, 1.0)
    stage.wait(0.1)
    assert stage.heard(WORKER, m.Target) == [m.Target(2)]
    assert stage.heard(WORKER + 1, m.Target) == []

    stage.ready(2)
    assert list(session.executors) == [FIRST + 1]


def test_who_asks_for_two_sees_two_and_who_asks_for_none_is_told_nothing() -> None:
    stage = node(4, "0", "1", "2")
    stage.open(resources=gpu(2.0))
    stage.submit(1)
    assert list(seen(stage).values()) == [("0", "1")]
    stage.open(2)
    stage.submit(1, alias=2)
    assert list(seen(stage).values()) == [()]


def test_fractions_share_a_device_until_it_is_full() -> None:
    stage = node(4, "0", "1")
    stage.open(resources=gpu(0.5))
    stage.submit(9)
    assert sorted(seen(stage).values()) == [("0",), ("0",), ("1",), ("1",)]


def test_a_process_keeps_its_devices_for_the_next_session_that_asks_for_as_much() -> None:
    stage = node(1, "0", "1")
    stage.open(resources=gpu(1.0))
    stage.submit(1)
    stage.finish(1)
    close(stage)
    stage.open(2, resources=gpu(1.0))
    stage.submit(1, alias=2)
    assert seen(stage) == {1: ("0",)}
    assert not told_to_exit(stage)


@pytest.mark.parametrize(("first", "second"), [((), gpu(1.0)), (gpu(1.0), ()), (gpu(1.0), gpu(2.0))])
def test_a_process_that_has_seen_other_devices_is_replaced(
    first: tuple[m.Resource, ...], second: tuple[m.Resource, ...]
) -> None:
    stage = node(1, "0", "1")
    stage.open(resources=first)
    stage.submit(1)
    stage.finish(1)
    close(stage)
    stage.open(2, resources=second)
    stage.submit(1, alias=2)
    assert told_to_exit(stage) == [1]
    assert not seen(stage)
    stage.ready(2)
    assert list(seen(stage)) == [2]


def test_devices_of_a_process_that_serves_nobody_go_to_who_needs_them() -> None:
    stage = node(2, "0", "1")
    stage.open(resources=gpu(1.0), max_executors=1)
    stage.submit(1)
    (holder,) = seen(stage)
    stage.finish(holder)
    close(stage)
    stage.open(2, resources=gpu(2.0))
    stage.submit(1, alias=2)
    other = 3 - holder
    assert seen(stage) == {other: ("0", "1")}
    assert told_to_exit(stage) == [holder], "it may still use what it had"


def test_devices_of_the_dead_are_free() -> None:
    stage = node(1, "0")
    stage.open(resources=gpu(1.0))
    stage.submit(2)
    stage.dies(1, running=0)
    stage.ready(2)
    assert seen(stage) == {2: ("0",)}


def test_a_worker_that_does_not_know_its_devices_leaves_them_to_the_task() -> None:
    stage = node(1)
    stage.say(WORKER, m.Register("node", "token", 1, 8.0, 1 << 30, 1, 2))
    stage.ready(5)
    stage.open(resources=gpu(1.0))
    stage.submit(1)
    assert list(seen(stage).values()) == [()]


def test_a_device_with_two_users_is_found_by_the_check() -> None:
    stage = node(2, "0", "1")
    stage.open(resources=gpu(1.0))
    stage.submit(2)
    for executor in stage.broker.executors.values():
        executor.devices = ("0",)
    with pytest.raises(AssertionError, match="two users"):
        devices.check(stage.broker)


def test_one_that_was_told_of_no_device_yet_has_none_when_it_is_free_again() -> None:
    stage = node(1, "0")
    session = stage.open(resources=gpu(1.0))
    stage.broker.scheduler.want(session.number, 1)  # what it wanted it for is gone by now
    for _ in range(3):
        stage.turn()
        if stage.executor(1).session is None:
            assert stage.executor(1).devices == ()
            return
        stage.broker.scheduler.want(session.number, 0)
        stage.broker.fed[FIRST] = stage.executor(1)
    raise AssertionError("it was not released")
