"""flmping's shape: 10,000 no-op tasks submitted one by one, then all results, warm, 2 executors.

The engines take turns, each time in a fresh process, so that what the machine
does meanwhile hits all alike.  CPU per task is the figure to watch: it hardly
depends on other load.  Hand-offs are voluntary context switches.
"""

from __future__ import annotations

from dataclasses import asdict
from statistics import median

from perf.engines import OURS, started, submit_all
from perf.loopback import calls_per_task
from perf.measure import Sample, median_sample, sample
from perf.report import Report, at_least, at_most
from perf.settings import Settings
from perf.tasks import noop

#: CPU microseconds per task that each of our processes may take.
CPU_TARGETS = {"client": 6, "router": 4, "executors": 5}


def run(settings: Settings, report: Report) -> None:
    tasks = settings.pick(10_000, 2_000)
    samples: dict[str, list[Sample]] = {name: [] for name in settings.engines}
    for _ in range(settings.repeats(3)):
        for name in settings.engines:
            one = report.attempt(f"{tasks:,} no-op tasks", name, "/s", None, ping, name, tasks, limit=60)
            samples[name] += [one] if one else []
    for name, found in samples.items():
        if found:
            _add_engine(report, name, tasks, found)
    _add_ratios(report, {name: [s.seconds for s in found] for name, found in samples.items() if found})
    if OURS in settings.engines:
        _add_calls(report, tasks)


def _add_calls(report: Report, tasks: int) -> None:
    made = report.attempt("calls per task", OURS, "", None, calls_per_task, noop, tasks, limit=60)
    for who, calls in (made or {}).items():
        report.add(f"calls per task, {who}", OURS, calls, "", note="by cProfile, in one thread: no noise")


def ping(name: str, tasks: int) -> Sample:
    """One measured run after two to warm up."""
    with started(name) as engine:
        for _ in range(2):
            submit_all(engine, noop, tasks)
        return sample(engine.pids(), lambda: submit_all(engine, noop, tasks))


def _add_engine(report: Report, name: str, tasks: int, found: list[Sample]) -> None:
    middle = median_sample(found)
    ours = name == OURS
    rates = sorted(tasks / s.seconds for s in found)
    report.add(
        f"{tasks:,} no-op tasks",
        name,
        median(rates),
        "/s",
        note=f"{middle.seconds * 1e3:.0f} ms; {rates[0]:,.0f} to {rates[-1]:,.0f}",
        costs=middle.costs(tasks),
    )
    report.add("CPU per task, all processes", name, middle.cpu_us(tasks), "us", at_most(15) if ours else None)
    for process in middle.cpu:
        limit = CPU_TARGETS.get(process) if ours else None
        report.add(
            f"CPU per task, {process}",
            name,
            middle.cpu_us(tasks, process),
            "us",
            None if limit is None else at_most(limit),
            f"hand-offs per task {middle.handoffs(tasks, process):.3g}",
        )
    report.raw += [{"engine": name, "tasks": tasks} | asdict(s) for s in found]


def _add_ratios(report: Report, seconds: dict[str, list[float]]) -> None:
    """Rate over rate, round by round."""
    for peer, wanted in (("ProcessPoolExecutor", 12), ("Pool", 4)):
        figure = f"rate, times {peer}'s"
        if OURS in seconds and peer in seconds:
            ratios = [theirs / ours for theirs, ours in zip(seconds[peer], seconds[OURS], strict=False)]
            report.add(figure, OURS, median(ratios), "x", at_least(wanted))
        else:
            report.add(figure, OURS, None, "x", at_least(wanted), "not both were measured")
