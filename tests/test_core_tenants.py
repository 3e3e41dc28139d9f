"""Weights and limits of tenants: the scheduler alone, on farms of fake time.

`Farm` itself fails when an executor idles that a session could use, or when a session
or a tenant has more than its limit.
"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from flamezmq import waits
from flamezmq.core.members import Session, Tenant
from flamezmq.scheduler import Scheduler
from tests.core_stage import Stage
from tests.farm import Farm
from tests.test_core_explain import words


@pytest.mark.parametrize("seed", range(6))
def test_tenants_have_what_their_weights_say_within_two_percent(seed: int) -> None:
    chance = Random(seed)
    farm = Farm(executors=1200, check=False)
    weights = {name: chance.choice((0.5, 1.0, 2.0, 5.0)) for name in "abcd"}
    for name, weight in weights.items():
        farm.scheduler.set_tenant(name, weight=weight)
    tenants = [*"abcd", *(chance.choice("abcd") for _ in range(5))]
    for name in tenants:
        farm.open(seconds=chance.uniform(0.05, 0.5), tenant=name)
    farm.run(2.0)
    farm.count_from_now()

    farm.run(1.0)

    for share, name in zip(farm.shares(), tenants, strict=True):
        ideal = weights[name] / sum(weights.values()) / tenants.count(name)
        assert share == pytest.approx(ideal, rel=0.02)
    farm.scheduler.check()


def test_a_change_of_a_tenants_weight_is_followed_at_the_ends_of_tasks() -> None:
    farm = Farm(executors=30)
    first, second = farm.open(tenant="a"), farm.open(tenant="b")
    farm.run(1.0)
    assert (first.running, second.running) == (15, 15)

    farm.scheduler.set_tenant("a", weight=2.0)
    farm.run(1.0)
    assert (first.running, second.running) == (20, 10)

    farm.scheduler.set_tenant("*", weight=4.0)
    farm.run(1.0)
    assert (first.running, second.running) == (10, 20), "b is not named"


# --- limits


def test_a_tenant_never_has_more_than_its_limit_and_others_have_what_it_leaves() -> None:
    farm = Farm(executors=12)
    farm.limit("labs", 4)
    labs = [farm.open(tenant="labs") for _ in range(3)]
    other = farm.open(tenant="b")

    farm.run(5.0)

    assert farm.serving("labs") == 4
    assert other.running == 8
    assert all(job.held > 0 for job in labs)


def test_the_sessions_of_a_tenant_at_its_limit_share_what_it_has_by_their_weights() -> None:
    farm = Farm(executors=40, check=False)
    farm.limit("labs", 7)
    for weight in (1.0, 2.0, 4.0, 7.0):
        farm.open(seconds=0.01, tenant="labs", weight=weight)
    farm.run(5.0)
    farm.count_from_now()

    farm.run(30.0)

    assert farm.shares() == pytest.approx([1 / 14, 2 / 14, 4 / 14, 7 / 14], rel=0.02)
    assert farm.scheduler.idle == 33, "nobody else wants any"
    farm.scheduler.check()


@pytest.mark.parametrize("seed", range(4))
def test_tenants_with_weights_and_limits_share_as_water_fills_vessels(seed: int) -> None:
    chance = Random(seed)
    farm = Farm(executors=1000, check=False)
    weights = {name: chance.choice((1.0, 2.0, 4.0)) for name in "abcd"}
    limits = {"a": 20, "b": chance.choice((0, 150)), "c": 0, "d": 0}
    for name in "abcd":
        farm.scheduler.set_tenant(name, weight=weights[name])
        farm.limit(name, limits[name])
        for _ in range(3):
            farm.open(seconds=chance.uniform(0.05, 0.3), tenant=name)
    farm.run(2.0)
    farm.count_from_now()

    farm.run(1.0)

    shares = farm.shares()
    for place, name in enumerate("abcd"):
        had = sum(shares[3 * place : 3 * place + 3]) * 1000
        assert had == pytest.approx(water_level(1000, weights, limits)[name], rel=0.02)


def water_level(there: float, weights: dict[str, float], limits: dict[str, int]) -> dict[str, float]:
    """What each is to have: by weights, but for those whose limit is less."""
    found: dict[str, float] = {}
    while True:
        rest = {name: weight for name, weight in weights.items() if name not in found}
        left = there - sum(found.values())
        fair = {name: left * weight / sum(rest.values()) for name, weight in rest.items()}
        over = {name: float(limits[name]) for name in rest if 0 < limits[name] < fair[name]}
        if not over:
            return found | fair
        found |= over


def test_nothing_is_asked_back_from_others_for_a_tenant_that_has_all_that_it_may() -> None:
    scheduler = Scheduler()
    for executor in range(101, 113):
        scheduler.add_executor(executor)
    scheduler.set_tenant("labs", max_executors=4)
    for session, tenant in ((1, "labs"), (2, "b")):
        scheduler.add_session(session, 0.0, tenant=tenant)
        scheduler.want(session, 12)

    moves = [scheduler.decide(now / 10) for now in range(30)]

    assert [len(each.assign) for each in moves] == [12] + 29 * [0]
    assert not any(each.reclaim for each in moves)


def test_minima_beyond_a_tenants_limit_are_served_to_the_limit() -> None:
    farm = Farm(executors=10)
    farm.limit("labs", 3)
    jobs = [farm.open(tenant="labs", minimum=2) for _ in range(3)]
    other = farm.open()

    farm.run(2.0)

    assert [job.running for job in jobs] == [2, 1, 0], "in the order of their coming"
    assert other.running == 7


def test_a_minimum_in_a_tenant_at_its_limit_comes_from_the_others_of_the_tenant() -> None:
    farm = Farm(executors=10)
    farm.limit("labs", 4)
    greedy = farm.open(tenant="labs")
    farm.run(0.05)

    job = farm.open(tenant="labs", minimum=2, weight=0.01)
    farm.run(0.2)

    assert (greedy.running, job.running) == (2, 2)
    assert job.complete <= 0.16


def test_a_gang_in_a_tenant_at_its_limit_gets_its_turn_from_the_others_of_the_tenant() -> None:
    farm = Farm(executors=20)
    farm.limit("labs", 6)
    small = farm.open(tenant="labs")
    farm.open()
    farm.run(0.5)

    gang = farm.open(tenant="labs", gang=4)
    farm.run(10.0)

    assert gang.held > 0.3 * (gang.held + small.held)
    assert farm.serving("labs") in (4, 6)


def test_a_gang_that_is_larger_than_what_its_tenant_may_have_does_not_hold_anybody_up() -> None:
    farm = Farm(executors=10)
    farm.limit("labs", 3)
    gang = farm.open(tenant="labs", gang=4)
    small = farm.open(tenant="labs")

    farm.run(3.0)

    assert (gang.running, small.running) == (0, 3)


def test_a_limit_that_is_lowered_is_reached_at_the_ends_of_tasks_and_can_be_lifted() -> None:
    farm = Farm(executors=9, check=True)
    job = farm.open(tenant="labs", minimum=5)
    farm.run(0.05)
    assert job.running == 9

    farm.limit("labs", 2)
    assert job.running == 9, "its tasks go on"
    farm.run(0.2)
    assert job.running == 2, "its minimum is more than its tenant may have"

    farm.limit("labs", 0)
    assert job.running == 9


@pytest.mark.parametrize("seed", range(12))
def test_no_executor_idles_and_no_limit_of_a_tenant_is_passed_whatever_comes(seed: int) -> None:
    """The farm looks after every event."""
    chance = Random(seed)
    farm = Farm(executors=chance.randint(4, 12))
    for tenant in "ab":
        farm.limit(tenant, chance.choice((1, 2, 3, 5, 0)))
    for _ in range(60):
        farm.run(chance.random() * 0.2)
        if chance.random() < 0.1:
            farm.limit(chance.choice("ab"), chance.choice((1, 2, 4, 7, 0)))
        elif farm.jobs and chance.random() < 0.6:
            farm.add(chance.choice(list(farm.jobs.values())), chance.choice((1, 3, 40)))
        elif len(farm.jobs) < 9:
            farm.open(
                seconds=chance.choice((0.001, 0.02, 0.3)),
                tasks=chance.choice((0, 5, 100)),
                weight=chance.choice((0.5, 1.0, 3.0)),
                limit=chance.choice((0, 0, 6)),
                minimum=chance.choice((0, 0, 0, 1, 2)),
                tenant=chance.choice("aabbc"),
                priority=chance.choice((0, 0, 2, -3)),
                gang=chance.choice((1, 1, 1, 2, 3)),
            )
    for job in farm.jobs.values():
        job.minimum = 0
        farm.scheduler.set(job.number, minimum=0)
    for tenant in "ab":
        farm.limit(tenant, 4)
    farm.run(120.0)
    assert all(not job.tasks for job in farm.jobs.values()), "all is done in the end"


# --- with a broker


def labs(executors: int = 4, **terms: Any) -> tuple[Stage, Session]:
    stage = Stage(executors, tenants={"labs": Tenant(**terms)})
    return stage, stage.open(tenant="labs")


def test_explain_says_that_the_tenant_has_all_that_it_may_and_since_when() -> None:
    stage, _ = labs(max_executors=2)
    stage.teach(1.0)
    stage.submit(8)
    stage.open(alias=2, tenant="labs")
    stage.submit(1, alias=2)
    stage.now += 5.0

    assert sum(1 for each in stage.holds() if each) == 2
    said = words(stage, 0, "s2")
    assert "Tenant 'labs' uses 2 executors of its 2 executors (max_executors of [tenants.labs])" in said
    assert "since 5 s" in said


def test_explain_says_that_a_session_needs_more_than_its_tenant_may_have() -> None:
    stage, _ = labs(max_executors=2)
    stage.open(alias=2, tenant="labs", gang=3)
    stage.submit(1, alias=2)

    said = words(stage, 0, "s2")

    assert "needs 3 executors and its tenant may have 2 executors (max_executors of [tenants.labs])" in said


@pytest.mark.parametrize(("most", "served"), [("cpu=1", 2), ("gpu=0,cpu=1.5", 3), ("gpu=0", 4)])
def test_executors_count_for_what_they_have_of_their_node(most: str, served: int) -> None:
    stage, _ = labs(executors=4, resources=most)  # of a node with 2 cores
    stage.teach(1.0)
    stage.submit(20)
    stage.wait(0.1)

    assert sum(1 for each in stage.holds() if each) == served


def test_a_session_that_asks_for_more_than_a_brother_has_gets_its_turn_under_the_tenants_limit() -> None:
    scheduler = Scheduler()
    scheduler.add_node("n", {"cpu": 8.0, "gpu": 4.0}, 8)
    for executor in range(101, 109):
        scheduler.add_executor(executor, "n")
    scheduler.set_tenant("labs", resources={"gpu": 2.0})
    scheduler.add_session(1, 0.0, tenant="labs", request={"gpu": 1.0})
    scheduler.want(1, 9)
    first = [executor for executor, _ in scheduler.decide(0.0).assign]
    assert len(first) == 2

    scheduler.add_session(2, 0.0, tenant="labs", request={"gpu": 2.0})
    scheduler.want(2, 1)
    going = scheduler.decide(1.0).reclaim
    scheduler.check()
    assert sorted(going) == sorted(first), "both, for it needs what both have"
    for executor in going:
        scheduler.release(executor, 1.1)
        assigned = scheduler.decide(1.1).assign
        scheduler.check()

    assert [session for _, session in assigned] == [2]
    assert waits.explain(scheduler, 1).cause == "tenant"
