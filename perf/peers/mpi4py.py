"""mpi4py.futures, on MPICH."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from perf.compare.face import Peer, chunk


class Engine(Peer):
    title = "mpi4py.futures"
    packages = ("mpi4py==4.1.2", "mpich==5.0.2")
    chosen = (
        "`MPIPoolExecutor(max_workers=2)`, which spawns its workers, on the MPICH that pip has; `submit`; "
        "`map` with four chunks for each worker"
    )
    program = """
from mpi4py.futures import MPIPoolExecutor
with MPIPoolExecutor(max_workers=2) as pool:
    print(pool.submit(abs, -7).result(), flush=True)
"""
    cannot = {"nested": "a worker has no pool to submit to"}

    def __init__(self, workers: int) -> None:
        from mpi4py.futures import MPIPoolExecutor

        self._workers = workers
        self._pool = MPIPoolExecutor(max_workers=workers)
        self.submit = self._pool.submit

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        found: Iterable[Any] = self._pool.map(function, items, chunksize=chunk(items, self._workers))
        return found

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
