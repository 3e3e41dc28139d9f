"""A million tasks queued while every executor is held: what does a queued task weigh?

Bytes per task are the growth of resident memory of the client and the router (of
all processes for the peers) over the tasks, less the payload: the pickled
argument, counted once.  Then the executors are let go: the queue must drain at
the usual rate, and the rate afterwards must be the rate before.
"""

from __future__ import annotations

import gc
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, perf_counter, sleep
from typing import Any

from perf.engines import OURS, Engine, exhaust, started, submit_all
from perf.measure import Pids, Sample, rss_bytes, sample
from perf.report import Report, Target, at_least, at_most
from perf.settings import Settings
from perf.tasks import hold, noop

EXECUTORS = 2
#: An executor that nobody lets go goes by itself.
HOLD_SECONDS = 240.0


@dataclass(frozen=True, slots=True)
class Weight:
    """What a queue weighed (bytes by process), what its growing and draining cost, the usual tasks/s."""

    tasks: int
    grown: dict[str, int]
    payload: int
    submits: Sample
    drain: Sample
    rate_before: float
    rate_after: float


def run(settings: Settings, report: Report) -> None:
    sizes = {OURS: settings.pick(1_000_000, 20_000)}
    for name in settings.engines:
        tasks = sizes.get(name, settings.pick(50_000, 20_000))
        figure = f"{tasks:,} queued: per task, over the payload"
        target = at_most(0.8) if name == OURS else None
        found = report.attempt(figure, name, "KB", target, weigh, name, tasks, limit=HOLD_SECONDS + 60)
        if found:
            _add(report, figure, name, found, target)


def _add(report: Report, figure: str, name: str, found: Weight, target: Target | None) -> None:
    ours = name == OURS
    counted = {"client", "router"} if ours else set(found.grown)
    bytes_each = sum(found.grown[p] for p in counted if p in found.grown) / found.tasks - found.payload
    by_process = ", ".join(f"{process} {grown / found.tasks:.0f} B" for process, grown in found.grown.items())
    note = f"{by_process}; payload {found.payload} B"
    report.add(figure, name, bytes_each / 1000, "KB", target, note)
    rates = (
        ("submits meanwhile", found.submits, ""),
        ("drain", found.drain, f"before: {found.rate_before:,.0f}"),
    )
    for what, one, told in rates:
        costs = one.costs(found.tasks)
        report.add(f"rate of the {what}", name, found.tasks / one.seconds, "/s", None, told, costs)
    after = found.rate_after / found.rate_before
    report.add("rate after, times before", name, after, "x", at_least(0.8) if ours else None)


def weigh(name: str, tasks: int) -> Weight:
    """Queue, weigh, drain, in one engine."""
    with started(name, EXECUTORS) as engine:
        rate_before = _rate(engine)
        pids = engine.pids()
        with _held(engine) as let_go:
            gc.collect()
            before = _weights(pids)
            submit, handles = engine.submit, list[Any]()
            submits = sample(pids, lambda: handles.extend(submit(noop, number) for number in range(tasks)))
            grown = {process: grown - before[process] for process, grown in _settled(pids).items()}
            drain = sample(pids, lambda: _drain(engine, handles, let_go))
        handles.clear()
        payload = len(pickle.dumps((tasks,), 5))
        return Weight(tasks, grown, payload, submits, drain, rate_before, _rate(engine))


def _drain(engine: Engine, handles: list[Any], let_go: Callable[[], None]) -> None:
    let_go()
    exhaust(engine.result(handle, HOLD_SECONDS) for handle in handles)


@contextmanager
def _held(engine: Engine) -> Iterator[Callable[[], None]]:
    """Keep all executors busy until the yielded function is called."""
    with TemporaryDirectory(prefix="flm-perf-") as folder:
        flag = Path(folder, "go")
        holders = [engine.submit(hold, str(flag), HOLD_SECONDS) for _ in range(EXECUTORS)]
        deadline = monotonic() + 30
        while len(glob(f"{flag}.*")) < EXECUTORS:
            if monotonic() > deadline:
                raise TimeoutError(f"not {EXECUTORS} executors took a task that blocks")
            sleep(0.01)
        try:
            yield flag.touch
        finally:
            flag.touch()
            engine.gather(holders)


def _settled(pids: Pids) -> dict[str, int]:
    """Memory once it has stopped growing: the last submits are still on their way."""
    deadline = monotonic() + 20
    last = _weights(pids)
    while monotonic() < deadline:
        sleep(0.5)
        now = _weights(pids)
        if sum(now.values()) - sum(last.values()) < 1 << 20:
            return now
        last = now
    return last


def _weights(pids: Pids) -> dict[str, int]:
    return {process: rss_bytes(some) for process, some in pids.items()}


def _rate(engine: Engine, tasks: int = 10_000) -> float:
    submit_all(engine, noop, 1000)
    began = perf_counter()
    submit_all(engine, noop, tasks)
    return tasks / (perf_counter() - began)
