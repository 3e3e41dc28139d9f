"""Errands: what is called for the user, on a thread of its own, one after the other.

Done-callbacks, and the printing of what tasks print, take the user's time: a
callback may compute for long, submit, and wait; a terminal may be slow.  So
they never run on a thread that does I/O, and never with a lock held.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from math import inf
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

from flamezmq.errors import StartFailed

#: How long what is added late waits for company.
LATE_SECONDS = 0.005


class Errands:
    """One background thread and its queue."""

    def __init__(self) -> None:
        # A SimpleQueue: `add` may be called by a finalizer or a signal handler, in the middle of an `add`.
        self._queue: SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]] | None] = SimpleQueue()
        self._late: list[Callable[[], Any]] = []
        self._late_at = inf
        self.thread = threading.Thread(target=self._run, name="flm-errands", daemon=True)

    def start(self) -> None:
        start(self.thread)

    def add(self, fn: Callable[..., Any], *args: Any) -> None:
        """Have `fn(*args)` called; from any thread, at any moment."""
        self._queue.put((fn, args))

    def add_late(self, fn: Callable[[], Any]) -> None:
        """Have `fn()` called in some milliseconds, or at the end: once for what comes many times."""
        self._queue.put((self._note_late, (fn,)))

    def _note_late(self, fn: Callable[[], Any]) -> None:
        if not self._late:
            self._late_at = monotonic() + LATE_SECONDS
        self._late.append(fn)

    def is_here(self) -> bool:
        """Whether the calling thread is this one: it runs a callback, and must not be kept waiting."""
        return threading.current_thread() is self.thread

    def stop(self, timeout: float) -> None:
        """End when all that was added has been called; waits for that, but not in a callback."""
        self._queue.put(None)
        if self.thread.is_alive() and not self.is_here():
            self.thread.join(timeout)

    def _run(self) -> None:
        while (errand := self._next()) is not None:
            fn, args = errand
            try:
                fn(*args)
            except BaseException:  # even a callback's SystemExit: others are waiting
                logging.getLogger("flamezmq").exception("a callback failed")
            errand = fn = args = None  # type: ignore[assignment]  # what it held is the user's
        for late in self._late:
            late()

    def _next(self) -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
        """Wait for the next errand; None: there is none any more."""
        if not self._late:
            return self._queue.get()
        try:
            return self._queue.get(timeout=max(self._late_at - monotonic(), 0.0))
        except Empty:
            late, self._late = self._late, []
            return self._call_all, (late,)

    @staticmethod
    def _call_all(late: list[Callable[[], Any]]) -> None:
        for fn in late:
            fn()


def start(thread: threading.Thread) -> None:
    """Start one of the client's threads.

    Raises:
        StartFailed: the system gives this user no more of them.
    """
    try:
        thread.start()
    except RuntimeError as error:
        raise StartFailed(f"{error}; raise this user's limit of processes (ulimit -u)") from error
