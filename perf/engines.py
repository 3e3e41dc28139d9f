"""The engines under measurement behind one small face: ourselves and the peers.

An adapter adds nothing to a hot path: `submit` is the engine's own method where
it has one.  Add a peer by writing a class and a line in ENGINES.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol

from perf.measure import Pids
from perf.tasks import noop

#: How long one gather may take before the engine counts as hung.
GATHER_SECONDS = 120.0


class Engine(Protocol):
    """Some executors, ready for tasks."""

    #: `submit(function, *arguments)` gives a handle for `result` and `gather`.
    submit: Callable[..., Any]

    def result(self, handle: Any, timeout: float | None = None) -> Any:
        """Wait for one."""

    def gather(self, handles: Iterable[Any]) -> list[Any]:
        """Wait for all, in order."""

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        """The engine's best batch call: results in order."""

    def pids(self) -> Pids:
        """Who belongs to it: "client" is this process."""

    def close(self) -> None:
        """End all its processes."""


class Flame:
    """flamezmq with an embedded cluster."""

    def __init__(self, workers: int) -> None:
        import flamezmq as flm

        self.client = flm.Client(executors=workers)
        self.submit = self.client.submit

    def result(self, handle: Any, timeout: float | None = None) -> Any:
        return handle.result(timeout)

    def gather(self, handles: Iterable[Any]) -> list[Any]:
        return [handle.result(GATHER_SECONDS) for handle in handles]

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        results: Iterable[Any] = self.client.map(function, items)
        return results

    def pids(self) -> Pids:
        named = {
            name: [some] if isinstance(some, int) else list(some)
            for name, some in self.client.processes().items()
        }
        return {"client": [os.getpid()]} | named

    def close(self) -> None:
        self.client.close()


class PoolExecutor:
    """concurrent.futures.ProcessPoolExecutor, by fork."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork"))
        self.submit = self._pool.submit

    def result(self, handle: Future[Any], timeout: float | None = None) -> Any:
        return handle.result(timeout)

    def gather(self, handles: Iterable[Future[Any]]) -> list[Any]:
        return [handle.result(GATHER_SECONDS) for handle in handles]

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        # By hand, as a user would who reads the manual: four chunks for each worker.
        return self._pool.map(function, items, chunksize=max(1, len(items) // (self._workers * 4)))

    def pids(self) -> Pids:
        return {"client": [os.getpid()], "executors": list(self._pool._processes or ())}

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class Pool:
    """multiprocessing.Pool, by fork."""

    def __init__(self, workers: int) -> None:
        self._pool = multiprocessing.get_context("fork").Pool(workers)
        apply_async = self._pool.apply_async
        self.submit = lambda function, *arguments: apply_async(function, arguments)

    def result(self, handle: Any, timeout: float | None = None) -> Any:
        return handle.get(timeout)

    def gather(self, handles: Iterable[Any]) -> list[Any]:
        return [handle.get(GATHER_SECONDS) for handle in handles]

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        return self._pool.map(function, items)

    def pids(self) -> Pids:
        return {"client": [os.getpid()], "executors": [p.pid for p in self._pool._pool]}  # type: ignore[attr-defined]

    def close(self) -> None:
        self._pool.terminate()
        self._pool.join()


OURS = "flamezmq"
ENGINES: dict[str, Callable[[int], Engine]] = {
    OURS: Flame,
    "ProcessPoolExecutor": PoolExecutor,
    "Pool": Pool,
}


@contextmanager
def started(name: str, workers: int = 2) -> Iterator[Engine]:
    """An engine whose executors have each run something.  Closed on the way out."""
    engine = ENGINES[name](workers)
    try:
        engine.gather([engine.submit(noop) for _ in range(200)])
        yield engine
    finally:
        engine.close()


def submit_all(engine: Engine, function: Callable[..., Any], count: int) -> list[Any]:
    """flmping's shape: submit one by one, then take all results."""
    submit = engine.submit
    return engine.gather([submit(function) for _ in range(count)])


def roundtrip(engine: Engine) -> None:
    """One no-op, submitted and waited for."""
    engine.result(engine.submit(noop), GATHER_SECONDS)


def exhaust(results: Iterable[Any]) -> None:
    """Take every result and keep none."""
    deque(results, maxlen=0)
