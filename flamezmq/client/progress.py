"""Progress: a bar on a terminal or in a notebook while results come; elsewhere nothing at all.

It is drawn on stderr, so that what the program prints can still be piped, and by the thread that
takes the results, so that a program that has stopped taking them has a bar that stands still, and
no thread that scribbles into its next prompt.  While a terminal shows a bar, what the program and
its tasks print goes above it (rich sees to that).
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import Any, Protocol

from flamezmq.client.future import FAILED, Future
from flamezmq.client.waiting import as_completed, ticking
from flamezmq.core.caller import FINISHED

#: From one drawing to the next.
DRAW_SECONDS = 0.1


def progress(futures: Iterable[Any], label: str = "tasks", *, timeout: float | None = None) -> Progress:
    """The futures as they end, with a bar: `for future in flm.progress(futures): ...`.

    Args:
        futures: of any maker; those of one client are waited for as `flm.as_completed` does.
        label: stands before the bar.
        timeout: seconds from the beginning of the loop until the last future.

    Raises:
        TimeoutError: in the loop: the time is over.

    It says how many have ended, how many of them have failed, and how long the rest may take.  On a
    terminal (stderr) or in a notebook only: in a pipe or a file nothing is drawn, and the loop is
    the same.  Leaving the loop, by whatever way, completes the bar as far as it got.

    The shape is that of tqdm and `rich.track`, which wrap what is iterated, and not that of
    `dask.distributed.progress`, which draws and gives nothing: who waits for results wants them
    at once.  To watch only: `for _ in flm.progress(futures): pass`.
    """
    return Progress(futures, label, timeout)


class Progress:
    """What `progress` returns: an iterable of futures, with a bar for each loop over it."""

    def __init__(self, futures: Iterable[Any], label: str, timeout: float | None) -> None:
        self._futures = list(dict.fromkeys(futures))
        self._label, self._timeout = label, timeout

    def __len__(self) -> int:
        return len(self._futures)

    def __iter__(self) -> Iterator[Any]:
        if not is_watched():
            return as_completed(self._futures, self._timeout)
        return self._with_a_bar()

    def _with_a_bar(self) -> Iterator[Any]:
        bar = Bar(self._label, len(self._futures))
        try:
            for future in ticking(self._futures, self._timeout, (DRAW_SECONDS, bar.tick)):
                bar.advance(1, _failed(future))
                yield future
        finally:
            bar.close()


class Bar:
    """One bar.  total: how many things are to be done; None if nobody knows.

    One thread at a time may use it; `close` may be called by any, even by the garbage collector.
    """

    def __init__(self, label: str, total: int | None) -> None:
        self.done = self.failed = 0
        self._line: _Line = _InNotebook(label, total) if in_notebook() else _OnTerminal(label, total)
        self._due = 0.0

    def advance(self, count: int, failed: int = 0) -> None:
        """So many more are done, and so many of them have failed."""
        self.done += count
        self.failed += failed
        if monotonic() >= self._due:
            self.tick()

    def tick(self) -> None:
        """Draw, for time has passed."""
        self._line.draw(self.done, self.failed)
        self._due = monotonic() + DRAW_SECONDS

    def close(self) -> None:
        """Draw it for the last time.  Idempotent."""
        self._line.draw(self.done, self.failed)
        self._line.close()


class _Line(Protocol):
    def draw(self, done: int, failed: int) -> None:
        """Show it as it is."""

    def close(self) -> None:
        """Leave it as it is."""


def is_watched() -> bool:
    """Whether somebody can see a bar: in a notebook, or on a terminal behind stderr."""
    if in_notebook():
        return True
    try:
        return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):
        return False  # there is no stderr, or it was closed


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook."""
    get_shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_shell is not None and type(get_shell()).__name__ == "ZMQInteractiveShell"


def _failed(future: Any) -> bool:
    """Without unpickling what a task has raised."""
    if type(future) is Future:
        return future._state is FINISHED and future._form in FAILED
    return not future.cancelled() and future.exception() is not None


# --- on a terminal


class _Terminal:
    """The display of all bars of this process: each by itself, they would draw over each other.

    The last bar that ends remains; of those that end before it (bars in bars) only it would be a pile.
    rich has its own locks; ours is never held while it is called.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._display: Any = None
        self._bars = 0
        self._owner = 0

    def add(self, label: str, total: int | None) -> tuple[Any, Any]:
        """Show another bar; returns rich's display and its id there."""
        new = _display() if self._display is None else None
        with self._lock:
            self._bars += 1
            if self._display is None:
                self._display, self._owner = new or _display(), os.getpid()
            display = self._display
        line = display.add_task(label, total=total, failed="")
        display.start()
        return display, line

    def remove(self, display: Any, line: Any) -> None:
        with self._lock:
            if self._display is not display:
                return  # it was stopped already
            self._bars -= 1
            others = self._bars > 0
            if not others:
                self._display = None
        if others:
            display.remove_task(line)
        else:
            display.stop()

    def stop(self) -> None:
        """Give the terminal back, at the end of the program."""
        with self._lock:
            display, self._display, self._bars = self._display, None, 0
        if display is not None and self._owner == os.getpid():
            display.stop()


_terminal = _Terminal()
atexit.register(_terminal.stop)  # a bar may be held by a traceback: the cursor must be seen again


def _display() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]}", style="red"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        auto_refresh=False,
        redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),  # else it would leave its pipe
    )


class _OnTerminal:
    def __init__(self, label: str, total: int | None) -> None:
        self._display, self._id = _terminal.add(label, total)
        self._closed = False

    def draw(self, done: int, failed: int) -> None:
        if self._closed:
            return
        words = f"{failed:,} failed" if failed else ""
        try:
            self._display.update(self._id, completed=done, failed=words, refresh=True)
        except (OSError, ValueError):
            self.close()  # the terminal is gone; that is no reason to stop working

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            _terminal.remove(self._display, self._id)
        except (OSError, ValueError):
            pass


# --- in a notebook


class _InNotebook:
    """An output of its own, which is replaced; needs no widgets."""

    def __init__(self, label: str, total: int | None) -> None:
        self._label, self._total = label, total
        self._began = monotonic()
        self._handle: Any = None

    def draw(self, done: int, failed: int) -> None:
        from html import escape

        total = "?" if self._total is None else f"{self._total:,}"
        text = f"{self._label} {done:,}/{total}{f', {failed:,} failed' if failed else ''}"
        text += f", {monotonic() - self._began:.0f} s"
        length = "" if self._total is None else f' value="{done}" max="{max(self._total, 1)}"'
        data = {"text/plain": text, "text/html": f"<progress{length}></progress> {escape(text)}"}
        if self._handle is None:
            self._handle = sys.modules["IPython"].display.display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)

    def close(self) -> None:
        pass  # it stands as it was drawn last
