"""Options: how often a function's tasks run again, how long they may take or wait, which come first.

`flm.options(retries=2)(fn)` is an `Optioned`: a callable that calls `fn`, and that
`submit` and `map` know.  The options travel in its pickle to the executors, which
act on them, and, as far as it is their business, beside it to the router
(`terms`).  A plain function has none and costs nothing more.

The words are those of Ray's `options` and Celery's `retry`; that options are
a value of their own, which decorates, is from `functools.partial`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, ParamSpec, TypeVar, cast

from flamezmq.core.backoff import pause
from flamezmq.errors import MissingModule, TaskTimeout, Unpicklable
from flamezmq.serialize.pickler import by_reference
from flamezmq.wire import messages as m

P = ParamSpec("P")
R = TypeVar("R")

#: Errors that no further run can mend: a result that does not travel, a function that can't be loaded.
HOPELESS = (Unpicklable, MissingModule)
#: What the wire takes; beyond it is a mistake anyhow.
MOST_SECONDS = 1e9
MOST_PRIORITY = 1 << 31


@dataclass(frozen=True, slots=True)
class Options:
    """What `flm.options` was given, checked; None is what was not said.

    Called with a function it gives the function with these options, an `Optioned`.
    """

    retries: int | None = None
    retry_on: tuple[type[Exception], ...] | None = None
    backoff: float | None = None
    timeout: float | None = None
    priority: int | None = None
    deadline: float | None = None
    name: str | None = None

    def __call__(self, fn: Callable[P, R], /) -> Optioned[P, R]:
        """The function with these options; they come before those that it has already."""
        if not callable(fn):
            raise TypeError(f"options are for a function, not for {type(fn).__qualname__}")
        return Optioned(fn, self.over(fn.options) if isinstance(fn, Optioned) else self)

    def over(self, others: Options) -> Options:
        """These, and those of `others` where these say nothing."""
        return replace(others, **self.said())

    def said(self) -> dict[str, Any]:
        """Those that are not None, by name."""
        return {key: value for key in _WORDS if (value := getattr(self, key)) is not None}

    @property
    def seconds(self) -> float:
        """The timeout; 0.0 for none."""
        return _finite(self.timeout)

    def again(self, error: BaseException, retried: int) -> bool:
        """Whether a task that has raised this `error`, and was `retried` so often, is to run once more."""
        kinds = self.retry_on if self.retry_on is not None else Exception
        return retried < (self.retries or 0) and isinstance(error, kinds) and not isinstance(error, HOPELESS)

    def pause(self, retried: int) -> float:
        """Seconds to wait before a task that was `retried` so often runs once more."""
        return pause(self.backoff or 0.0, retried)

    def terms(self) -> m.Options:
        """What the router has to know."""
        return m.Options(
            retries=self.retries or 0,
            backoff=self.backoff or 0.0,
            timeout=self.seconds,
            priority=self.priority or 0,
            retry_timeouts=self.again(TaskTimeout("", 1.0, 1), 0),
            deadline=_finite(self.deadline),
        )

    def __repr__(self) -> str:
        return f"flm.options({', '.join(f'{key}={_spelled(value)}' for key, value in self.said().items())})"


_WORDS = [field.name for field in fields(Options)]


def options(
    *,
    retries: int | None = None,
    retry_on: type[Exception] | tuple[type[Exception], ...] | None = None,
    backoff: float | None = None,
    timeout: float | None = None,
    priority: int | None = None,
    deadline: float | None = None,
    name: str | None = None,
) -> Options:
    """Options for a function, `flm.options(...)(fn)`, or for a session's, `client.session(options=...)`.

    Args:
        retries: how often a task is run again after it has raised an exception; 0 at first.
        retry_on: a class of exceptions, or a tuple of them: only these are a reason; Exception
            at first.  KeyboardInterrupt and SystemExit never are, nor are Unpicklable and
            MissingModule, which would come again.
        backoff: seconds to wait before the first of these runs, twice as long before each
            further one, at most an hour; 0 at first.  Its executor serves others meanwhile.
        timeout: seconds that one run may take, until TaskTimeout is raised in it; math.inf
            takes away a timeout that the session's options give.
        priority: of the tasks that a session has queued, those with a higher one run first; 0 at first.
        deadline: seconds from the submit within which a task must have begun; else it is dropped, and
            fails with DeadlinePassed.  No attempt begins later, either.  math.inf takes away one that
            the session's options give.  Celery's `expires`.
        name: what the function is called in errors and in lists of tasks, instead of its own name.

    Raises:
        TypeError, ValueError: an argument is none of that; the text names it.

    It works as a decorator, too.  The function stays callable.  Where a function has options
    and its session has some, or options are given twice, they add up, and the function's own,
    or the outer ones, come before.
    """
    if retries is not None:
        _check_integer("retries", retries, 0, MOST_PRIORITY)
    if priority is not None:
        _check_integer("priority", priority, -MOST_PRIORITY, MOST_PRIORITY)
    if backoff is not None:
        _check_seconds("backoff", backoff, "from 0", 0 <= _number(backoff) <= MOST_SECONDS)
    if timeout is not None:
        good = 0 < _number(timeout) <= MOST_SECONDS or timeout == math.inf
        _check_seconds("timeout", timeout, "above 0, or math.inf", good)
    if deadline is not None:
        good = 0 < _number(deadline) <= MOST_SECONDS or deadline == math.inf
        _check_seconds("deadline", deadline, "above 0, or math.inf", good)
    if name is not None and not (isinstance(name, str) and name):
        kind = ValueError if isinstance(name, str) else TypeError
        raise kind(f"`name` is {name!r}; it must be a text that is not empty")
    kinds = _checked_kinds(retry_on) if retry_on is not None else None
    return Options(retries, kinds, backoff, timeout, priority, deadline, name)


class Configured:
    """What a client submits that may bring options: an Optioned, or the slices of a `map`."""

    fn: Callable[..., Any]

    def label(self, inner: str) -> str:
        """Its name for people; `inner` is that of its function."""
        raise NotImplementedError

    def terms(self) -> m.Options | None:
        """What the router has to know of its options, if it has any."""
        raise NotImplementedError

    def under(self, defaults: Options) -> Configured:
        """The same with a session's options, where it says nothing itself."""
        raise NotImplementedError


class Optioned(Configured, Generic[P, R]):
    """A function with options; made by `flm.options(...)(fn)`.  Calling it calls `fn`, here and once."""

    def __init__(self, fn: Callable[P, R], options: Options) -> None:
        functools.update_wrapper(self, fn, updated=())  # attributes of a class would hide our own
        self.fn = fn
        self.options = options

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.fn(*args, **kwargs)  # type: ignore[no-any-return]

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Bound to an instance, where it decorates a method."""
        bind = getattr(type(self.fn), "__get__", None)
        if instance is None or bind is None:
            return self
        return Optioned(bind(self.fn, instance, owner), self.options)

    @property
    def innermost(self) -> Callable[P, R]:
        """The function, without any options."""
        return cast(Callable[P, R], self.fn.innermost if isinstance(self.fn, Optioned) else self.fn)

    def label(self, inner: str) -> str:
        return self.options.name or inner

    def terms(self) -> m.Options | None:
        return self.options.terms()

    def under(self, defaults: Options) -> Optioned[P, R]:
        return Optioned(self, self.options.over(defaults))

    def __reduce__(self) -> Any:
        """By its name where others can import it, as its function would travel without options."""
        if hasattr(self, "__qualname__") and by_reference(self):
            return self.__qualname__
        return Optioned, (self.fn, self.options)

    def __repr__(self) -> str:
        return f"<{self.options!r} of {getattr(self, '__qualname__', None) or repr(self.fn)}>"


# --- arguments


def _spelled(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(kind.__qualname__ for kind in value)},)"
    return repr(value)


def _check_integer(what: str, value: Any, least: int, most: int) -> None:
    if type(value) is not int:
        raise TypeError(f"`{what}` is {value!r}; it must be an integer")
    if not least <= value <= most:
        raise ValueError(f"`{what}` is {value!r}; it must be from {least} to {most}")


def _check_seconds(what: str, value: Any, which: str, good: bool) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"`{what}` is {value!r}; it must be a number of seconds")
    if not good:
        raise ValueError(f"`{what}` is {value!r}; it must be a number of seconds, {which}")


def _finite(seconds: float | None) -> float:
    return 0.0 if seconds is None or seconds == math.inf else seconds


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _checked_kinds(retry_on: Any) -> tuple[type[Exception], ...]:
    kinds = retry_on if isinstance(retry_on, tuple) else (retry_on,)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(
                f"`retry_on` has {kind!r} in it; it must be a class of exceptions, or a tuple of them"
            )
        if not issubclass(kind, Exception):
            raise ValueError(f"`retry_on` has {kind.__qualname__} in it; only an Exception can be retried")
    return kinds
