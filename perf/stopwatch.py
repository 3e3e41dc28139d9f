"""Where the time goes, step by step: functions are wrapped, their own time is summed by label.

A function's own time is what it took less what wrapped functions that it called
took.  What the wrapping itself costs is measured first and taken off.  Works in
one thread; good for steps of a microsecond and more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter_ns
from typing import Any

#: (the label, the module, class or object that holds the function, its name there)
Point = tuple[str, Any, str]
_INHERITED = object()


@dataclass(slots=True)
class Stopwatch:
    """own: nanoseconds by label, since the last `take`."""

    own: dict[str, float] = field(default_factory=dict)
    _outer: float = 0.0  # what a wrapper adds to its caller
    _inner: float = 0.0  # and to what it wraps
    _children: list[float] = field(default_factory=lambda: [0.0])

    def __post_init__(self) -> None:
        self._calibrate()

    @contextmanager
    def label(self, label: str) -> Iterator[None]:
        """Time a block, as if it were a wrapped function."""
        self._children.append(0.0)
        began = perf_counter_ns()
        try:
            yield
        finally:
            self._book(label, perf_counter_ns() - began)

    def take(self) -> dict[str, float]:
        """What was summed, in microseconds; begins anew."""
        found, self.own = self.own, {}
        return {label: nanoseconds / 1e3 for label, nanoseconds in found.items()}

    @contextmanager
    def on(self, points: Sequence[Point]) -> Iterator[None]:
        """Wrap these until the end of the block."""
        kept = [vars(holder).get(name, _INHERITED) for _, holder, name in points]
        try:
            for (label, holder, name), function in zip(points, kept, strict=True):
                found = getattr(holder, name) if function is _INHERITED else function
                setattr(holder, name, self._wrapped(label, found))
            yield
        finally:
            for (_, holder, name), function in zip(points, kept, strict=True):
                if function is _INHERITED:
                    delattr(holder, name)
                else:
                    setattr(holder, name, function)

    def _wrapped(self, label: str, function: Any) -> Any:
        static = isinstance(function, staticmethod)
        inside: Callable[..., Any] = function.__func__ if static else function
        children, clock, book = self._children, perf_counter_ns, self._book

        def timed(*args: Any, **kwargs: Any) -> Any:
            children.append(0.0)
            began = clock()
            try:
                return inside(*args, **kwargs)
            finally:
                book(label, clock() - began)

        return staticmethod(timed) if static else timed

    def _book(self, label: str, took: float) -> None:
        children = self._children
        own = took - children.pop() - self._inner
        self.own[label] = self.own.get(label, 0.0) + own
        children[-1] += took + self._outer

    def _calibrate(self) -> None:
        """Time a wrapped function that does nothing, from inside and from outside."""
        rounds = 2000

        def nothing() -> None:
            pass

        wrapped = self._wrapped("", nothing)
        inner, outer = [], []
        for _ in range(7):
            self.own.clear()
            began = perf_counter_ns()
            for _ in range(rounds):
                wrapped()
            whole = (perf_counter_ns() - began) / rounds
            began = perf_counter_ns()
            for _ in range(rounds):
                nothing()
            bare = (perf_counter_ns() - began) / rounds
            inner.append(self.own[""] / rounds)
            outer.append(whole - bare - inner[-1])
        self._inner, self._outer = median(inner), median(outer)
        self.own.clear()
        self._children[:] = [0.0]


def medians(rounds: Sequence[Mapping[str, float]], labels: Iterable[str]) -> dict[str, float]:
    """The median of each label; what a round does not have took no time in it."""
    return {label: median(found.get(label, 0.0) for found in rounds) for label in labels}


def loop_us(function: Callable[[], object], rounds: int = 20_000) -> float:
    """Microseconds of one call, at its best: the cost of calling it in a loop is taken off."""

    def nothing() -> None:
        pass

    def once(called: Callable[[], object]) -> float:
        began = perf_counter_ns()
        for _ in range(rounds):
            called()
        return (perf_counter_ns() - began) / rounds / 1e3

    return max(min(once(function) for _ in range(5)) - min(once(nothing) for _ in range(5)), 0.0)
