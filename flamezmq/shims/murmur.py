"""What a program writes to stderr: into the task's log line by line, at a bounded rate, and its last words.

Reading never waits for anything but the log itself, so a flood can't block the
program: what is over the rate is counted and left out, and the last lines are
kept in any case, for the error.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections import deque
from time import monotonic

#: So many lines at once, and so many a second on and on, go to the log.  In a flood they come as a block
#: each second, so that what is left out is told once a second, and not between any two lines.
BURST_LINES = 1000
LINES_PER_SECOND = 200.0
#: What of a line is kept.
LINE_BYTES = 4096
#: Kept for the error.
LAST_LINES = 20
#: Marks a record of the log that is a program's own line, to be shown as it is.
VERBATIM = {"verbatim": True}
#: One read.
_CHUNK = 1 << 16
#: One `drain` takes at most so many of them: a flood must not keep the task from ending.
_MOST_CHUNKS = 16


class Murmur:
    """The reading end of one program's stderr; closes it in the end.

    Any thread may `drain`; with `follow` a thread of its own does, while nobody else reads.
    """

    def __init__(self, fd: int, log: logging.Logger) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.log = log
        self.left_out = 0  # lines, since it was told last
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._partial = b""
        self._skipping = False  # the rest of a line that is too long
        self._tokens, self._at = float(BURST_LINES), monotonic()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake = -1

    def follow(self) -> None:
        """From now on a thread reads."""
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._read_on, name="flm-murmur", daemon=True)
        self._thread.start()

    def drain(self) -> bool:
        """Take what is there now (what a program wrote before its answer is); False at the end."""
        with self._lock:
            return self._drain()

    def last_words(self) -> tuple[str, ...]:
        """The last lines, an unfinished one too."""
        with self._lock:
            self._drain()
            rest = [] if self._skipping or not self._partial else [_text(self._partial)]
            return (*self._last, *rest)[-LAST_LINES:]

    def close(self) -> None:
        """Take the rest, and stop reading."""
        if self._thread is not None:
            os.eventfd_write(self._wake, 1)
            self._thread.join(1.0)  # it may be stuck in a log handler
            if self._thread.is_alive():
                return
            os.close(self._wake)
            self._thread = None
        with self._lock:
            if self.fd < 0:
                return
            self._drain()
            if self._partial and not self._skipping:
                self._on_line(self._partial)
                self._partial = b""
            self._tell_left_out()
            if self.fd >= 0:
                os.close(self.fd)
                self.fd = -1

    def _read_on(self) -> None:
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            ready = [fd for fd, _ in poll.poll()]
            if self._wake in ready:
                return
            with self._lock:
                if not self._drain():
                    return

    def _drain(self) -> bool:
        """False at the end."""
        for _ in range(_MOST_CHUNKS if self.fd >= 0 else 0):
            try:
                chunk = os.read(self.fd, _CHUNK)
            except BlockingIOError:
                return True
            if not chunk:
                return False
            self._take(chunk)
        return True

    def _take(self, chunk: bytes) -> None:
        *lines, rest = (self._partial + chunk).split(b"\n")
        for line in lines:
            if self._skipping:
                self._skipping = False
            else:
                self._on_line(line)
        if len(rest) > LINE_BYTES and not self._skipping:
            self._on_line(rest)
            self._skipping = True
        self._partial = b"" if self._skipping else rest

    def _on_line(self, line: bytes) -> None:
        text = _text(line)
        self._last.append(text)
        now = monotonic()
        self._tokens = min(float(BURST_LINES), self._tokens + (now - self._at) * LINES_PER_SECOND)
        self._at = now
        if self._tokens < (LINES_PER_SECOND if self.left_out else 1.0):
            self.left_out += 1
            return
        self._tokens -= 1.0
        self._tell_left_out()
        self.log.info("%s", text, extra=VERBATIM)

    def _tell_left_out(self) -> None:
        count, self.left_out = self.left_out, 0
        if count:
            self.log.warning("flamezmq: %d lines of stderr were left out, they came too fast", count)


def _text(line: bytes) -> str:
    cut = line[:LINE_BYTES]
    return cut.rstrip(b"\r").decode("utf-8", "backslashreplace") + ("..." if len(line) > LINE_BYTES else "")
