"""What shims read of an application and of a context, whoever gives them."""

from __future__ import annotations

from collections.abc import Mapping
from logging import Logger
from typing import Any, Protocol


class Context(Protocol):
    """What a shim is told with each call; outside of `invoke` there is no task, and `task_id` is ""."""

    @property
    def session_id(self) -> str: ...
    @property
    def task_id(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def executor_id(self) -> str: ...
    @property
    def node(self) -> str: ...
    @property
    def common_data(self) -> Any: ...
    @property
    def log(self) -> Logger: ...


class Application(Protocol):
    """What a shim reads of an application.

    command            the program, looked for on the PATH of `environment`
    environment        added to the executor's own
    working_directory  where the program starts; "" is where the executor stands
    schema             JSON Schemas by "input", "output", "common_data"
    grace              seconds that `leave`, and `stop`, may take until the executor is killed
    options            of the shim; each shim names those it knows
    """

    @property
    def name(self) -> str: ...
    @property
    def shim(self) -> str: ...
    @property
    def command(self) -> str: ...
    @property
    def arguments(self) -> tuple[str, ...]: ...
    @property
    def environment(self) -> Mapping[str, str]: ...
    @property
    def working_directory(self) -> str: ...
    @property
    def schema(self) -> Mapping[str, Any]: ...
    @property
    def grace(self) -> float: ...
    @property
    def options(self) -> Mapping[str, Any]: ...
