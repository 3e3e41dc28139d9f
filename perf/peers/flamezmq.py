"""flamezmq itself, as its peers are measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from perf.compare.face import Peer


class Engine(Peer):
    title = "flamezmq"
    chosen = (
        "`flm.Client(executors=2)`: the embedded cluster, with every default; `submit`; `client.map`, "
        "which chooses its slices"
    )
    program = """
import flamezmq as flm
with flm.Client(executors=2) as client:
    print(client.submit(abs, -7).result(20), flush=True)
"""

    def __init__(self, workers: int) -> None:
        import flamezmq as flm

        self._client = flm.Client(executors=workers)
        self.submit = self._client.submit

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        found: Iterable[Any] = self._client.map(function, items)
        return found

    def fib(self, number: int) -> int:
        return int(self._client.submit(fib, number).result())

    def close(self) -> None:
        self._client.close()


def fib(number: int) -> int:
    """Both halves are submitted, then waited for."""
    import flamezmq as flm

    if number < 2:
        return number
    client = flm.current().client
    left, right = client.submit(fib, number - 1), client.submit(fib, number - 2)
    return int(left.result() + right.result())
