"""SIGKILL one of two executors in the middle of 2,000 x 5 ms: is all done, once, and what does it cost?

The extra seconds are over a run of the same engine without the kill, just
before.  Each wait is bounded: a peer that hangs is said to hang.
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
from time import perf_counter
from typing import Any

from perf.engines import ENGINES, OURS, Engine
from perf.report import Report, at_most
from perf.settings import Settings
from perf.tasks import noop, work_and_tell

EXECUTORS = 2
TASK_SECONDS = 5e-3
#: A run may take so many times the run before it, and a little, before it counts as hung.
PATIENCE, PATIENCE_SECONDS = 3.0, 3.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Tasks by how they ended, how many ran more than once, and the seconds that the kill cost."""

    done: int
    wrong: int
    failed: int
    pending: int
    repeated: int
    extra_seconds: float


def run(settings: Settings, report: Report) -> None:
    tasks = settings.pick(2_000, 200)
    for name in settings.engines:
        found: list[Outcome] = []
        for _ in range(settings.repeats(3)):
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
    extra = median(outcome.extra_seconds for outcome in found)
    if lost:
        report.add(
            "a kill's extra time", name, None, "s", at_most(0.1) if ours else None, "not all were done"
        )
    else:
        again = max(outcome.repeated for outcome in found)
        note = f"{again} tasks ran twice (one that was running may)"
        report.add("a kill's extra time", name, extra, "s", at_most(0.1) if ours else None, note)
    report.raw += [{"engine": name} | asdict(outcome) for outcome in found]


def kill_one(name: str, tasks: int) -> Outcome:
    """One run undisturbed, then one with a kill after a third of that time."""
    engine = ENGINES[name](EXECUTORS)  # not `started`: a broken engine may not be closable
    with TemporaryDirectory(prefix="flm-perf-") as folder:
        engine.gather([engine.submit(noop) for _ in range(200)])
        usual, answers, _ = _all(engine, tasks, str(Path(folder, "usual")), 60.0)
        if len(answers) != tasks:
            raise RuntimeError("the undisturbed run lost tasks")
        victim = engine.pids()["executors"][0]
        timer = Timer(usual / 3, os.kill, (victim, signal.SIGKILL))
        timer.daemon = True
        timer.start()
        log = Path(folder, "killed")
        seconds, answers, failed = _all(engine, tasks, str(log), PATIENCE * usual + PATIENCE_SECONDS)
        timer.join()
        ran = Counter(log.read_text().split())
    outcome = Outcome(
        done=len(answers),
        wrong=sum(number != answer for number, answer in answers.items()),
        failed=failed,
        pending=tasks - len(answers) - failed,
        repeated=sum(times > 1 for times in ran.values()),
        extra_seconds=seconds - usual,
    )
    if name == OURS or outcome.done == tasks:
        engine.close()
    return outcome


def _all(engine: Engine, tasks: int, log: str, limit: float) -> tuple[float, dict[int, Any], int]:
    """Seconds, answers by task, and how many failed; the rest had not ended in time."""
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
    return perf_counter() - began, answers, failed
