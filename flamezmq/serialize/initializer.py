"""Initializers: a call that prepares an executor process for the tasks of a session.

An initializer mostly assigns globals, for the tasks to use.  In a module that
executors import that is all; but functions of `__main__` travel by value, and
each has globals of its own when it arrives.  So what an initializer has assigned
there is put into the globals of all functions of its module, those that are
here and those that come later, as if they still had them in common.
"""

from __future__ import annotations

import functools
import pickle
import sys
import types
from collections.abc import Callable
from typing import Any

from flamezmq.serialize.blobs import dump_blob
from flamezmq.serialize.functions import label
from flamezmq.serialize.values import missing_module


def dump_initializer(function: Callable[..., Any], args: tuple[Any, ...]) -> bytes:
    """The call, in one pickle with its buffers inside: it is sent once to each executor.

    Raises:
        Unpicklable: names what can't travel.
        TooLarge: no message takes it.
    """
    return dump_blob(f"the initializer {label(function)} with its arguments", (function, args))


class Assigned:
    """What initializers have assigned to the globals of modules that travel by value, in this process."""

    def __init__(self) -> None:
        self._by_module: dict[str, dict[str, Any]] = {}

    def call(self, blob: bytes) -> None:
        """Call an initializer.

        Raises:
            MissingModule: it needs a module that can't be imported here.
            whatever it raises.
        """
        try:
            function, args = pickle.loads(blob)
        except ModuleNotFoundError as error:
            raise missing_module(error) from error
        inner = _by_value(function)
        before = dict(inner.__globals__) if inner is not None else {}
        function(*args)
        if inner is not None:
            mine = self._by_module.setdefault(inner.__module__, {})
            for name, value in inner.__globals__.items():
                if not name.startswith("__") and (name not in before or before[name] is not value):
                    mine[name] = value

    def share(self, function: Callable[..., Any]) -> None:
        """Let a function that has arrived here see them."""
        if self._by_module:
            inner = _by_value(function)
            if inner is not None:
                inner.__globals__.update(self._by_module.get(inner.__module__, {}))


def _by_value(function: Any) -> types.FunctionType | None:
    """The Python function behind a callable, if it has travelled by value, and with globals of its own."""
    for _ in range(10):  # wrappers of wrappers
        if isinstance(function, types.FunctionType):
            module = sys.modules.get(function.__module__ or "")
            return None if module is not None and vars(module) is function.__globals__ else function
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, types.MethodType):
            function = function.__func__
        elif hasattr(function, "__wrapped__"):  # functools.lru_cache
            function = function.__wrapped__
        elif type(function).__module__.startswith("flamezmq."):  # the Slicer of a map
            function = getattr(function, "fn", None)
        else:
            function = vars(type(function)).get("__call__")  # an instance of a user's class
    return None
