"""Find what in a value can't be pickled, after the pickler has refused the whole.

The C pickler says "cannot pickle '_thread.lock' object" and not where.  This
walks down: at each level the first part that fails by itself is the way on,
unless it fails only because it leads back up (a method names its own class).
It runs on the failure path only, and is bounded: `MAX_DEPTH` levels,
`MAX_TRIES` attempts.  A value may refuse as a whole while each of its parts
passes; then it is itself the culprit.
"""

from __future__ import annotations

import functools
import pickle
import reprlib
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from flamezmq.errors import Unpicklable
from flamezmq.optioned import Optioned
from flamezmq.serialize.captures import captured
from flamezmq.serialize.pickler import OutOfPlace, Pickler, Sink, by_reference

MAX_DEPTH = 32
MAX_TRIES = 10_000
#: Parts of one container that are looked at.
MAX_PARTS = 100_000

_ATOMS = frozenset({int, float, str, bytes, bool, complex, type(None)})

#: (how to get there, the part); words such as "global `k`" come with a space before.
_Part = tuple[str, object]


def unpicklable(what: str, value: object, error: Exception, owner: Any = None) -> Unpicklable:
    """The error to raise: `what` names the whole, e.g. "argument 2 (`lock`) of f".

    owner: the client whose call it is; its futures are fit to travel.
    """
    try:
        path, reason = locate(value, error, owner)
    except Exception:  # walking runs users' properties; the refusal itself must get through
        path, reason = "", error
    if isinstance(reason, OutOfPlace):
        return reason.error(what, path, str(reason))
    return Unpicklable(what, path, f"{type(reason).__name__}: {reason}")


def locate(value: object, error: Exception, owner: Any = None) -> tuple[str, Exception]:
    """The path from `value` to the innermost culprit ("" for itself), and the pickler's words on it."""
    if isinstance(error, RecursionError):
        return "", error  # it is too deep as a whole; no part is at fault
    found = _Search(owner).down(value, error, MAX_DEPTH)
    return found.path.strip(), found.error


class _Found(NamedTuple):
    path: str
    error: Exception
    sure: bool  # False: it may fail only because it leads back to what is above it


class _Search:
    """One walk; looks at nothing twice, so that cycles and shared parts end."""

    def __init__(self, owner: Any) -> None:
        self._owner = owner
        self._tries = MAX_TRIES
        self._seen: dict[int, object] = {}  # by id(); held, so that ids stay theirs

    def down(self, value: object, error: Exception, depth: int) -> _Found:
        self._seen[id(value)] = value
        if isinstance(error, OutOfPlace) and error.value is value:
            return _Found("", error, True)
        unsure: _Found | None = None
        for step, part in islice(_parts(value), MAX_PARTS) if depth else ():
            if type(part) in _ATOMS or self._tries == 0:
                continue
            if id(part) in self._seen:
                unsure = unsure or _Found("", error, False)
                continue
            self._tries -= 1
            refused = refusal(part, self._owner)
            if refused is None:
                continue
            found = self.down(part, refused, depth - 1)
            found = found._replace(path=step + found.path)
            if found.sure:
                return found
            if unsure is None or not unsure.path:
                unsure = found
        return unsure or _Found("", error, True)


class _Nowhere(Sink):
    """A sink that keeps nothing: buffers are not copied, the pickle is dropped."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()
        self.write = _drop

    def take(self, buffer: pickle.PickleBuffer) -> bool:
        return False


def _drop(part: object) -> None:
    return None


def refusal(part: object, owner: Any = None) -> Exception | None:
    """What the pickler says against `part`, or None if it takes it.  Keeps and copies nothing."""
    pickler = Pickler(_Nowhere())
    pickler.owner = owner
    try:
        pickler.dump(part)
    except Exception as error:  # users' reducers may raise anything
        return error
    return None


def _parts(value: Any) -> Iterator[_Part]:
    for kind, parts in _WALKERS:
        if isinstance(value, kind):
            yield from parts(value)
            break
    else:
        yield from _array_parts(value)
    yield from _attributes(value)


def _mapping_parts(mapping: Mapping[Any, Any]) -> Iterator[_Part]:
    for key, value in mapping.items():
        yield f"[{reprlib.repr(key)}]", value
        yield f" key {reprlib.repr(key)}", key


def _sequence_parts(sequence: list[Any] | tuple[Any, ...]) -> Iterator[_Part]:
    for index, part in enumerate(sequence):
        yield f"[{index}]", part


def _set_parts(group: set[Any] | frozenset[Any]) -> Iterator[_Part]:
    for part in group:
        yield f" member {reprlib.repr(part)}", part


def _function_parts(function: types.FunctionType) -> Iterator[_Part]:
    if not by_reference(function):
        for where, value in captured(function):
            yield f" {where}", value


def _method_parts(method: types.MethodType) -> Iterator[_Part]:
    yield ".__self__", method.__self__
    yield ".__func__", method.__func__


def _partial_parts(partial: functools.partial[Any]) -> Iterator[_Part]:
    yield ".func", partial.func
    yield ".args", partial.args
    yield ".keywords", partial.keywords


def _optioned_parts(optioned: Optioned[..., Any]) -> Iterator[_Part]:
    yield "", optioned.fn
    yield ".retry_on", optioned.options.retry_on


def _class_parts(cls: type) -> Iterator[_Part]:
    if not by_reference(cls):
        for name, value in list(vars(cls).items()):
            if not name.startswith("__") or isinstance(value, types.FunctionType):
                yield f".{name}", getattr(value, "__func__", value)


def _exception_parts(error: BaseException) -> Iterator[_Part]:
    for index, argument in enumerate(error.args):
        yield f".args[{index}]", argument


def _array_parts(value: Any) -> Iterator[_Part]:
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray) and value.dtype == object:
        for index, part in enumerate(value.flat):
            yield f".flat[{index}]", part


def _attributes(value: Any) -> Iterator[_Part]:
    if isinstance(value, type | types.FunctionType | types.ModuleType):
        return
    yield f" class {type(value).__qualname__}", type(value)
    for name, part in list(getattr(value, "__dict__", {}).items()):
        yield f".{name}", part
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name):
                yield f".{name}", getattr(value, name)


_WALKERS: list[tuple[Any, Callable[[Any], Iterator[_Part]]]] = [
    (Mapping, _mapping_parts),
    (list | tuple, _sequence_parts),
    (set | frozenset, _set_parts),
    (types.FunctionType, _function_parts),
    (types.MethodType, _method_parts),
    (functools.partial, _partial_parts),
    (Optioned, _optioned_parts),
    (type, _class_parts),
    (BaseException, _exception_parts),
]
