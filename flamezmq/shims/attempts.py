"""Functions with options, as an executor calls them.

A task of its own runs once here; whether it runs again is decided between
executor and router, so that others are served meanwhile.  What is part of a task
(an item of a `map`'s slice, a nested task that runs in place) runs again in
place, and the executor waits.
"""

from __future__ import annotations

from collections.abc import Callable
from time import sleep
from typing import Any

from flamezmq.optioned import Optioned, Options
from flamezmq.shims.alarm import alarm
from flamezmq.shims.interrupts import interrupts
from flamezmq.shims.streaming import Streamed


def prepare(function: Callable[..., Any]) -> tuple[Callable[..., Any], Options | None]:
    """What to call for a task of its own, and the options to be asked when it has failed."""
    call: Callable[..., Any]
    if isinstance(function, Optioned):
        options, call = function.options, function.innermost
    elif isinstance(function, Streamed) and isinstance(function.fn, Optioned):
        options, call = function.fn.options, function
    else:
        return function, None
    return Timed(options.seconds, call) if options.seconds else call, options


def in_place(
    function: Callable[..., Any], on_again: Callable[[int], object] | None = None
) -> Callable[..., Any]:
    """What to call for a part of a task; a plain function as it is.

    on_again: called with the number of each attempt from the second on, before that begins.
    """
    return InPlace(function, on_again) if isinstance(function, Optioned) else function


class Timed:
    """A call with a clock; the attempt is that of the task that runs."""

    def __init__(self, seconds: float, fn: Callable[..., Any]) -> None:
        self.seconds, self.fn = seconds, fn

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return alarm.call(self.seconds, 0, self.fn, *args, **kwargs)


class InPlace:
    """A call that runs again, and has a clock, as the function's options say."""

    def __init__(self, function: Optioned[..., Any], on_again: Callable[[int], object] | None = None) -> None:
        self.fn, self._options, self._on_again = function.innermost, function.options, on_again

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        options, retried = self._options, 0
        while True:
            try:
                if options.seconds:
                    return alarm.call(options.seconds, retried + 1, self.fn, *args, **kwargs)
                return self.fn(*args, **kwargs)
            except Exception as error:
                if interrupts.has_hit() or not options.again(error, retried):
                    note_attempts(error, retried + 1)
                    raise
            sleep(options.pause(retried))
            retried += 1
            if self._on_again is not None:
                self._on_again(retried + 1)


def note_attempts(error: BaseException, attempts: int) -> None:
    """Tell in the error how often it was tried, if that was more than once."""
    if attempts > 1:
        try:
            error.add_note(f"flamezmq: it has failed after {attempts} attempts")
        except Exception:  # the notes are the user's own
            pass
