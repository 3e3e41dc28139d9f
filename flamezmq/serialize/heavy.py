"""Warn about functions that take much data with them, and say what is heavy.

A function's pickle is made on the client, hashed, sent to every executor and
kept there.  Data belongs in arguments, or in what an initializer loads.  Runs once per function.
"""

from __future__ import annotations

import functools
import os
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path

from flamezmq.optioned import Configured
from flamezmq.serialize.captures import Captured, captured
from flamezmq.serialize.pickler import by_reference, dump_in_band

#: A function whose pickle is larger draws a warning.
HEAVY_BYTES = 2**20

_PACKAGE = str(Path(__file__).parents[1]) + os.sep


class HeavyFunction(UserWarning):
    """A function takes much data with it; as an argument it would travel better."""


def warn_heavy(function: object, label: str, size: int) -> None:
    """Warn at the user's line, naming the heaviest thing that the function refers to."""
    warnings.warn(
        f"function {label} takes {size / 2**20:.1f} MiB with it{_heaviest(function)}; "
        "pass heavy data as an argument, or load it in the initializer of a session",
        HeavyFunction,
        stacklevel=_users_level(),
    )


def _heaviest(function: object) -> str:
    """Such as ", most of it in global `x` (3.0 MiB)", or nothing if no part stands out."""
    sizes = ((_size(part.value), part.where) for part in _reachable(function))
    size, where = max(sizes, default=(0, ""))
    return f", most of it in {where} ({size / 2**20:.1f} MiB)" if size > HEAVY_BYTES // 2 else ""


def _reachable(function: object) -> Iterator[Captured]:
    """What the function captures, itself or through the by-value functions that it captures."""
    todo, seen = [function], {id(function)}
    while todo:
        for part in _direct(todo.pop()):
            if not isinstance(part.value, types.FunctionType | functools.partial | Configured):
                yield part
            elif id(part.value) not in seen:
                seen.add(id(part.value))
                todo.append(part.value)


def _direct(value: object) -> Iterator[Captured]:
    if isinstance(value, functools.partial):
        yield Captured("its function", value.func)
        for index, argument in enumerate(value.args):
            yield Captured(f"argument {index + 1} of the partial", argument)
        for name, argument in value.keywords.items():
            yield Captured(f"argument `{name}` of the partial", argument)
    elif isinstance(value, Configured):
        yield Captured("its function", value.fn)
    elif isinstance(value, types.MethodType):
        yield Captured("its object", value.__self__)
        yield Captured("its function", value.__func__)
    elif isinstance(value, types.FunctionType) and not by_reference(value):
        yield from captured(value)


def _size(value: object) -> int:
    try:
        return len(dump_in_band(value))
    except Exception:  # it was pickled a moment ago; this is only for a warning's text
        return 0


def _users_level() -> int:
    """The stack level of the first frame outside flamezmq, as `warnings.warn` in our caller counts."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    return level
