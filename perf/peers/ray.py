"""Ray: remote functions on a node of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from perf.compare.face import Batch, Function, Peer


class Engine(Peer):
    title = "Ray"
    packages = ("ray==2.60.0",)
    chosen = (
        "`ray.init(num_cpus=2)` on loopback, without dashboard and forwarding of logs; each function made "
        "remote once; one `ray.get` for many results; for a batch its own "
        "`ray.util.multiprocessing.Pool(2)`, which chooses its chunks, and whose actors are up before the "
        "clock runs"
    )
    program = """
import ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
print(ray.get(ray.remote(lambda n: abs(n)).remote(-7)), flush=True)
"""
    sizes = {"queue": 50_000}

    def __init__(self, workers: int) -> None:
        import ray

        self._ray, self._workers = ray, workers
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
        self._remote = cache(ray.remote)

    def submit(self, function: Function, *arguments: Any) -> Any:
        return self._remote(function).remote(*arguments)

    def result(self, handle: Any, timeout: float | None = None) -> Any:
        return self._ray.get(handle, timeout=timeout)

    def each(self, function: Function, arguments: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        remote = self._remote(function).remote
        yield from self._ray.get([remote(*some) for some in arguments])

    @contextmanager
    def batch(self) -> Iterator[Batch]:
        from ray.util.multiprocessing import Pool

        with Pool(self._workers) as pool:
            yield pool.map
            pool.terminate()

    def fib(self, number: int) -> int:
        return int(self.one(fib, number))

    def close(self) -> None:
        self._ray.shutdown()


@cache
def _remote_fib() -> Any:
    """Made remote once in each process, as a decorator would."""
    import ray

    return ray.remote(fib)


def fib(number: int) -> int:
    """As the manual's "Nested remote functions"; a task that waits in `ray.get` gives its core back."""
    import ray

    if number < 2:
        return number
    remote = _remote_fib().remote
    return int(sum(ray.get([remote(number - 1), remote(number - 2)])))
