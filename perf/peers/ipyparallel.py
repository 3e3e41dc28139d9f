"""ipyparallel: engines behind a load-balanced view."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from perf.compare.face import Function, Peer


class Engine(Peer):
    title = "ipyparallel"
    packages = ("ipyparallel==9.2.0",)
    chosen = (
        "`ipp.Cluster(n=2)` on loopback with its defaults; a load-balanced view and `apply_async` for "
        "tasks; for a batch `DirectView.map_sync`, which gives each engine one share"
    )
    program = """
import ipyparallel as ipp
cluster = ipp.Cluster(n=2, log_level=40)
client = cluster.start_and_connect_sync(activate=False)
print(client.load_balanced_view().apply_sync(abs, -7), flush=True)
cluster.stop_cluster_sync()
"""
    sizes = {"ping": 2_000, "short": 500, "queue": 10_000}
    cannot = {"nested": "an engine that waits runs nothing else: its tasks' tasks have no engine left"}

    def __init__(self, workers: int) -> None:
        import ipyparallel

        self._cluster = ipyparallel.Cluster(n=workers, log_level=40)
        self._client = self._cluster.start_and_connect_sync(activate=False)
        self._balanced = self._client.load_balanced_view()
        self._direct = self._client[:]

    def submit(self, function: Function, *arguments: Any) -> Any:
        return self._balanced.apply_async(function, *arguments)

    def result(self, handle: Any, timeout: float | None = None) -> Any:
        return handle.get(timeout)

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        found: Iterable[Any] = self._direct.map_sync(function, items)
        return found

    def close(self) -> None:
        self._cluster.stop_cluster_sync()
        self._client.close()
