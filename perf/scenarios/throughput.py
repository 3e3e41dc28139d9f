"""Rates by size: no-op tasks submitted one by one, and the engine's best batch call (map).

A rate that falls with the number of tasks shows a queue whose cost depends on
its length, or memory that is not given back.
"""

from __future__ import annotations

from statistics import median

from perf.engines import OURS, exhaust, started, submit_all
from perf.measure import Sample, median_sample, sample
from perf.report import Report, at_least
from perf.settings import Settings
from perf.tasks import noop

#: The peers need minutes for more.
PEERS_SUBMIT_AT_MOST, PEERS_MAP_AT_MOST = 10_000, 1_000_000


def run(settings: Settings, report: Report) -> None:
    submits = settings.pick((10_000, 100_000, 1_000_000), (2_000, 10_000))
    items = settings.pick((100_000, 1_000_000, 10_000_000), (10_000, 100_000))
    repeats = settings.repeats(3)
    for name in settings.engines:
        _submits(report, name, submits, repeats)
        _maps(report, name, items, repeats)


def _submits(report: Report, name: str, sizes: tuple[int, ...], repeats: int) -> None:
    first = 0.0
    for tasks in sizes:
        if name != OURS and tasks > PEERS_SUBMIT_AT_MOST:
            continue
        figure = f"submit {tasks:,} no-ops"
        rate = _measured(report, figure, name, False, tasks, repeats)
        if name == OURS and first and rate:
            report.add(f"{figure}, times the rate at {sizes[0]:,}", name, rate / first, "x", at_least(0.8))
        first = first or rate


def _maps(report: Report, name: str, sizes: tuple[int, ...], repeats: int) -> None:
    for items in sizes:
        if name != OURS and items > PEERS_MAP_AT_MOST:
            continue
        _measured(report, f"map over {items:,} items", name, True, items, repeats)


def _measured(report: Report, figure: str, name: str, mapped: bool, count: int, repeats: int) -> float:
    """Add the row; return the rate, 0 if there is none."""
    unit = "items/s" if mapped else "tasks/s"
    target = at_least(3_000_000) if mapped and name == OURS else None
    limit = 60 + repeats * count * 300e-6
    found = report.attempt(figure, name, unit, target, rates, name, mapped, count, repeats, limit=limit)
    if found is None:
        return 0.0
    each = sorted(count / s.seconds for s in found)
    rate = median(each)
    note = f"{each[0]:,.0f} to {each[-1]:,.0f}"
    report.add(figure, name, rate, unit, target, note, median_sample(found).costs(count))
    return rate


def rates(name: str, mapped: bool, count: int, repeats: int) -> list[Sample]:
    """So many runs in one engine, after a small one to warm up."""
    with started(name) as engine:

        def once(size: int = count) -> None:
            if mapped:
                exhaust(engine.map(noop, range(size)))
            else:
                submit_all(engine, noop, size)

        once(min(count, 10_000))
        return [sample(engine.pids(), once) for _ in range(repeats)]
