"""What blocks, done on a thread of its own, and awaited.

Not on the loop's default executor: a program may keep that busy for long, and
opening or closing a client must not queue behind it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from flamezmq.client.errands import start


async def in_thread(
    work: Callable[[], Any],
    *,
    undo: Callable[[Any], None] | None = None,
    hurry: Callable[[], None] | None = None,
) -> Any:
    """What `work()` returns, or its error.

    Args:
        undo: called with what `work` has made, on a thread, when nobody has waited for it.
        hurry: called when the one who waits is cancelled, to make `work` end soon; that is waited
            for, unless the cancellation comes again.
    """
    job = _Job(work, undo)
    try:
        try:
            return await asyncio.shield(job.answer)
        except asyncio.CancelledError:
            if hurry is not None:
                hurry()
                await asyncio.shield(job.answer)
            raise
    except BaseException:
        job.drop()
        raise


class _Job:
    def __init__(self, work: Callable[[], Any], undo: Callable[[Any], None] | None) -> None:
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._work, self._undo = work, undo
        self._lock = threading.Lock()
        self._made: list[Any] = []  # what `work` has returned, until somebody has it
        self._dropped = False
        start(threading.Thread(target=self._run, name="flm-aio"))

    def _run(self) -> None:
        value, error = None, None
        try:
            value = self._work()
        except BaseException as failure:
            error = failure
        with self._lock:
            if error is None:
                self._made.append(value)
            dropped = self._dropped
        if dropped:
            self._undo_it()
            return
        try:
            self.answer.get_loop().call_soon_threadsafe(self._deliver, value, error)
        except RuntimeError:
            pass  # the loop is closed; who waited is dropped with it

    def _deliver(self, value: Any, error: BaseException | None) -> None:
        if self.answer.done():
            return
        if error is None:
            self.answer.set_result(value)
        else:
            self.answer.set_exception(error)
            self.answer.exception()  # who waited may be gone: nothing to complain about

    def drop(self) -> None:
        """Nobody waits any more."""
        with self._lock:
            self._dropped = True
            made = bool(self._made)
        if made and self._undo is not None:
            start(threading.Thread(target=self._undo_it, name="flm-aio"))

    def _undo_it(self) -> None:
        if self._undo is not None and self._made:
            self._undo(self._made.pop())
