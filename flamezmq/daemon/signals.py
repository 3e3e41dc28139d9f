"""SIGTERM, SIGINT and SIGCHLD, as something that a loop can wait for and count."""

from __future__ import annotations

import os
import signal

_STOP = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """From now on these signals only write into a pipe.  For the main thread.

    fd     readable when one has come
    stops  how often we were told to stop: once is to drain, twice is at once
    """

    def __init__(self) -> None:
        self.fd, self._end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.stops = 0
        self.last = ""
        self._before = signal.set_wakeup_fd(self._end, warn_on_full_buffer=False)
        self._handlers = {number: signal.getsignal(number) for number in (*_STOP, signal.SIGCHLD)}
        for number in self._handlers:
            signal.signal(number, lambda *_: None)

    def take(self) -> bool:
        """Read what has come and count it; whether a child may have ended."""
        try:
            numbers = os.read(self.fd, 512)
        except BlockingIOError:
            return False
        for number in numbers:
            if number in _STOP:
                self.stops += 1
                self.last = signal.Signals(number).name
        return signal.SIGCHLD in numbers

    def close(self) -> None:
        """Everything as it was before."""
        signal.set_wakeup_fd(self._before)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self.fd)
        os.close(self._end)
