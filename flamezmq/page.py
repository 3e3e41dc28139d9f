"""The page that an executor shares with its worker: which task runs, how many are finished.

Eight unsigned 64-bit words in a memfd.  The executor writes two of them around
every task, so that after a SIGKILL the worker still knows whom to charge; around
a task with a timeout, or a bind, when its time is over; and whether it binds a service.
"""

from __future__ import annotations

import mmap
import os

SIZE, WORDS = 64, 8
SESSION, RUNNING, FINISHED = 0, 1, 2  # words; RUNNING holds the index + 1, 0 when idle
DUE = 3  # nanoseconds of the monotonic clock, 0 when nothing is due
PREPARING = 4  # before its session's first task, not 0: an initializer runs; BINDING: a service is bound
BINDING = 2


def create() -> int:
    """A new page; returns its file descriptor (close-on-exec)."""
    fd = os.memfd_create("flamezmq-page", os.MFD_CLOEXEC)
    os.ftruncate(fd, SIZE)
    return fd


def open_words(fd: int) -> memoryview:
    """The page's words, as a writable view; it keeps the mapping alive, `fd` may be closed."""
    return memoryview(mmap.mmap(fd, SIZE)).cast("Q")
