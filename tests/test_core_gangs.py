"""Gangs: all or nothing, in bounded time, and what is set aside for one does not idle; on farms of fake time.

`Farm` itself fails when a session does not have whole gangs, or more than its limit, or
when an executor idles that a session could use.
"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from flamezmq.cli.ctl_list import SESSIONS as COLUMNS
from flamezmq.cli.ctl_list import for_people
from flamezmq.cli.ctl_output import Row, session_row, table
from flamezmq.cli.ctl_view import about
from flamezmq.client.controller import SESSIONS
from flamezmq.client.terms import check_gang
from flamezmq.errors import ProtocolError
from flamezmq.scheduler import Moves, Scheduler
from flamezmq.wire import messages as m
from tests.core_stage import CLIENT, Stage
from tests.farm import Farm
from tests.test_core_explain import words
from tests.test_core_overview import LOOKER
from tests.test_core_scheduler import counts, decide, scheduler_with


def gang_of(scheduler: Scheduler, n: int, wanted: int = 1, session: int = 1, **terms: Any) -> None:
    scheduler.add_session(session, 0.0, gang=n, **terms)
    scheduler.want(session, wanted)


def test_a_gang_comes_whole_or_not_at_all() -> None:
    scheduler = scheduler_with(executors=3)
    gang_of(scheduler, 4)
    assert decide(scheduler) == Moves()

    scheduler.add_executor(104)

    assert counts(decide(scheduler)) == {1: 4}, "also for one task"
    assert not scheduler.waiting


def test_demand_is_rounded_to_whole_gangs() -> None:
    scheduler = scheduler_with(executors=10)
    gang_of(scheduler, 3, wanted=7)
    assert counts(decide(scheduler)) == {1: 9}


def test_limit_and_minimum_count_in_whole_gangs() -> None:
    scheduler = scheduler_with(executors=20)
    gang_of(scheduler, 4, wanted=0, minimum=5, limit=11, weight=0.1)
    assert counts(decide(scheduler)) == {1: 8}
    scheduler.want(1, 20)
    assert decide(scheduler) == Moves()

    scheduler.add_session(2, 0.0)
    scheduler.want(2, 20)
    moves = decide(scheduler, 1.0)
    assert (counts(moves), moves.reclaim) == ({2: 12}, []), "five take two gangs, and none is taken away"
    assert decide(scheduler, 9.0).reclaim == []


def test_a_gang_that_is_to_be_given_back_counts_for_the_limit_until_it_is() -> None:
    scheduler = scheduler_with(executors=4)
    gang_of(scheduler, 2, wanted=4, limit=4)
    decide(scheduler)
    scheduler.add_session(2, 0.0)
    scheduler.want(2, 2)
    leaving = decide(scheduler, 0.2).reclaim
    assert len(leaving) == 2

    for executor in (105, 106, 107, 108):
        scheduler.add_executor(executor)

    assert counts(decide(scheduler, 0.2)) == {2: 2}, "six would serve it at a time"
    for executor in leaving:
        scheduler.release(executor, 0.3)
    assert counts(decide(scheduler, 0.3)) == {1: 2}


def test_sessions_share_in_gangs() -> None:
    scheduler = scheduler_with(executors=8, sessions=1, wanted=10)
    gang_of(scheduler, 4, wanted=10, session=2)
    assert counts(decide(scheduler)) == {1: 4, 2: 4}


def test_a_gang_that_has_nothing_to_do_goes_as_a_whole() -> None:
    scheduler = scheduler_with(executors=4)
    gang_of(scheduler, 2, wanted=4)
    executors = [executor for executor, _ in decide(scheduler).assign]
    scheduler.want(1, 1)
    for executor in executors[1:3]:
        assert scheduler.stays(1, executor)
        scheduler.rest(executor)
        assert decide(scheduler) == Moves(), "it may be needed again"
    scheduler.ripen(executors[1])
    assert decide(scheduler) == Moves()
    scheduler.ripen(executors[2])
    assert sorted(decide(scheduler).reclaim) == sorted(executors[1:3])


def test_the_one_that_dies_is_replaced_before_all_others() -> None:
    scheduler = scheduler_with(executors=4)
    gang_of(scheduler, 4)
    decide(scheduler)
    scheduler.add_session(2, 0.0)
    scheduler.want(2, 5)
    decide(scheduler, 0.01)

    scheduler.remove_executor(102, 0.02)
    scheduler.check()
    scheduler.add_executor(105)

    assert decide(scheduler, 0.02).assign == [(105, 1)], "the others have gone on"


def test_suspending_takes_all_of_it() -> None:
    scheduler = scheduler_with(executors=4)
    gang_of(scheduler, 2, wanted=4)
    decide(scheduler)
    scheduler.suspend(1)
    assert len(decide(scheduler, 0.1).reclaim) == 4


def test_a_gang_that_is_closing_gives_back_one_by_one_and_gets_nothing() -> None:
    scheduler = scheduler_with(executors=4)
    gang_of(scheduler, 4)
    decide(scheduler)
    scheduler.set(1, minimum=0, whole=False)
    scheduler.want(1, 1)
    for executor in (102, 103):
        scheduler.release(executor, 0.1)
        assert decide(scheduler, 0.1) == Moves()


def test_while_a_gang_gathers_what_falls_free_is_set_aside() -> None:
    farm = Farm(executors=10)
    farm.open(seconds=1.0)
    farm.run(0.5)
    gang = farm.open(seconds=1.0, gang=5)
    small = farm.open(seconds=10.0, tasks=5.0)
    farm.run(0.6)

    assert gang.running == 5
    assert small.running < 5


def test_a_gang_larger_than_the_cluster_takes_nothing_from_anybody() -> None:
    farm = Farm(executors=6)
    elastic = farm.open(seconds=0.1)
    farm.open(seconds=0.1, gang=7)
    farm.run(5.0)
    assert elastic.running == 6
    assert elastic.leaving == 0


def test_minima_of_others_are_not_touched() -> None:
    farm = Farm(executors=10)
    elastic = farm.open(seconds=0.1, minimum=4)
    gang = farm.open(seconds=0.1, gang=7)
    farm.run(5.0)
    assert (elastic.running, gang.running) == (10, 0)


# --- bounded time


@pytest.mark.parametrize("seed", range(4))
def test_the_largest_gang_starts_in_bounded_time_under_a_storm_of_small_sessions(seed: int) -> None:
    chance = Random(seed)
    farm = Farm(executors=300, check=False)
    gang = None
    for step in range(150):
        for _ in range(10):
            farm.open(
                seconds=chance.uniform(0.02, 0.1), tasks=chance.randint(1, 50), tenant=chance.choice("ab")
            )
        if step == 20:
            gang = farm.open(seconds=0.1, tasks=300, gang=300, tenant=chance.choice("abc"))
        farm.run(0.01)
        if gang is not None and gang.running:
            break
    assert gang is not None
    assert gang.running == 300
    assert farm.now - gang.opened < 1.0, "a turn, the tasks that ran, and a short one"
    farm.scheduler.check()


@pytest.mark.parametrize(("often", "sizes"), [(0.3, (2, 3)), (0.5, (6,)), (0.8, (3, 4, 6))])
def test_the_largest_gang_is_not_passed_by_small_ones_that_come_and_go(
    often: float, sizes: tuple[int, ...]
) -> None:
    for seed in range(8):
        chance = Random(seed)
        farm = Farm(executors=12, check=False)
        big = None
        for step in range(300):
            if chance.random() < often:
                seconds = chance.choice((0.05, 0.1, 0.13))
                farm.open(seconds=seconds, gang=chance.choice(sizes), tasks=12)
            if step == 20:
                big = farm.open(seconds=0.1, gang=12, tasks=12)
            farm.run(0.02)
            if big is not None and not big.tasks:
                break
        assert big is not None
        assert farm.now - big.opened < 2.0, "those that came before it, and its turn"
        farm.scheduler.check()


def test_a_large_gang_has_its_turn_though_small_ones_never_keep_theirs_for_longer_than_they_may() -> None:
    farm = Farm(executors=12)
    for step in range(60):
        if step == 20:
            big = farm.open(seconds=0.1, gang=12, tasks=12)
        if step % 3 == 0:
            farm.open(seconds=0.1, gang=6, tasks=12)
        farm.run(0.02)
    assert not big.tasks


def test_gangs_that_want_more_than_there_is_take_turns_and_none_holds_half() -> None:
    farm = Farm(executors=12)
    jobs = [farm.open(seconds=0.05, gang=n) for n in (8, 7, 12, 5)]
    small = farm.open(seconds=0.01)
    farm.run(20.0)
    for job in [*jobs, small]:
        assert job.longest < 4.0
        assert job.held > 8.0


@pytest.mark.parametrize("seed", range(6))
def test_every_gang_has_its_turn_whatever_else_there_is(seed: int) -> None:
    chance = Random(seed)
    farm = Farm(executors=chance.choice((8, 20, 50)), check=False)
    jobs = [
        farm.open(
            seconds=chance.choice((0.002, 0.01, 0.1)),
            gang=chance.choice((1, 1, 2, 5, 8)),
            weight=chance.choice((1.0, 2.0)),
            tenant=chance.choice("ab"),
            priority=chance.choice((0, 0, 1)),
            limit=chance.choice((0, 0, 8)),
        )
        for _ in range(chance.randint(3, 8))
    ]
    farm.run(60.0)
    assert max(job.longest for job in jobs) < 30.0
    farm.scheduler.check()


def test_an_elastic_session_and_a_gang_that_do_not_fit_beside_each_other_use_the_same() -> None:
    farm = Farm(executors=10, check=False)
    farm.open(seconds=0.01)
    farm.open(seconds=0.01, gang=8)
    farm.run(5.0)
    farm.count_from_now()
    farm.run(60.0)
    assert farm.shares()[1] == pytest.approx(0.5, abs=0.05)


def test_what_a_gang_has_is_had_by_others_when_its_turn_is_over() -> None:
    farm = Farm(executors=3)
    farm.open(seconds=0.01, gang=3)
    single = farm.open(seconds=0.01)
    farm.run(1.0)
    assert single.held > 0.5


# --- backfill


def test_what_is_set_aside_serves_short_tasks_until_the_gang_is_complete() -> None:
    farm = Farm(executors=10)
    long = farm.open(seconds=10.0, limit=1)
    short = farm.open(seconds=0.01)
    farm.run(0.5)
    gang = farm.open(seconds=1.0, gang=10)
    farm.run(0.2)

    assert len(farm.lent(short)) == 9
    assert (long.running, short.running) == (1, 9)
    farm.run(9.9 - farm.now)
    assert not bool(gang.running)
    farm.run(10.03 - farm.now)
    assert gang.running == 10, "within one short task of the long one's end"


def test_long_tasks_do_not_borrow_so_that_the_gang_starts_when_the_last_one_it_waits_for_has_ended() -> None:
    farm = Farm(executors=4)
    farm.open(seconds=1.0, limit=1, tasks=1)
    gang = farm.open(seconds=1.0, gang=4)
    farm.run(0.3)
    long = farm.open(seconds=0.6)
    farm.run(0.6)
    assert len(farm.lent(long)) == 0

    farm.run(0.101)

    assert gang.running == 4


def test_newcomers_have_as_much_of_what_is_lent_as_the_first_and_none_more_than_its_limit() -> None:
    farm = Farm(executors=10)
    farm.open(seconds=10.0, limit=1, tasks=1)
    farm.open(seconds=1.0, gang=10)
    farm.run(0.5)
    first = farm.open(seconds=0.01, limit=6)
    farm.run(0.01)
    assert len(farm.lent(first)) == 6
    others = [farm.open(seconds=0.01) for _ in range(2)]

    farm.run(0.25)

    assert sorted(len(farm.lent(job)) for job in [first, *others]) == [3, 3, 3]


@pytest.mark.parametrize("seed", range(3))
def test_what_is_lent_goes_by_used_share_as_all_else(seed: int) -> None:
    """All that is free is a reservation, which lasts for long: nothing else evens out what they have had."""
    chance = Random(seed)
    farm = Farm(executors=chance.randint(3, 8), check=False)
    long = farm.open(seconds=400.0, limit=1, tasks=1)
    farm.open(seconds=1.0, gang=len(farm.executors))
    weights = [chance.choice((1.0, 2.0, 4.0)) for _ in range(chance.randint(2, 5))]
    shorts = [farm.open(seconds=chance.uniform(0.02, 0.05), weight=weight) for weight in weights]
    farm.run(10.0)
    farm.count_from_now()

    farm.run(100.0)

    assert long.running == 1
    assert sum(len(farm.lent(job)) for job in shorts) >= len(farm.executors) - 2
    total = sum(job.held for job in shorts)
    for job, weight in zip(shorts, weights, strict=True):
        assert job.held / total == pytest.approx(weight / sum(weights), rel=0.15)
    farm.scheduler.check()


def test_what_is_lent_goes_evenly_to_tenants_and_by_priority_to_their_sessions() -> None:
    farm = Farm(executors=12)
    farm.open(seconds=100.0, limit=1, tasks=1, tenant="c")
    farm.open(seconds=1.0, gang=12, tenant="c")
    many = [farm.open(seconds=0.01, tenant="a") for _ in range(3)]
    low, high = (farm.open(seconds=0.01, tenant="b", priority=priority) for priority in (0, 3))
    farm.run(10.0)
    farm.count_from_now()

    farm.run(60.0)

    of_a, of_b = sum(job.held for job in many), low.held + high.held
    assert of_a == pytest.approx(of_b, rel=0.05)
    assert high.held > 4 * low.held > 0
    assert [job.held for job in many] == pytest.approx([of_a / 3] * 3, rel=0.05)


def test_the_turns_of_borrowers_delay_the_gang_by_one_short_task_only() -> None:
    for offset in range(25):
        farm = Farm(executors=4, check=False)
        ends = 3.0 + offset * 0.013
        farm.open(seconds=ends, limit=1, tasks=1)
        gang = farm.open(seconds=1.0, gang=4)
        farm.run(0.5)
        for number in range(5):
            farm.open(seconds=0.13 + 0.007 * number)
        farm.run(ends - farm.now - 0.001)
        assert not bool(gang.running)
        farm.run(0.16)
        assert gang.running == 4, offset


# --- the broker


def executors_of(stage: Stage, alias: int) -> int:
    return len(stage.broker.clients[CLIENT].sessions[alias].executors)


def test_one_task_gets_a_whole_gang_which_rests_until_it_has_ended() -> None:
    stage = Stage(executors=4)
    stage.open(gang=3)
    stage.submit(1)
    assert executors_of(stage, 1) == 3

    number = next(e.number for e in stage.broker.executors.values() if e.tasks)
    stage.finish(number)
    assert executors_of(stage, 1) == 0


def test_a_gang_waits_for_the_tasks_of_others_and_says_so() -> None:
    stage = Stage(executors=3)
    stage.open(1)
    stage.submit(9)
    stage.open(2, gang=3)
    stage.submit(1, alias=2)
    assert "has not come yet" in words(stage, id="s2")
    stage.wait(0.2)
    stage.finish(1, 0.2)
    assert "Gang reservation 1 of 3" in words(stage, id="s2")
    stage.finish(2, 0.2)
    stage.finish(3, 0.2)
    assert executors_of(stage, 2) == 3


def test_a_gang_larger_than_the_cluster_says_so() -> None:
    stage = Stage(executors=4)
    stage.open(gang=8)
    stage.submit(1)
    assert "The cluster has 4 executors, the gang needs 8" in words(stage)


def test_a_gang_with_resources_or_a_limit_below_it_is_refused() -> None:
    stage = Stage(executors=1)
    for spec in ({"resources": (m.Resource("cpu", 1.0),)}, {"max_executors": 1}):
        with pytest.raises(ProtocolError):
            stage.open(gang=2, **spec)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"gang": 0}, "an integer from 1"),
        ({"gang": 4, "max_executors": 3}, "less than one gang of 4"),
        ({"gang": 4, "max_executors": 7, "min_executors": 5}, "allows 4 executors in whole gangs of 4"),
        ({"gang": 2, "resources": "cpu=1"}, "can't be had together"),
    ],
)
def test_what_makes_no_sense_with_a_gang_is_refused_with_a_sentence(asked: dict[str, Any], said: str) -> None:
    terms = {"min_executors": 0, "max_executors": None, "resources": None, **asked}
    with pytest.raises(ValueError, match=said):
        check_gang(terms["gang"], terms["min_executors"], terms["max_executors"], terms["resources"])


# --- for those who look on


def rows(stage: Stage, session: str) -> Row:
    """As `flmctl view -o json` has it."""
    stage.broker.on_client(LOOKER)
    stage.say(LOOKER, m.Ask(1, SESSIONS, session))
    (answer,) = stage.heard(LOOKER, m.Answer)
    return session_row(answer.sessions[0])


def test_the_gangs_of_a_session_are_shown_and_how_far_a_further_one_is_gathered() -> None:
    stage = Stage(executors=5)
    stage.open(1)
    stage.submit(9)
    stage.open(2, gang=3)
    row = rows(stage, "s2")
    assert (row["gang"], row["gangs"], row["gathered"]) == (3, 0, None)
    stage.submit(1, alias=2)
    stage.wait(0.2)
    stage.finish(1, 0.2)
    row = rows(stage, "s2")
    assert (row["gang"], row["gangs"], row["gathered"]) == (3, 0, 1)
    assert "Gang       0 x 3, gathering 1 of 3" in about(row, wide=False)
    for number in (2, 3, 4):
        stage.finish(number, 0.2)

    row = rows(stage, "s2")

    assert (row["slots"], row["gang"], row["gangs"], row["gathered"]) == (3, 3, 1, None)
    assert "Gang       1 x 3\n" in about(row, wide=False)
    assert rows(stage, "s1")["gang"] is None
    assert "Gang" not in about(rows(stage, "s1"), wide=True)


def test_the_table_of_sessions_has_their_gangs_when_it_is_wide() -> None:
    stage = Stage(executors=4)
    stage.open(gang=2)
    stage.submit(3)
    line = table(for_people([rows(stage, "s1")]), COLUMNS, wide=True)
    assert "Gang" in line
    assert "2 x 2" in line
