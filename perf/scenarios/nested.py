"""Nested tasks: each call of fib submits two and waits for both.  The peers beside us can't: they would hang.

With one executor and with two; fib(12) is 465 tasks, fib(18) is 8,361.  A chain is one task that
waits for one task, and so on: no executor could wait for itself.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

from perf.engines import OURS, started
from perf.measure import Sample, sample
from perf.report import Report, at_most
from perf.settings import Settings

LIMIT_SECONDS = 60.0


def fib(n: int) -> int:
    """Two tasks for each call."""
    import flamezmq as flm

    if n < 2:
        return n
    client = flm.current().client
    one, two = client.submit(fib, n - 1), client.submit(fib, n - 2)
    return int(one.result() + two.result())


def chain(n: int) -> int:
    """A task in a task in a task."""
    import flamezmq as flm

    return 1 + int(flm.current().client.submit(chain, n - 1).result()) if n else 0


WORK: list[tuple[str, Callable[[int], int], int, int, int]] = [
    ("fib(12)", fib, 12, 144, 465),
    ("fib(18)", fib, 18, 2584, 8361),
    ("chain of 500", chain, 500, 500, 501),
]


def run(settings: Settings, report: Report) -> None:
    if OURS not in settings.engines:
        return
    for executors in (1, 2):
        for name, function, argument, value, tasks in WORK[: settings.pick(3, 1)]:
            figure = f"{name}, {executors} executor{'s' * (executors > 1)}"
            target = at_most(0.25) if name == "fib(12)" else None
            work = (executors, function, argument, value, settings.repeats(5, 2))
            samples = report.attempt(figure, OURS, "s", target, measure, *work, limit=LIMIT_SECONDS + 10)
            if samples:
                seconds = [one.seconds for one in samples]
                cpu = median(sum(one.costs(tasks)["cpu_us_per_task"].values()) for one in samples)
                note = f"{min(seconds):.3f} to {max(seconds):.3f}; {tasks:,} tasks, CPU us each {cpu:.3g}"
                report.add(figure, OURS, median(seconds), "s", target, note)


def measure(
    executors: int, function: Callable[[int], int], argument: int, value: int, repeats: int
) -> list[Sample]:
    """The first run is not counted: it loads what is loaded once."""
    with started(OURS, executors) as engine:

        def once() -> None:
            found: Any = engine.result(engine.submit(function, argument), LIMIT_SECONDS)
            assert found == value, found

        once()
        return [sample(engine.pids(), once) for _ in range(repeats)]
