"""Weights and limits of tenants: the scheduler alone, on farms of fake time.

`Farm` itself fails when an executor idles that a session could use, or when a session
or a tenant has more than its limit.
"""

from __future__ import annotations

from random import Random

import pytest

from tests.farm import Farm


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
