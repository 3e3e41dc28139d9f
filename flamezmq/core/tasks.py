"""Functions, runs of tasks and queues of runs: what the broker counts in.

A run is `count` tasks with consecutive indices, one function and one attempt.
Queues and grants are made of runs, so what a task costs the router is its
place in two lists.  Data only; the broker decides.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Container, Iterable, Iterator
from typing import Any

from flamezmq.wire.messages import Options, Slice

#: Weight of a new measurement in a function's average run time.
EWMA_NEW = 0.3


class Function:
    """A function of the user's: named by its content, shipped to each executor once.

    seconds  average run time of one task, -1.0 until one has ended
    timeout  seconds that one run may take; 0.0: as long as it likes
    streams  its tasks give values before their results, as one of them has shown
    """

    __slots__ = ("__weakref__", "blob", "label", "number", "options", "seconds", "streams", "timeout")

    def __init__(self, number: int, blob: bytes, label: str, options: Options | None = None) -> None:
        self.number, self.blob, self.label, self.options = number, blob, label, options
        self.timeout = options.timeout if options else 0.0
        self.seconds = -1.0
        self.streams = False

    @property
    def priority(self) -> int:
        return self.options.priority if self.options else 0

    def learn(self, seconds: float, count: int) -> None:
        """`count` tasks took `seconds` together."""
        mean = max(seconds / count, 1e-7)
        self.seconds = mean if self.seconds < 0 else self.seconds + EWMA_NEW * (mean - self.seconds)


class Run:
    """Consecutive tasks.  `inputs` holds a payload for each; the first `done` of them are gone.

    estimate  seconds per task that were charged to the executor's load
    big       some input has buffers of its own
    came      when they were submitted, for people
    """

    __slots__ = ("attempt", "big", "came", "done", "estimate", "first", "function", "inputs")

    def __init__(
        self, function: Function, first: int, attempt: int, inputs: list[Any], big: bool, came: float = 0.0
    ) -> None:
        self.function, self.first, self.attempt = function, first, attempt
        self.inputs, self.big, self.came = inputs, big, came
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
        inputs = self.inputs[done : done + count]
        part = Run(self.function, self.first + done, self.attempt, inputs, self.big, self.came)
        self.done = done + count
        return part

    def between(self, start: int, end: int) -> Run:
        """The tasks with indices from `start` up to `end`, as a run of their own."""
        inputs = self.inputs[start - self.first : end - self.first]
        part = Run(self.function, start, self.attempt, inputs, self.big, self.came)
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


class Ranks:
    """A queue of runs whose functions have priorities: higher ones first, equal ones as they came.

    It has the manners of a deque, as far as the broker uses them.  A session gets one when
    it first meets a priority that is not 0; most have a deque.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        self._queues: dict[int, deque[Run]] = {}
        self._ranks: list[int] = []  # of what is queued, the negative priorities: the first is next
        self.extend(runs)

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def __bool__(self) -> bool:
        return bool(self._ranks)

    def __iter__(self) -> Iterator[Run]:
        for rank in self._ranks:
            yield from self._queues[rank]

    def __getitem__(self, position: int) -> Run:
        if position:
            raise IndexError("of a queue with priorities, only the next run can be seen")
        return self._queues[self._ranks[0]][0]

    def popleft(self) -> Run:
        rank = self._ranks[0]
        queue = self._queues[rank]
        run = queue.popleft()
        if not queue:
            del self._queues[rank], self._ranks[0]
        return run

    def appendleft(self, run: Run) -> None:
        """Ahead of those of its own priority."""
        self._of(run).appendleft(run)

    def append(self, run: Run) -> None:
        self._of(run).append(run)

    def extend(self, runs: Iterable[Run]) -> None:
        for run in runs:
            self._of(run).append(run)

    def clear(self) -> None:
        self._queues.clear()
        self._ranks.clear()

    def _of(self, run: Run) -> deque[Run]:
        rank = -run.function.priority
        queue = self._queues.get(rank)
        if queue is None:
            queue = self._queues[rank] = deque()
            insort(self._ranks, rank)
        return queue


def extract(runs: deque[Run] | Ranks, wanted: set[int]) -> list[int]:
    """Take the tasks with these indices out of `runs`; returns those that were there."""
    found: list[int] = []
    kept: list[Run] = []
    for run in runs:
        here = (
            [i for i in wanted if run.start <= i < run.end]
            if len(wanted) < len(run)
            else [i for i in range(run.start, run.end) if i in wanted]
        )
        if not here:
            kept.append(run)
            continue
        found += sorted(here)
        kept.extend(run.without(set(here)))
    if found:
        runs.clear()
        runs.extend(kept)
    return found


def rejoin(pieces: list[Run], apart: Container[int] = ()) -> list[Run]:
    """Neighbours of one function and attempt become one run.  apart: indices that stay by themselves."""
    joined: list[Run] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if (
            last is not None
            and last.function is piece.function
            and last.attempt == piece.attempt
            and last.end == piece.start
            and piece.start not in apart
            and last.start not in apart
        ):
            last.inputs.extend(piece.inputs)
            last.big = last.big or piece.big
        else:
            joined.append(piece)
    return joined


def merge(runs: list[Run]) -> list[Run]:
    """The same tasks in the order of their indices (for a queue's front after a death)."""
    return sorted(runs, key=lambda run: run.start)
