"""multiprocessing.Pool."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from perf.compare.face import Function, Peer


class Engine(Peer):
    title = "multiprocessing.Pool"
    chosen = "workers by fork; `apply_async`; `map`, which chooses its chunks"
    program = """
import multiprocessing
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.apply(abs, (-7,)), flush=True)
"""
    cannot = {"nested": "a worker has no pool to submit to"}

    def __init__(self, workers: int) -> None:
        self._pool = multiprocessing.get_context("fork").Pool(workers)

    def submit(self, function: Function, *arguments: Any) -> Any:
        return self._pool.apply_async(function, arguments)

    def result(self, handle: Any, timeout: float | None = None) -> Any:
        return handle.get(timeout)

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        return self._pool.map(function, items)

    def close(self) -> None:
        self._pool.terminate()
        self._pool.join()
