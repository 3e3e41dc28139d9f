"""Time, chance and the trace: a heap of events, one generator, nothing else."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from random import Random
from typing import Any


class World:
    """`now` moves from event to event; events of the same instant happen in the order they were made."""

    def __init__(self, seed: int, tracing: bool = False) -> None:
        self.seed = seed
        self.now = 0.0
        self.random = Random(seed)
        self.tracing = tracing
        self.events = 0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    def at(self, when: float, what: Callable[..., None], *args: Any) -> None:
        self._count += 1
        heapq.heappush(self._heap, (max(when, self.now), self._count, what, args))

    def after(self, seconds: float, what: Callable[..., None], *args: Any) -> None:
        self._count += 1
        heapq.heappush(self._heap, (self.now + seconds, self._count, what, args))

    def run(self, until: float, done: Callable[[], bool]) -> bool:
        """Let things happen until `done()`; False when the time is over first."""
        heap = self._heap
        while heap:
            if done():
                return True
            if heap[0][0] > until:
                self.now = until
                return done()
            self.now, _, what, args = heapq.heappop(heap)
            self.events += 1
            what(*args)
        return done()

    def trace(self, *words: object) -> None:
        if self.tracing:
            print(f"{self.now:10.6f}", *words)
