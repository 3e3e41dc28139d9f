"""The clock of a task that has a timeout.

The task is interrupted in its own thread: SIGALRM ends a sleep or a read that
it waits in, and its handler raises TaskTimeout in its code, which may clean up
and must end then.  Only around tasks with a timeout, so others pay nothing; in
those, SIGALRM and ITIMER_REAL are ours.

A task that goes on all the same (it has swallowed the error, or a C call holds
the GIL) is seen by its worker: when its time is over stands in the page that
they share, and the router has it killed a moment later.

Clocks may be nested (a task runs in place, on the stack of the one that waits
for it); whichever is due first rings.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from time import monotonic
from types import FrameType
from typing import Any

from flamezmq import page
from flamezmq.errors import TaskTimeout
from flamezmq.shims.interrupts import is_unbroken, unbroken

try:  # what `signal.signal` would do, without 10 us for making enums
    from _signal import signal as set_handler  # type: ignore[import-not-found]
except ImportError:
    from signal import signal as set_handler

#: 0 would turn the timer off.
LEAST_SECONDS = 1e-6
#: Where the task must not be torn (`interrupts.unbroken`) it does not ring, and comes again after so long.
AGAIN_SECONDS = 0.001


class _Clock:
    """One call with a timeout.  `due`: when it is over; `attempt`: 0 is that of the task that runs."""

    __slots__ = ("attempt", "due", "rung", "seconds")

    def __init__(self, seconds: float, attempt: int) -> None:
        self.seconds, self.attempt = seconds, attempt
        self.due = monotonic() + seconds
        self.rung = False


class Alarm:
    """The clocks of this process, the innermost last."""

    def __init__(self) -> None:
        self._clocks: list[_Clock] = []
        self._words: Any
        self._who: Callable[[], tuple[str, int]]
        self.abandon()

    def serve(self, words: memoryview, who: Callable[[], tuple[str, int]]) -> None:
        """Write into this page when a task's time is over; `who`: id and attempt of the one that runs."""
        self._words, self._who = words, who

    def abandon(self) -> None:
        """In the child of a fork, page and task are the parent's."""
        self._words = [0] * (page.DUE + 1)
        self._who = lambda: ("", 1)

    def call(self, seconds: float, attempt: int, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """`fn(*args, **kwargs)`, in which TaskTimeout is raised when the time is over.

        In the main thread only; elsewhere it is simply called: nothing can interrupt it there.
        """
        if threading.current_thread() is not threading.main_thread():
            return fn(*args, **kwargs)
        clocks = self._clocks
        clock = _Clock(seconds, attempt)
        before = set_handler(signal.SIGALRM, self._ring)
        try:
            clocks.append(clock)
            self._set()
            return fn(*args, **kwargs)
        finally:
            try:
                clocks.remove(clock)  # until then it may ring, even here: its time was over, after all
            finally:
                self._clear(clock, before)

    @unbroken
    def _clear(self, clock: _Clock, before: Any) -> None:
        if clock in self._clocks:
            self._clocks.remove(clock)
        self._set()
        set_handler(signal.SIGALRM, signal.SIG_DFL if before is None else before)

    @unbroken
    def _set(self) -> None:
        """Ring when the first of them is due, and write that down."""
        dues = [clock.due for clock in self._clocks]
        ahead = [clock.due for clock in self._clocks if not clock.rung]
        self._words[page.DUE] = int(min(dues) * 1e9) if dues else 0
        delay = max(min(ahead) - monotonic(), LEAST_SECONDS) if ahead else 0.0
        signal.setitimer(signal.ITIMER_REAL, delay)

    def _ring(self, _signal: int, frame: FrameType | None) -> None:
        if is_unbroken(frame):
            signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
            return
        now = monotonic()
        for clock in self._clocks:  # the outermost first: what it waits for is over with it
            if not clock.rung and clock.due <= now:
                clock.rung = True
                task_id, attempt = self._who()
                raise TaskTimeout(task_id, clock.seconds, clock.attempt or attempt)


alarm = Alarm()
