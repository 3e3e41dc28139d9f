"""A task's exception to bytes and back.

The client gets the exception itself, with its notes, and with a
`RemoteTraceback` as its `__cause__`, as concurrent.futures.process does; the
text of that holds the whole remote chain of causes and contexts.  SystemExit
and KeyboardInterrupt travel like all others and are raised by `result()`.

Rules of this file:

- `dump_error` never fails and what it makes is bounded, whatever the exception holds.
- Type, text and traceback always travel as strings beside the pickle, so an
  exception that can't be pickled here, or can't be made again there, arrives
  as a `TaskError` with the same words.
- The executor's own frames are cut from the top of the traceback: a user's
  error starts in the user's function.
"""

from __future__ import annotations

import os
import pickle
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

from flamezmq.errors import ObjectLost, TaskError
from flamezmq.serialize.pickler import PROTOCOL, dump_in_band
from flamezmq.store import access

#: Longer texts lose their middle; their first and last lines tell most.
MAX_TEXT_CHARS = 64 * 1024
#: An exception that carries more than this arrives as a TaskError: results carry data, errors carry words.
MAX_PICKLE_BYTES = 8 * 2**20

#: What stands beside numpy's words, and those of memoryviews.
HOW_TO_WRITE = (
    "What comes by a reference is shared with other tasks, and nobody may write to it: "
    "flm.private(value), or the array's own copy(), gives one that is yours."
)
_LOST = ObjectLost("", 0)
_PACKAGE = str(Path(__file__).parents[1]) + os.sep


class RemoteTraceback(Exception):
    """The traceback of a task's exception, as text; the exception's `__cause__` in the client."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    @property
    def tb(self) -> str:
        """The same under the name that the standard library's has."""
        return self.text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def dump_error(error: BaseException) -> bytes:
    """All of an exception that can travel.  Never raises an Exception of its own."""
    if access.has_lent:
        _advise(error)
    words = _type_name(error), _cut(_text(error)), _cut(_traceback(error))
    return pickle.dumps((*words, _pickled(error)), PROTOCOL)


def _advise(error: BaseException) -> None:
    """Who has written to what others read is told what to do."""
    if not isinstance(error, ValueError | TypeError) or "read-only" not in _text(error):
        return
    if HOW_TO_WRITE not in getattr(error, "__notes__", ()):
        error.add_note(HOW_TO_WRITE)


def words_of(error: BaseException) -> tuple[str, str]:
    """What can be said of an exception without pickling it: "type: text", and its traceback."""
    return f"{_type_name(error)}: {_cut(_text(error))}", _cut(_traceback(error))


def load_error(data: bytes | bytearray | memoryview) -> BaseException:
    """The exception, to be raised; a `TaskError` if it could not travel."""
    type_name, text, trace, pickled = pickle.loads(data)
    error = _unpickled(pickled, text)
    if error is None:
        return TaskError(type_name, text, trace)
    error.__cause__ = RemoteTraceback(trace)
    return error


def load_lost(data: bytes | bytearray | memoryview) -> ObjectLost | None:
    """The error, if it is an ObjectLost; of others nothing is made, for that would run the user's code."""
    type_name, text, _, pickled = pickle.loads(data)
    error = _unpickled(pickled, text) if type_name == _type_name(_LOST) else None
    return error if type(error) is ObjectLost else None


def _pickled(error: BaseException) -> bytes:
    """The exception and its args in one pickle; b"" if it can't be pickled."""
    try:
        pickled = dump_in_band((error, error.args))
    except Exception:  # it may hold anything, and run anything
        return b""
    return pickled if len(pickled) <= MAX_PICKLE_BYTES else b""


def _unpickled(pickled: bytes, text: str) -> BaseException | None:
    if not pickled:
        return None
    try:
        error, args = pickle.loads(pickled)
        if not isinstance(error, BaseException):
            return None
        if _cut(_text(error)) != text:
            # Its __init__ words its args again ("code code 5"): give it those it had.
            error.args = args
    except Exception:  # its class may not be here, its __init__ may want other arguments
        return None
    return error


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as own:  # a user's __str__
        return f"<its __str__ raised {type(own).__name__}>"


def _traceback(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(type(error), error, _users_part(error.__traceback__)))
    except Exception as own:  # odd __cause__, __notes__, or no stack left
        return f"{_type_name(error)}: {_text(error)}\n(no traceback: {type(own).__name__} while making it)\n"


def _users_part(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame outside flamezmq; all of it if every frame is ours."""
    part: Any = trace
    while part is not None and part.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        part = part.tb_next
    return part or trace


def _cut(text: str) -> str:
    if len(text) <= MAX_TEXT_CHARS:
        return text
    half = MAX_TEXT_CHARS // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters cut ...\n{text[-half:]}"
