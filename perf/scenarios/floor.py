"""All floors of this machine, with what they were where the targets were set.

Ratios move less than figures: compare these with the floors beside a result, not
with another machine's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from statistics import median
from typing import TypeVar

from perf import floor
from perf.report import Report
from perf.settings import Settings

OWN_FLOORS = True

T = TypeVar("T")

#: us, p50, by pyzmq's usual calls on an idle 2-core EPYC (TARGETS, "Floors"): {(floor, transport): figure}.
THERE_US = {
    ("two-hop", "ipc"): 97,
    ("two-hop", "tcp"): 105,
    ("four-hop", "ipc"): 284,
    ("four-hop", "tcp"): 309,
}
#: per second, the same.
THERE_RATE = {("pipelined", "ipc"): 30_000, ("push-pull", "ipc"): 1_300_000, ("push-pull", "tcp"): 1_260_000}


def run(settings: Settings, report: Report) -> None:
    repeats = settings.repeats(3)
    for one_core in (False, True):
        for transport in ("ipc", "tcp"):
            for trip in (floor.two_hop, floor.four_hop):
                _add_trip(report, [trip(2000, transport, one_core) for _ in range(repeats)])
        _add_trip(report, [floor.pipe(one_core=one_core) for _ in range(repeats)])
    for transport in ("ipc", "tcp"):
        _add_rate(report, [floor.pipelined(transport=transport) for _ in range(repeats)])
        _add_rate(report, [floor.push_pull(transport=transport) for _ in range(repeats)])
    copy = floor.memcpy(settings.pick(256, 64))
    report.add("memcpy into touched memory", "", copy.touched_gb_s, "GB/s", note="there: 13.8")
    report.add("memcpy into fresh shared memory", "", copy.fresh_shared_gb_s, "GB/s", note="there: 0.45")
    report.add("memcpy into fresh private memory", "", copy.fresh_private_gb_s, "GB/s")
    report.add("pickle and unpickle a small call", "", floor.pickled().pickle_us, "us", note="there: 0.55")


def _add_trip(report: Report, found: list[floor.Trip]) -> None:
    first = found[0]
    where = "one core" if first.one_core else "unpinned"
    p90 = _middle(found, lambda trip: trip.p90_us)
    p99 = _middle(found, lambda trip: trip.p99_us)
    cpu = _middle(found, lambda trip: trip.cpu_us)
    note = f"p90 {p90:.0f}, p99 {p99:.0f}, CPU of all {cpu:.0f}; p50 from {_range(t.p50_us for t in found)}"
    there = "" if first.one_core else _there(THERE_US.get((first.what, first.transport)))
    report.add(
        f"{first.what}, {first.transport}, {where}: p50",
        "",
        _middle(found, lambda trip: trip.p50_us),
        "us",
        note=note + there,
    )
    report.raw += map(asdict, found)


def _add_rate(report: Report, found: list[floor.Rate]) -> None:
    first = found[0]
    cpu = _middle(found, lambda rate: rate.cpu_us)
    note = f"CPU of all {cpu:.1f} us each; from {_range(r.per_second for r in found)}"
    there = _there(THERE_RATE.get((first.what, first.transport)))
    rate = _middle(found, lambda rate: rate.per_second)
    report.add(f"{first.what}, {first.transport}: rate", "", rate, "/s", note=note + there)
    report.raw += map(asdict, found)


def _range(values: Iterable[float]) -> str:
    ordered = sorted(values)
    return f"{ordered[0]:,.0f} to {ordered[-1]:,.0f}"


def _middle(found: list[T], of: Callable[[T], float]) -> float:
    return median(map(of, found))


def _there(figure: int | None) -> str:
    return f"; there: {figure:,}" if figure else ""
