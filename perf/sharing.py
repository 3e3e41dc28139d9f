"""One large array for many tasks: our objects, and what users of plain pools do by hand.

Every job gives the seconds of each time from the bare array to the last result, and what
the array weighs then, in all processes together, as a multiple of its size.
"""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from time import perf_counter
from typing import Any

from perf.engines import OURS, Engine, started
from perf.measure import Pids
from perf.tasks import look, look_by_name

TASKS = 64


@dataclass(frozen=True, slots=True)
class Shared:
    """seconds: of the first time and of the following ones; copies: beside the user's own array."""

    seconds: list[float]
    copies: float


def share(name: str, size: int, times: int) -> Shared:
    """So many times in one engine; each time another array, which is let go of before the next."""
    resource_tracker.ensure_running()  # one for all processes of a pool, which are forked
    with started(name) as engine:
        once = _by_reference if name == OURS else _by_hand
        engine.gather([engine.submit(look, _array(100, 1), 0, 1) for _ in range(8)])  # numpy is there
        seconds, copies = [], 0.0
        for number in range(times):
            array = _array(size, number)
            before = weight(engine.pids())
            took, after = once(engine, array)
            seconds.append(took)
            copies = max(copies, (after - before) / size)
        return Shared(seconds, copies)


def weight(pids: Pids) -> int:
    """Bytes of memory of all processes; what several of them share counts once."""
    total = 0
    for pid in {pid for some in pids.values() for pid in some}:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def _by_reference(engine: Any, array: Any) -> tuple[float, int]:
    began = perf_counter()
    with engine.client.session() as session:
        ref = session.put(array)
        results = engine.gather([session.submit(look, ref, part, TASKS) for part in range(TASKS)])
        took = perf_counter() - began
        assert results == expected(array)
        found = weight(engine.pids())
        session.free(ref)
        return took, found


def _by_hand(engine: Engine, array: Any) -> tuple[float, int]:
    began = perf_counter()
    shared = SharedMemory(create=True, size=array.nbytes)
    try:
        buffer: Any = shared.buf
        buffer[: array.nbytes] = memoryview(array).cast("B")
        del buffer
        calls = [engine.submit(look_by_name, shared.name, part, TASKS) for part in range(TASKS)]
        results = engine.gather(calls)
        took = perf_counter() - began
        assert len(results) == TASKS
        return took, weight(engine.pids())
    finally:
        shared.close()
        shared.unlink()


def expected(array: Any) -> list[int]:
    """What the tasks find."""
    return [look(array, part, TASKS) for part in range(TASKS)]


def _array(size: int, number: int) -> Any:
    import numpy

    return numpy.full(size, number % 251 + 1, dtype=numpy.uint8)
