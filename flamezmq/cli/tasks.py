"""What flmping's tasks do.  Executors import this file, so it imports nothing heavy."""

from __future__ import annotations

import os
from time import sleep, thread_time


def echo(number: int) -> int:
    """Give it back."""
    return number


def work(number: int, seconds: float) -> int:
    """Use so much CPU time (not a sleep: that needs no core and wakes up late); give the number back."""
    end = thread_time() + seconds
    while thread_time() < end:
        pass
    return number


def carry(number: int, seconds: float, data: bytes) -> bytes:
    """As `work`, with data both ways."""
    if seconds:
        work(number, seconds)
    return data


def who(seconds: float) -> int:
    """Stay for a moment, so that others get a task too; tell our pid."""
    sleep(seconds)
    return os.getpid()
