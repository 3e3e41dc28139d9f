"""What a death costs: the task that ran pays, its neighbours do not, and nothing is lost or started twice."""

from __future__ import annotations

from typing import Any

import pytest

from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m
from tests.core_stage import CLIENT, FIRST, OTHER, WORKER, Stage, results


def stage_with(tasks: int, **spec: Any) -> Stage:
    """An executor that holds so many tasks, from index 1 on; it has finished one."""
    stage = Stage(executors=1)
    stage.open(**spec)
    stage.teach(1e-6)
    stage.submit(tasks)
    assert stage.holds()[0] == tasks
    return stage


def queue(stage: Stage) -> list[tuple[int, int]]:
    (session,) = stage.broker.sessions.values()
    return stage.tasks(session.queue)


def charges(stage: Stage) -> dict[int, int]:
    (session,) = stage.broker.sessions.values()
    return session.charges


# --- who pays


def test_the_task_that_ran_pays_for_the_death_and_its_neighbours_do_not() -> None:
    stage = stage_with(3)

    stage.dies(1, running=1, finished=1)

    assert queue(stage) == [(1, 2), (2, 1), (3, 1)]
    assert charges(stage) == {1: 1}
    assert stage.broker.executors == {}


def test_those_that_had_finished_run_again_without_a_charge() -> None:
    """Their results died with the executor; the one that ran came after them."""
    stage = stage_with(4)

    stage.dies(1, running=3, finished=3)
    stage.wait(1.0)  # it is waited for what may still come

    assert queue(stage) == [(1, 2), (2, 2), (3, 2), (4, 1)]
    assert charges(stage) == {3: 1}


def test_between_two_tasks_nobody_pays() -> None:
    stage = stage_with(3)
    stage.dies(1, running=-1, finished=1)
    assert queue(stage) == [(1, 1), (2, 1), (3, 1)]
    assert charges(stage) == {}


def test_an_end_that_was_ordered_is_nobodys_fault() -> None:
    stage = stage_with(2)
    stage.dies(1, running=1, finished=1, expected=True)
    assert queue(stage) == [(1, 2), (2, 1)]
    assert charges(stage) == {}


def test_without_a_report_the_oldest_is_taken_for_the_one_that_ran() -> None:
    stage = stage_with(3)

    stage.lose(FIRST)

    assert queue(stage) == [(1, 2), (2, 1), (3, 1)]
    assert charges(stage) == {1: 1}


def test_a_task_that_ends_well_at_last_is_not_charged_any_more() -> None:
    stage = stage_with(1)
    stage.dies(1, running=1, finished=1)
    stage.ready(2)
    stage.finish(2)
    assert charges(stage) == {}


# --- how often


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_task_is_started_again_as_often_as_it_may_and_then_lost_with_the_last_certificate(
    retries: int,
) -> None:
    stage = Stage()
    session = stage.open(max_retries=retries)
    stage.submit(2)
    for number in range(1, retries + 2):
        stage.ready(number)
        assert stage.held()[0] == [(0, number)]
        assert stage.heard(CLIENT, m.Lost) == []
        stage.dies(number, running=0, finished=0, signal="SIGSEGV", rss_bytes=number)

    (lost,) = stage.heard(CLIENT, m.Lost)

    assert (lost.session, lost.index, lost.attempts) == (1, 0, retries + 1)
    assert (lost.certificate.signal, lost.certificate.rss_bytes) == ("SIGSEGV", retries + 1)
    assert (session.failed, charges(stage)) == (1, {})
    assert queue(stage) == [(1, 1)], "the other one has lost nothing"


def test_what_may_be_started_once_is_lost_if_it_has_begun_and_runs_if_it_has_not() -> None:
    stage = stage_with(4, max_retries=0)

    stage.dies(1, running=2, finished=2)
    stage.wait(1.0)

    assert [lost.index for lost in stage.heard(CLIENT, m.Lost)] == [1, 2]
    assert queue(stage) == [(3, 1), (4, 1)]


def test_without_a_report_all_that_may_have_begun_is_lost_if_it_may_be_started_once() -> None:
    stage = stage_with(2, max_retries=0)
    stage.lose(FIRST)
    lost = stage.heard(CLIENT, m.Lost)
    assert [message.index for message in lost] == [1, 2]
    assert "node node is gone" in lost[0].certificate.stderr[0]


def test_what_was_given_back_unheard_does_not_hide_what_had_begun() -> None:
    """Its answer to a Drop died with it: tasks behind those have begun, and must not start twice."""
    stage = stage_with(4, max_retries=0)
    stage.say(CLIENT, m.Cancel(1, [1, 2]))

    stage.dies(1, running=-1, finished=2)  # of 1 to 4 it has given back 1 and 2, and finished 3
    stage.wait(1.0)

    assert 3 in [lost.index for lost in stage.heard(CLIENT, m.Lost)]
    assert queue(stage) == [(4, 1)]


# --- what is still on its way


def test_what_it_had_sent_is_waited_for_and_it_gets_nothing_more_meanwhile() -> None:
    stage = stage_with(2)
    session = next(iter(stage.broker.sessions.values()))
    stage.dies(1, running=-1, finished=3)
    assert stage.held() == [[(1, 1), (2, 1)]]
    stage.submit()
    assert stage.heard(FIRST, m.Grant) == []

    said = stage.say(FIRST, results(session.number, [m.Slice(1, 1, 2, 1)], [1e-6]))

    assert [type(message) for _, message in said] == [m.RoutedResults]
    assert stage.broker.executors == {}, "all has come: it is buried"
    assert queue(stage) == [(3, 1)]


def test_what_waits_goes_to_another_one_while_a_dead_one_is_waited_for() -> None:
    stage = stage_with(1)
    stage.ready(2)
    stage.dies(1, running=-1, finished=2)
    stage.submit()
    assert stage.holds() == [1, 1]


def test_it_is_not_waited_for_ever() -> None:
    stage = stage_with(1)
    stage.dies(1, running=-1, finished=2)
    deadline = stage.broker.next_deadline(stage.now)
    assert deadline is not None

    stage.wait(deadline - stage.now)

    assert stage.broker.executors == {}
    assert queue(stage) == [(1, 2)]


def test_the_death_of_an_executor_that_held_nothing_costs_nothing() -> None:
    stage = stage_with(1)
    stage.finish(1)
    assert stage.dies(1, finished=2) == []
    assert stage.broker.executors == {}
    assert stage.broker.statistics()["queued"] == 0


# --- said twice, said late


def test_a_death_is_mourned_once_however_often_it_is_told() -> None:
    stage = stage_with(2)
    stage.dies(1, running=1, finished=1)
    before = stage.state(), charges(stage)

    stage.dies(1, running=1, finished=1)
    stage.lose(FIRST)
    stage.lose(FIRST)

    assert (stage.state(), charges(stage)) == before


def test_an_executor_that_died_before_it_was_ready_is_never_served() -> None:
    stage = Stage()
    stage.open()
    stage.submit()
    stage.dies(1)

    assert stage.ready(1) == []

    assert stage.broker.executors == {}
    with pytest.raises(ProtocolError):
        stage.say(FIRST, results(1, [m.Slice(1, 0, 1, 1)], [1.0]))
    assert stage.ready(2) != []


def test_a_report_that_comes_after_the_link_was_lost_changes_nothing_and_is_not_kept() -> None:
    stage = stage_with(1)
    stage.lose(FIRST)
    before = stage.state()

    assert stage.dies(1, running=1, finished=1) == []

    assert stage.state() == before
    assert not stage.broker._dead
    assert not stage.broker.buried


# --- workers and clients


def test_when_a_worker_is_lost_so_are_its_executors() -> None:
    stage = stage_with(1)
    stage.ready(2)

    stage.lose(WORKER)

    assert stage.broker.executors == {}
    assert queue(stage) == [(1, 2)]
    assert not stage.broker.buried
    stage.lose(FIRST)  # its own link ends later
    assert not stage.broker.buried


def test_a_node_that_registers_again_replaces_what_it_was() -> None:
    stage = stage_with(1)

    stage.say(6, m.Register("node", "next", 1, 2.0, 1 << 30, 1))

    assert (list(stage.broker.workers), stage.broker.executors) == ([6], {})
    assert queue(stage) == [(1, 2)]


def test_what_a_client_that_is_gone_still_runs_is_ended_after_a_while() -> None:
    stage = stage_with(2)
    session = next(iter(stage.broker.sessions))
    assert stage.lose(CLIENT) == [(FIRST, m.Retract(session, 0)), (FIRST, m.Interrupt(session, []))]
    stage.say(FIRST, m.Retracted(session, [m.Slice(1, 2, 1, 1)]))

    stage.wait(stage.broker.limits.orphan_seconds / 2)
    assert stage.said == []
    assert stage.wait(stage.broker.limits.orphan_seconds) == [(WORKER, m.Kill(1))]

    stage.dies(1, running=1, finished=1, expected=True)
    assert stage.broker.sessions == {}
    assert stage.broker.next_deadline(stage.now) is None


def test_what_a_client_that_is_gone_had_waiting_is_forgotten_and_others_go_on() -> None:
    stage = stage_with(1)
    stage.open(client=OTHER)
    stage.submit(client=OTHER)

    stage.lose(CLIENT)
    stage.finish(1)

    assert [s.client.peer for s in stage.broker.sessions.values()] == [OTHER]
    assert stage.holds() == [1]
