"""Executors that serve nobody, and in which order they are handed out.

One that has a service bound is warm for the session that it served last: whoever
else gets it throws that away.  So it is given to others when nothing else is free, and
of several that one goes first whose session has not needed it for the longest.

Pure bookkeeping of the scheduler's.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain


class Idle(dict[int, int]):
    """Executor -> the session that it served last (0: none that is open), latest freed last.

    dear: of them, those that keep a service of that session; oldest first
    """

    def __init__(self) -> None:
        super().__init__()
        self.dear: dict[int, None] = {}

    def keep_warm(self, executor: int) -> None:
        """What is bound there would have to be loaded again."""
        self.dear[executor] = None

    def take(self, executor: int) -> int:
        """It is not free any more; returns the session that it served last."""
        if self.dear:
            self.dear.pop(executor, None)
        return self.pop(executor)

    def forget(self, executor: int) -> None:
        """The session that it served last is no more."""
        self[executor] = 0
        self.dear.pop(executor, None)

    def latest(self) -> Iterator[int]:
        """In the order in which they are given to sessions that they are not warm for."""
        if not self.dear:
            return reversed(self)
        return chain((executor for executor in reversed(self) if executor not in self.dear), self.dear)

    def oldest(self) -> Iterator[int]:
        """In the order in which they are replaced by fresh ones."""
        if not self.dear:
            return iter(self)
        return chain((executor for executor in self if executor not in self.dear), self.dear)

    def check(self) -> None:
        assert all(self[executor] for executor in self.dear)
