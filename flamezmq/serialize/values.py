"""Arguments, results and map slices to payloads and back.

Rules of this file:

- Calls of atoms only take a fast path of one type check and one C pickle: it
  is on the way of every task.
- All else goes through `pickler.Pickler`: cloudpickle's rules, one copy of
  each large buffer.  A payload never shares memory with what was dumped,
  except with bytes objects, which nobody can change.
- What can't be pickled raises `Unpicklable`, which names the part at fault; what
  no message takes raises `TooLarge`.
- A pickle of more than `COLUMN_BYTES` is a frame of its own, like a buffer, so
  that the columns of a message stay small: its payload begins with b"".

An array that travelled out of band is a view of the buffer handed to `load_*`:
nothing is copied.  It is writable if that buffer is (a bytearray, the buffer
of a zmq Frame) and read-only if not (bytes), or if the original was.  Small
arrays travel in the pickle and keep the original's flag.
"""

from __future__ import annotations

import inspect
import pickle
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast, overload

from flamezmq.core.caller import Dependent
from flamezmq.errors import FlameError, MissingModule, ObjectLost, TooLarge, Unpicklable
from flamezmq.optioned import Configured
from flamezmq.serialize.culprit import refusal, unpicklable
from flamezmq.serialize.pickler import OUT_OF_BAND_BYTES, PROTOCOL, Buffer, Payload, dump, dump_for
from flamezmq.serialize.placeholders import load_with
from flamezmq.store import access
from flamezmq.store.keeping import Keeper, Kept
from flamezmq.wire.codec import COLUMN_BYTES, MAX_FRAME_BYTES
from flamezmq.wire.composed import decompose, is_composed
from flamezmq.wire.handles import is_handle, unpack

__all__ = [
    "Buffer",
    "Payload",
    "Received",
    "Unfed",
    "dump_call",
    "dump_object",
    "dump_slice",
    "dump_value",
    "load_call",
    "load_slice",
    "load_value",
    "missing_module",
    "too_large",
]


class Unfed(Exception):
    """A call was not made, for an object among its arguments is gone: `lost` says which.

    Never seen by users: they get the ObjectLost.  Raised in its place it would look like the task's own.
    """

    def __init__(self, lost: ObjectLost) -> None:
        super().__init__(lost)
        self.lost = lost


#: A payload as a transport hands it over.
Received: TypeAlias = Buffer | Sequence[Buffer]

#: Exact types that plain pickle and cloudpickle treat alike.  bytes is apart: large ones leave the pickle.
#: The largest piece of a payload.
MOST_PIECE_BYTES = MAX_FRAME_BYTES
_ATOMS = frozenset({int, float, str, bool, complex, type(None)})
_are_atoms = _ATOMS.issuperset
_dumps = pickle.dumps
_loads = pickle.loads


@overload
def dump_call(
    args: tuple[Any, ...], kwargs: dict[str, Any], fn: Callable[..., Any] | None = None, owner: None = None
) -> Payload: ...
@overload
def dump_call(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    fn: Callable[..., Any] | None,
    owner: object,
    keeper: Keeper | None = None,
) -> Payload | Dependent: ...
def dump_call(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    fn: Callable[..., Any] | None = None,
    owner: Any = None,
    keeper: Keeper | None = None,
) -> Payload | Dependent:
    """Pickle a call's arguments; a Dependent if they hold a future of `owner` without a value, or an object.

    Args:
        fn: only serves to name the arguments in an error.
        owner: the client whose futures may be arguments; None: there may be none.
        keeper: takes them into a store if they are large; None: they travel whatever they are.

    Raises:
        Unpicklable: names the argument, and where in it the culprit sits.
    """
    if not kwargs:
        if _are_atoms(map(type, args)):
            atoms = _dumps(args, PROTOCOL)
            if len(atoms) <= COLUMN_BYTES:
                return atoms
        call: Any = _with_bytes_apart(args)  # a tuple alone means: no keywords
    elif _are_atoms(map(type, args)) and _are_atoms(map(type, kwargs.values())):
        return _framed(_dumps([args, kwargs], PROTOCOL), _the_call(fn))
    else:
        named = dict(zip(kwargs, _with_bytes_apart(tuple(kwargs.values())), strict=True))
        call = [_with_bytes_apart(args), named]
    try:
        payload = dump_for(owner, call, keeper)
    except Exception as error:
        raise _refused_call(args, kwargs, fn, error, owner) from error
    if type(payload) is bytes and len(payload) <= COLUMN_BYTES:
        return payload
    if type(payload) is Dependent:
        payload.payload = _framed(payload.payload, _the_call(fn))
        return payload
    return _framed(cast(Payload, payload), _the_call(fn))


def load_call(payload: Received) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call.

    Raises:
        MissingModule: an argument's class is of a module that can't be imported here.
        Unfed: an object among the arguments is gone.
    """
    call: Any = None
    try:
        try:
            call = _loads(payload) if type(payload) is bytes else _load(payload)
        except pickle.UnpicklingError:
            if not (is_composed(payload) or is_handle(payload)):
                raise
        if call is None:
            call = load_value(payload) if is_handle(payload) else _load_composed(payload)
    except ModuleNotFoundError as error:
        raise missing_module(error) from error
    except ObjectLost as error:
        raise Unfed(error) from error
    if type(call) is tuple:
        return call, {}
    return cast("tuple[tuple[Any, ...], dict[str, Any]]", tuple(call))


def _load_composed(payload: Received) -> Any:
    """A call that has waited for values, with these in the places of its placeholders."""
    call, *values = decompose(payload)
    return load_with([load_value(value) for value in values], lambda: load_value(call))


def dump_value(value: Any, what: str = "the result", keeper: Keeper | None = None) -> Payload:
    """Pickle one value; `what` names it in an error.

    keeper: takes it into a store if it is large, and the payload is its handle then
    """
    if type(value) in _ATOMS:
        atom = _dumps(value, PROTOCOL)
        if len(atom) <= COLUMN_BYTES:
            return atom
    if type(value) is bytes:
        value = _apart(value)
    try:
        payload = dump_for(None, value, keeper)
    except Exception as error:
        raise unpicklable(what, value, error) from error
    if type(payload) is Kept:
        return payload.payload
    return _framed(cast(Payload, payload), what)


def dump_object(value: Any, keeper: Keeper) -> list[bytes]:
    """Pickle a value for a keeper that takes it whatever its size; its pieces, if that has no place for it.

    Raises:
        StoreFull: the keeper has no room.
        Unpicklable: names what can't be pickled.
    """
    try:
        payload = dump_for(None, _apart(value), keeper)
    except FlameError:  # of who keeps it, not of the pickler
        raise
    except Exception as error:
        raise unpicklable("the object", value, error) from error
    if type(payload) is Kept:
        return []
    return list(map(bytes, payload if type(payload) is list else [cast(Buffer, payload)]))


def load_value(payload: Received) -> Any:
    """The value; raises what unpickling raises (ModuleNotFoundError if its module is not here).

    Raises:
        ObjectLost: it lay in a store, and is not there any more.
    """
    try:
        return _loads(payload) if type(payload) is bytes else _load(payload)
    except pickle.UnpicklingError:
        if not is_handle(payload):
            raise
    return _load(access.fetch(unpack(payload)))


def dump_slice(items: list[Any], what: str = "the slice") -> Payload:
    """Pickle the items, or the results, of a map slice.

    No check for atoms here: the pickler's fixed cost is spread over the items,
    and looking at each type would cost as much as pickling it.
    """
    try:
        payload = dump(_packed(items))
    except Exception as error:
        raise unpicklable(what, items, error) from error
    return _framed(payload, what)


def load_pieces(*pieces: Buffer) -> Any:
    """The value of a payload in pieces; for pickles that hold a payload."""
    return _load(pieces)


def load_slice(payload: Received) -> list[Any]:
    """The items; raises what unpickling raises."""
    items = load_value(payload)
    return items if type(items) is list else list(items)  # numpy scalars come as one array


def missing_module(error: ModuleNotFoundError) -> ModuleNotFoundError:
    """The same, in plain words and with the places that were searched; other errors unchanged."""
    if error.name is None or isinstance(error, MissingModule):
        return error
    return MissingModule(error.name, tuple(sys.path))


def _load(payload: Received) -> Any:
    if isinstance(payload, list | tuple):
        pieces = payload if payload[0] else payload[1:]
        return _loads(pieces[0], buffers=pieces[1:])
    return _loads(cast(Buffer, payload))


def _framed(payload: Payload, what: str) -> Payload:
    """The same in pieces that fit into messages."""
    if type(payload) is bytes and len(payload) <= COLUMN_BYTES:
        return payload
    pieces = payload if type(payload) is list else [payload]
    largest = max(map(len, pieces))
    if largest > MOST_PIECE_BYTES:
        raise too_large(what, largest)
    return [b"", *pieces] if len(pieces[0]) > COLUMN_BYTES else payload


def too_large(what: str, size: int) -> TooLarge:
    """The error for a piece of so many bytes."""
    return TooLarge(what, "", f"{size:,} bytes in one piece, and a message takes {MOST_PIECE_BYTES:,}")


class _Apart:
    """Large bytes on their way out of band: nothing is copied here, and at most once on receipt."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> tuple[type[bytes], tuple[pickle.PickleBuffer]]:
        return bytes, (pickle.PickleBuffer(self.data),)


def _apart(value: Any) -> Any:
    return _Apart(value) if type(value) is bytes and len(value) >= OUT_OF_BAND_BYTES else value


def _with_bytes_apart(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(map(_apart, values)) if bytes in map(type, values) else values


def _packed(items: list[Any]) -> Any:
    """Numbers of one numpy type as an array: pickled one by one each costs 1.5 us and 40 bytes."""
    if not items or type(items[0]).__module__ != "numpy":
        return items
    numpy = sys.modules["numpy"]
    kind = type(items[0])
    if not issubclass(kind, numpy.number | numpy.bool_) or set(map(type, items)) != {kind}:
        return items
    return numpy.array(items, dtype=items[0].dtype)


def _refused_call(
    args: tuple[Any, ...], kwargs: dict[str, Any], fn: Callable[..., Any] | None, error: Exception, owner: Any
) -> Unpicklable:
    """Say which argument it was."""
    of = _of(fn)
    for position, value in enumerate(args):
        cause = refusal(value, owner)
        if cause is not None:
            name = _parameter(fn, position)
            return unpicklable(f"argument {position + 1}{name and f' (`{name}`)'}{of}", value, cause, owner)
    for name, value in kwargs.items():
        cause = refusal(value, owner)
        if cause is not None:
            return unpicklable(f"keyword argument `{name}`{of}", value, cause, owner)
    return unpicklable(_the_call(fn), (args, kwargs), error, owner)


def _the_call(fn: Callable[..., Any] | None) -> str:
    return f"the call{_of(fn)}"


def _of(fn: Callable[..., Any] | None) -> str:
    if fn is None:
        return ""
    name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    return f" of {fn.label(name) if isinstance(fn, Configured) else name}"


def _parameter(fn: Callable[..., Any] | None, position: int) -> str:
    """The name of the parameter that takes this position, or ""."""
    if fn is None:
        return ""
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):
        return ""  # builtins often have none
    if position < len(parameters) and parameters[position].kind < inspect.Parameter.VAR_POSITIONAL:
        return parameters[position].name
    return ""
