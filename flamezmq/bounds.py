"""Bounds: what the sessions of a tenant may have together.

Functions over the scheduler's state; same rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from flamezmq.shares import EXECUTORS, Terms

if TYPE_CHECKING:
    from flamezmq.scheduler import Scheduler


def set_tenant(
    its: Scheduler,
    name: str,
    weight: float | None,
    max_executors: int | None,
    resources: Mapping[str, float] | None,
) -> None:
    """As `Scheduler.set_tenant`."""
    before = its._tree.terms_of(name)
    most = dict(before.most)
    executors = most.pop(EXECUTORS, 0.0) if max_executors is None else max_executors
    if resources is not None:
        most = dict(resources)
    most.pop(EXECUTORS, None)
    if executors:
        most[EXECUTORS] = executors
    its._tree.set_terms(name, Terms(before.weight if weight is None else weight, most))
