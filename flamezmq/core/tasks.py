"""Functions, runs of tasks and queues of runs: what the broker counts in.

A run is `count` tasks with consecutive indices, one function and one attempt.
Queues and grants are made of runs, so what a task costs the router is its
place in two lists.  Data only; the broker decides.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from flamezmq.wire.messages import Slice

#: Weight of a new measurement in a function's average run time.
EWMA_NEW = 0.3


class Function:
    """A function of the user's: named by its content, shipped to each executor once.

    seconds  average run time of one task, -1.0 until one has ended
    """

    __slots__ = ("__weakref__", "blob", "label", "number", "seconds")

    def __init__(self, number: int, blob: bytes, label: str) -> None:
        self.number, self.blob, self.label = number, blob, label
        self.seconds = -1.0

    def learn(self, seconds: float, count: int) -> None:
        """`count` tasks took `seconds` together."""
        mean = max(seconds / count, 1e-7)
        self.seconds = mean if self.seconds < 0 else self.seconds + EWMA_NEW * (mean - self.seconds)


class Run:
    """Consecutive tasks.  `inputs` holds a payload for each; the first `done` of them are gone.

    estimate  seconds per task that were charged to the executor's load
    big       some input has buffers of its own
    """

    __slots__ = ("attempt", "big", "done", "estimate", "first", "function", "inputs")

    def __init__(self, function: Function, first: int, attempt: int, inputs: list[Any], big: bool) -> None:
        self.function, self.first, self.attempt = function, first, attempt
        self.inputs, self.big = inputs, big
        self.done = 0
        self.estimate = 0.0

    def __len__(self) -> int:
        return len(self.inputs) - self.done

    @property
    def start(self) -> int:
        """Index of the first task that is still there."""
        return self.first + self.done

    @property
    def end(self) -> int:
        return self.first + len(self.inputs)

    def take(self, count: int) -> Run:
        """Cut `count` tasks off the front, as a run of their own; they must be there."""
        done = self.done
        part = Run(self.function, self.first + done, self.attempt, self.inputs[done : done + count], self.big)
        self.done = done + count
        return part

    def between(self, start: int, end: int) -> Run:
        """The tasks with indices from `start` up to `end`, as a run of their own."""
        part = Run(
            self.function, start, self.attempt, self.inputs[start - self.first : end - self.first], self.big
        )
        part.estimate = self.estimate
        return part

    def slice(self) -> Slice:
        return Slice(self.function.number, self.start, len(self), self.attempt)

    def without(self, unwanted: set[int]) -> Iterator[Run]:
        """What remains when some indices are left out, in order."""
        start = self.start
        for index in range(self.start, self.end):
            if index in unwanted:
                if index > start:
                    yield self.between(start, index)
                start = index + 1
        if start == self.start:
            yield self
        elif start < self.end:
            yield self.between(start, self.end)


def extract(runs: deque[Run], wanted: set[int]) -> list[int]:
    """Take the tasks with these indices out of `runs`; returns those that were there."""
    found: list[int] = []
    for _ in range(len(runs)):
        run = runs.popleft()
        here = (
            [i for i in wanted if run.start <= i < run.end]
            if len(wanted) < len(run)
            else [i for i in range(run.start, run.end) if i in wanted]
        )
        if not here:
            runs.append(run)
            continue
        found += sorted(here)
        runs.extend(run.without(set(here)))
    return found


def merge(runs: list[Run]) -> list[Run]:
    """The same tasks in the order of their indices (for a queue's front after a death)."""
    return sorted(runs, key=lambda run: run.start)
