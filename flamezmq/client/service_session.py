"""Sessions with an application: what is submitted is the input of its service, not a function."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flamezmq.client.application import MOST_GRACE_SECONDS
from flamezmq.client.future import Future
from flamezmq.client.mapping import Mapped
from flamezmq.client.session import Session
from flamezmq.client.stream import Stream
from flamezmq.optioned import options
from flamezmq.shims.calls import invoke


class ServiceSession(Session):
    """Tasks for one service, with their own share of the executors; made by `Client.session(app=...)`.

    Closing it waits until its services have gone, but for those that still run a task.
    As `Session` in all other ways.
    """

    _leave_seconds = MOST_GRACE_SECONDS

    application = ""
    call = options()(invoke)

    def serve(self, application: str) -> None:
        """Its tasks are for this application; called before it is opened."""
        self.application = application
        #: The function of all its tasks.
        self.call = options(name=application)(invoke)

    def submit(self, /, *args: Any, **kwargs: Any) -> Future:
        """Have the service run a task with this input; returns its Future at once.

        As `Session.submit`, without a function: for a python service,
        `on_task_invoke(ctx, *args, **kwargs)` is called.
        """
        return super().submit(self.call, *args, **kwargs)

    def map(  # type: ignore[override]
        self,
        /,
        *iterables: Iterable[Any],
        ordered: bool = True,
        chunksize: int | None = None,
        timeout: float | None = None,
        progress: str | None = None,
    ) -> Mapped:
        """Have the service run a task for each of the items; returns an iterator of results.

        As `Session.map`, which explains `iterables`, `ordered`, `chunksize`, `timeout` and `progress`,
        without a function.
        """
        return super().map(
            self.call, *iterables, ordered=ordered, chunksize=chunksize, timeout=timeout, progress=progress
        )

    def stream(self, /, *args: Any, replay: bool = False, **kwargs: Any) -> Stream:
        """The values that the service yields for this input (`args` and `kwargs`), as they come.

        As `Session.stream`, which explains `replay`, without a function.
        """
        return super().stream(self.call, *args, replay=replay, **kwargs)
