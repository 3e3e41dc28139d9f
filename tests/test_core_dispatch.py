"""Credit: how much an executor is given, what is asked back, and what it may forget."""

from __future__ import annotations

import pytest

from flamezmq.core.members import Limits
from flamezmq.wire import messages as m
from tests.core_stage import CLIENT, FIRST, OTHER, Stage

LIMITS = Limits()


# --- windows


def test_a_function_that_nobody_has_run_goes_one_at_a_time() -> None:
    stage = Stage(executors=2)
    stage.open()

    stage.submit(5)

    assert stage.holds() == [1, 1]
    stage.submit(5, function=2)
    assert stage.holds() == [1, 1], "nothing is put behind it either"


def test_very_short_tasks_fill_the_horizon() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.teach(LIMITS.horizon_seconds / 500)

    stage.submit(1000)

    assert 490 <= stage.holds()[0] <= 500


def test_short_tasks_travel_in_batches_up_to_a_depth() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.teach(0.001)
    stage.submit(1000)
    assert stage.holds() == [int(LIMITS.deep_seconds / 0.001)]


def test_where_sessions_take_turns_each_turn_is_short() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.open(client=OTHER)
    stage.teach(0.0001)
    stage.submit(200)
    assert stage.holds() == [LIMITS.batch_tasks], "while it is alone"

    stage.submit(5, client=OTHER)
    stage.finish(1, 0.0001)

    assert stage.executor(1).load <= LIMITS.horizon_seconds * 1.001
    assert stage.holds()[0] > 1


@pytest.mark.parametrize(("seconds", "window"), [(0.01, 2), (0.05, 2), (0.2, 1), (5.0, 1)])
def test_of_long_tasks_one_more_is_held_while_many_wait_and_of_very_long_ones_none(
    seconds: float, window: int
) -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.teach(seconds)

    stage.submit(50)

    assert stage.holds() == [window]


def test_a_short_task_is_not_put_behind_a_long_one() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.teach(1e-6, function=2)
    stage.teach(0.05, function=1)
    stage.submit(1, function=1)

    stage.submit(1, function=2)

    assert stage.holds() == [1]


def test_no_message_grants_more_than_the_limit() -> None:
    stage = Stage(executors=1, max_grant=7)
    stage.open()
    stage.teach(1e-6)
    stage.submit(100)
    (grant,) = stage.heard(FIRST, m.Grant)
    assert sum(part.count for part in grant.slices) == 7


# --- sharing


def test_the_tail_is_shared() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.teach(0.001)
    stage.ready(2)
    stage.ready(3)

    stage.submit(9)

    assert stage.holds() == [3, 3, 3]


def test_a_little_work_is_not_divided() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.teach(1e-6)
    stage.ready(2)

    stage.submit(9)

    assert sorted(stage.holds()) == [0, 9]


def test_what_waits_goes_to_an_idle_executor_and_not_behind_what_another_one_holds() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.teach(0.001)
    stage.ready(2)
    stage.submit(1)

    stage.submit(1)

    assert stage.holds() == [1, 1]


def test_two_sessions_that_come_together_have_one_executor_each() -> None:
    stage = Stage(executors=2)
    stage.open(client=CLIENT)
    stage.open(client=OTHER)
    stage.submit(20, client=CLIENT)
    stage.submit(20, client=OTHER)
    assert stage.holds() == [1, 1]
    for _ in range(6):  # whoever was first gives one back when a task ends
        stage.now += 0.2
        for number in (1, 2):
            if stage.executor(number).tasks:
                stage.finish(number, 0.2, count=1)
    serving = {e.session.number for e in stage.broker.executors.values() if e.session is not None}
    assert serving == {1, 2}


# --- asking back


def overdue_stage() -> Stage:
    """Executor 1 holds four short tasks, executor 2 is idle."""
    stage = Stage(executors=1)
    stage.open()
    stage.teach(0.0001)
    stage.submit(4)
    stage.ready(2)
    assert stage.holds() == [4, 0]
    return stage


def test_what_would_be_done_soon_is_not_asked_back() -> None:
    stage = overdue_stage()
    assert stage.wait(LIMITS.overdue_seconds / 2) == []


def test_what_waits_behind_a_task_that_takes_too_long_is_asked_back_for_an_idle_one() -> None:
    stage = overdue_stage()
    session = stage.executor(1).session
    assert session is not None

    assert stage.wait(LIMITS.overdue_seconds * 1.1) == [(FIRST, m.Retract(session.number, 1))]
    assert stage.wait(1.0) == [], "it is asked once"
    stage.say(FIRST, m.Retracted(session.number, [m.Slice(1, 2, 3, 1)]))

    assert stage.held() == [[(1, 1)], [(2, 1), (3, 1)]]
    stage.finish(2, 0.0001)
    assert stage.held() == [[(1, 1)], [(4, 1)]], "the one that is too slow gets nothing more"


def test_it_is_looked_at_in_time_although_nobody_says_anything() -> None:
    stage = overdue_stage()
    deadline = stage.broker.next_deadline(stage.now)
    assert deadline is not None
    assert deadline <= stage.now + LIMITS.overdue_seconds


def test_nothing_is_asked_back_while_nobody_is_idle() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.teach(0.0001)
    stage.submit(4)
    assert stage.wait(10.0) == []
    assert stage.broker.next_deadline(stage.now) is None


def test_an_executor_that_was_heard_of_has_its_time_again() -> None:
    stage = overdue_stage()
    stage.now += LIMITS.overdue_seconds * 0.9
    stage.finish(1, 0.0001, count=1)
    assert stage.wait(LIMITS.overdue_seconds * 0.9) == []


def test_one_whose_turn_is_over_gives_back_what_has_not_begun() -> None:
    stage = Stage(executors=1)
    first = stage.open()
    stage.open(client=OTHER)
    stage.teach(0.001)
    stage.submit(16)
    assert stage.holds() == [16]
    stage.submit(client=OTHER)
    deadline = stage.broker.next_deadline(stage.now)
    assert deadline is not None

    assert stage.wait(deadline - stage.now + 1e-6) == [(FIRST, m.Retract(first.number, 1))]
    stage.say(FIRST, m.Retracted(first.number, [m.Slice(1, 2, 15, 1)]))
    assert stage.held() == [[(1, 1)]], "it runs dry"
    stage.finish(1)

    serving = stage.executor(1).session
    assert serving is not None
    assert serving.client.peer == OTHER


# --- environments


def test_an_executor_of_another_program_makes_room_for_a_fresh_one() -> None:
    stage = Stage(executors=2)
    stage.open(client=CLIENT, home="a")
    stage.submit(2, client=CLIENT)
    for number in (1, 2):
        stage.finish(number)
    stage.open(client=OTHER, home="b")

    assert stage.submit(client=OTHER) == [(FIRST, m.Exit())]

    assert stage.dies(1, expected=True, finished=1) == []
    stage.ready(3)
    assert len(stage.heard(FIRST + 2, m.Grant)) == 1
    assert stage.executor(2).exiting is False, "one was enough"


def test_the_same_program_may_change_its_folder() -> None:
    stage = Stage(executors=1)
    stage.open(1, home="a")
    stage.submit(alias=1)
    stage.finish(1)
    stage.open(2, home="b")

    stage.submit(alias=2)

    assert [message.environment.cwd for message in stage.heard(FIRST, m.Bind)] == ["/home/b"]


def test_bind_is_said_once_for_many_visits_of_a_session() -> None:
    stage = Stage(executors=1)
    stage.open()
    binds = 0
    for _ in range(3):
        stage.submit()
        binds += len(stage.heard(FIRST, m.Bind))
        stage.finish(1)
    assert binds == 1


# --- functions that an executor has


def test_an_executor_forgets_its_oldest_functions_but_none_that_it_still_needs() -> None:
    stage = Stage(executors=1, known_functions=4)
    stage.open()
    forgotten: list[int] = []
    for function in range(1, 12):
        stage.submit(function=function)
        for grant in stage.heard(FIRST, m.Grant):
            assert not set(grant.forget) & {part.function for part in grant.slices}
            forgotten += grant.forget
        assert len(stage.executor(1).known) <= 4
        stage.finish(1)

    assert forgotten == sorted(forgotten), "the oldest go first"
    stage.submit(function=1)
    (grant,) = stage.heard(FIRST, m.Grant)
    assert [new.blob for new in grant.functions] == [b"1"], "it is sent again when it is used again"
