"""Actors: one process, calls in order, and what becomes of them when the process dies."""

from __future__ import annotations

from typing import Any

import pytest

from flamezmq.core.members import Session
from flamezmq.core.spares import KEEP_SECONDS
from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m
from tests.core_stage import CLIENT, FIRST, OTHER, WORKER, Stage

#: So long that each call goes out by itself.
LONG = 0.01


def open_actor(stage: Stage, alias: int = 1, restarts: int = 0, **spec: Any) -> Session:
    spec = {"max_retries": 0, "forward_output": False, **spec}
    return stage.open(alias, initializer=b"make", restarts=restarts, **spec)


def place(actor: Session) -> int:
    """Number of its executor."""
    (executor,) = actor.executors.values()
    return executor.number


def holds(stage: Stage, actor: Session) -> list[int]:
    return [index for index, _ in stage.tasks(stage.executor(place(actor)).held)]


def targets(stage: Stage) -> list[int]:
    return [message.executors for message in stage.heard(WORKER, m.Target)]


def exits(stage: Stage) -> list[int]:
    return [peer - FIRST + 1 for peer, message in stage.said if type(message) is m.Exit]


def died(stage: Stage) -> list[m.Broken]:
    return stage.heard(CLIENT, m.Broken)


# --- its process


def test_an_actor_keeps_its_executor_while_others_wait() -> None:
    stage = Stage(executors=1)
    actor = open_actor(stage)
    stage.submit(1)
    stage.finish(1)

    stage.open(2)
    stage.submit(5, alias=2)
    stage.wait(10.0)

    assert list(actor.executors) == [FIRST]
    assert stage.holds() == [0], "the tasks wait for another executor"


def test_another_executor_comes_in_the_place_of_an_actors() -> None:
    stage = Stage(executors=1)
    open_actor(stage)
    stage.submit(1)
    assert targets(stage) == [2]

    stage.ready(2)
    stage.open(2)
    stage.submit(1, alias=2)

    assert stage.held() == [[(0, 1)], [(0, 1)]]


def test_an_executor_that_is_quicker_than_its_worker_is_counted_when_that_comes() -> None:
    stage = Stage(executors=0)
    actor = open_actor(stage)
    stage.submit(1)
    stage.say(FIRST + 6, m.Ready("other", "other", 1, 7))
    assert list(actor.executors) == [FIRST + 6]

    stage.say(WORKER + 1, m.Register("other", "other", 1, 2.0, 1 << 30, 2))

    assert stage.heard(WORKER + 1, m.Target) == [m.Target(3)]


def test_an_actor_that_finds_no_executor_has_one_more_started() -> None:
    stage = Stage(executors=1)
    stage.open(2)
    stage.submit(1, alias=2)
    actor = open_actor(stage)
    stage.submit(1)
    assert not actor.executors

    stage.wait(0.1)
    assert targets(stage) == [2]
    stage.ready(2)

    assert list(actor.executors) == [FIRST + 1]
    assert targets(stage) == [], "the one that has come for it is the one that stands aside"
    assert stage.broker.workers[WORKER].actors == 1


def test_there_is_a_limit_and_who_is_above_it_waits_for_an_end() -> None:
    stage = Stage(executors=3, actors_per_worker=2)
    actors = [open_actor(stage, alias) for alias in (1, 2, 3)]
    for alias in (1, 2, 3):
        stage.submit(1, alias=alias)
    assert [len(actor.executors) for actor in actors] == [1, 1, 0]
    assert stage.broker.scheduler.idle == 1, "one is left for tasks"

    stage.finish(place(actors[0]))
    stage.say(CLIENT, m.Close(1))

    assert len(actors[2].executors) == 1


def test_those_that_wait_for_their_processes_count_under_the_limit_too() -> None:
    stage = Stage(executors=1, actors_per_worker=2)
    stage.open(9)
    stage.submit(1, alias=9)
    actors = [open_actor(stage, alias) for alias in (1, 2, 3, 4)]
    for alias in (1, 2, 3, 4):
        stage.submit(1, alias=alias)
    stage.wait(0.1)
    assert targets(stage) == [3], "no more are started than may live"

    for number in (2, 3, 4):
        stage.ready(number)
    assert [len(actor.executors) for actor in actors] == [1, 1, 0, 0]
    assert stage.broker.workers[WORKER].actors == 2

    stage.finish(place(actors[1]))
    stage.say(CLIENT, m.Close(2))
    assert [len(actor.executors) for actor in actors] == [1, 0, 1, 0], "the first that waits comes next"


def test_an_actor_that_is_closed_before_it_has_a_process_leaves_its_room_to_the_next() -> None:
    stage = Stage(executors=1, actors_per_worker=1)
    stage.open(9)
    stage.submit(1, alias=9)
    first, second = open_actor(stage, 1), open_actor(stage, 2)
    stage.submit(1, alias=1)
    stage.submit(1, alias=2)

    stage.say(CLIENT, m.Close(1))
    stage.wait(0.1)
    stage.ready(2)
    assert [len(actor.executors) for actor in (first, second)] == [0, 1]


def test_a_closed_actors_process_exits_and_nobody_comes_in_its_place() -> None:
    stage = Stage(executors=1)
    open_actor(stage)
    stage.submit(1)
    stage.ready(2)
    stage.finish(1)

    stage.say(CLIENT, m.Close(1))

    assert exits(stage) == [1]
    assert targets(stage) == [1]
    assert not stage.broker.sessions
    stage.dies(1, finished=1, expected=True)
    assert stage.holds() == [0]


def test_an_executor_that_was_forked_before_its_worker_heard_that_none_was_to_come_goes_again() -> None:
    stage = Stage(executors=1)
    open_actor(stage)
    stage.submit(1)
    stage.finish(1)
    stage.ready(2)
    stage.say(CLIENT, m.Close(1))
    assert (exits(stage), targets(stage)) == ([1], [1])

    stage.dies(1, finished=1, signal="", expected=True)
    stage.ready(3)  # its worker had not heard of the new target
    stage.wait(0.01)
    assert exits(stage) == []
    stage.wait(KEEP_SECONDS)
    assert len(exits(stage)) == 1
    assert targets(stage) == [], "that it knows by now"
    stage.wait(KEEP_SECONDS)
    assert exits(stage) == []
    assert stage.broker.next_deadline(stage.now) is None


def test_where_there_was_one_too_many_nobody_is_waited_for_in_the_place_of_one_that_is_replaced() -> None:
    stage = Stage(executors=1)
    open_actor(stage)
    stage.submit(1)
    stage.finish(1)
    stage.ready(2)
    stage.say(CLIENT, m.Close(1))
    stage.dies(1, finished=1, signal="", expected=True)
    stage.ready(3)  # its worker had not heard of the new target
    stage.open(alias=2, home="here")
    stage.submit(2, alias=2)
    for number in (2, 3):
        stage.finish(number)
    stage.open(alias=3, home="elsewhere", client=OTHER)
    stage.submit(2, alias=3, client=OTHER)
    assert exits(stage) == [2], "it has served another home"

    stage.dies(2, finished=1, signal="", expected=True)

    assert exits(stage) == [3], "so has this one, and nobody comes in the place of the other"
    stage.dies(3, finished=1, signal="", expected=True)
    stage.ready(4)
    assert stage.executor(4).tasks


def test_an_executor_that_comes_before_the_death_of_another_is_told_is_none_too_many() -> None:
    stage = Stage(executors=2)
    actor = open_actor(stage)
    stage.submit(1)
    number = place(actor)
    stage.finish(number)
    stage.ready(3)
    stage.say(CLIENT, m.Close(1))
    assert exits(stage) == [number]

    stage.ready(4)  # in the place of number 3, which has died
    assert stage.broker.spare, "there may be one too many"
    stage.dies(3, finished=0)
    for _ in range(3):
        stage.wait(KEEP_SECONDS)
        assert exits(stage) == []
    assert stage.broker.next_deadline(stage.now) is None


def test_a_call_that_runs_when_its_actor_is_closed_is_given_a_moment() -> None:
    stage = Stage(executors=1)
    open_actor(stage)
    stage.submit(1)

    stage.say(CLIENT, m.Close(1))
    assert not stage.heard(WORKER, m.Kill)
    stage.wait(2.0)

    assert [kill.number for kill in stage.heard(WORKER, m.Kill)] == [1]


def test_no_idle_executor_gets_what_an_actors_holds() -> None:
    stage = Stage(executors=2)
    actor = open_actor(stage)
    stage.teach(1e-4)
    stage.submit(5)
    assert holds(stage, actor) == [1, 2, 3, 4, 5]

    stage.wait(5.0)

    assert not [message for _, message in stage.said if type(message) is m.Retract]
    assert holds(stage, actor) == [1, 2, 3, 4, 5]


# --- order


def test_a_call_that_waits_for_a_value_holds_back_those_behind_it() -> None:
    stage = Stage(executors=2)
    other = stage.open(2)
    actor = open_actor(stage)
    stage.teach(1e-5)
    stage.submit(1, alias=2)

    stage.submit(3, needs=(1, 2, 0))
    assert holds(stage, actor) == [1]
    stage.finish(place(actor))
    stage.finish(place(other), outputs=[b"value"])

    assert holds(stage, actor) == [2, 3]


def test_those_behind_go_on_when_the_call_that_held_them_back_fails() -> None:
    stage = Stage(executors=2)
    other = stage.open(2)
    actor = open_actor(stage)
    stage.teach(1e-5)
    stage.submit(1, alias=2)
    stage.submit(2, needs=(0, 2, 0))
    assert holds(stage, actor) == []

    stage.finish(place(other), outputs=[b"error"], failed=[0])

    assert stage.heard(CLIENT, m.Unmet)
    assert holds(stage, actor) == [2]


def test_those_behind_go_on_when_the_call_that_held_them_back_is_cancelled() -> None:
    stage = Stage(executors=2)
    stage.open(2)
    actor = open_actor(stage)
    stage.teach(1e-5)
    stage.submit(1, alias=2)
    stage.submit(2, needs=(0, 2, 0))

    stage.say(CLIENT, m.Cancel(1, [1]))

    assert holds(stage, actor) == [2]


def test_values_that_come_in_any_order_change_nothing_of_the_order_of_calls() -> None:
    stage = Stage(executors=4)
    actor = open_actor(stage)
    stage.teach(LONG)
    stage.open(2)
    stage.submit(3, alias=2)
    stage.submit(6, needs=(0, 2, 0, 2, 2, 1, 4, 2, 2))
    holders = {i: e.number for e in stage.broker.executors.values() for i, _ in stage.tasks(e.held)}

    for index in (2, 0, 1):
        stage.finish(holders[index], LONG, outputs=[b"value"])

    ran = []
    while actor.queued or actor.held:
        ran += holds(stage, actor)
        stage.finish(place(actor), LONG)
    assert ran == sorted(set(ran)) == [1, 2, 3, 4, 5, 6]


def test_a_call_that_holds_back_others_gets_its_values_however_little_room_there_is() -> None:
    stage = Stage(executors=3, max_bytes=10)
    actor = open_actor(stage)
    stage.teach(LONG)
    other = stage.open(2)
    stage.submit(2, alias=2)
    first, second = (
        next(e.number for e in other.executors.values() if e.held[0].start == index) for index in (0, 1)
    )
    stage.submit(2, needs=(0, 2, 0, 1, 2, 1))
    stage.finish(second, LONG, outputs=[b"x" * 10])
    assert actor.queued == 1, "it waits behind the other one, and takes all the room"

    stage.finish(first, LONG, outputs=[b"x" * 10])
    assert [wanted.indices for wanted in stage.heard(CLIENT, m.Wanted)] == [[0]]
    stage.say(CLIENT, m.Supply(2, 0, False, [b"x" * 10], []))

    assert holds(stage, actor) == [1]


def test_an_actor_that_is_suspended_keeps_its_process_and_the_order_of_its_calls() -> None:
    stage = Stage(executors=2)
    actor = open_actor(stage)
    stage.teach(1e-5)
    stage.submit(3)
    number = place(actor)

    stage.say(OTHER, m.ChangeSession(1, "s1", "somebody", True))
    stage.say(OTHER, m.ChangeSession(2, "s1", "somebody", False))
    stage.submit(1)
    assert holds(stage, actor) == [1, 2, 3], "what comes back stands before what has come"
    back = [m.Slice(1, 2, 2, 1)]
    stage.say(FIRST + number - 1, m.Retracted(actor.number, back))

    assert place(actor) == number
    assert holds(stage, actor) == [1, 2, 3, 4]


# --- deaths


def test_an_actor_without_restarts_ends_with_its_process() -> None:
    stage = Stage(executors=1)
    actor = open_actor(stage)
    stage.teach(1e-5)
    stage.submit(3)

    stage.dies(1, running=1, finished=1)

    assert [lost.index for lost in stage.heard(CLIENT, m.Lost)] == [1], "that one has begun"
    (broken,) = died(stage)
    assert broken.died is not None
    assert broken.died.signal == "SIGKILL"
    assert stage.heard(CLIENT, m.Closed) == [m.Closed(1)]
    assert actor.closed


def test_the_death_of_an_idle_actor_is_told_at_once() -> None:
    stage = Stage(executors=1)
    open_actor(stage)
    stage.submit(1)
    stage.finish(1)

    stage.dies(1, finished=1)

    assert len(died(stage)) == 1


def test_what_had_not_begun_waits_for_the_next_instance() -> None:
    stage = Stage(executors=1)
    actor = open_actor(stage, restarts=1)
    stage.teach(1e-5)
    stage.submit(4)

    stage.dies(1, running=1, finished=1)
    assert [lost.index for lost in stage.heard(CLIENT, m.Lost)] == [1]
    assert not died(stage)
    stage.ready(2)

    assert holds(stage, actor) == [2, 3, 4]
    assert [bind.initializer for bind in stage.heard(FIRST + 1, m.Bind)] == [b"make"]


def test_calls_that_come_while_there_is_no_instance_run_behind_the_others() -> None:
    stage = Stage(executors=1)
    actor = open_actor(stage, restarts=1)
    stage.teach(LONG)
    stage.submit(2)
    stage.dies(1, running=1, finished=1)
    stage.submit(1)
    stage.ready(2)

    ran = []
    while actor.queued or actor.held:
        ran += [index for index, _ in stage.tasks(stage.executor(2).held)]
        stage.finish(2, LONG)

    assert ran == [2, 3]


def test_a_call_may_run_again_on_the_next_instance() -> None:
    stage = Stage(executors=1)
    open_actor(stage, restarts=1, max_retries=1)
    stage.teach(1e-5)
    stage.submit(2)

    stage.dies(1, running=1, finished=1)
    stage.ready(2)

    assert stage.held() == [[(1, 2), (2, 1)]]


def test_restarts_come_to_an_end() -> None:
    stage = Stage(executors=1)
    open_actor(stage, restarts=2)
    for number in (1, 2):
        stage.submit(1)
        stage.dies(number, running=number - 1)
        assert not died(stage)
        stage.ready(number + 1)
    stage.submit(1)

    stage.dies(3, running=2)

    assert len(died(stage)) == 1


def test_the_executor_that_comes_after_a_death_goes_when_nobody_needs_it() -> None:
    stage = Stage(executors=1)
    open_actor(stage)
    stage.submit(1)
    stage.ready(2)

    stage.dies(1, running=0)
    stage.ready(3)
    stage.wait(0.1)
    stage.wait(2.0)

    assert targets(stage) == [1]
    assert len(exits(stage)) == 1


def test_an_executor_that_dies_before_it_has_an_instance_costs_nothing() -> None:
    stage = Stage(executors=1)
    actor = open_actor(stage)
    stage.open(2)
    stage.submit(1, alias=2)
    stage.submit(2, needs=(0, 2, 0))
    stage.ready(2)
    assert place(actor) == 2
    assert holds(stage, actor) == []

    stage.dies(2)

    assert not died(stage)


def test_an_executor_that_is_worn_before_it_has_an_instance_makes_place_for_another() -> None:
    stage = Stage(executors=2)
    actor = open_actor(stage)
    stage.open(2)
    stage.submit(1, alias=2)
    stage.submit(2, needs=(0, 2, 0))
    stage.ready(3)
    first = place(actor)

    stage.executor(first).worn = True  # what it served before has not gone in order
    stage.broker.fed[FIRST + first - 1] = stage.executor(first)
    stage.turn()

    assert exits(stage) == [first]
    assert place(actor) != first
    assert not died(stage)


def test_an_actor_that_lived_with_a_worker_dies_with_it() -> None:
    stage = Stage(executors=1)
    open_actor(stage)
    stage.submit(1)

    stage.lose(WORKER)

    (broken,) = died(stage)
    assert broken.died is not None
    assert "is gone" in broken.died.stderr[0]


def test_an_actor_leaves_a_node_that_leaves_when_its_call_has_ended() -> None:
    stage = Stage(executors=1)
    actor = open_actor(stage, restarts=1)
    stage.teach(LONG)
    stage.submit(2)

    stage.say(WORKER, m.Leave())
    assert exits(stage) == []
    stage.finish(1, LONG)
    assert exits(stage) == [1]
    assert actor.deaths == 1

    stage.say(WORKER + 1, m.Register("other", "other", 1, 2.0, 1 << 30, 1))
    stage.say(FIRST + 6, m.Ready("other", "other", 1, 7))
    assert stage.tasks(actor.executors[FIRST + 6].held) == [(2, 1)]


def test_an_actor_whose_constructor_fails_takes_no_executor_with_it() -> None:
    stage = Stage(executors=1)
    actor = open_actor(stage, restarts=5)
    stage.submit(3)

    stage.say(FIRST, m.Broken(actor.number, "node/1", "ValueError: no", "Traceback ..."))

    (broken,) = died(stage)
    assert broken.died is None
    assert broken.text == "ValueError: no"
    assert exits(stage) == [1]
    assert targets(stage) == [1]


def test_the_wait_of_a_call_for_its_own_tasks_makes_no_second_instance() -> None:
    stage = Stage(executors=2)
    actor = open_actor(stage)
    stage.submit(2)
    (before,) = actor.executors

    stage.say(before, m.Waiting(actor.number, True))
    assert not stage.heard(before, m.Retract)
    stage.wait(1.0)
    stage.say(before, m.Waiting(actor.number, False))

    assert list(actor.executors) == [before]


@pytest.mark.parametrize("spec", [{"initializer": b""}, {"max_tasks_per_child": 5}])
def test_actors_that_can_not_be_are_refused(spec: dict[str, Any]) -> None:
    stage = Stage(executors=1)
    with pytest.raises(ProtocolError, match="actor"):
        stage.open(**{"initializer": b"make", "restarts": 0, **spec})


def test_priorities_change_nothing_of_the_order_of_calls() -> None:
    stage = Stage(executors=1)
    actor = open_actor(stage)
    stage.teach(LONG)
    stage.submit(1)
    stage.submit(1)
    stage.submit(1, function=2, priority=5)

    assert stage.tasks(actor.queue) == [(2, 1), (3, 1)]
