"""The streams of an executor: what tasks print, marked with the task that prints it.

`sys.stdout` and `sys.stderr` of an executor are these.  A task's first text gets
a mark before it (core/marks.py), which its worker takes out again; a task that
prints nothing costs nothing.
"""

from __future__ import annotations

import io
import sys
from typing import IO

from flamezmq import page
from flamezmq.core.marks import UNKNOWN, mark

#: Something was printed since `flush_printed` was called last.
printed = False


class MarkedStream(io.TextIOWrapper):
    """A text stream on the same buffer as `stream`, for the executor whose page is `words`."""

    def __init__(self, stream: io.TextIOWrapper, words: memoryview) -> None:
        super().__init__(
            stream.buffer,
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=stream.line_buffering,
        )
        self._below = stream  # its end would close the buffer
        self._words = words
        self._said: tuple[int, int] | None = None

    def write(self, text: str, /) -> int:
        global printed
        printed = True
        words = self._words
        now = words[page.SESSION], words[page.RUNNING]
        if now != self._said:
            self._said = now
            super().write(mark(now[0], now[1] - 1) if now[1] else mark(now[0], UNKNOWN))
        return super().write(text)

    def flush(self) -> None:
        """Also ends the task's texts, if it has ended: what comes unmarked then is another's."""
        if self._said is not None and self._said[1] and self._words[page.RUNNING] != self._said[1]:
            self._said = None
            super().write(mark(0, UNKNOWN))
        super().flush()


def flush_printed() -> None:
    """What was printed without a newline goes out, whatever the user's code has put in the streams' place."""
    global printed
    printed = False
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass  # the user's code has closed it, or it is none


def mark_streams(words: memoryview) -> None:
    """From now on what this process prints is marked; for executors, whose worker knows the marks."""
    for name in ("stdout", "stderr"):
        stream: IO[str] = getattr(sys, name)
        if type(stream) is io.TextIOWrapper:
            marked = MarkedStream(stream, words)
            setattr(sys, name, marked)
            setattr(sys, f"__{name}__", marked)
