"""The store: large values that many tasks share, values of 1 MB in and out, a put and a get of all sizes.

Arrays are numpy's.  The peers have no store: for the array that tasks share they do by hand what their
manual shows (`multiprocessing.shared_memory`), arguments and results of 1 MB go through their pipes.
A figure that is a copy stands beside a bare copy of the same moments.  What goes between nodes is in
`transfer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

from perf import floor
from perf.engines import OURS, roundtrip, started
from perf.measure import median_sample, percentile, rss_bytes, times
from perf.report import Report, at_least, at_most
from perf.scenarios.payload import runs
from perf.settings import Settings
from perf.sharing import Shared, share

MEGABYTE = 1_000_000
SMALL_SIZES = (1 << 10, 4 << 10, 16 << 10, 64 << 10)
NOT_BOTH = "not both were measured"
#: Of each large object.
GETS = 20
#: Of the small objects that are counted.
TINY_BYTES = 100


def run(settings: Settings, report: Report) -> None:
    for found in (floor.memcpy(settings.pick(256, 64)), floor.fallocate(settings.pick(256, 64))):
        report.floors_before.append(found)
    _add_shared(settings, report)
    for way in ("arguments", "results"):
        _add_payload(settings, report, way)
    _add_large(settings, report)
    _add_small(settings, report)
    _add_many(settings, report)


# --- an array for 64 tasks ---------------------------------------------------------------


def _add_shared(settings: Settings, report: Report) -> None:
    size = settings.pick(256, 16) * MEGABYTE
    figure = f"{size // MEGABYTE} MB array shared by 64 tasks"
    found: dict[str, Shared] = {}
    for name in settings.engines:
        some = report.attempt(
            figure, name, "s", None, share, name, size, 1 + settings.repeats(4, 2), limit=90
        )
        if some is None:
            continue
        found[name] = some
        report.raw.append({"figure": figure, "engine": name} | asdict(some))
        report.add(f"{figure}, put included, first time", name, some.seconds[0], "s")
        again = some.seconds[1:]
        report.add(f"{figure}, later", name, median(again), "s", note=f"{min(again):.3g} to {max(again):.3g}")
    if OURS not in found:
        return
    ours = found.pop(OURS)
    best = min((min(some.seconds) for some in found.values()), default=0.0)
    for when, seconds, least in (("first time", ours.seconds[0], 2), ("later", median(ours.seconds[1:]), 4)):
        ratio = best / seconds or None
        note = "" if ratio else NOT_BOTH
        report.add(
            f"{figure}, {when}: times faster than the best peer", OURS, ratio, "x", at_least(least), note
        )
    report.add(f"{figure}: copies in memory", OURS, ours.copies, "x", at_most(1.1), "beside the user's own")


# --- 1 MB, in and out --------------------------------------------------------------------


def _add_payload(settings: Settings, report: Report, way: str) -> None:
    count = settings.pick(500, 20)
    figure = f"{count} {way} of 1 MB"
    speeds: dict[str, float] = {}
    for name in settings.engines:
        asked = (name, way, MEGABYTE, count, settings.repeats(5))
        found = report.attempt(figure, name, "MB/s", None, runs, *asked, limit=90)
        if found is None:
            continue
        each = sorted(count / one.seconds for one in found)
        speeds[name] = median(each)
        note = f"{each[0]:,.0f} to {each[-1]:,.0f}"
        report.add(figure, name, speeds[name], "MB/s", None, note, median_sample(found).costs(count))
    best = max((speed for name, speed in speeds.items() if name != OURS), default=0.0)
    ratio = speeds[OURS] / best if OURS in speeds and best else None
    note = "" if ratio else NOT_BOTH
    report.add(f"{figure}, times the best peer's", OURS, ratio, "x", at_least(3), note)


# --- one large object --------------------------------------------------------------------


def _add_large(settings: Settings, report: Report) -> None:
    size = settings.pick(256, 16) << 20
    what = f"{size >> 20} MiB"
    asked = (size, settings.repeats(9, 3))
    found = report.attempt_ours(settings, f"put of {what}", "GB/s", None, large, *asked, limit=90)
    if found is None:
        return
    report.raw.append({"figure": f"put and get of {what}, seconds"} | asdict(found))
    report.add(f"put of {what}, into fresh memory", OURS, size / found.first / 1e9, "GB/s")
    speed, bare = (size / median(some) / 1e9 for some in (found.puts, found.copies))
    note = f"bare copies between them {bare:.3g}"
    report.add(f"put of {what}, into touched memory", OURS, speed, "GB/s", None, note)
    report.add(f"put of {what}, times the speed of memcpy", OURS, speed / bare, "x", at_least(0.8))
    spread = f"{min(found.gets) * 1e6:.0f} to {max(found.gets) * 1e6:.0f}"
    report.add(f"get of {what} on the node", OURS, median(found.gets) * 1e6, "us", at_most(200), spread)


@dataclass(frozen=True, slots=True)
class Large:
    """Seconds.  first: of the first put, into fresh memory; copies: bare ones between the puts."""

    first: float
    puts: list[float]
    copies: list[float]
    gets: list[float]


def large(size: int, repeats: int) -> Large:
    """Put an array, get it, let go of it; again and again."""
    import numpy

    array, target = numpy.ones(size, numpy.uint8), numpy.full(size, 2, numpy.uint8)
    found = Large(0.0, [], [], [])
    with started(OURS, 1) as engine:
        client: Any = engine.client  # type: ignore[attr-defined]
        for number in range(2 + repeats):
            array[0] = number
            began = perf_counter()
            ref = client.put(array)
            put = perf_counter() - began
            gets = times(ref.get, GETS)
            assert ref.get()[0] == number
            client.free(ref)
            if number < 2:  # it is made, and then mapped by who puts
                found = found if number else Large(put, [], [], [])
                continue
            found.puts.append(put)
            found.gets.append(median(gets))
            found.copies.extend(times(partial(numpy.copyto, target, array), 1))
    return found


# --- small ones --------------------------------------------------------------------------


def _add_small(settings: Settings, report: Report) -> None:
    asked = (SMALL_SIZES, settings.repeats(5, 2), settings.pick(500, 100))
    found = report.attempt_ours(settings, "put and get", "us", None, small, *asked, limit=90)
    if found is None:
        return
    trip = median(found.trips)
    report.add("round trip of a task", OURS, trip * 1e6, "us", note="between the puts and gets")
    for size, each in found.seconds.items():
        what = f"put and get of {size >> 10} KiB"
        report.add(what, OURS, median(each) * 1e6, "us")
    worst = max(map(median, found.seconds.values()))
    report.add("the slowest of these, times a round trip", OURS, worst / trip, "x", at_most(1.5))
    report.raw.append({"figure": "put and get, seconds"} | asdict(found))


@dataclass(frozen=True, slots=True)
class Small:
    """p50, seconds, of each turn: of a task's round trip, and of a put and a get by size."""

    trips: list[float]
    seconds: dict[int, list[float]]


def small(sizes: Sequence[int], turns: int, rounds: int) -> Small:
    """Puts and gets of each size, and round trips, in turns."""
    import numpy

    found = Small([], {size: [] for size in sizes})
    with started(OURS, 1) as engine:
        client: Any = engine.client  # type: ignore[attr-defined]
        for _ in range(turns):
            found.trips.append(percentile(times(partial(roundtrip, engine), rounds), 0.5))
            for size in sizes:
                array = numpy.ones(size, numpy.uint8)
                once = partial(_there_and_back, client, array)
                found.seconds[size].append(percentile(times(once, rounds), 0.5))
    return found


def _there_and_back(client: Any, array: Any) -> None:
    assert client.put(array).get().nbytes == array.nbytes


def _add_many(settings: Settings, report: Report) -> None:
    count = settings.pick(100_000, 5_000)
    figure = f"{count:,} objects of {TINY_BYTES} bytes alive: overhead of each, all processes"
    found = report.attempt_ours(settings, figure, "bytes", at_most(1024), many, count, limit=90)
    if found is not None:
        weight, seconds = found
        note = f"put in {seconds:.3g} s, {seconds / count * 1e6:.3g} us each"
        report.add(figure, OURS, weight, "bytes", at_most(1024), note)


def many(count: int) -> tuple[float, float]:
    """Bytes that each takes beside its own, with its reference, in all processes; seconds of all puts."""
    with started(OURS, 1) as engine:
        client: Any = engine.client  # type: ignore[attr-defined]
        warm = [client.put(bytes(TINY_BYTES)) for _ in range(100)]
        pids = [pid for some in engine.pids().values() for pid in some]
        before = rss_bytes(pids)
        began = perf_counter()
        refs = [client.put(number.to_bytes(TINY_BYTES, "big")) for number in range(count)]
        took = perf_counter() - began
        assert refs[-1].get() == (count - 1).to_bytes(TINY_BYTES, "big")  # so all have arrived
        grown = rss_bytes(pids) - before
        del warm, refs
        return grown / count - TINY_BYTES, took
