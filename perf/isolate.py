"""Jobs: one measurement, in a process of its own, that always ends and leaves nothing behind.

The process that calls `isolated` never owns a thread, an engine or a ZeroMQ
context, so that it may fork; each job starts from the same clean state.  This
process adopts whatever a job orphans (it is a "child subreaper"), so a leak is
seen, ended, and reported by `leaks`.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic, sleep
from typing import TypeVar

from perf.measure import descendants

T = TypeVar("T")

#: How long what a job has started may take to end after it.
GRACE_SECONDS = 5.0
_PR_SET_CHILD_SUBREAPER = 36

_fork = multiprocessing.get_context("fork")

#: A line for each process that outlived its job.
leaks: list[str] = []


class JobFailed(Exception):
    """A job raised, died, or ran out of time: its text is one line.  `details` is a traceback, or ""."""

    def __init__(self, summary: str, details: str = "") -> None:
        super().__init__(summary, details)
        self.summary, self.details = summary, details

    def __str__(self) -> str:
        return self.summary


def adopt_orphans() -> None:
    """Make this process the parent of what its descendants orphan.  Call once, first."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def isolated(function: Callable[..., T], *arguments: object, limit: float = 60.0) -> T:
    """Run `function` in a forked process and return what it returns, which must pickle.

    Raises:
        JobFailed: it raised, died, or took longer than `limit` seconds.  Either
            way all that it had started has ended.
    """
    ours, its = _fork.Pipe(duplex=False)
    process = _fork.Process(target=_job, args=(its, function, arguments))
    process.start()
    its.close()
    try:
        if not ours.poll(limit):
            raise JobFailed(f"no answer in {limit:g} s")
        value, error = ours.recv()
    except EOFError:
        process.join(GRACE_SECONDS)
        raise JobFailed(f"the job died with code {process.exitcode}") from None
    finally:
        ours.close()
        process.join(GRACE_SECONDS if sys.exception() is None else 0)
        if process.is_alive():
            process.kill()
            process.join()
        _sweep(getattr(function, "__name__", "a job"))
    if error:
        raise JobFailed(error.strip().splitlines()[-1], error)
    result: T = value
    return result


def _job(answer: Connection, function: Callable[..., object], arguments: tuple[object, ...]) -> None:
    try:
        found = (function(*arguments), "")
    except Exception:
        found = (None, traceback.format_exc())
    answer.send(found)


def _sweep(job: str) -> None:
    """End what the job has left, and say so if it would not end by itself."""
    deadline = monotonic() + GRACE_SECONDS
    while (left := descendants(os.getpid())) and monotonic() < deadline:
        sleep(0.02)
    for pid in left:
        leaks.append(f"{job}: {pid} {_command(pid)}")
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    _reap()


def _reap() -> None:
    """Wait for all children that have ended; there are no others now."""
    deadline = monotonic() + GRACE_SECONDS
    while monotonic() < deadline:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                sleep(0.01)
        except ChildProcessError:
            return


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "?"
