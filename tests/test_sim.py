"""A thousand runs of the simulated cluster: the real cores, fake time, seeded faults.

Each run draws its cluster and its weather from its seed, compares all indices
after every turn, and settles the account of every task at its end; see `tests/sim`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.cluster import Cluster
from tests.sim.plan import Plan, draw

ROOT = Path(__file__).parents[1]
RUNS = 1000
#: So many in `make test`; the others in the slow tests.
FIRST_RUNS = 200
#: Runs in one test: a second or two, far from the time that a test may take.
CHUNK = 50


MORE = [pytest.param(first, marks=pytest.mark.slow) for first in range(FIRST_RUNS, RUNS, CHUNK)]


@pytest.mark.parametrize("first", [*range(0, FIRST_RUNS, CHUNK), *MORE])
def test_nothing_is_lost_doubled_or_stuck_whatever_the_weather(first: int) -> None:
    failures: list[str] = []
    for seed in range(first, first + CHUNK):
        try:
            Cluster(seed).run()
        except Exception as error:
            failures.append(
                f"seed {seed}: {type(error).__name__}: {error}\n"
                f"  drawn: {draw(seed)}\n"
                f"  replay: python -m tests.sim {seed}"
            )
    if failures:
        pytest.fail(f"{len(failures)} of {CHUNK} runs failed\n" + "\n".join(failures), pytrace=False)


def digests(hash_seed: str) -> str:
    """What the router said in some runs, in a Python whose sets have another order."""
    script = "from tests.sim.cluster import Cluster; print([Cluster(seed).run() for seed in range(12)])"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert not done.returncode, done.stderr
    return done.stdout


def test_a_seed_gives_the_same_messages_in_the_same_order_always() -> None:
    here = [Cluster(seed).run() for seed in range(12)]

    assert len(set(here)) == 12
    assert digests("1") == digests("2") == f"{here}\n"


def test_a_quiet_day_ends_every_task_at_its_first_attempt() -> None:
    cluster = Cluster(1, Plan(executors=3, users=2, sessions=2, tasks=100))

    cluster.run()

    accounts = cluster.ledger.accounts.values()
    assert len(accounts) > 100
    assert all([attempt for _, attempt in account.begins] == [1] for account in accounts)


def test_sessions_of_equal_demand_get_equal_time_of_the_executors() -> None:
    """Four sessions on one executor: when half of the work is done, none is far ahead."""
    cluster = Cluster(2, Plan(executors=1, users=0))
    user = cluster.add_user("u0")
    sessions = [user.open(3, 100, ("=0.001",)) for _ in range(4)]
    for session in sessions:
        session.submit(100)
    user.push()

    cluster.world.run(10.0, lambda: sum(s.calls.unfinished for s in sessions) <= 200)

    left = [session.calls.unfinished for session in sessions]
    assert sum(left) <= 200
    assert max(left) - min(left) < 30, left
