"""SIGKILL one of two executors in the middle of 2,000 x 5 ms: is all done, once, and what does it cost?

The extra seconds are over the mean of two runs of the same engine without a kill,
just before and just after.  A busy machine moves them; "until both work again",
from the kill to the end of the first task of a third process, it hardly does.
Each wait is bounded: a peer that hangs is said to hang.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Timer
from time import monotonic, perf_counter
from typing import Any

from perf.engines import ENGINES, OURS, Engine
from perf.measure import Sample, median_sample, sample
from perf.report import Report, at_most
from perf.settings import Settings
from perf.tasks import noop, work_and_tell

EXECUTORS = 2
TASK_SECONDS = 5e-3
#: A run may take so many times the run before it, and a little, before it counts as hung.
PATIENCE, PATIENCE_SECONDS = 2.0, 2.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Tasks by how they ended, how many ran more than once, and what the kill cost.

    gap_seconds  until a replacement had done its first task; -1.0 if there was none
    usual        the run before
    """

    done: int
    wrong: int
    failed: int
    pending: int
    repeated: int
    extra_seconds: float
    gap_seconds: float
    usual: Sample


def run(settings: Settings, report: Report) -> None:
    tasks = settings.pick(2_000, 200)
    for name in settings.engines:
        found: list[Outcome] = []
        for _ in range(settings.repeats(2 if name == OURS else 1)):
            one = report.attempt("a kill's extra time", name, "s", None, kill_one, name, tasks, limit=120)
            found += [one] if one else []
        if found:
            _add(report, name, tasks, found)


def _add(report: Report, name: str, tasks: int, found: Sequence[Outcome]) -> None:
    ours = name == OURS
    lost = max(outcome.wrong + outcome.failed + outcome.pending for outcome in found)
    worst = max(found, key=lambda outcome: outcome.failed + outcome.pending)
    words = f"{worst.done} done, {worst.failed} failed, {worst.pending} never ended, {worst.wrong} wrong"
    report.add(f"tasks of {tasks:,} lost by a kill", name, lost, "", at_most(0) if ours else None, words)
    target = at_most(0.1) if ours else None
    costs = median_sample([outcome.usual for outcome in found]).costs(tasks)
    if lost:
        report.add("a kill's extra time", name, None, "s", target, "not all were done", costs)
    else:
        again = max(outcome.repeated for outcome in found)
        extra = median(outcome.extra_seconds for outcome in found)
        note = f"{again} tasks ran twice (one that was running may)"
        report.add("a kill's extra time", name, extra, "s", target, note, costs)
    gaps = [outcome.gap_seconds for outcome in found if outcome.gap_seconds >= 0]
    if gaps:
        note = f"of them {TASK_SECONDS * 1e3:g} ms for the task"
        report.add("a kill's cost: until both work again", name, median(gaps), "s", target, note)
    report.raw += [{"engine": name} | asdict(outcome) for outcome in found]


def kill_one(name: str, tasks: int) -> Outcome:
    """One run undisturbed, one with a kill after a third of that time, and if that went well one more."""
    engine = ENGINES[name](EXECUTORS)  # not `started`: a broken engine may not be closable
    with TemporaryDirectory(prefix="flm-perf-") as folder:
        engine.gather([engine.submit(noop) for _ in range(200)])
        runs: list[Run] = []
        log = Path(folder, "log")
        usual = sample(engine.pids(), lambda: runs.append(_all(engine, tasks, str(log), 60.0)))
        if len(runs[0].answers) != tasks:
            raise RuntimeError("the undisturbed run lost tasks")
        log.unlink()
        pids = engine.pids()["executors"]
        killed_at: list[float] = []

        def strike() -> None:
            killed_at.append(monotonic())
            os.kill(pids[0], signal.SIGKILL)

        timer = Timer(usual.seconds / 3, strike)
        timer.daemon = True
        timer.start()
        run = _all(engine, tasks, str(log), PATIENCE * usual.seconds + PATIENCE_SECONDS)
        timer.join()
        done = [line.split() for line in log.read_text().splitlines()]
        lost = tasks - len(run.answers)
        after = usual.seconds if lost else _all(engine, tasks, str(Path(folder, "after")), 60.0).seconds
    ran = Counter(number for number, _, _ in done)
    new = [float(at) for _, pid, at in done if int(pid) not in pids]
    outcome = Outcome(
        done=len(run.answers),
        wrong=sum(number != answer for number, answer in run.answers.items()),
        failed=run.failed,
        pending=lost - run.failed,
        repeated=sum(times > 1 for times in ran.values()),
        extra_seconds=run.seconds - (usual.seconds + after) / 2,
        gap_seconds=min(new) - killed_at[0] if new else -1.0,
        usual=usual,
    )
    if name == OURS or not lost:
        engine.close()
    return outcome


@dataclass(frozen=True, slots=True)
class Run:
    """Answers by task, and how many failed; the rest had not ended in time."""

    seconds: float
    answers: dict[int, Any]
    failed: int


def _all(engine: Engine, tasks: int, log: str, limit: float) -> Run:
    """Submit all, wait for each, at most so long."""
    began = perf_counter()
    answers: dict[int, Any] = {}
    failed = 0
    handles: list[Any] = []
    for number in range(tasks):
        try:
            handles.append(engine.submit(work_and_tell, number, TASK_SECONDS, log))
        except Exception:
            failed += 1  # a broken pool refuses
    for number, handle in enumerate(handles):
        try:
            left = limit - (perf_counter() - began)
            answers[number] = engine.result(handle, max(left, 0.01))
        except TimeoutError:
            continue
        except Exception as error:
            # multiprocessing's TimeoutError is not the built-in one
            failed += type(error).__name__ != "TimeoutError"
    return Run(perf_counter() - began, answers, failed)
