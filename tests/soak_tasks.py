"""Tasks of the soak: a module of its own, because executors import it whenever they are replaced."""

from __future__ import annotations

import random
import time
from typing import Any

import flamezmq as flm


def fib(n: int) -> int:
    if n < 2:
        return n
    client = flm.current().client
    return sum(future.result() for future in [client.submit(fib, n - 1), client.submit(fib, n - 2)])


def line(length: int) -> int:
    """Nested tasks that take each other's values."""
    client = flm.current().client
    value: Any = 0
    for _ in range(length):
        value = client.submit(add, value, 1)
    return value.result()


def leave_some(count: int) -> int:
    """Nested tasks that nobody waits for, but one."""
    client = flm.current().client
    futures = [client.submit(add, number, 0.001) for number in range(count)]
    return int(futures[0].result())


def add(one: float, two: float) -> float:
    return one + two


def nap(seconds: float, value: int) -> int:
    time.sleep(seconds)
    return value


def flaky(value: int) -> int:
    if random.random() < 0.25:
        raise OSError("not this time")
    return value


def fail() -> None:
    raise RuntimeError("as it was told to")
