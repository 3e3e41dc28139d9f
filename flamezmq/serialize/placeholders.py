"""What stands for the value of a future in the pickle of a call, until the task begins.

`value_at` is what such a pickle calls: it answers with one of the values that
`load_with` was given.  The values are unpickled first, each once, so a future
that stands at several places of a call is one object there, too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any


class _Here(threading.local):
    """The values of the call that this thread unpickles."""

    values: Sequence[Any] = ()


_here = _Here()


def value_at(position: int) -> Any:
    """The value of placeholder number `position`; pickles of calls refer to this by name."""
    return _here.values[position]


def load_with(values: Sequence[Any], load: Callable[[], Any]) -> Any:
    """What `load()` returns, with these values in the placeholders of what it unpickles."""
    before = _here.values  # what is unpickled may wait for a task, which is run in its place
    _here.values = values
    try:
        return load()
    finally:
        _here.values = before
