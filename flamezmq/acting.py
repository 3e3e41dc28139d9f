"""Actors inside their process: the constructor's call, and methods as functions.

An executor that serves an actor serves nobody else for the rest of its life, so
it has one `instance`.  It is made by `construct`, the initializer of the actor's
session; after that each call of a method is a task, whose function is a `MethodCall`.

The clients import this, too: they make what is pickled here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flamezmq import running
from flamezmq.optioned import Configured, Optioned, Options
from flamezmq.serialize.functions import FunctionName
from flamezmq.shims.attempts import in_place
from flamezmq.wire import messages as m


def construct(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Make the instance of this process."""
    assert running.executor is not None
    running.executor.instance = cls(*args, **kwargs)


def nothing() -> None:
    """The first call of every actor: its instance is made before that, and not before somebody needs it."""


class MethodCall(Configured):
    """A method of the instance, as a function that travels; it knows the class by its name only.

    fn     the method of the class, where that is known: on the client's side
    named  how tasks quote it; the client's to keep
    """

    def __init__(
        self, owner: str, name: str, options: Options | None = None, fn: Callable[..., Any] | None = None
    ) -> None:
        self.owner, self.name, self.options = owner, name, options
        self.fn = fn or nothing
        self.named: FunctionName | None = None
        self._call: Callable[..., Any] | None = None  # with its options; made by the first call

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        if self._call is None:
            assert running.executor is not None
            method = getattr(running.executor.instance, self.name)
            # A call that runs again does so in place: those behind it wait.
            self._call = method if self.options is None else in_place(Optioned(method, self.options))
        return self._call(*args, **kwargs)

    def label(self, inner: str) -> str:
        return (self.options and self.options.name) or f"{self.owner}.{self.name}"

    def terms(self) -> m.Options | None:
        """Its timeout is the router's business, too: a call that does not end is ended with its process."""
        seconds = self.options.seconds if self.options else 0.0
        return m.Options(timeout=seconds) if seconds else None

    def under(self, defaults: Options) -> MethodCall:
        return self

    def __reduce__(self) -> Any:
        return MethodCall, (self.owner, self.name, self.options)
