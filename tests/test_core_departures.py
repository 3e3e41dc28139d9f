"""Workers and routers that leave in order: the broker alone."""

from __future__ import annotations

import pytest

from flamezmq.core import departures
from flamezmq.core.members import Effects
from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m
from tests.core_stage import CLIENT, FIRST, OTHER, WORKER, Stage

SECOND_WORKER = 6


def second_node(stage: Stage, number: int) -> None:
    """Executor `number` on a node of its own."""
    stage.say(SECOND_WORKER, m.Register("other", "other token", 2, 2.0, 1 << 30, 1))
    stage.ready(number, "other token")


def exits(stage: Stage) -> list[int]:
    return [peer for peer, message in stage.said if type(message) is m.Exit]


# --- a worker that leaves


def test_idle_executors_of_a_leaving_worker_exit_at_once_and_get_nothing_more() -> None:
    stage = Stage(2)
    stage.open()

    stage.say(WORKER, m.Leave())
    assert exits(stage) == [FIRST, FIRST + 1]

    stage.submit(5)
    assert stage.holds() == [0, 0]
    assert stage.broker.sessions[1].queued == 5


def test_what_runs_ends_there_and_what_has_not_begun_goes_elsewhere() -> None:
    stage = Stage(1)
    stage.open()
    stage.teach(1e-3)
    stage.submit(10)
    assert stage.holds() == [10]

    stage.say(WORKER, m.Leave())
    assert stage.heard(FIRST, m.Retract) == [m.Retract(1, 1)]
    assert not exits(stage), "it still runs something"
    second_node(stage, 2)
    stage.say(FIRST, m.Retracted(1, [m.Slice(1, 2, 9, 1)]))
    there = stage.tasks(stage.executor(2).held) + stage.tasks(stage.broker.sessions[1].queue)
    assert there == [(index, 1) for index in range(2, 11)], "no attempt is charged"
    assert stage.holds()[0] == 1

    stage.finish(1)
    assert exits(stage) == [FIRST]
    stage.dies(1, finished=2, signal="", expected=True)
    stage.lose(WORKER)
    assert stage.holds()[0] + stage.broker.sessions[1].queued == 9


def test_an_executor_that_comes_after_its_worker_has_said_leave_exits_at_once() -> None:
    stage = Stage(1)
    stage.open()
    stage.submit(1)
    stage.say(WORKER, m.Leave())

    stage.ready(2)

    assert exits(stage) == [FIRST + 1]
    stage.submit(3)
    assert stage.holds() == [1, 0]


def test_a_task_that_is_cut_off_by_a_leaving_worker_runs_again_without_a_charge() -> None:
    stage = Stage(1)
    stage.open(max_retries=1)
    stage.submit(1)
    stage.say(WORKER, m.Leave())

    for _ in range(3):
        stage.dies(1, running=0, expected=True)
        assert stage.heard(CLIENT, m.Lost) == []
    stage.lose(WORKER)
    second_node(stage, 2)

    assert stage.held() == [[(0, 2)]]
    assert not stage.broker.sessions[1].charges


def test_a_death_that_was_reported_before_the_worker_was_gone_is_not_forgotten() -> None:
    """Its last results may be on their way; without the report the oldest task would be charged."""
    stage = Stage(1)
    stage.open(max_retries=0)
    stage.teach(1e-3)
    stage.submit(3)
    stage.say(WORKER, m.Leave())
    stage.dies(1, running=-1, finished=2, expected=True)  # one more than is known here

    stage.lose(WORKER)
    assert stage.heard(CLIENT, m.Lost) == []
    stage.finish(1, count=1)

    assert stage.heard(CLIENT, m.Lost) == []
    assert stage.broker.sessions[1].queued == 2


def test_a_pause_that_ends_does_not_call_a_leaving_executor_back() -> None:
    stage = Stage(1)
    stage.open()
    stage.submit(1)
    stage.say(FIRST, m.Waiting(1, True))
    stage.say(WORKER, m.Leave())
    stage.submit(2)

    stage.say(FIRST, m.Waiting(1, False))
    assert stage.holds() == [1]
    stage.finish(1)

    assert exits(stage) == [FIRST]


def test_a_session_does_not_wait_for_the_successor_of_an_executor_that_has_left() -> None:
    """Another program's modules are loaded in it, so it was to be replaced; then its worker left."""
    stage = Stage(1)
    stage.open(home="a")
    stage.teach(1e-3)
    stage.open(2, OTHER, home="b")
    stage.submit(1, alias=2, client=OTHER)
    assert exits(stage) == [FIRST]
    stage.say(WORKER, m.Leave())
    assert stage.broker.scheduler.coming == 1
    stage.dies(1, finished=1, signal="", expected=True)

    assert stage.broker.scheduler.coming == 0
    second_node(stage, 2)
    assert stage.holds() == [1]


def test_only_workers_leave() -> None:
    stage = Stage(1)

    with pytest.raises(ProtocolError, match="this is a worker's message"):
        stage.say(FIRST, m.Leave())


def test_leaving_twice_changes_nothing() -> None:
    stage = Stage(1)
    stage.open()
    stage.teach(1e-3)
    stage.submit(10)
    stage.say(WORKER, m.Leave())

    assert stage.say(WORKER, m.Leave()) == []


def test_a_worker_whose_name_is_taken_is_told_to_leave() -> None:
    stage = Stage(1)

    stage.say(SECOND_WORKER, m.Register("node", "another token", 2, 2.0, 1 << 30, 1))

    assert exits(stage) == [WORKER]
    assert list(stage.broker.workers) == [SECOND_WORKER]
    assert not stage.broker.executors


# --- a router that leaves


def drain(stage: Stage) -> None:
    out: Effects = []
    departures.drain(stage.broker, out)
    stage.said = [(peer, message) for peer, message, _ in out]


def test_a_draining_router_grants_nothing_more_and_takes_back_what_has_not_begun() -> None:
    stage = Stage(2)
    stage.open()
    stage.teach(1e-3)
    stage.submit(20)
    before = stage.holds()

    drain(stage)
    asked = [peer for peer, message in stage.said if type(message) is m.Retract]
    assert asked == [peer for peer, held in zip((FIRST, FIRST + 1), before, strict=True) if held > 1]
    stage.submit(5)
    assert stage.holds() == before
    stage.finish(1)
    assert stage.holds()[0] == 0


def test_a_client_is_at_rest_when_nothing_of_its_runs_any_more() -> None:
    stage = Stage(1)
    stage.open()
    stage.submit(3)
    drain(stage)

    assert departures.clients_at_rest(stage.broker) == [OTHER]
    stage.finish(1)
    assert departures.clients_at_rest(stage.broker) == [CLIENT, OTHER]


def test_a_task_that_submits_tasks_is_no_client_to_part_from() -> None:
    stage = Stage(1)
    stage.open()
    stage.submit(1)
    drain(stage)

    stage.say(OTHER, m.Open(1, "nested", m.SessionSpec("nested", within="token/1")))

    assert stage.heard(OTHER, m.Opened) == [m.Opened(1)], "the task that runs may go on"
    assert departures.clients_at_rest(stage.broker) == []
    assert departures.outer_clients(stage.broker) == [CLIENT]


def test_a_draining_router_opens_no_session() -> None:
    stage = Stage(1)
    drain(stage)

    stage.say(CLIENT, m.Open(1, "late", m.SessionSpec("late")))

    (answer,) = stage.heard(CLIENT, m.Opened)
    assert answer.error == "this router is stopping; try again later"
    assert not stage.broker.sessions


# --- what people hear of it


def test_events_tell_of_nodes_and_of_deaths_that_are_accidents() -> None:
    stage = Stage(2)
    stage.dies(1, signal="SIGSEGV")
    stage.dies(2, expected=True)
    stage.say(WORKER, m.Leave())
    stage.lose(WORKER)
    second_node(stage, 3)
    stage.lose(SECOND_WORKER)

    assert stage.broker.events == [
        ("node-joined", {"node": "node", "executors": 2}),
        ("executor-lost", {"executor": "node/1", "signal": "SIGSEGV"}),
        ("node-leaves", {"node": "node"}),
        ("node-left", {"node": "node"}),
        ("node-joined", {"node": "other", "executors": 1}),
        ("node-lost", {"node": "other"}),
    ]
