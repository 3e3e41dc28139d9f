"""What a tenant may have, as settings and clients say it."""

from __future__ import annotations

from dataclasses import dataclass

from flamezmq import resources


@dataclass(frozen=True, slots=True)
class Tenant:
    """What the sessions of a tenant may have together, and the weight of their share.

    Args:
        queued_tasks: tasks that may wait with the router.
        queued_bytes: bytes of their arguments.
        weight: of its share, among the tenants that have any work; all others have 1.0.
        max_executors: that may serve them at a time.
        resources: the most that these may have of their nodes, like "cpu=16,mem=32g,gpu=2"; what is not
            named has no limit, and of what is named with 0 they get nothing.

    Where nothing is said, or 0, or "", there is no limit.  What does not make sense is refused with a
    ValueError by the client that it is given to.
    """

    queued_tasks: int = 0
    queued_bytes: int = 0
    weight: float = 1.0
    max_executors: int = 0
    resources: str = ""

    @property
    def amounts(self) -> dict[str, float]:
        """What `resources` says, in pieces and bytes."""
        return resources.parse(self.resources, zeros=True) if self.resources else {}
