"""A real router in a process of its own, whose Python calls can be counted.

For scenarios that bring their own executors.  Fork it before the calling
process has a ZeroMQ context; it dies with that process.
"""

from __future__ import annotations

import cProfile
import gc
import multiprocessing
import os
import pstats
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

from flamezmq.processes import die_with_parent
from perf.isolate import GRACE_SECONDS

#: How long it may take to bind, or to answer.
LIMIT_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class RouterProcess:
    """address: where it listens."""

    address: str
    pid: int
    _answers: Connection

    def calls(self, work: Callable[[], object]) -> int:
        """Function calls, Python's and C's, that the router makes while `work` runs here."""
        self._toggle()
        work()
        return self._toggle()

    def _toggle(self) -> int:
        os.kill(self.pid, signal.SIGUSR1)
        if not self._answers.poll(LIMIT_SECONDS):
            raise TimeoutError("the router does not answer a signal")
        return int(self._answers.recv())


@contextmanager
def router_process() -> Iterator[RouterProcess]:
    """One that listens, until the end of the block."""
    fork = multiprocessing.get_context("fork")
    with TemporaryDirectory(prefix="flm-perf-") as folder:
        ours, its = fork.Pipe()
        address = f"ipc://{Path(folder, 'router')}"
        process = fork.Process(target=_serve, args=(address, its, os.getpid()), daemon=True)
        process.start()
        its.close()
        try:
            if not ours.poll(LIMIT_SECONDS):
                raise TimeoutError("the router did not bind")
            ours.recv()
            assert process.pid is not None
            yield RouterProcess(address, process.pid, ours)
        finally:
            process.kill()
            process.join(GRACE_SECONDS)


def _serve(address: str, answers: Connection, parent: int) -> None:
    """As `flamezmq.router.main`; a signal starts a profile, the next one ends it and tells its sum."""
    from flamezmq.router import main

    die_with_parent(parent)
    profiles: list[cProfile.Profile] = []

    def toggle(*_: object) -> None:
        if not profiles:
            profiles.append(cProfile.Profile())
            answers.send(0)
            profiles[0].enable()
            return
        profile = profiles.pop()
        profile.disable()
        answers.send(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]

    signal.signal(signal.SIGUSR1, toggle)
    gc.collect()  # what was inherited is not the router's to look at
    main(address, lambda: answers.send("bound"))
