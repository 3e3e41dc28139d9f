"""What `Client.session` takes, for type checkers: its overloads, and those of `flm.aio`, share it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Required, TypedDict

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
    detached: bool
    over_quota: str
    gang: int
    lineage: bool


class ServiceOptions(SessionOptions, total=False):
    """Of a session with an application."""

    app: Required[str]
    common_data: Any


class SharedOptions(SessionOptions, total=False):
    """Of a session with an id."""

    id: Required[str]


class SharedServiceOptions(ServiceOptions, total=False):
    """Of a session with both."""

    id: Required[str]
