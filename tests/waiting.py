"""Waiting for a condition, not for a time; whether a process lives, as most often waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from flamezmq import processes

#: Generous: the machine may be busy.
LIMIT_SECONDS = 30.0


def until(condition: Callable[[], Any], what: str = "it", seconds: float = LIMIT_SECONDS) -> Any:
    """The first true answer; fails after `seconds`."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not in {seconds:g} s: {what}"
        time.sleep(0.005)
    return found


def alive(pid: int) -> bool:
    """Whether it is there, and no zombie."""
    entry = processes.process_table().get(pid)
    return entry is not None and entry[2] not in "ZX"
