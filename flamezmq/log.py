"""Log lines of the daemons: an event's name and its fields, for people or as JSON, on stderr.

    log.info("executor-lost", executor="node/3", signal="SIGKILL")

structlog does the work and is loaded by `open_log` only: an embedded cluster is
silent and does without it.
"""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from typing import IO, Any, Protocol

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Log(Protocol):
    """What hosts write to.  `event` is the event's name, in words joined by hyphens."""

    def debug(self, event: str, /, **fields: Any) -> Any: ...
    def info(self, event: str, /, **fields: Any) -> Any: ...
    def warning(self, event: str, /, **fields: Any) -> Any: ...
    def error(self, event: str, /, **fields: Any) -> Any: ...


class Quiet:
    """A log that nobody reads."""

    def debug(self, event: str, /, **fields: Any) -> None:
        pass

    info = warning = error = debug


class _Stream:
    """Whoever reads the lines may end before us; that is no reason to stop."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except (OSError, ValueError):
            pass

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            pass


def _in_order(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> dict[str, Any]:
    """What every line has comes first."""
    first = {name: line.pop(name) for name in ("timestamp", "level", "event")}
    return {**first, **line}


def open_log(form: str = "auto", level: str = "info", stream: IO[str] | None = None) -> Log:
    """A log as `--log-format` and `--log-level` want it.

    Args:
        form: "text", "json", or "auto": text if the stream is a terminal.
        level: "debug", "info", "warning" or "error"; what is below it is dropped.
        stream: where lines go, stderr if left out.
    """
    import structlog

    out = stream or sys.stderr
    if out is None:  # it was closed before we began
        return Quiet()
    terminal = out.isatty()
    processors: list[Any] = [structlog.processors.add_log_level]
    if form == "text" or (form == "auto" and terminal):
        processors += [
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(colors=terminal, pad_event_to=20),
        ]
    else:
        processors += [
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _in_order,
            structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
        ]
    log: Log = structlog.wrap_logger(
        structlog.WriteLogger(_Stream(out)),  # type: ignore[arg-type]
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
    )
    return log
