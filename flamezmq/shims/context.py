"""What a service is told: the `ctx` of its hooks."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import cached_property
from typing import Any

from flamezmq.serialize.values import load_value


class Context:
    """What the hooks of a service are called with; one for each bind, the same in all of them.

    Attributes:
        session_id: of the session that is served.
        executor_id: name of the executor, "node/number".
        node: name of its machine.
        application: name of the application.
        devices: the GPUs that the session has asked for, as in CUDA_VISIBLE_DEVICES, which says the same.
    """

    def __init__(
        self,
        application: str,
        session_id: str,
        executor_id: str,
        common_data: bytes = b"",
        who: Callable[[], tuple[str, int]] = lambda: ("", 1),
        publish: Callable[[object], None] = lambda value: None,
        devices: tuple[str, ...] = (),
    ) -> None:
        self.devices = devices
        self.application, self.session_id, self.executor_id = application, session_id, executor_id
        self.node = executor_id.rpartition("/")[0]
        self._pickled, self._who, self._publish = common_data, who, publish

    @property
    def task_id(self) -> str:
        """Of the task that runs; "" outside of `on_task_invoke`."""
        return self._who()[0]

    @property
    def attempt(self) -> int:
        """Of the task that runs: 1, or more when it was started again."""
        return self._who()[1]

    def publish(self, value: object) -> None:
        """Show `value` to whoever waits for the task that runs: progress, or a part of its result.

        As `flm.current().publish`, which explains it.  Raises NoTask outside of `on_task_invoke`.
        """
        self._publish(value)

    @cached_property
    def common_data(self) -> Any:
        """What the session was opened with; None if that was nothing.  Unpickled when it is first asked for.

        Raises:
            MissingModule: it needs a module that can't be imported here.
        """
        pickled, self._pickled = self._pickled, b""
        return load_value(pickled) if pickled else None

    @cached_property
    def log(self) -> logging.Logger:
        """A logger whose lines come out as what the task prints does: "LEVEL text".

        What the program of a shim says on stderr is logged here, too, and comes out as it is.
        """
        logger = logging.Logger(self.application, logging.INFO)
        logger.addHandler(_ToStderr())
        return logger

    def __repr__(self) -> str:
        return f"<flamezmq.Context of {self.application} for session {self.session_id} on {self.executor_id}>"


class _ToStderr(logging.Handler):
    """To the stream that `sys.stderr` is when something is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            verbatim = getattr(record, "verbatim", False)  # of a program (shims/murmur.py)
            sys.stderr.write((record.getMessage() if verbatim else self.format(record)) + "\n")
        except Exception:
            self.handleError(record)
