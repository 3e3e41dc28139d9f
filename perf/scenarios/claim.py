"""Claim: how long until a session of high priority has its minimum amid a busy one of low priority.

All executors are the low session's, with far more tasks than it can do
meanwhile.  The clock runs from before the high session is opened until as many
of its tasks run, each in a process of its own, as its minimum promises.  The
floor beside it: the same while nobody else is there.
"""

from __future__ import annotations

from statistics import median
from time import monotonic

import flamezmq as flm
from perf.engines import OURS
from perf.report import Report, at_most
from perf.settings import Settings
from perf.tasks import PATIENCE_SECONDS, all_begin, spin

EXECUTORS, MINIMUM = 4, 2
#: Of the low session: CPU of a task.
SHORT_SECONDS = 1e-3
#: So many tasks of the low session for each round: many more than can run meanwhile.
TASKS_PER_ROUND = 2_000


def run(settings: Settings, report: Report) -> None:
    rounds, target = settings.repeats(9, 3), at_most(100)
    figure = f"its minimum of {MINIMUM} runs, after open"
    found = report.attempt_ours(settings, figure, "ms", target, claims, rounds, limit=60)
    if found is None:
        return
    idle, busy = found
    report.add("the same, all idle", OURS, median(idle) * 1e3, "ms", note="what opening and starting take")
    note = f"longest of {rounds}: {max(busy) * 1e3:.1f} ms"
    report.add(figure, OURS, median(busy) * 1e3, "ms", target, note)
    report.raw.append({"engine": OURS, "idle_seconds": idle, "busy_seconds": busy})


def claims(rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each claim: while nobody else is there, and amid the low session's tasks."""
    with flm.Client(executors=EXECUTORS) as client:
        idle = [claim(client) for _ in range(rounds + 1)][1:]
        with client.session("low", priority=0) as low:
            tasks = [low.submit(spin, SHORT_SECONDS) for _ in range(TASKS_PER_ROUND * rounds)]
            tasks[4 * EXECUTORS].result(PATIENCE_SECONDS)  # it has them all by now
            busy = [claim(client) for _ in range(rounds)]
            waiting = low.status().pending
            low.cancel()
    if not waiting:
        raise RuntimeError("the low session ran out of tasks")
    return idle, busy


def claim(client: flm.Client) -> float:
    """From before the session is opened until its minimum runs."""
    began = monotonic()
    with client.session("high", priority=10, min_executors=MINIMUM) as high:
        return max(all_begin(high, MINIMUM)) - began
