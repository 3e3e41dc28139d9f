"""Short tasks: which share of the executors' time is work, and how short a task may be (METG).

Efficiency is tasks x length / (executors x wall time).  "Bare" is the same loop
in plain processes without an engine, just before and just after: on a shared
machine it is below 1 too, so the target is for our efficiency over the bare one.
METG(50 %) is the shortest task at which that ratio is one half, by bisection.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from math import sqrt
from multiprocessing.connection import Connection
from statistics import median
from time import perf_counter

from perf.engines import OURS, Engine, started
from perf.isolate import GRACE_SECONDS
from perf.measure import Sample, median_sample, sample
from perf.report import Report, at_least, at_most
from perf.settings import Settings
from perf.tasks import spin

EXECUTORS = 2
#: METG is looked for between these task lengths.
SHORTEST_SECONDS, LONGEST_SECONDS = 1e-6, 20e-3
#: How long a bare run may be waited for.
BARE_SECONDS = 60.0


def run(settings: Settings, report: Report) -> None:
    share = settings.pick(1.0, 0.1)
    for tasks, seconds in ((10_000, 0.1e-3), (2_000, 1e-3), (200, 10e-3)):
        _add_efficiencies(report, settings, int(tasks * share), seconds)
    for name in settings.engines:
        target = at_most(25) if name == OURS else None
        asked = (name, settings.pick(0.4, 0.15), settings.pick(8, 6))
        found = report.attempt("METG(50 %)", name, "us", target, metg, *asked, limit=150)
        if found:
            report.add("METG(50 %)", name, found * 1e6, "us", target)


def _add_efficiencies(report: Report, settings: Settings, tasks: int, seconds: float) -> None:
    """The engines take turns."""
    figure = f"{tasks:,} x {seconds * 1e3:g} ms on {EXECUTORS}: efficiency"
    found: dict[str, list[tuple[Sample, float]]] = {name: [] for name in settings.engines}
    limit = BARE_SECONDS + 20 * tasks * seconds
    for _ in range(settings.repeats(2)):
        for name, pairs in found.items():
            one = report.attempt(figure, name, "", None, efficiency, name, tasks, seconds, limit=limit)
            pairs += [one] if one else []
    for name, pairs in found.items():
        if pairs:
            target = at_least(0.95) if name == OURS and seconds == 1e-3 else None
            shares = [tasks * seconds / (EXECUTORS * engine.seconds) for engine, _ in pairs]
            ratios = [share / bare for share, (_, bare) in zip(shares, pairs, strict=True)]
            note = f"bare {median(bare for _, bare in pairs):.3f}"
            costs = median_sample([engine for engine, _ in pairs]).costs(tasks)
            report.add(figure, name, median(shares), "", None, note, costs)
            note = f"{min(ratios):.3f} to {max(ratios):.3f}"
            report.add(f"{figure}, times bare's", name, median(ratios), "x", target, note)


def efficiency(name: str, tasks: int, seconds: float) -> tuple[Sample, float]:
    """An engine's run and the bare efficiency, after a small run in which the engine learns the run time."""
    with bare_processes() as bare, started(name, EXECUTORS) as engine:
        _engine_run(engine, max(tasks // 10, 20), seconds)
        before = bare_run(bare, tasks, seconds)
        found = sample(engine.pids(), lambda: _engine_run(engine, tasks, seconds))
        return found, (before + bare_run(bare, tasks, seconds)) / 2


def metg(name: str, run_seconds: float, steps: int) -> float:
    """Bisect, on a logarithmic scale, with runs of about this long."""
    low, high = SHORTEST_SECONDS, LONGEST_SECONDS
    with bare_processes() as bare, started(name, EXECUTORS) as engine:
        rate = _tasks_per_second(engine)
        for _ in range(steps):
            seconds = sqrt(low * high)
            tasks = int(run_seconds / max(seconds / EXECUTORS, 1 / rate)) + EXECUTORS
            _engine_run(engine, tasks // 10 + 1, seconds)
            found = _engine_run(engine, tasks, seconds)
            if found >= 0.5 * bare_run(bare, int(run_seconds / 2e-3), 1e-3):
                high = seconds
            else:
                low = seconds
    return sqrt(low * high)


def _tasks_per_second(engine: Engine) -> float:
    """So that a run of very short tasks takes no longer than the others."""
    began = perf_counter()
    engine.gather([engine.submit(spin, 0.0) for _ in range(1000)])
    return 1000 / (perf_counter() - began)


def _engine_run(engine: Engine, tasks: int, seconds: float) -> float:
    submit = engine.submit
    began = perf_counter()
    engine.gather([submit(spin, seconds) for _ in range(tasks)])
    return tasks * seconds / (EXECUTORS * (perf_counter() - began))


@contextmanager
def bare_processes() -> Iterator[list[Connection]]:
    """Plain processes that spin when told to.  To be forked before an engine exists."""
    fork = multiprocessing.get_context("fork")
    pipes = [fork.Pipe() for _ in range(EXECUTORS)]
    processes = [fork.Process(target=_spin_on_demand, args=(its,), daemon=True) for _, its in pipes]
    for process in processes:
        process.start()
    try:
        yield [ours for ours, _ in pipes]
    finally:
        for process in processes:
            process.kill()
            process.join(GRACE_SECONDS)


def _spin_on_demand(pipe: Connection) -> None:
    while True:
        tasks, seconds = pipe.recv()
        for _ in range(tasks):
            spin(seconds)
        pipe.send(None)


def bare_run(bare: list[Connection], tasks: int, seconds: float) -> float:
    each = -(-tasks // len(bare))
    began = perf_counter()
    for pipe in bare:
        pipe.send((each, seconds))
    for pipe in bare:
        if not pipe.poll(BARE_SECONDS):
            raise TimeoutError("a bare process did not answer")
        pipe.recv()
    return each * seconds / (perf_counter() - began)
