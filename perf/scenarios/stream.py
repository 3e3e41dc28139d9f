"""Streams: small values a second, values of 1 MB, the first value beside a round trip; what publishing costs.

The reader takes each value by `next`.  The first value is that of a stream of one, from the call to the
value; the round trip is a task that returns it.  No peer beside us has streams with credit.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from time import perf_counter
from typing import Any

from perf.engines import OURS, started
from perf.measure import Sample, sample
from perf.report import Report
from perf.settings import Settings

LIMIT_SECONDS = 60.0


def numbers(n: int) -> Iterator[int]:
    """The smallest values."""
    yield from range(n)


def megabytes(n: int) -> Iterator[bytes]:
    """Values whose bytes travel as frames."""
    for _ in range(n):
        yield bytes(1 << 20)


def one() -> int:
    """What `numbers(1)` gives, as a task."""
    return 0


def publishing(n: int) -> float:
    """Seconds that each of n calls of `publish` takes."""
    import flamezmq as flm

    publish = flm.current().publish
    start = perf_counter()
    for i in range(n):
        publish(i)
    return (perf_counter() - start) / n


def run(settings: Settings, report: Report) -> None:
    if OURS not in settings.engines:
        return
    repeats, small, large = settings.repeats(5, 2), settings.pick(200_000, 20_000), settings.pick(300, 30)
    for figure, function, count, unit in (
        ("small values", numbers, small, "values/s"),
        ("values of 1 MB", megabytes, large, "MB/s"),
    ):
        samples = report.attempt(
            figure, OURS, unit, None, rates, function, count, repeats, limit=LIMIT_SECONDS + 10
        )
        if samples:
            seconds = [one.seconds for one in samples]
            cpu = median(sum(one.costs(count)["cpu_us_per_task"].values()) for one in samples)
            note = f"{count:,} values; CPU us each {cpu:.3g}, all processes"
            report.add(figure, OURS, count / median(seconds), unit, None, note)
    times = report.attempt(
        "first value", OURS, "us", None, first, settings.pick(500, 50), limit=LIMIT_SECONDS
    )
    if times:
        first_value, round_trip, publish = times
        note = (
            f"{first_value / round_trip:.2f} times a round trip, which takes {round_trip * 1e6:.0f} us here"
        )
        report.add("first value", OURS, first_value * 1e6, "us", None, note)
        report.add("publish, for the task", OURS, publish * 1e6, "us", None, "the newest values are kept")


def rates(function: Any, count: int, repeats: int) -> list[Sample]:
    """The first run is not counted: it loads what is loaded once."""
    with started(OURS, 2) as engine:
        stream = engine.client.stream  # type: ignore[attr-defined]

        def once() -> None:
            taken = sum(1 for _ in stream(function, count))
            assert taken == count, taken

        once()
        return [sample(engine.pids(), once) for _ in range(repeats)]


def first(rounds: int) -> tuple[float, float, float]:
    """Medians, in seconds: the first value, a round trip, one call of `publish`."""
    firsts, trips = [], []
    with started(OURS, 2) as engine:
        client = engine.client  # type: ignore[attr-defined]
        for number in range(rounds + 20):  # in turn, so that both see the same machine
            start = perf_counter()
            stream = client.stream(numbers, 1)
            next(stream)
            between = perf_counter()
            stream.future.result()
            begin = perf_counter()
            client.submit(one).result()
            if number >= 20:
                firsts.append(between - start)
                trips.append(perf_counter() - begin)
        publish = median(client.submit(publishing, 20_000).result() for _ in range(5))
    return median(firsts), median(trips), publish
