"""All that the scheduler promises, at once and at size: thousands of executors, a million tasks, fake time.

`Farm` itself fails when an executor idles that a session could use, when a session has more
than its limit, or when one does not have whole gangs.
"""

from __future__ import annotations

from random import Random

import pytest

from tests.farm import Farm, Job

EXECUTORS = 3000
#: The longest task.
LONGEST = 0.1


def mixed(farm: Farm, chance: Random) -> dict[Job, float]:
    """Tenants with sessions of several priorities and minima, with limits and gangs, and by weight: these."""

    def seconds() -> float:
        return chance.randint(2, 10) * LONGEST / 10

    weights = {}
    for _ in range(8):
        weight = chance.choice((1.0, 2.0, 3.0, 7.0))
        weights[farm.open(seconds(), weight=weight, tenant="a")] = weight
    for priority in (0, 1, 7):
        for _ in range(3):
            farm.open(seconds(), tenant="b", priority=priority, minimum=chance.choice((0, 0, 20)))
    for _ in range(4):
        farm.open(seconds(), tenant="c", limit=chance.randint(5, 60))
    for _ in range(3):
        farm.open(seconds(), tenant="c", gang=chance.choice((10, 40)), limit=200)
    return weights


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_million_tasks_on_thousands_of_executors_are_shared_as_promised() -> None:
    chance = Random(1)
    farm = Farm(executors=EXECUTORS, check=False)
    weights = mixed(farm, chance)
    farm.run(2.0)
    farm.count_from_now()
    farm.run(5.0)

    of_a = sum(job.held for job in weights)
    for job, weight in weights.items():
        assert job.held / of_a == pytest.approx(weight / sum(weights.values()), rel=0.02)
    assert max(job.longest for job in farm.jobs.values()) < 1.0, "nobody starves"

    claim = farm.open(seconds=0.05, minimum=300, weight=0.01, tenant="b")
    farm.run(LONGEST + 1e-6)
    assert claim.complete - claim.opened <= LONGEST + 1e-6
    for job in farm.jobs.values():
        farm.scheduler.set(job.number, minimum=0)
        job.minimum = 0

    gang = farm.open(seconds=0.1, tasks=EXECUTORS, gang=EXECUTORS, tenant="e")
    while not gang.running and farm.now < gang.opened + 1.0:
        farm.run(0.1)
    assert gang.running == EXECUTORS, "in bounded time"
    while farm.begun < 1_000_000:
        farm.run(0.1)
    farm.scheduler.check()
