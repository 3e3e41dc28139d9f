"""A second client's round trip while another client floods the router with submits.

The second is a process of its own.  Only an engine that several clients can
share has this figure, so the peers have none.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from multiprocessing.connection import Connection
from time import monotonic, perf_counter

from perf.engines import OURS, Flame, started
from perf.measure import Sample, percentile, sample, times
from perf.report import Report, at_most
from perf.settings import Settings
from perf.tasks import noop

#: Results that the flooder leaves untaken: enough that the router always has work for it.
AHEAD = 20_000
#: How long the second client may take to connect and to warm up.
CONNECT_SECONDS = 30.0


def run(settings: Settings, report: Report) -> None:
    seconds = settings.pick(6.0, 2.0)
    target = at_most(5)
    limit = 2 * CONNECT_SECONDS + 3 * seconds
    found = report.attempt_ours(
        settings, "round trip p99 under flood", "ms", target, flood, seconds, limit=limit
    )
    if found is None:
        return
    quiet, loud, done, flooding = found
    for label, took in (("before the flood", quiet), ("under flood", loud)):
        p50, p99 = percentile(took, 0.50) * 1e3, percentile(took, 0.99) * 1e3
        most = f"of {len(took)}; longest {max(took) * 1e3:.1f} ms"
        report.add(f"round trip p50 {label}", OURS, p50, "ms")
        report.add(f"round trip p99 {label}", OURS, p99, "ms", target if took is loud else None, most)
    costs = flooding.costs(done)
    report.add("the flooder's own rate", OURS, done / flooding.seconds, "/s", costs=costs)


def flood(seconds: float) -> tuple[list[float], list[float], int, Sample]:
    """The second client's round trips before and during the flood; the flooder's tasks and their cost."""
    fork = multiprocessing.get_context("fork")
    ours, its = fork.Pipe()
    probe = fork.Process(target=_probe, args=(its, seconds))  # forked before any context exists
    probe.start()
    its.close()
    try:
        with started(OURS) as engine:
            assert isinstance(engine, Flame)
            ours.send(engine.client.address)
            quiet = _answer(ours, CONNECT_SECONDS + seconds)
            ours.send("flood")
            done: list[int] = []
            cost = sample(engine.pids(), lambda: done.append(_flood(engine, ours, 3 * seconds)))
            return quiet, _answer(ours, CONNECT_SECONDS), done[0], cost
    finally:
        probe.join(5)
        probe.kill()
        probe.join()


def _flood(engine: Flame, until: Connection, limit: float) -> int:
    """Submit as fast as we are let until the probe answers; returns how many."""
    waiting: deque[object] = deque()
    began, done = perf_counter(), 0
    while not until.poll() and perf_counter() - began < limit:
        waiting.extend(engine.submit(noop) for _ in range(500))
        while len(waiting) > AHEAD:
            engine.result(waiting.popleft(), CONNECT_SECONDS)
            done += 1
    return done + len(engine.gather(waiting))


def _probe(pipe: Connection, seconds: float) -> None:
    import flamezmq as flm

    address = pipe.recv()
    with flm.Client(address) as client:

        def once() -> None:
            client.submit(noop).result(CONNECT_SECONDS)

        times(once, 100)
        pipe.send(times(once, 500))
        pipe.recv()
        end, took = monotonic() + seconds, list[float]()
        while monotonic() < end:
            took += times(once, 10)
        pipe.send(took)


def _answer(pipe: Connection, limit: float) -> list[float]:
    if not pipe.poll(limit):
        raise TimeoutError(f"the second client said nothing for {limit:g} s")
    found: list[float] = pipe.recv()
    return found
