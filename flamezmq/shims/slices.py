"""Slices of a map: one task that calls a function on many items.

Each item's error is its own; nothing is called twice.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import starmap
from time import perf_counter
from typing import Any

from flamezmq.optioned import Configured, Optioned, Options
from flamezmq.serialize.failures import dump_error
from flamezmq.serialize.values import dump_value
from flamezmq.shims.attempts import in_place
from flamezmq.shims.interrupts import interrupts
from flamezmq.wire import messages as m


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


class Slicer(Configured):
    """Calls `fn` on each item of a slice (`spread`: each item is a tuple of arguments).

    Options of `fn` are for each item, not for the slice.
    """

    def __init__(self, fn: Callable[..., Any], spread: bool) -> None:
        self.fn, self.spread = fn, spread

    def label(self, inner: str) -> str:
        return f"map({inner})"

    def terms(self) -> m.Options | None:
        if not isinstance(self.fn, Optioned):
            return None
        terms = self.fn.options.terms()  # of a slice, the router can only see that nothing begins, or ends
        return m.Options(timeout=terms.timeout, priority=terms.priority, deadline=terms.deadline)

    def under(self, defaults: Options) -> Slicer:
        fn = self.fn.under(defaults) if isinstance(self.fn, Optioned) else defaults(self.fn)
        return Slicer(fn, self.spread)

    def __call__(self, items: list[Any]) -> SliceResult:
        start = perf_counter()
        values: list[Any] = []
        errors: dict[int, bytes] = {}
        fn = in_place(self.fn)
        calls = starmap(fn, items) if self.spread else map(fn, items)
        while True:
            try:
                values.extend(calls)
                break
            except BaseException as error:
                if interrupts.has_hit():
                    raise  # the slice as a whole is cancelled
                # extend() keeps what it had, and the iterator goes on with the next item
                errors[len(values)] = dump_error(error)
                values.append(None)
        return SliceResult(perf_counter() - start, values, errors)
