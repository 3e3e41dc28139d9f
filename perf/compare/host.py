"""`python -m perf.compare.host PEER`: the peer's side of a measurement, in the peer's own environment.

Reads requests from standard input and answers each on standard output, one line of
JSON each: {"do": "ping", "tasks": 100} is answered by {"ok": {...}} or
{"error": "..."}.  What the engine itself prints goes to standard error.  Results
are compared with what they must be; a wrong one is an error.

Needs nothing but the standard library and the peer; dies with who has started it.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterable
from functools import partial
from glob import glob
from importlib.metadata import version
from pathlib import Path
from threading import Timer
from time import monotonic, perf_counter, sleep
from typing import Any, BinaryIO

from perf.compare.face import Peer
from perf.measure import percentile, times
from perf.tasks import hold, identity, length, make, noop, spin, who, work_and_tell

Answer = dict[str, Any]
_PR_SET_PDEATHSIG = 1
#: So long, and no longer, a held worker stays so by itself.
HOLD_SECONDS = 120.0


class Host:
    """Each public method is a request."""

    def __init__(self, kind: type[Peer]) -> None:
        self._kind = kind
        self._peer: Peer
        self._workers = 0
        self._kept: list[Any] = []

    def start(self, workers: int) -> Answer:
        """Start the engine, and let each worker run something."""
        self._workers = workers
        began = perf_counter()
        self._peer = self._kind(workers)
        self._check(self._peer.each(noop, [()] * 200), [None] * 200)
        name = self._kind.packages[0].partition("==")[0] if self._kind.packages else ""
        return {"seconds": perf_counter() - began, "version": version(name) if name else ""}

    def ping(self, tasks: int) -> Answer:
        """So many tasks that give back their argument."""
        calls = [(number,) for number in range(tasks)]
        return self._timed(lambda: self._peer.each(identity, calls), list(range(tasks)))

    def roundtrip(self, rounds: int) -> Answer:
        """One at a time."""
        took = times(partial(self._peer.one, identity, 7), rounds)
        return {"p50_us": percentile(took, 0.5) * 1e6, "p99_us": percentile(took, 0.99) * 1e6}

    def batch(self, items: int) -> Answer:
        """The best batch call, warm."""
        with self._peer.batch() as run:
            self._check(run(identity, range(items // 10)), list(range(items // 10)))
            return self._timed(lambda: run(identity, range(items)), list(range(items)))

    def spin(self, tasks: int, seconds: float) -> Answer:
        """So many tasks of so long."""
        return self._timed(lambda: self._peer.each(spin, [(seconds,)] * tasks), [None] * tasks)

    def arguments(self, size: int, count: int) -> Answer:
        """Each is another one: some engines send equal ones once."""
        body = make(size - 8)
        calls = [(number.to_bytes(8, "little") + body,) for number in range(count)]
        return self._timed(lambda: self._peer.each(length, calls), [size] * count)

    def results(self, size: int, count: int) -> Answer:
        """Each is made by its task, and let go when it has been seen."""
        return self._timed(
            lambda: (len(made) for made in self._peer.each(make, [(size,)] * count)), [size] * count
        )

    def fib(self, number: int, expected: int) -> Answer:
        """Nested tasks."""
        return self._timed(lambda: [self._peer.fib(number)], [expected])

    def hold(self) -> Answer:
        """Keep all workers busy until the process ends."""
        flag = str(Path(tempfile.mkdtemp(prefix="hold-"), "go"))
        self._kept += [self._peer.submit(hold, flag, HOLD_SECONDS) for _ in range(self._workers)]
        deadline = monotonic() + 20
        while len(glob(f"{flag}.*")) < self._workers:
            if monotonic() > deadline:
                raise TimeoutError(f"not {self._workers} workers took a task that blocks")
            sleep(0.01)
        return {}

    def fill(self, tasks: int, seconds: float) -> Answer:
        """Queue so many behind those that are held, or as many as can be in so many seconds."""
        submit, keep = self._peer.submit, self._kept.append
        began = monotonic()
        for number in range(tasks):
            keep(submit(noop, number))
            if number % 1000 == 0 and monotonic() - began > seconds:
                return {"queued": number + 1, "seconds": monotonic() - began}
        return {"queued": tasks, "seconds": monotonic() - began}

    def kill(self, tasks: int, seconds: float, patience: float) -> Answer:
        """A run undisturbed, and one in which a worker is killed after a third of that time.

        The latter may take twice as long and `patience` more before what has not ended never will.
        `gap`: seconds until a third process has done its first task; -1 if there was none.
        """
        usual = self._outcome(tasks, seconds, HOLD_SECONDS)
        if usual["done"] != tasks:
            raise RuntimeError("the undisturbed run lost tasks")
        pids = self._pids()
        killed_at: list[float] = []

        def strike() -> None:
            killed_at.append(monotonic())
            os.kill(pids[0], signal.SIGKILL)

        timer = Timer(usual["seconds"] / 3, strike)
        timer.daemon = True
        timer.start()
        found = self._outcome(tasks, seconds, 2 * usual["seconds"] + patience)
        new = [at for pid, at in found.pop("ran") if pid not in pids]
        gap = min(new) - killed_at[0] if new else -1.0
        return found | {"usual": usual["seconds"], "gap": gap}

    def close(self) -> Answer:
        """End the engine as its users do."""
        self._peer.close()
        return {}

    def _pids(self) -> list[int]:
        """The processes that run tasks."""
        found: set[int] = set()
        for _ in range(20):
            found.update(self._peer.each(who, [(0.01,)] * 2 * self._workers))
            if len(found) >= self._workers:
                return sorted(found)
        raise RuntimeError(f"only {len(found)} of {self._workers} workers run tasks")

    def _outcome(self, tasks: int, seconds: float, limit: float) -> Answer:
        descriptor, log = tempfile.mkstemp(prefix="ran-")
        os.close(descriptor)
        began = perf_counter()
        answers, failed = self._peer.outcomes(work_and_tell, [(n, seconds, log) for n in range(tasks)], limit)
        took = perf_counter() - began
        ran = [line.split() for line in Path(log).read_text().splitlines()]
        return {
            "seconds": took,
            "done": len(answers),
            "wrong": sum(number != answer for number, answer in answers.items()),
            "failed": failed,
            "pending": tasks - failed - len(answers),
            "repeated": len(ran) - len({number for number, _, _ in ran}),
            "ran": [(int(pid), float(at)) for _, pid, at in ran],
        }

    def _timed(self, work: Any, expected: list[Any]) -> Answer:
        """Seconds until the last result is there; comparing them comes after."""
        began = perf_counter()
        found = list(work())
        seconds = perf_counter() - began
        self._check(found, expected)
        return {"seconds": seconds}

    @staticmethod
    def _check(found: Iterable[Any], expected: list[Any]) -> None:
        found = list(found)
        if found != expected:
            wrong = sum(one != other for one, other in zip(found, expected, strict=False))
            raise AssertionError(f"{len(found)} results of {len(expected)}, {wrong} of them wrong")


def main() -> None:
    """Serve until standard input ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    requests, answers = _taken_over()
    host = Host(importlib.import_module(sys.argv[1]).Engine)
    for line in requests:
        request = json.loads(line)
        try:
            said: Answer = {"ok": getattr(host, request.pop("do"))(**request)}
        except Exception as error:
            traceback.print_exc()
            said = {"error": f"{type(error).__name__}: {error}".strip().partition("\n")[0]}
        answers.write(json.dumps(said).encode() + b"\n")
        answers.flush()
    os._exit(0)  # an engine may have left threads that never end


def _taken_over() -> tuple[BinaryIO, BinaryIO]:
    """The two pipes for us alone: engines may print, and their children need no more than /dev/null."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    return requests, answers


if __name__ == "__main__":
    main()
