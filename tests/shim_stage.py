"""What tests call shims with: an application, a context that remembers its log; processes below us."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psutil

from flamezmq import shims
from flamezmq.errors import TaskTimeout
from flamezmq.shims.base import Shim


@dataclass(frozen=True)
class App:
    """As an application looks to a shim."""

    shim: str
    command: str
    arguments: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    working_directory: str = ""
    schema: dict[str, Any] = field(default_factory=dict)
    name: str = "app"
    grace: float = 5.0


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class Ctx:
    """A context with a log of its own."""

    def __init__(self, common_data: Any = None, session_id: str = "session-1") -> None:
        self.common_data, self.session_id = common_data, session_id
        self.task_id, self.attempt = f"{session_id}/0", 1
        self.executor_id, self.node = "node/1", "node"
        self.log = logging.Logger("app", logging.DEBUG)  # of no tree
        self._handler = Lines()
        self.log.addHandler(self._handler)

    @property
    def logged(self) -> list[str]:
        return self._handler.lines


@contextmanager
def running(app: App, ctx: Ctx | None = None) -> Iterator[Shim]:
    """The shim, started, and in a session if there is a context."""
    shim = shims.make(app)
    try:
        shim.start()
        if ctx is not None:
            shim.enter(ctx)
        yield shim
        if ctx is not None:
            shim.leave(ctx)
    finally:
        shim.stop()


def below() -> list[psutil.Process]:
    """All living processes that descend from us."""
    return [p for p in psutil.Process().children(recursive=True) if lives(p)]


def lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def named(name: str) -> list[psutil.Process]:
    found = []
    for process in below():
        with suppress(psutil.NoSuchProcess):
            if process.name() == name:
                found.append(process)
    return found


def script(folder: Any, text: str, name: str = "service.sh") -> str:
    """A shell script that can be run; returns its path."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}")
    os.chmod(path, 0o755)
    return str(path)


@contextmanager
def interrupted(seconds: float) -> Iterator[None]:
    """After so many seconds TaskTimeout is raised in the block, as an executor's alarm does."""
    alarm_of_the_test = signal.getitimer(signal.ITIMER_REAL)

    def ring(*_: object) -> None:
        raise TaskTimeout("task", seconds, 1)

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *alarm_of_the_test)
