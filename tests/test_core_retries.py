"""Options in the broker: who runs again and when, who is killed for a timeout, who comes first."""

from __future__ import annotations

from typing import Any

import pytest

from flamezmq.core.backoff import MOST_PAUSE_SECONDS, pause
from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m
from tests.core_stage import CLIENT, FIRST, OTHER, WORKER, Stage


def stage_with(tasks: int, executors: int = 1, **options: Any) -> Stage:
    stage = Stage(executors=executors)
    stage.open()
    stage.submit(tasks, **options)
    return stage


def session_of(stage: Stage) -> Any:
    (session,) = stage.broker.sessions.values()
    return session


def queue(stage: Stage) -> list[tuple[int, int]]:
    return stage.tasks(session_of(stage).queue)


def granted(stage: Stage, number: int = 1) -> list[tuple[int, int, int]]:
    """(index, attempt, how often it was sent back) of what the executor was granted in the last turn."""
    return [
        (part.first, part.attempt, retried)
        for grant in stage.heard(FIRST + number - 1, m.Grant)
        for part, retried in zip(grant.slices, grant.retried or [0] * len(grant.slices), strict=True)
    ]


# --- sent back


def test_a_task_that_is_sent_back_runs_again_under_the_next_attempt_and_with_its_count() -> None:
    stage = stage_with(1, retries=2)

    stage.retry(1)
    assert granted(stage) == [(0, 2, 1)]
    stage.retry(1)
    assert granted(stage) == [(0, 3, 2)]
    stage.finish(1)

    assert [message.slices[0].attempt for message in stage.heard(CLIENT, m.RoutedResults)] == [3]
    assert session_of(stage).retried == {}
    assert session_of(stage).succeed == 1


def test_what_waits_for_its_time_is_in_no_queue_and_its_executor_serves_others() -> None:
    stage = stage_with(2, retries=1)
    stage.retry(1, seconds=5.0)

    assert stage.held() == [[(1, 1)]]
    assert stage.broker.next_deadline(stage.now) == pytest.approx(5.0)
    stage.finish(1)
    assert stage.wait(4.9) == []
    stage.wait(0.2)
    assert granted(stage) == [(0, 2, 1)]


def test_they_come_back_in_the_order_of_their_times() -> None:
    stage = stage_with(3, executors=3, retries=1)
    pauses = [3.0, 1.0, 2.0]
    for number in (1, 2, 3):
        ((index, _),) = stage.held()[number - 1]
        stage.retry(number, pauses[index])
    order: list[int] = []
    for _ in range(3):
        deadline = stage.broker.next_deadline(stage.now)
        assert deadline is not None
        stage.wait(deadline - stage.now)
        order += [index for run in stage.held() for index, _ in run if index not in order]
    assert order == [1, 2, 0]
    assert stage.broker.next_deadline(stage.now) is None
    assert not stage.broker.delaying


def test_a_task_that_was_sent_back_stays_a_run_by_itself() -> None:
    """Neighbours of the same attempt, one sent back twice, one once and once a victim: counts differ."""
    stage = stage_with(2, executors=1, retries=5)
    stage.retry(1)
    assert stage.held() == [[(0, 2)]], "it is before the one that never ran"
    stage.dies(1, running=0, finished=1)
    assert queue(stage) == [(0, 3), (1, 1)]

    stage.ready(2)

    assert granted(stage, 2) == [(0, 3, 1)]


def test_deaths_and_retries_are_counted_apart() -> None:
    stage = Stage(executors=1)
    session = stage.open(max_retries=1)
    stage.submit(1, retries=3)
    for _ in range(3):
        stage.retry(1)
    stage.dies(1, running=0, finished=3)
    assert session.charges == {0: 1}
    stage.ready(2)
    assert granted(stage, 2) == [(0, 5, 3)]

    stage.dies(2, running=0, finished=0)

    (lost,) = stage.heard(CLIENT, m.Lost)
    assert (lost.attempts, lost.timeout, lost.label) == (5, 0.0, "f")
    assert (session.charges, session.retried) == ({}, {})


def test_what_is_sent_back_late_or_twice_changes_nothing() -> None:
    stage = stage_with(1, retries=9)
    stage.retry(1)
    before = stage.state()
    for part in (m.Slice(1, 0, 1, 1), m.Slice(1, 7, 1, 1)):
        stage.say(FIRST, m.Retry(1, part, 0.0))
        stage.say(FIRST, m.Retry(99, part, 0.0))
        assert stage.state() == before


def test_one_task_at_a_time_is_sent_back() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.teach(1e-6)
    stage.submit(3)
    before = stage.state()
    with pytest.raises(ProtocolError):
        stage.say(FIRST, m.Retry(1, m.Slice(1, 1, 2, 1), 0.0))
    assert stage.state() == before


def test_only_executors_send_tasks_back() -> None:
    stage = stage_with(1, retries=1)
    with pytest.raises(ProtocolError):
        stage.say(CLIENT, m.Retry(1, m.Slice(1, 0, 1, 1), 0.0))


def test_pauses_double_and_end_somewhere() -> None:
    assert [pause(0.5, retried) for retried in range(4)] == [0.5, 1.0, 2.0, 4.0]
    assert pause(0.0, 3) == 0.0
    assert pause(0.5, 1 << 60) == MOST_PAUSE_SECONDS


# --- the end of what waits


def test_what_waits_for_its_time_can_be_cancelled() -> None:
    stage = stage_with(3, executors=3, retries=1)
    for number in (1, 2, 3):
        stage.retry(number, 10.0 - number)

    stage.say(CLIENT, m.Cancel(1, [0, 2]))

    assert stage.heard(CLIENT, m.Cancelled) == [m.Cancelled(1, [0, 2], [])]
    stage.wait(20.0)
    assert [run for run in stage.held() if run] == [[(1, 2)]]
    assert session_of(stage).cancelled == 2


def test_closing_a_session_forgets_what_waits_in_it() -> None:
    stage = stage_with(2, retries=1)
    session = session_of(stage)
    stage.retry(1, 10.0)
    stage.finish(1)

    stage.say(CLIENT, m.Close(1))

    assert (session.cancelled, session.retried) == (1, {})
    assert stage.broker.next_deadline(stage.now) is None
    assert stage.wait(20.0) == []
    assert stage.broker.sessions == {}


def test_what_is_sent_back_after_its_session_was_closed_is_cancelled() -> None:
    stage = stage_with(1, retries=1)
    session = session_of(stage)
    stage.say(CLIENT, m.Close(1))

    stage.retry(1)

    assert session.cancelled == 1
    assert stage.holds() == [0]
    stage.say(FIRST, m.Retracted(session.number, []))
    assert stage.broker.sessions == {}


def test_what_waits_counts_as_pending() -> None:
    stage = stage_with(1, retries=1)
    stage.retry(1, 10.0)
    stage.say(CLIENT, m.Query(1, 7))
    assert stage.heard(CLIENT, m.Counts) == [m.Counts(1, 7, 1, 0, 0, 0, 0)]
    assert stage.broker.statistics()["delayed"] == 1


# --- timeouts


def test_an_executor_whose_task_must_be_over_by_now_is_to_be_ended_and_is_asked_for_again() -> None:
    stage = stage_with(1, timeout=2.0)
    deadline = stage.broker.next_deadline(stage.now)
    assert deadline == pytest.approx(3.0), "its timeout, and a second of grace"

    assert stage.wait(2.9) == []
    assert stage.wait(0.2) == [(WORKER, m.Kill(1, 1.0))]
    assert stage.wait(0.5) == []
    assert stage.wait(0.6) == [(WORKER, m.Kill(1, 1.0))], "its worker has seen that it had time left"


def test_the_clock_of_a_task_starts_when_the_one_before_it_ends() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.submit(1, timeout=2.0)
    stage.finish(1, 1e-6)
    stage.submit(2)
    stage.wait(2.5)
    stage.finish(1, 1e-6, count=1)
    assert stage.wait(2.5) == []
    assert stage.heard(WORKER, m.Kill) == []
    assert stage.wait(1.0) == [(WORKER, m.Kill(1, 1.0))]


def test_nobody_looks_where_nothing_has_a_timeout() -> None:
    stage = stage_with(1)
    assert stage.broker.next_deadline(stage.now) is None
    stage.finish(1)
    stage.submit(1, 2, timeout=1.0)
    stage.finish(1)
    stage.wait(10.0)
    assert stage.said == []
    assert stage.broker.next_deadline(stage.now) is None


def overdue_stage(**options: Any) -> Stage:
    """An executor that was killed in the second of three tasks; the first had finished unheard."""
    stage = Stage(executors=1)
    stage.open(max_retries=1)
    stage.submit(1, timeout=2.0, **options)
    stage.finish(1, 1e-6)
    stage.submit(3)
    assert stage.holds() == [3]
    stage.dies(1, running=2, finished=2, expected=True, overdue=True)
    stage.wait(1.0)  # it is waited for what may still come
    return stage


def test_a_task_that_was_killed_for_its_timeout_has_failed_and_its_neighbours_run_again() -> None:
    stage = overdue_stage()

    (lost,) = stage.heard(CLIENT, m.Lost)

    assert (lost.index, lost.attempts, lost.timeout, lost.label) == (2, 1, 2.0, "f")
    assert queue(stage) == [(1, 2), (3, 1)]
    assert (session_of(stage).charges, session_of(stage).failed) == ({}, 1)


def test_it_runs_again_if_its_options_say_so_and_as_often_as_they_say() -> None:
    stage = overdue_stage(retries=1, retry_timeouts=True)
    assert stage.heard(CLIENT, m.Lost) == []
    assert sorted(queue(stage)) == [(1, 2), (2, 2), (3, 1)]

    stage.ready(2)
    stage.finish(2, count=1)
    stage.dies(2, running=2, finished=1, expected=True, overdue=True)

    assert [lost.index for lost in stage.heard(CLIENT, m.Lost)] == [2]


def test_it_waits_for_its_backoff() -> None:
    stage = overdue_stage(retries=1, retry_timeouts=True, backoff=5.0)
    assert queue(stage) == [(1, 2), (3, 1)]
    stage.wait(5.0)
    assert queue(stage) == [(2, 2), (1, 2), (3, 1)]


def test_without_a_charge_to_anybody_when_the_task_had_ended_before_the_kill_came() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.submit(2, timeout=2.0)
    stage.dies(1, running=0, finished=0, expected=True)
    assert queue(stage) == [(0, 2), (1, 1)]
    assert session_of(stage).charges == {}


def test_a_worker_that_speaks_of_timeouts_of_others_is_taken_for_a_plain_death() -> None:
    stage = stage_with(1)
    stage.dies(1, running=0, finished=0, expected=True, overdue=True)
    assert session_of(stage).charges == {0: 1}


# --- priorities


def test_higher_priorities_come_first_and_equal_ones_as_they_came() -> None:
    stage = Stage()
    stage.open()
    stage.submit(2, 1)
    stage.submit(2, 2, priority=1)
    stage.submit(1, 3, priority=-1)
    stage.submit(1, 1)
    stage.submit(1, 2)
    assert [index for index, _ in queue(stage)] == [2, 3, 6, 0, 1, 5, 4]

    stage.ready(1)
    order = []
    while stage.broker.statistics()["queued"] or stage.holds() != [0]:
        order += [index for index, _ in stage.held()[0]]
        stage.finish(1, 1.0)

    assert order == [2, 3, 6, 0, 1, 5, 4]


def test_what_comes_back_is_the_first_of_its_priority() -> None:
    stage = stage_with(2, priority=1)
    stage.submit(1, 2, priority=2)
    stage.retry(1, 1.0)
    stage.wait(1.0)
    assert stage.held() == [[(2, 1)]]
    assert queue(stage) == [(0, 2), (1, 1)]


def test_what_has_a_priority_can_be_cancelled() -> None:
    stage = Stage()
    stage.open()
    stage.submit(3, 1)
    stage.submit(3, 2, priority=1)

    stage.say(CLIENT, m.Cancel(1, [1, 4]))

    (answer,) = stage.heard(CLIENT, m.Cancelled)
    assert (sorted(answer.indices), answer.refused) == ([1, 4], [])
    assert [index for index, _ in queue(stage)] == [3, 5, 0, 2]
    stage.say(CLIENT, m.Close(1))
    assert stage.broker.statistics()["queued"] == 0


def test_a_session_without_priorities_keeps_its_plain_queue() -> None:
    stage = stage_with(2, retries=1)
    assert type(session_of(stage).queue).__name__ == "deque"


# --- functions


def test_one_pickle_with_two_kinds_of_options_is_two_functions() -> None:
    """Another client can't change what somebody's function may do by sending the same bytes."""
    stage = Stage()
    stage.open()
    stage.open(client=OTHER)
    stage.submit(1, timeout=5.0)
    stage.submit(1, timeout=0.001, client=OTHER)
    timeouts = [run.function.timeout for s in stage.broker.sessions.values() for run in s.queue]
    assert timeouts == [5.0, 0.001]
