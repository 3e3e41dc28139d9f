"""executorlib: its executor for one machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from perf.compare.face import Peer


class Engine(Peer):
    title = "executorlib"
    packages = ("executorlib==1.11.0",)
    chosen = (
        "`SingleNodeExecutor(max_workers=2)` on loopback with `block_allocation`, which keeps the "
        "workers, `disable_dependencies`, without which a round trip takes 10 ms, and one restart for "
        "each worker; `map`, which sends items one by one"
    )
    program = """
from executorlib import SingleNodeExecutor
with SingleNodeExecutor(max_workers=2, block_allocation=True, hostname_localhost=True) as pool:
    print(pool.submit(abs, -7).result(), flush=True)
"""
    sizes = {"batch": 20_000}
    cannot = {"nested": "a worker has no executor to submit to"}

    def __init__(self, workers: int) -> None:
        from executorlib import SingleNodeExecutor

        self._pool = SingleNodeExecutor(
            max_workers=workers,
            block_allocation=True,
            hostname_localhost=True,
            disable_dependencies=True,
            restart_limit=1,
        )
        self.submit = self._pool.submit

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        found: Iterable[Any] = self._pool.map(function, items)
        return found

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
