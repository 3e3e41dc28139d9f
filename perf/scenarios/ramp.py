"""Ramp: how long until a new session has a task running on each of 8 idle executors.

Each round is a session of its own, so it has to be given all of them, and its
function has to reach each.  The floor beside it: as many processes that are
woken through pipes, and do nothing else.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from multiprocessing.connection import Connection
from statistics import median
from time import monotonic

import flamezmq as flm
from perf.engines import OURS
from perf.report import Report, at_most
from perf.settings import Settings
from perf.tasks import PATIENCE_SECONDS, all_begin

EXECUTORS = 8


def run(settings: Settings, report: Report) -> None:
    rounds, target = settings.repeats(9, 3), at_most(50)
    figure = f"a task runs on each of {EXECUTORS}, after submit"
    floor = report.attempt("floor", "pipes", "ms", None, woken, rounds, limit=30)
    if floor is not None:
        report.add(f"{EXECUTORS} waiting processes answer", "pipes", median(floor) * 1e3, "ms")
    found = report.attempt_ours(settings, figure, "ms", target, ramps, rounds, limit=60)
    if found is None:
        return
    first, *others = found
    all_ms = median(whole for _, whole in others) * 1e3
    note = f"longest of {rounds}: {max(whole for _, whole in others) * 1e3:.1f} ms"
    report.add(figure, OURS, all_ms, "ms", target, note)
    report.add("a task runs on one of them", OURS, median(one for one, _ in others) * 1e3, "ms")
    report.add(f"{figure}, a cluster's first", OURS, first[1] * 1e3, "ms", note="most are still starting")
    report.raw.append({"engine": OURS, "seconds_to_one_and_to_all": found})


def ramps(rounds: int) -> list[tuple[float, float]]:
    """Of one session after the other: seconds from the first submit until one task ran, and all did."""
    with flm.Client(executors=EXECUTORS) as client:
        return [ramp(client) for _ in range(rounds + 1)]


def ramp(client: flm.Client) -> tuple[float, float]:
    """One session, which has a task for each executor."""
    with client.session("ramp") as session:
        began = monotonic()
        starts = all_begin(session, EXECUTORS)
    return min(starts) - began, max(starts) - began


def woken(rounds: int) -> list[float]:
    """Seconds from the first byte to the last answer, of processes that wait for pipes."""
    fork = multiprocessing.get_context("fork")
    pipes = [fork.Pipe() for _ in range(EXECUTORS)]
    processes = [fork.Process(target=_answer, args=(its,), daemon=True) for _, its in pipes]
    for process in processes:
        process.start()
    ours = [mine for mine, _ in pipes]
    try:
        return [_wake(ours) for _ in range(rounds + 1)][1:]
    finally:
        for mine in ours:
            mine.send(False)
        for process in processes:
            process.join(PATIENCE_SECONDS)


def _wake(pipes: Sequence[Connection]) -> float:
    began = monotonic()
    for pipe in pipes:
        pipe.send(True)
    if not all(pipe.poll(PATIENCE_SECONDS) for pipe in pipes):
        raise TimeoutError("a process that was woken does not answer")
    answers: list[float] = [pipe.recv() for pipe in pipes]
    return max(answers) - began


def _answer(pipe: Connection) -> None:
    while pipe.recv():
        pipe.send(monotonic())
