"""Dask: its distributed scheduler."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from perf.compare.face import Function, Peer, chunk


class Engine(Peer):
    title = "Dask (distributed)"
    packages = ("distributed==2026.8.0",)
    chosen = (
        "`LocalCluster(n_workers=2, threads_per_worker=1)`: processes, as for pure Python work; no "
        "dashboard; `submit(pure=False)`, or equal calls would run once; `gather` for many results; for "
        "a batch a task for each of eight parts, cut by hand, as the manual advises against many tiny "
        "tasks (`dask.bag` needs minutes for as many items); `worker_client` in tasks that submit"
    )
    program = """
from distributed import Client, LocalCluster
with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
    with Client(cluster) as client:
        print(client.submit(abs, -7).result(), flush=True)
"""
    sizes = {"ping": 2_000, "short": 500, "queue": 20_000, "roundtrip": 200, "batch": 100_000}

    def __init__(self, workers: int) -> None:
        from distributed import Client, LocalCluster

        self._cluster = LocalCluster(
            n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
        )
        self._client = Client(self._cluster)
        self._workers = workers

    def submit(self, function: Function, *arguments: Any) -> Any:
        return self._client.submit(function, *arguments, pure=False)

    def each(self, function: Function, arguments: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        submit = self._client.submit
        yield from self._client.gather([submit(function, *some, pure=False) for some in arguments])

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        size = chunk(items, self._workers)
        parts = [items[at : at + size] for at in range(0, len(items), size)]
        done = [self._client.submit(over, function, part, pure=False) for part in parts]
        return chain.from_iterable(self._client.gather(done))

    def fib(self, number: int) -> int:
        return int(self.one(fib, number))

    def close(self) -> None:
        self._client.close()
        self._cluster.close()


def over(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """A batch of many tiny calls."""
    return [function(item) for item in items]


def fib(number: int) -> int:
    """As the manual's "Launch Tasks from Tasks"."""
    from distributed import worker_client

    if number < 2:
        return number
    with worker_client() as client:
        halves = [client.submit(fib, number - 1, pure=False), client.submit(fib, number - 2, pure=False)]
        return int(sum(client.gather(halves)))
