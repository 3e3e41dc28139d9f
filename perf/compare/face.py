"""What an engine has to be able to do to be compared: `Peer`.

A peer is one file in perf/peers with a class `Engine(Peer)`.  The runner, which has
no peer installed, reads the class's attributes; so its engine is imported inside
functions only.  The host (`perf/compare/host.py`), a process in the peer's own
environment, makes an instance and calls its methods.

The standard library only: this is imported in every peer's environment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from time import monotonic
from typing import Any, ClassVar

Function = Callable[..., Any]
#: Runs a function over items by the engine's best batch call; results in order.
Batch = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]


class Peer:
    """An engine with some workers.  Class attributes:

    title     as it stands in the table
    packages  what pip installs, with versions; the first one's version is shown.
              None: it runs in the checkout's own environment
    chosen    settings and idioms that were chosen, and why: a sentence or two
    program   the shortest whole program that prints `abs(-7)`, computed by a worker
    sizes     scenarios with fewer tasks than the others get, because it is slow
    cannot    scenarios that it can't take part in, and why
    """

    title: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    chosen: ClassVar[str]
    program: ClassVar[str]
    sizes: ClassVar[Mapping[str, int]] = {}
    cannot: ClassVar[Mapping[str, str]] = {}

    #: `submit(function, *arguments)` begins one call and gives a handle for `result`.
    submit: Callable[..., Any]

    def __init__(self, workers: int) -> None:
        raise NotImplementedError

    def result(self, handle: Any, timeout: float | None = None) -> Any:
        """Wait for one.  Raises an error whose class is named ...TimeoutError after `timeout` seconds."""
        return handle.result(timeout)

    def one(self, function: Function, *arguments: Any) -> Any:
        """One call, there and back."""
        return self.result(self.submit(function, *arguments))

    def each(self, function: Function, arguments: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        """A task for each: all are submitted first, then results are given in order, and let go."""
        submit = self.submit
        handles = deque([submit(function, *some) for some in arguments])
        while handles:
            yield self.result(handles.popleft())

    def batch(self) -> AbstractContextManager[Batch]:
        """The engine's best way to run a function over many items, for as long as the block lasts."""
        return nullcontext(self.map)

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        """What `batch` gives, unless it is overridden."""
        raise NotImplementedError

    def fib(self, number: int) -> int:
        """Fibonacci, submit and wait in each call, by tasks that submit tasks."""
        raise NotImplementedError

    def outcomes(
        self, function: Function, arguments: Sequence[tuple[Any, ...]], seconds: float
    ) -> tuple[dict[int, Any], int]:
        """As `each`, when workers die: answers by index, and how many failed; the rest were late."""
        end = monotonic() + seconds
        answers: dict[int, Any] = {}
        failed = 0
        handles: list[Any] = []
        for some in arguments:
            try:
                handles.append(self.submit(function, *some))
            except Exception:
                failed += 1  # a broken pool refuses
        for index, handle in enumerate(handles):
            try:
                answers[index] = self.result(handle, max(end - monotonic(), 0.01))
            except Exception as error:  # each library has a TimeoutError of its own
                failed += not type(error).__name__.endswith("TimeoutError")
        return answers, failed

    def close(self) -> None:
        """End all processes."""


def chunk(items: Sequence[Any], workers: int) -> int:
    """As a user would choose who reads a manual: four chunks for each worker."""
    return max(1, len(items) // (workers * 4))
