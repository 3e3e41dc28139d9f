"""What `Client.session` takes, for type checkers: its overloads, and those of `flm.aio`, share it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypedDict

from flamezmq.optioned import Options


class SessionOptions(TypedDict, total=False):
    """The arguments that sessions with and without an application share; `Client.session` explains them."""

    max_retries: int
    tenant: str | None
    priority: int
    weight: float
    min_executors: int
    max_executors: int | None
    delay_release: float
    resources: str | None
    preempt_after: float | None
    initializer: Callable[..., object] | None
    initargs: Iterable[Any]
    max_tasks_per_child: int | None
    task_timeout: float | None
    options: Options | None
