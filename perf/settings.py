"""How a run was asked for.  Scenarios read it, and change nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from perf.engines import OURS

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Settings:
    """`rounds`: repeats of what is repeated, 0 for the scenario's own number."""

    engines: tuple[str, ...]
    rounds: int = 0
    quick: bool = False

    def pick(self, full: T, quick: T) -> T:
        """One of two sizes."""
        return quick if self.quick else full

    def repeats(self, full: int, quick: int = 1) -> int:
        """How often to repeat: as asked, or the scenario's own."""
        return self.rounds or self.pick(full, quick)

    @property
    def peers(self) -> tuple[str, ...]:
        return tuple(name for name in self.engines if name != OURS)
