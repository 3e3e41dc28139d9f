"""Weights, minima, priorities, tenants: the scheduler alone, on farms of fake time.

`Farm` itself fails when an executor idles that a session could use, or when a session
has more than its limit.
"""

from __future__ import annotations

import sys
from random import Random

import pytest

from flamezmq.scheduler import Scheduler
from tests.farm import Farm


@pytest.mark.parametrize("seed", range(6))
def test_sessions_get_what_their_weights_say_within_two_percent(seed: int) -> None:
    chance = Random(seed)
    farm = Farm(executors=3000, check=False)
    weights = [chance.choice((0.5, 1.0, 2.0, 3.0, 7.0)) for _ in range(chance.randint(2, 12))]
    for weight in weights:
        farm.open(seconds=chance.uniform(0.05, 0.5), weight=weight)
    farm.run(2.0)
    farm.count_from_now()

    farm.run(1.0)

    for share, weight in zip(farm.shares(), weights, strict=True):
        assert share == pytest.approx(weight / sum(weights), rel=0.02)
    farm.scheduler.check()


@pytest.mark.parametrize("seed", range(12))
def test_a_few_executors_are_shared_by_weight_as_well_in_the_course_of_time(seed: int) -> None:
    chance = Random(seed)
    farm = Farm(executors=chance.randint(1, 7), check=False)
    weights = [chance.choice((1.0, 2.0, 3.0, 5.0)) for _ in range(chance.randint(2, 5))]
    for weight in weights:
        farm.open(seconds=chance.uniform(0.001, 0.02), weight=weight)
    farm.run(5.0)
    farm.count_from_now()

    farm.run(60.0)

    for share, weight in zip(farm.shares(), weights, strict=True):
        assert share == pytest.approx(weight / sum(weights), rel=0.02)


def test_weights_of_one_two_and_four_share_seven_executors_as_these() -> None:
    farm = Farm(executors=7)
    jobs = [farm.open(weight=weight) for weight in (1.0, 2.0, 4.0)]

    farm.run(1.0)

    assert [job.running for job in jobs] == [1, 2, 4]


@pytest.mark.parametrize("seed", range(4))
def test_tenants_have_equal_shares_however_many_sessions_they_have(seed: int) -> None:
    chance = Random(seed)
    farm = Farm(executors=1200, check=False)
    tenants = [chance.choice("abc") for _ in range(8)]
    for tenant in tenants:
        farm.open(seconds=chance.uniform(0.05, 0.5), tenant=tenant)
    farm.run(2.0)
    farm.count_from_now()

    farm.run(1.0)

    for share, tenant in zip(farm.shares(), tenants, strict=True):
        ideal = 1 / len(set(tenants)) / tenants.count(tenant)
        assert share == pytest.approx(ideal, rel=0.02)


def test_what_one_cannot_use_the_others_of_its_tenant_get_first() -> None:
    farm = Farm(executors=12)
    modest = farm.open(seconds=1.0, tasks=1, tenant="a")
    greedy = farm.open(tenant="a")
    other = farm.open(tenant="b")

    farm.run(0.5)

    assert (modest.running, greedy.running, other.running) == (1, 5, 6)


# --- priorities


def test_a_higher_priority_gets_ten_times_what_the_next_lower_one_gets() -> None:
    farm = Farm(executors=110, check=False)
    low = [farm.open(seconds=0.01) for _ in range(5)]
    farm.run(1.0)

    high = farm.open(seconds=0.01, priority=1)
    farm.run(1.0)

    assert high.running == 100
    assert [job.running for job in low] == [2] * 5


def test_where_a_higher_priority_wants_nothing_the_lower_one_gets_all() -> None:
    farm = Farm(executors=10)
    high = farm.open(seconds=0.1, tasks=5, priority=5)
    low = farm.open(seconds=0.1)

    farm.run(1.0)

    assert (high.running, low.running) == (0, 10)


@pytest.mark.parametrize("seed", range(8))
def test_nobody_starves_whatever_the_priorities_are(seed: int) -> None:
    chance = Random(seed)
    farm = Farm(executors=chance.choice((1, 2, 5, 20)), check=False)
    jobs = [
        farm.open(
            seconds=chance.uniform(0.001, 0.01),
            priority=chance.choice((-100, -1, 0, 1, 5, 1000)),
            weight=chance.choice((0.5, 1.0, 4.0)),
            tenant=chance.choice("ab"),
        )
        for _ in range(chance.randint(2, 8))
    ]

    farm.run(100.0)

    for job in jobs:
        assert job.held > 0
        assert job.longest < 50.0, f"job {job.number} has waited for {job.longest:.1f} s"


# --- minima and limits


@pytest.mark.parametrize("seed", range(6))
def test_a_minimum_is_there_within_the_length_of_a_task(seed: int) -> None:
    chance = Random(seed)
    farm = Farm(executors=64)
    longest = 0.0
    for _ in range(3):
        seconds = chance.uniform(0.05, 0.3)
        longest = max(longest, seconds)
        farm.open(seconds, weight=chance.choice((1.0, 100.0)), priority=chance.choice((0, 9)))
    farm.run(chance.random())

    claims = [farm.open(0.01, minimum=chance.randint(1, 15), weight=0.01) for _ in range(4)]
    farm.run(1.0)

    for job in claims:
        assert job.complete - job.opened <= longest + 1e-6
        assert job.running >= job.minimum


def test_a_minimum_stays_while_its_session_has_nothing_to_do_and_others_wait() -> None:
    farm = Farm(executors=4)
    quiet = farm.open(tasks=0, minimum=2)
    farm.open(weight=50.0)
    farm.open(weight=50.0, priority=9)

    farm.run(5.0)

    assert (quiet.running, len(quiet.resting)) == (2, 2)
    farm.add(quiet, 2)
    assert quiet.tasks == 0, "they begin at once"


def test_minima_that_are_more_than_there_is_are_met_in_the_order_of_their_coming() -> None:
    farm = Farm(executors=3)
    jobs = [farm.open(minimum=2) for _ in range(3)]

    farm.run(2.0)

    assert [job.running for job in jobs[:1]] == [2]
    assert sum(job.running for job in jobs) == 3


def test_a_minimum_above_the_limit_is_the_limit() -> None:
    farm = Farm(executors=4)
    job = farm.open(tasks=0, minimum=3, limit=2)
    farm.run(1.0)
    assert job.running == 2


@pytest.mark.parametrize("seed", range(12))
def test_no_executor_idles_and_no_limit_is_passed_whatever_comes(seed: int) -> None:
    """The farm looks after every event."""
    chance = Random(seed)
    farm = Farm(executors=chance.randint(1, 12))
    minima = farm.scheduler.idle - 1
    for _ in range(60):
        farm.run(chance.random() * 0.2)
        if farm.jobs and chance.random() < 0.6:
            farm.add(chance.choice(list(farm.jobs.values())), chance.choice((1, 3, 40)))
        elif len(farm.jobs) < 9:
            minimum = chance.choice((0, 0, 0, 1)) if minima else 0
            minima -= minimum
            farm.open(
                seconds=chance.choice((0.001, 0.02, 0.3)),
                tasks=chance.choice((0, 5, 100)),
                weight=chance.choice((0.5, 1.0, 3.0)),
                limit=chance.choice((0, 0, 1, 3)),
                minimum=minimum,
                tenant=chance.choice(("", "b")),
                priority=chance.choice((0, 0, 2, -3)),
            )
    farm.run(200.0)
    assert all(not job.tasks for job in farm.jobs.values()), "all is done in the end"


# --- changes


def test_a_change_of_weight_is_followed_at_the_ends_of_tasks() -> None:
    farm = Farm(executors=30)
    first, second = farm.open(), farm.open()
    farm.run(1.0)
    assert (first.running, second.running) == (15, 15)

    farm.scheduler.set(1, weight=2.0)
    farm.run(1.0)

    assert (first.running, second.running) == (20, 10)


def test_a_change_of_priority_takes_the_session_to_its_new_brothers() -> None:
    farm = Farm(executors=11, check=False)
    first, second = farm.open(seconds=0.01), farm.open(seconds=0.01)
    farm.run(1.0)

    farm.scheduler.set(2, priority=3)
    farm.run(1.0)

    assert (first.running, second.running) == (1, 10)
    farm.scheduler.check()


def test_a_limit_that_is_lowered_takes_back_what_is_above_it() -> None:
    farm = Farm(executors=8)
    job = farm.open()
    farm.run(0.05)
    assert job.running == 8

    job.limit = 3
    farm.scheduler.set(1, limit=3)
    farm.run(0.04)
    assert job.running == 8, "not before its tasks have ended"
    farm.run(0.2)
    assert job.running == 3


def test_a_suspended_session_gives_back_all_and_gets_nothing_until_it_goes_on() -> None:
    farm = Farm(executors=6)
    job, other = farm.open(minimum=2), farm.open()
    farm.run(1.0)
    assert job.running == 3

    farm.scheduler.suspend(1)
    farm.run(1.0)
    assert (job.running, other.running) == (0, 6)

    farm.scheduler.suspend(1, False)
    farm.run(1.0)
    assert (job.running, other.running) == (3, 3)


# --- what rests


def test_what_rests_is_given_back_before_what_works() -> None:
    scheduler = Scheduler()
    for executor in (101, 102, 103):
        scheduler.add_executor(executor)
    scheduler.add_session(1, 0.0)
    scheduler.want(1, 3)
    assert len(scheduler.decide(0.0).assign) == 3
    scheduler.want(1, 2)
    scheduler.rest(102)

    scheduler.add_session(2, 1.0)
    scheduler.want(2, 1)

    assert scheduler.decide(1.0).reclaim == [102]


# --- cost


# --- services, which have to be loaded again after a change of hands


@pytest.mark.parametrize("seed", range(6))
def test_services_in_turns_load_for_a_tenth_of_the_time_at_most_and_all_have_their_shares(seed: int) -> None:
    chance = Random(seed)
    farm = Farm(executors=chance.randint(1, 2), check=False)
    loads = [2.0, *(chance.choice((0.0, 0.2, 2.0)) for _ in range(chance.randint(2, 4)))]
    jobs = [farm.open(seconds=chance.uniform(0.02, 0.2), loads=each) for each in loads]
    farm.run(200.0)
    farm.count_from_now()

    farm.run(2000.0)

    assert sum(job.loaded * job.loads for job in jobs) <= 0.1 * sum(job.held for job in jobs)
    assert jobs[0].loaded >= 2000.0 / (len(jobs) * 100.0), "it has its turns"
    for share in farm.shares():
        assert share == pytest.approx(1 / len(jobs), rel=0.05)
    farm.scheduler.check()


def test_the_first_load_of_a_service_is_not_thrown_away_though_nobody_knows_yet_how_long_it_takes() -> None:
    farm = Farm(executors=1, check=False)
    first = farm.open(seconds=0.01, loads=2.0)
    farm.open(seconds=0.01, loads=2.0)

    farm.run(20.0)
    assert first.loaded == 1
    assert first.running == 1


def test_functions_change_hands_in_short_turns_beside_a_service_that_waits() -> None:
    farm = Farm(executors=1, check=False)
    service = farm.open(seconds=0.05, loads=0.2)
    functions = [farm.open(seconds=0.01) for _ in range(2)]
    farm.run(60.0)
    farm.count_from_now()

    farm.run(120.0)

    assert service.loaded >= 10
    for job in functions:
        assert job.longest < 2.5, "one turn of the service, and not of all others"
    assert farm.shares() == pytest.approx([1 / 3] * 3, rel=0.05)
    farm.scheduler.check()


def test_a_service_of_little_work_does_not_load_again_for_each_task() -> None:
    farm = Farm(executors=1, check=False)
    farm.open(seconds=0.01)
    service = farm.open(seconds=0.01, tasks=1, loads=0.5)
    farm.run(10.0)
    farm.count_from_now()
    for _ in range(100):
        farm.add(service, 1)
        farm.run(1.0)

    assert 10 <= service.loaded <= 20, "every 5 s, not every second"
    assert service.longest < 7.0


def test_a_minimum_and_a_higher_priority_do_not_wait_for_the_turn_of_a_service() -> None:
    farm = Farm(executors=1, check=False)
    farm.open(seconds=0.01, loads=2.0, priority=0)
    farm.run(30.0)

    high = farm.open(seconds=0.01, tasks=10, priority=5)
    farm.run(0.1)
    assert high.served > 30.0
    farm.run(60.0)
    kept = farm.open(seconds=0.01, minimum=1, priority=0)
    farm.run(0.1)

    assert kept.complete < 90.2


def test_what_rests_is_given_back_at_once_though_its_service_is_dear() -> None:
    scheduler = Scheduler()
    scheduler.add_executor(101)
    scheduler.add_session(1, 0.0, enters=2.0, minimum=0)
    scheduler.want(1, 1)
    assert scheduler.decide(0.0).assign == [(101, 1)]
    scheduler.rest(101)
    scheduler.add_session(2, 0.0)
    scheduler.want(2, 1)

    assert not scheduler.decide(0.001).reclaim
    assert scheduler.decide(0.1).reclaim == [101]


def test_a_session_gets_an_executor_that_is_warm_for_nobody_before_one_that_is() -> None:
    scheduler = Scheduler()
    for number in (101, 102, 103, 104):
        scheduler.add_executor(number)
    served = {}
    for session, enters in ((1, 2.0), (2, -1.0), (3, 0.0)):
        scheduler.add_session(session, 0.0, enters=enters)
        scheduler.want(session, 1)
        ((served[session], _),) = scheduler.decide(0.0).assign
    for session, executor in served.items():
        scheduler.want(session, 0)
        scheduler.release(executor, float(session))
    scheduler.check()

    scheduler.add_session(4, 5.0)
    scheduler.want(4, 4)
    given = [executor for executor, _ in scheduler.decide(5.0).assign]

    (untouched,) = {101, 102, 103, 104} - set(served.values())
    assert given == [served[3], untouched, served[1], served[2]], "then the one that idles for the longest"


def test_what_served_a_service_that_is_gone_is_as_good_as_any() -> None:
    scheduler = Scheduler()
    scheduler.add_executor(101)
    scheduler.add_executor(102)
    scheduler.add_session(1, 0.0, enters=2.0)
    scheduler.want(1, 1)
    ((served, _),) = scheduler.decide(0.0).assign
    scheduler.want(1, 0)
    scheduler.release(served, 1.0)
    scheduler.remove_session(1)
    scheduler.check()

    scheduler.add_session(2, 2.0)
    scheduler.want(2, 1)

    assert scheduler.decide(2.0).assign == [(served, 2)], "the latest one that was free"


def test_what_a_bind_costs_does_not_grow_with_the_number_of_sessions() -> None:
    """Counted in calls of functions, so that no clock of a busy machine decides."""

    def calls(sessions: int) -> int:
        scheduler = Scheduler()
        for number in range(1, sessions + 1):
            scheduler.add_session(number, 0.0)
            scheduler.want(number, 5000)
        for executor in range(10_000, 11_000):
            scheduler.add_executor(executor)
        scheduler.decide(0.0)
        counted = 0

        def count(_frame: object, event: str, _argument: object) -> None:
            nonlocal counted
            counted += event == "call"

        sys.setprofile(count)
        try:
            for step in range(200):
                scheduler.release(10_000 + 5 * step, 0.001)
                scheduler.decide(0.001)
        finally:
            sys.setprofile(None)
        return counted

    assert calls(1000) < 1.5 * calls(10)


@pytest.mark.parametrize("seed", range(4))
def test_nobody_starves_beside_minima_either(seed: int) -> None:
    chance = Random(seed)
    farm = Farm(executors=40, check=False)
    for _ in range(8):
        farm.open(
            seconds=chance.uniform(0.005, 0.02),
            priority=chance.choice((-100, -1, 0, 1, 5, 1000)),
            weight=chance.choice((0.5, 1.0, 4.0)),
            minimum=chance.choice((0, 0, 0, 2, 8)),
        )

    farm.run(20.0)

    for job in farm.jobs.values():
        assert job.longest < 10.0, f"job {job.number} has waited for {job.longest:.1f} s"
        assert job.running - job.leaving >= job.minimum
    farm.scheduler.check()


def test_a_session_beside_minima_that_take_all_of_its_priority_does_not_starve() -> None:
    farm = Farm(executors=120)
    beside = farm.open(seconds=0.01)
    for minimum in (10, 20):
        farm.open(seconds=0.01, minimum=minimum)
    high = farm.open(seconds=0.01, priority=1)
    farm.run(5.0)
    farm.count_from_now()

    farm.run(10.0)

    assert beside.longest < 1.0
    assert 5 <= beside.running <= 9, "a tenth of what high has: the minima are not counted in"
    assert high.running == 90 - beside.running
