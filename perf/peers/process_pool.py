"""concurrent.futures.ProcessPoolExecutor."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from perf.compare.face import Peer, chunk


class Engine(Peer):
    title = "ProcessPoolExecutor"
    chosen = (
        "workers by fork, the quickest start; `submit`; `map` with four chunks for each worker, as the "
        "manual advises for long iterables"
    )
    program = """
from concurrent.futures import ProcessPoolExecutor
import multiprocessing
with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
    print(pool.submit(abs, -7).result(), flush=True)
"""
    cannot = {"nested": "a worker has no executor to submit to"}

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork"))
        self.submit = self._pool.submit

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        return self._pool.map(function, items, chunksize=chunk(items, self._workers))

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
