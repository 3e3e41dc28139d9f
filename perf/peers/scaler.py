"""OpenGRIS Scaler."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from perf.compare.face import Peer


class Engine(Peer):
    title = "OpenGRIS Scaler"
    packages = ("opengris-scaler==2.9.0",)
    chosen = (
        "the manual's `SchedulerClusterCombo(n_workers=2)` on loopback with its defaults; `submit`; "
        "`Client.map`, which sends items one by one; nested tasks with the client as an argument, as the "
        "manual shows"
    )
    program = """
from scaler import Client, SchedulerClusterCombo
if __name__ == "__main__":
    cluster = SchedulerClusterCombo(n_workers=2, logging_level="ERROR")
    with Client(address=cluster.get_address()) as client:
        print(client.submit(abs, -7).result(), flush=True)
    cluster.shutdown()
"""
    sizes = {"ping": 1_000, "short": 500, "batch": 1_000, "queue": 10_000, "roundtrip": 300}

    def __init__(self, workers: int) -> None:
        from scaler import Client, SchedulerClusterCombo

        self._cluster = SchedulerClusterCombo(n_workers=workers, logging_level="ERROR")
        self._client = Client(address=self._cluster.get_address())
        self.submit = self._client.submit

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        found: Iterable[Any] = self._client.map(function, items)
        return found

    def fib(self, number: int) -> int:
        return int(self._client.submit(fib, self._client, number).result())

    def close(self) -> None:
        self._client.disconnect()
        self._cluster.shutdown()


def fib(client: Any, number: int) -> int:
    """As in the docstring of its client."""
    if number < 2:
        return number
    left, right = client.submit(fib, client, number - 1), client.submit(fib, client, number - 2)
    return int(left.result() + right.result())
