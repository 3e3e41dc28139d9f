"""What a shim is: the way from an executor to the code of an application."""

from __future__ import annotations

from typing import Any

from flamezmq.shims.roles import Application, Context


class Shim:
    """Runs the service of one application, in the main thread of an executor.

    `start` is called once; then, for each session that the executor binds, `enter`, `invoke` for
    each task, and `leave`; `stop` at the end.  So what `start` has begun (a program, a server)
    serves one session after the other.  Whatever is raised by `start` or `enter` is a failed bind:
    neither `leave` follows, nor another session, but `stop` does.  What `invoke` raises fails the task.

    enter_seconds: that `start` and `enter` may take together, until the process is ended; None: no
        limit, or the shim keeps to one by itself.
    """

    enter_seconds: float | None = None

    def __init__(self, application: Application) -> None:
        self.application = application

    @classmethod
    def check(cls, application: Application) -> None:
        """Look at a description before it is registered.

        Raises:
            ValueError: something is missing, or makes no sense for this shim; a sentence.
        """

    def check_common_data(self, value: Any) -> None:
        """Look at a session's common data before it is opened; nothing is started.

        Raises:
            BadPayload: `enter` would refuse it.
        """

    def start(self) -> None:
        """Make ready what all sessions of the application share."""

    def enter(self, ctx: Context) -> None:
        """The executor is bound to a session."""

    def invoke(self, ctx: Context, /, *args: Any, **kwargs: Any) -> Any:
        """Run a task of the session; returns its result."""
        raise NotImplementedError

    def leave(self, ctx: Context) -> None:
        """The executor is unbound from the session; bounded by the application's grace."""

    def stop(self) -> None:
        """The process ends, or serves other applications from now on.  May be called twice."""
