"""Payload: MB/s of arguments on their way in and of results on their way out, by size.

All tasks of a size are submitted, then all results taken.  A result is made by
its task, in touched memory, and its making counts.  What is to be reached at 1 MB
is in `store`.
"""

from __future__ import annotations

from statistics import median

from perf.engines import Engine, exhaust, started
from perf.measure import Sample, median_sample, sample
from perf.report import Report
from perf.settings import Settings
from perf.tasks import length, make

#: (bytes of each, how many)
SIZES = ((1 << 10, 5000), (16 << 10, 5000), (256 << 10, 1000), (1_000_000, 500), (16 << 20, 16))
QUICK = ((1 << 10, 500), (256 << 10, 40), (1_000_000, 20))


def run(settings: Settings, report: Report) -> None:
    for size, count in settings.pick(SIZES, QUICK):
        for way in ("arguments", "results"):
            for name in settings.engines:
                _add(report, name, way, size, count, settings)


def _add(report: Report, name: str, way: str, size: int, count: int, settings: Settings) -> None:
    figure = f"{count:,} {way} of {_readable(size)}"
    asked = (name, way, size, count, settings.repeats(2))
    found = report.attempt(figure, name, "MB/s", None, runs, *asked, limit=90)
    if found is None:
        return
    speeds = sorted(size * count / one.seconds / 1e6 for one in found)
    costs = median_sample(found).costs(count)
    report.add(figure, name, median(speeds), "MB/s", None, f"{speeds[0]:,.0f} to {speeds[-1]:,.0f}", costs)


def runs(name: str, way: str, size: int, count: int, repeats: int) -> list[Sample]:
    """Some runs in one engine."""
    with started(name) as engine:
        once = arguments if way == "arguments" else results
        once(engine, size, max(count // 10, 2))
        return [sample(engine.pids(), lambda: once(engine, size, count)) for _ in range(repeats)]


def arguments(engine: Engine, size: int, count: int) -> None:
    """The same bytes object each time, which no engine may know."""
    data = make(size)
    exhaust(engine.gather([engine.submit(length, data) for _ in range(count)]))


def results(engine: Engine, size: int, count: int) -> None:
    """Each result is let go when it has been seen."""
    handles = [engine.submit(make, size) for _ in range(count)]
    handles.reverse()
    while handles:
        assert len(engine.result(handles.pop(), 60)) == size


def _readable(size: int) -> str:
    if size >= 1_000_000:
        return "1 MB" if size == 1_000_000 else f"{size >> 20} MiB"
    return f"{size >> 10} KiB"
