"""One task at a time: submit, wait, again; beside the bare four-hop echo of the same moments.

Bursts of ours stand between floors, and each is compared with the floors just
before and after it: a burst whose two floors differ by half is thrown away,
because the kernel then changed its mind about cores (see perf/floor.py).  Taken
unpinned and with all processes on one core; the latter is the steady one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median

from perf import floor
from perf.engines import OURS, Engine, roundtrip, started
from perf.loopback import calls_per_task
from perf.measure import Sample, median_sample, percentile, sample, times
from perf.report import Report, Target, at_most
from perf.settings import Settings
from perf.tasks import noop

#: Floors around a burst that differ by more were placed differently.
ALIKE = 1.5


@dataclass(frozen=True, slots=True)
class Burst:
    """Microseconds of one burst, and p50 of the floor before and after it."""

    floor_before_us: float
    p50_us: float
    p90_us: float
    p99_us: float
    cost: Sample
    floor_after_us: float

    @property
    def floor_us(self) -> float:
        return (self.floor_before_us + self.floor_after_us) / 2

    @property
    def comparable(self) -> bool:
        low, high = sorted((self.floor_before_us, self.floor_after_us))
        return high <= ALIKE * low


def run(settings: Settings, report: Report) -> None:
    bursts, rounds = settings.repeats(5, 2), settings.pick(1000, 300)
    for one_core in (False, True):
        for name in settings.engines:
            where = "one core" if one_core else "unpinned"
            asked = (name, one_core, bursts, rounds)
            found = report.attempt(f"{where}: p50", name, "us", None, measure, *asked, limit=30 + bursts * 10)
            if found:
                _add(report, where, name, rounds, found)

    if OURS in settings.engines:
        made = report.attempt("calls per trip", OURS, "", None, calls_per_task, noop, 1, limit=60)
        for who, calls in (made or {}).items():
            report.add(f"calls per trip, {who}", OURS, calls, "", note="by cProfile, in one thread: no noise")


def measure(name: str, one_core: bool, bursts: int, rounds: int) -> list[Burst]:
    """Alternate floors and bursts while the engine stays up."""
    if one_core:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # the engine inherits it
    found: list[Burst] = []
    with started(name) as engine:
        times(lambda: roundtrip(engine), rounds)
        before = floor.four_hop(rounds, one_core=one_core).p50_us
        for _ in range(bursts):
            times(lambda: roundtrip(engine), 50)  # the floor has cooled the caches
            took, cost = _burst(engine, rounds)
            after = floor.four_hop(rounds, one_core=one_core).p50_us
            p50, p90, p99 = (percentile(took, quantile) * 1e6 for quantile in (0.50, 0.90, 0.99))
            found.append(Burst(before, p50, p90, p99, cost, after))
            before = after
    return found


def _burst(engine: Engine, rounds: int) -> tuple[list[float], Sample]:
    took: list[float] = []
    cost = sample(engine.pids(), lambda: took.extend(times(lambda: roundtrip(engine), rounds)))
    return took, cost


def _add(report: Report, where: str, name: str, rounds: int, found: Sequence[Burst]) -> None:
    ours = name == OURS
    fair = [burst for burst in found if burst.comparable]
    report.add(
        f"{where}: p50",
        name,
        median(b.p50_us for b in found),
        "us",
        note=f"p90 {median(b.p90_us for b in found):.0f}, p99 {median(b.p99_us for b in found):.0f}; "
        f"floor p50 {median(b.floor_us for b in found):.0f}",
        costs=median_sample([b.cost for b in found]).costs(rounds),
    )
    for label, limit, ratios in (
        ("p50", 1.1, [b.p50_us / b.floor_us for b in fair]),
        ("p99", 1.6, [b.p99_us / b.floor_us for b in fair]),
    ):
        target: Target | None = at_most(limit) if ours else None
        report.add(
            f"{where}: {label}, times the four-hop floor's p50",
            name,
            median(ratios) if ratios else None,
            "x",
            target,
            f"{len(fair)} of {len(found)} bursts comparable",
        )
    report.raw += [{"engine": name, "where": where} | asdict(b) for b in found]
