"""What the tests of actors make actors of, and how they wait for their ends."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from tests.waiting import until

WAIT_SECONDS = 30.0


class Counter:
    def __init__(self, start: int = 0, *, step: int = 1) -> None:
        self.value, self.step = start, step
        self.notes: list[Any] = []

    def add(self, times: int = 1) -> int:
        self.value += times * self.step
        return self.value

    def note(self, what: Any) -> None:
        self.notes.append(what)

    def read(self) -> list[Any]:
        return self.notes

    def pid(self) -> int:
        return os.getpid()

    def fail(self) -> None:
        self.value += 1
        raise ValueError("on purpose")

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def wait_for(self, path: str) -> None:
        until(lambda: os.path.exists(path))

    def _secret(self) -> None: ...


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def square(x: int) -> int:
    return x * x


class WithClose:
    def __init__(self, path: str, fail: bool = False) -> None:
        self.path, self.fail, self.calls = path, fail, 0

    def work(self) -> None:
        self.calls += 1

    def close(self) -> None:
        Path(self.path).write_text(f"{self.calls} calls")
        if self.fail:
            raise OSError("can't close")
