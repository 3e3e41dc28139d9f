"""What `Session.status` gives."""

from __future__ import annotations

_COUNTS = ("cancelled", "failed", "pending", "running", "succeed")


class Status:
    """How many tasks of a session are in which state; made by `Session.status`.

    Attributes:
        pending: waiting: here, with the router, or behind others on an executor.
        running: one for each executor that is busy with the session.
        succeed: have ended with a value.
        failed: have ended with an error.
        cancelled: have never run, and never will.
        suspended: who has suspended the session, so that nothing more of it runs; "" if nobody has.
    """

    __slots__ = (*_COUNTS, "suspended")

    def __init__(
        self, pending: int, running: int, succeed: int, failed: int, cancelled: int, suspended: str = ""
    ) -> None:
        self.pending, self.running, self.succeed = pending, running, succeed
        self.failed, self.cancelled, self.suspended = failed, cancelled, suspended

    def __repr__(self) -> str:
        also = f", suspended={self.suspended!r}" if self.suspended else ""
        return "Status(" + ", ".join(f"{name}={getattr(self, name)}" for name in _COUNTS) + also + ")"
