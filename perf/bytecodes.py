"""Bytecodes of a lone round trip and of one task in bulk, by process and by function: what noise can't move.

    python -m perf.bytecodes                    # of client, router and executor
    python -m perf.bytecodes router             # and where in the router
    PYTHONPATH=OTHER python perf/bytecodes.py   # of another checkout, to compare with

The interpreter counts, in the loopback (perf/loopback.py).  A bytecode is no fixed time:
what is called in C counts one; so CPU has the last word (`python -m perf account`).
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from perf.loopback import WHO, Loopback, loopback
from perf.tasks import noop

TRIPS = 50
TASKS = 10_000
#: Functions that are shown of one process.
SHOWN = 40


class Counts:
    """Bytecodes and calls by process, then by function."""

    def __init__(self) -> None:
        self.bytecodes: dict[str, Counter[str]] = {who: Counter() for who in WHO}
        self.calls: dict[str, Counter[str]] = {who: Counter() for who in WHO}

    @contextmanager
    def watch(self, who: str) -> Iterator[None]:
        """Count what is done in this block for `who`."""
        bytecodes, calls = self.bytecodes[who], self.calls[who]

        def enter(frame: FrameType, _event: str, _arg: Any) -> Any:
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            code = frame.f_code
            name = f"{'/'.join(code.co_filename.split('/')[-2:])}: {code.co_name}"
            calls[name] += 1

            def step(_frame: FrameType, event: str, _arg: Any) -> Any:
                bytecodes[name] += event == "opcode"
                return step

            return step

        sys.settrace(enter)
        try:
            yield
        finally:
            sys.settrace(None)


def trips(loop: Loopback) -> Counts:
    """Of TRIPS round trips, when everything is warm."""
    for _ in range(300):
        loop.trip(noop)
    counts = Counts()
    for _ in range(TRIPS):
        loop.trip(noop, counts.watch)
    return counts


def bulk(loop: Loopback) -> Counts:
    """Of TASKS tasks at once, when everything is warm."""
    for _ in range(2):
        loop.bulk(noop, TASKS)
    counts = Counts()
    loop.bulk(noop, TASKS, counts.watch)
    return counts


def main(shown: list[str]) -> None:
    with loopback() as loop:
        found = {"one trip": (trips(loop), TRIPS), "one of 10,000": (bulk(loop), TASKS)}
    for kind, (counts, tasks) in found.items():
        for who in WHO:
            print(f"{kind}: {who:9}{counts.bytecodes[who].total() / tasks:8,.1f} bytecodes")
    counts, tasks = found["one trip"]
    for who in shown:
        print(f"\n{who}, one trip: bytecodes, calls")
        for name, bytecodes in counts.bytecodes[who].most_common(SHOWN):
            print(f"{bytecodes / tasks:8,.1f} {counts.calls[who][name] / tasks:6.2f}  {name}")


if __name__ == "__main__":
    main([who for who in sys.argv[1:] if who in WHO])
