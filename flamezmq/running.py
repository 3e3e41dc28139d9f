"""`flm.current()`: the task that runs here, for the code of that task.

The executor of this process is registered here, so that user code finds it
without being given anything.  The idea is Dask's `get_client` and Ray's
`get_runtime_context`, in one call.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flamezmq.errors import NoTask

if TYPE_CHECKING:
    from flamezmq.client.api import Client
    from flamezmq.executor import Executor

__all__ = ["Current", "current"]

#: The executor that this process is; None in all others.
executor: Executor | None = None
#: A task that runs in place, on the stack of the one that waits for it.
in_place: ContextVar[Current | None] = ContextVar("flamezmq_in_place", default=None)


@dataclass(frozen=True, slots=True)
class Current:
    """A running task, as its own code sees it.

    Attributes:
        task_id: `<session id>/<index>`, as `Future.task_id`; one that runs in place, on the stack of
            the task that waits for it, has a "~" before the number.
        session_id: of the session that it was submitted to.
        attempt: 1, or more when it was started again.
    """

    task_id: str
    session_id: str
    attempt: int
    _publish: Callable[[Any], None] | None = field(default=None, repr=False, compare=False)

    def publish(self, value: object) -> None:
        """Show `value` to whoever waits for this task: progress, or a part of its result.

        It comes out of the task's Future: `on_publish`, `published` and `last_published`.  Never waits:
        of values that come faster than they can be sent (a few thousand a second), or than they are
        looked at, the newest 64 are kept, and those from a megabyte on only as long as none follows.
        What must not be lost belongs into a stream (`Session.stream`), which holds its task back.

        Raises:
            NoTask: the task has ended.
            Unpicklable: the value can't travel.

        Some microseconds; a message leaves every 10 ms at most.  For any thread of the task.
        """
        if self._publish is not None:
            self._publish(value)
            return
        here = executor.running() if executor is not None else None
        if executor is None or here is None or self.task_id != f"{here[0]}/{here[1]}":
            raise NoTask
        executor.outlet.publish(here[1], here[2], value)

    @property
    def executor_id(self) -> str:
        """Name of the executor that it runs on, "node/number", as `flmctl list -e` shows it."""
        return f"{executor.config.node}/{executor.config.number}" if executor is not None else ""

    @property
    def node(self) -> str:
        """Name of the node that it runs on."""
        return executor.config.node if executor is not None else ""

    @property
    def devices(self) -> tuple[str, ...]:
        """The GPUs that its session has asked for, as in CUDA_VISIBLE_DEVICES, which says the same; or ()."""
        return executor.home.devices if executor is not None else ()

    @property
    def client(self) -> Client:
        """A client of the router that this task came from, to submit tasks with: nested tasks.

        Whoever waits for a nested task runs it in place, in this process, unless another executor
        has begun it: so a task can wait for its own tasks at any depth, with a single executor, too.
        Its `submit` never blocks.  Nested tasks end with the attempt that submitted them, if that
        fails or dies; if it returns, they run on.
        """
        assert executor is not None
        return executor.nested_client()


def current() -> Current:
    """The task that runs here: its `task_id`, `session_id`, `attempt`, `node`, a `client` for nested tasks.

    Raises:
        NoTask: this process runs no task just now; `flm.Client()` is the way in.

    For any thread of the task's process.  A microsecond.
    """
    here = in_place.get()
    if here is not None:
        return here
    now = executor.running() if executor is not None else None
    if now is None:
        raise NoTask
    session, index, attempt = now
    return Current(f"{session}/{index}", session, attempt)
