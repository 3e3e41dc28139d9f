"""Actors: the round trip of a call beside a task's, in turns, and calls that nobody waits for, beside tasks.

One executor, and one that stands aside for the actor.  Bursts of calls and of tasks alternate, between
floors of the same moments, so that what else the machine does hits both alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter
from typing import Any

from perf import floor
from perf.engines import GATHER_SECONDS, OURS, started
from perf.measure import percentile, times
from perf.report import Report, at_most
from perf.settings import Settings
from perf.tasks import noop


class Idle:
    """What there is one instance of."""

    def noop(self) -> None:
        """As the task's function."""


@dataclass(frozen=True, slots=True)
class Turn:
    """p50 in microseconds of the floor before it, of tasks, and of calls; then so many a second of each."""

    floor_us: float
    task_us: float
    call_us: float
    tasks_a_second: float
    calls_a_second: float


def run(settings: Settings, report: Report) -> None:
    if OURS not in settings.engines:
        return
    turns, rounds, bulk = settings.repeats(7, 2), settings.pick(1000, 300), settings.pick(20_000, 2_000)
    found = report.attempt("round trip of a call", OURS, "us", None, measure, turns, rounds, bulk, limit=90)
    if not found:
        return
    floors = median(turn.floor_us for turn in found)
    for what, figures in (
        ("round trip of a task", [turn.task_us for turn in found]),
        ("round trip of a call", [turn.call_us for turn in found]),
    ):
        spread = f"{min(figures):.0f} to {max(figures):.0f}; the bare four hops {floors:.0f}"
        report.add(what, OURS, median(figures), "us", note=spread)
    ratios = [turn.call_us / turn.task_us for turn in found]
    report.add("a call, times a task's round trip", OURS, median(ratios), "x", at_most(1.1))
    for what, figures in (
        (f"{bulk:,} tasks on one executor", [turn.tasks_a_second for turn in found]),
        (f"{bulk:,} calls", [turn.calls_a_second for turn in found]),
    ):
        report.add(what, OURS, median(figures), "/s", note=f"{min(figures):,.0f} to {max(figures):,.0f}")
    report.raw += [{"engine": OURS} | asdict(turn) for turn in found]


def measure(turns: int, rounds: int, bulk: int) -> list[Turn]:
    """Floors, tasks and calls in turns while all stays up."""
    found: list[Turn] = []
    with started(OURS, 1) as engine:
        client: Any = engine.client  # type: ignore[attr-defined]
        with client.actor(Idle) as idle:
            call, task = idle.noop, _bound(client.submit)
            for submit in (call, task):
                _in_bulk(submit, bulk)
            for _ in range(turns):
                hops = floor.four_hop(rounds).p50_us
                task_us, call_us = (_round_trip(submit, rounds) for submit in (task, call))
                found.append(Turn(hops, task_us, call_us, _in_bulk(task, bulk), _in_bulk(call, bulk)))
    return found


def _bound(submit: Callable[..., Any]) -> Callable[[], Any]:
    return lambda: submit(noop)


def _round_trip(submit: Callable[[], Any], rounds: int) -> float:
    times(lambda: submit().result(GATHER_SECONDS), 50)  # the floor has cooled the caches
    return percentile(times(lambda: submit().result(GATHER_SECONDS), rounds), 0.5) * 1e6


def _in_bulk(submit: Callable[[], Any], count: int) -> float:
    began = perf_counter()
    futures = [submit() for _ in range(count)]
    for future in futures:
        future.result(GATHER_SECONDS)
    return count / (perf_counter() - began)
