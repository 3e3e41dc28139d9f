"""Tasks that are ended because their executor is due to others."""

from __future__ import annotations

from typing import Any

from flamezmq.client.happened import sentence
from flamezmq.core import events
from flamezmq.wire import messages as m
from tests.core_stage import CLIENT, OTHER, WORKER, Stage


def contested(**spec: Any) -> Stage:
    """One executor, which runs a task of a client's, and is due to another one from now on."""
    stage = Stage(executors=1)
    stage.open(**spec)
    stage.submit(1)
    stage.open(client=OTHER, min_executors=1)
    stage.submit(1, client=OTHER)
    return stage


def kills(stage: Stage) -> list[int]:
    return [message.number for message in stage.heard(WORKER, m.Kill)]


def test_a_task_is_ended_when_its_executor_has_been_due_to_others_for_so_long() -> None:
    stage = contested(preempt_after=5.0)
    stage.wait(4.9)
    assert not kills(stage)
    assert stage.broker.next_deadline(stage.now) == 5.0

    stage.wait(0.1)
    assert kills(stage) == [1]
    row = list(events.rows(stage.broker.clients[CLIENT].sessions[1], 0, stage.now))[-1]
    assert (row.kind, row.executor) == ("preempted", "node/1")
    assert sentence(row) == (
        "executor node/1 was killed, because others had waited for it: for 5 s; its task runs again"
    )


def test_it_runs_again_without_a_charge_as_often_as_that_happens() -> None:
    stage = contested(preempt_after=5.0, max_retries=1)
    session = stage.broker.clients[CLIENT].sessions[1]
    stage.wait(5.0)

    stage.say(WORKER, died(session.number))
    stage.ready(2)

    assert not stage.heard(CLIENT, m.Lost)
    assert (session.queued, session.charges) == (1, {})
    assert len(stage.broker.clients[OTHER].sessions[1].executors) == 1

    stage.ready(3)
    row = list(events.rows(session, 0, stage.now))[-1]
    assert sentence(row) == "executor node/3 was bound: in the end 1 serves it", (
        "the one that came, by its name"
    )


def test_without_a_time_and_where_no_task_may_be_started_twice_it_is_left_alone() -> None:
    for spec in ({}, {"preempt_after": 5.0, "max_retries": 0}):
        stage = contested(**spec)
        stage.wait(1000.0)
        assert not kills(stage)


def test_it_is_left_alone_if_nobody_waits_any_more() -> None:
    stage = contested(preempt_after=5.0)
    stage.say(OTHER, m.Close(1))
    stage.wait(10.0)
    assert not kills(stage)


def died(session: int) -> m.Died:
    return m.Died(1, 101, "node", session, 0, 0, "SIGKILL", 0, False, 0, (), expected=True)
