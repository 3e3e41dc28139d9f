"""What the measured engines run.  Importable by name, without dependencies, so that all can."""

from __future__ import annotations

import os
from time import monotonic, sleep, thread_time
from typing import Any

#: Tasks that must be in a process each last so long, that none has two, also while the others still start.
LONG_SECONDS = 0.25
#: How long they may take to answer.
PATIENCE_SECONDS = 10.0


def noop(_: object = None) -> None:
    """Nothing."""


def identity(value: object) -> object:
    """Its argument."""
    return value


def spin(seconds: float) -> None:
    """So much CPU time of this thread.  Not a sleep: that wakes up late, and needs no core."""
    end = thread_time() + seconds
    while thread_time() < end:
        pass


def length(data: bytes) -> int:
    """Take bytes, give back how many."""
    return len(data)


def make(size: int) -> bytes:
    """Make `size` bytes of touched memory."""
    return b"\1" * size


def who(seconds: float) -> int:
    """Spin, then say which process has run it."""
    spin(seconds)
    return os.getpid()


def begin(seconds: float) -> tuple[int, float]:
    """Which process has begun this, and when, by the clock of all processes; then sleep so long."""
    began = monotonic()
    sleep(seconds)
    return os.getpid(), began


def all_begin(session: Any, count: int) -> list[float]:
    """Submit so many tasks; when each has begun.

    Raises:
        RuntimeError: two of them had the same process.
    """
    tasks = [session.submit(begin, LONG_SECONDS) for _ in range(count)]
    starts: dict[int, float] = dict(task.result(PATIENCE_SECONDS) for task in tasks)
    if len(starts) < count:
        raise RuntimeError(f"{count} tasks ran in {len(starts)} processes")
    return list(starts.values())


def hold(path: str, limit: float) -> None:
    """Keep an executor until `path` exists, at most `limit` seconds; `path`.PID says that we are here."""
    open(f"{path}.{os.getpid()}", "w").close()
    end = monotonic() + limit
    while not os.path.exists(path) and monotonic() < end:
        sleep(0.002)


def work_and_tell(number: int, seconds: float, path: str) -> int:
    """Spin, then append our number, pid and the time to a file: who ran when, and how often."""
    spin(seconds)
    with open(path, "ab", buffering=0) as log:
        log.write(b"%d %d %.6f\n" % (number, os.getpid(), monotonic()))
    return number


def look(data: Any, part: int, parts: int) -> int:
    """The sum of a byte of each page of one part of a buffer."""
    with memoryview(data) as view, view.cast("B") as flat:
        share = len(flat) // parts
        return sum(flat[part * share : (part + 1) * share : 4096])


def look_by_name(name: str, part: int, parts: int) -> int:
    """The same for a buffer that another process has put into shared memory by hand."""
    from multiprocessing.shared_memory import SharedMemory

    shared = SharedMemory(name)
    try:
        return look(shared.buf, part, parts)
    finally:
        shared.close()
