"""Parsl: its HighThroughputExecutor."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from perf.compare.face import Function, Peer


class Engine(Peer):
    title = "Parsl (HTEX)"
    packages = ("parsl==2026.10.26",)
    chosen = (
        "the manual's local HTEX: one block of 2 workers on loopback, no scaling strategy, no encryption, "
        "`prefetch_capacity=100`, as the manual says that 0 is for few or long tasks; `ParslPoolExecutor` "
        "for `submit` and for `map`, which sends items one by one; nested tasks as `join_app`"
    )
    program = """
import tempfile
import parsl
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider
from parsl.concurrent import ParslPoolExecutor
htex = HighThroughputExecutor(address="127.0.0.1", max_workers_per_node=2, encrypted=False,
                              provider=LocalProvider(init_blocks=1, max_blocks=1))
with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as runs:
    config = parsl.Config(executors=[htex], strategy="none", usage_tracking=0, run_dir=runs)
    with ParslPoolExecutor(config) as pool:
        print(pool.submit(abs, -7).result(), flush=True)
"""
    sizes = {"ping": 3_000, "short": 1_000, "batch": 3_000, "queue": 50_000}

    def __init__(self, workers: int) -> None:
        import parsl
        from parsl.concurrent import ParslPoolExecutor
        from parsl.executors import HighThroughputExecutor
        from parsl.providers import LocalProvider

        htex = HighThroughputExecutor(
            address="127.0.0.1",
            max_workers_per_node=workers,
            cores_per_worker=1,
            prefetch_capacity=100,
            encrypted=False,
            provider=LocalProvider(init_blocks=1, max_blocks=1),
        )
        config = parsl.Config(
            executors=[htex], strategy="none", usage_tracking=0, run_dir=os.path.join(os.getcwd(), "runinfo")
        )
        self._pool = ParslPoolExecutor(config)

    def submit(self, function: Function, *arguments: Any) -> Any:
        return self._pool.submit(function, *arguments)

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        found: Iterable[Any] = self._pool.map(function, items)
        return found

    def fib(self, number: int) -> int:
        from parsl import join_app, python_app

        leaf_app, add_app = python_app(leaf), python_app(add)

        def halves(number: int) -> Any:
            return leaf_app(number) if number < 2 else add_app(fib_app(number - 1), fib_app(number - 2))

        fib_app: Any = join_app(halves)
        return int(fib_app(number).result())

    def close(self) -> None:
        self._pool.shutdown(wait=True)


def leaf(number: int) -> int:
    """fib of 0 and 1."""
    return number


def add(left: int, right: int) -> int:
    """A join_app is no task on a worker; its sum is."""
    return left + right
