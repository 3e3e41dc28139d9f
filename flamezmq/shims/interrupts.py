"""Interrupting the task that runs: it is cancelled, or its session has ended.

The attendant thread hears of it and sends a signal to its own process; the
handler runs in the main thread, wherever that stands, and raises TaskCancelled
there.  A sleep or a read ends, a C call that looks for signals does, too.

It must hit that task and no other, and never the executor's own code between
two tasks.  So the handler looks at the page (is it still the same run?) and down
the stack: only what stands on the executor's `run_task` is the task's, and nothing `unbroken`
may be torn.  Where it may not raise it does nothing, and the attendant rings
again a moment later.  This costs tasks nothing that nobody interrupts.

The signal is SIGURG, as in Go's runtime: whoever gets it by mistake ignores it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, TypeVar

from flamezmq import page
from flamezmq.errors import TaskCancelled

SIGNAL = signal.SIGURG
#: How often to ring while the task can't be interrupted where it stands.
AGAIN_MILLISECONDS = 10
#: Indices that are remembered; those that did not run are forgotten when there are more.
MOST_UNWANTED = 1000

Run = tuple[int, int]  # RUNNING and FINISHED of the page: no two runs of this process have both in common
F = TypeVar("F", bound=Callable[..., Any])
_unbroken: set[CodeType] = set()


def unbroken(function: F) -> F:
    """Decorates what must not be torn by an interrupt, though a task may call it."""
    _unbroken.add(function.__code__)
    return function


def is_unbroken(frame: FrameType | None) -> bool:
    """Whether something on this stack must not be torn; a timeout waits for its end, too."""
    while frame is not None:
        if frame.f_code in _unbroken:
            return True
        frame = frame.f_back
    return False


class Interrupts:
    """Of this process.  `note` and `ring` are for whoever holds the executor's line."""

    def __init__(self) -> None:
        self._words: Any = [0] * page.WORDS
        self._who: Callable[[], str] = str
        self._region: CodeType | None = None
        self._session = 0
        self._all = False
        self._unwanted: dict[int, None] = {}
        self._aim: Run | None = None
        self._hit: Run | None = None

    def serve(self, words: memoryview, who: Callable[[], str], run_task: Callable[..., Any]) -> None:
        """Interrupt what stands on `run_task`; `who`: the task's id.  For the main thread."""
        self._words, self._who, self._region = words, who, run_task.__code__
        signal.signal(SIGNAL, self._on_signal)

    def abandon(self) -> None:
        """In the child of a fork, page and task are the parent's."""
        self._region = self._aim = self._hit = None
        signal.signal(SIGNAL, signal.SIG_DFL)

    def note(self, session: int, indices: list[int]) -> None:
        """These are not wanted any more (none: all of the session), if one of them runs, or is about to."""
        if session != self._session or len(self._unwanted) > MOST_UNWANTED:
            running = self._words[page.RUNNING] - 1
            kept = session == self._session and running in self._unwanted
            self._unwanted = {running: None} if kept else {}
            self._all = self._all and session == self._session
            self._session = session
        self._unwanted.update(dict.fromkeys(indices))
        self._all = self._all or not indices

    def ring(self, session: int, run: Run) -> bool:
        """Interrupt this run if it is not wanted; whether it is to be rung for again soon."""
        if session != self._session or run == self._hit:
            return False
        if not self._all and run[0] - 1 not in self._unwanted:
            return False
        self._aim = run
        signal.pthread_kill(threading.main_thread().ident or 0, SIGNAL)
        return True

    def has_hit(self) -> bool:
        """Whether the task that runs was interrupted: unless it ends with a value, it has ended by that."""
        return self._hit is not None and self._hit == self._now()

    def _now(self) -> Run:
        return self._words[page.RUNNING], self._words[page.FINISHED]

    def _on_signal(self, _signal: int, frame: FrameType | None) -> None:
        aim = self._aim
        if aim is None or aim == self._hit or aim != self._now() or not self._may_be_torn(frame):
            return
        task_id = self._who()
        self._hit = aim
        raise TaskCancelled(task_id)

    def _may_be_torn(self, frame: FrameType | None) -> bool:
        """Whether what the main thread does in this frame belongs to a task, and may be left half-done."""
        while frame is not None:
            code = frame.f_code
            if code is self._region:
                return True
            if code in _unbroken or code.co_name == "__del__":  # what that raises is lost
                return False
            frame = frame.f_back
        return False


interrupts = Interrupts()
