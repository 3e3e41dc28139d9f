"""loky: the reusable executor behind joblib."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from perf.compare.face import Peer, chunk


class Engine(Peer):
    title = "loky"
    packages = ("loky==3.7.0",)
    chosen = (
        "`get_reusable_executor(max_workers=2)`, without the time limit for idle workers, so that none "
        "leaves amid a run; `submit`; `map` with four chunks for each worker"
    )
    program = """
from loky import get_reusable_executor
print(get_reusable_executor(max_workers=2).submit(abs, -7).result(), flush=True)
"""
    cannot = {"nested": "a worker that waits for tasks of its own executor would keep them waiting"}

    def __init__(self, workers: int) -> None:
        from loky import get_reusable_executor

        self._workers = workers
        self._executor: Any = get_reusable_executor(max_workers=workers, timeout=None)
        self.submit = self._executor.submit

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        found: Iterable[Any] = self._executor.map(function, items, chunksize=chunk(items, self._workers))
        return found

    def close(self) -> None:
        self._executor.shutdown(wait=True, kill_workers=True)
