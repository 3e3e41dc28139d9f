"""Idle: CPU seconds that an engine with nothing to do uses in ten seconds, all its processes."""

from __future__ import annotations

from time import sleep

from perf.engines import OURS, started, submit_all
from perf.measure import Sample, sample
from perf.report import Report, at_most
from perf.settings import Settings
from perf.tasks import noop


def run(settings: Settings, report: Report) -> None:
    for name in settings.engines:
        seconds = settings.pick(10.0 if name == OURS else 3.0, 2.0)
        target = at_most(0.05) if name == OURS else None
        figure = "CPU in 10 s of idling"
        found = report.attempt(figure, name, "s", target, idle, name, seconds, limit=60 + seconds)
        if found is None:
            continue
        scale = 10 / found.seconds
        parts = ", ".join(f"{process} {cpu * scale:.4f}" for process, cpu in found.cpu.items())
        wakes = sum(found.switches.values()) / found.seconds
        note = f"{parts}; {wakes:.0f} wake-ups/s"
        report.add(figure, name, sum(found.cpu.values()) * scale, "s", target, note)


def idle(name: str, seconds: float) -> Sample:
    """Work a little, calm down, then watch."""
    with started(name) as engine:
        submit_all(engine, noop, 1000)
        sleep(1.0)
        return sample(engine.pids(), lambda: sleep(seconds))
