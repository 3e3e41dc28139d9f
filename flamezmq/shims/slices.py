"""Slices of a map: one task that calls a function on many items.

Each item's error is its own; nothing is called twice.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import starmap
from time import perf_counter
from typing import Any

from flamezmq.serialize.failures import dump_error
from flamezmq.serialize.values import dump_value


class SliceResult:
    """What came of a slice: `values` in order (None where `errors`, offset -> pickled error, has one)."""

    __slots__ = ("errors", "seconds", "values")

    def __init__(self, seconds: float, values: list[Any], errors: dict[int, bytes]) -> None:
        self.seconds, self.values, self.errors = seconds, values, errors

    def __reduce__(self) -> tuple[Any, ...]:
        return SliceResult, (self.seconds, self.values, self.errors)

    def isolate(self) -> SliceResult:
        """Some value can't be pickled: turn those that can't into errors of their own."""
        for offset, value in enumerate(self.values):
            try:
                dump_value(value)
            except Exception as error:
                self.errors[offset] = dump_error(error)
                self.values[offset] = None
        return self


class Slicer:
    """Calls `fn` on each item of a slice (`spread`: each item is a tuple of arguments)."""

    def __init__(self, fn: Callable[..., Any], spread: bool) -> None:
        self.fn, self.spread = fn, spread

    def __call__(self, items: list[Any]) -> SliceResult:
        start = perf_counter()
        values: list[Any] = []
        errors: dict[int, bytes] = {}
        calls = starmap(self.fn, items) if self.spread else map(self.fn, items)
        while True:
            try:
                values.extend(calls)
                break
            except BaseException as error:
                # extend() keeps what it had, and the iterator goes on with the next item
                errors[len(values)] = dump_error(error)
                values.append(None)
        return SliceResult(perf_counter() - start, values, errors)
