"""What `Session.status` gives."""

from __future__ import annotations


class Status:
    """How many tasks of a session are in which state; made by `Session.status`.

    Attributes:
        pending: waiting: here, with the router, or behind others on an executor.
        running: one for each executor that is busy with the session.
        succeed: have ended with a value.
        failed: have ended with an error.
        cancelled: have never run, and never will.
    """

    __slots__ = ("cancelled", "failed", "pending", "running", "succeed")

    def __init__(self, pending: int, running: int, succeed: int, failed: int, cancelled: int) -> None:
        self.pending, self.running, self.succeed = pending, running, succeed
        self.failed, self.cancelled = failed, cancelled

    def __repr__(self) -> str:
        return "Status(" + ", ".join(f"{name}={getattr(self, name)}" for name in self.__slots__) + ")"
