"""The one pickler of flamezmq: cloudpickle's rules, out-of-band buffers, exactly one copy.

Rules of this file:

- Never "try plain pickle, fall back": plain pickle of a `__main__` function
  succeeds, by reference, and the executor would run the wrong code.  The C
  pickler handles exact built-ins by itself and asks `reducer_override` for all
  else, so trees of built-ins cost nothing extra here.
- A buffer that leaves is our own copy, made once: the user may change the
  array in the next line.  Small buffers stay in the pickle (a frame costs more).
- The pickler and its sink form no reference cycle; a cycle would keep the
  user's objects alive, through the memo, until the garbage collector runs.
- A class that was defined in this process is never overwritten by a copy of
  itself that comes back with a result (cloudpickle would).

Everything that is private to cloudpickle is used in this file only.
"""

from __future__ import annotations

import functools
import pickle
import sys
import types
import weakref
from collections.abc import Callable
from typing import Any, TypeAlias, cast

import cloudpickle.cloudpickle as _cloud

from flamezmq.core.caller import Dependent
from flamezmq.errors import StrayFuture, TooLarge, Unpicklable
from flamezmq.store import mapping
from flamezmq.store.keeping import Keeper, Kept
from flamezmq.store.messages import MOST_IDS

#: One frame or buffer, as pyzmq sends and receives it (`Frame.buffer` is a memoryview).
Buffer: TypeAlias = bytes | bytearray | memoryview
#: One pickle; or, with out-of-band buffers, [pickle, buffer, buffer, ...].
Payload: TypeAlias = bytes | list[Buffer]

PROTOCOL = 5
#: Below this a buffer stays in the pickle: a frame of its own costs more than the copy on receipt.
OUT_OF_BAND_BYTES = 16 * 1024

#: Names of modules that cloudpickle.register_pickle_by_value knows; it grows and shrinks in place.
BY_VALUE_MODULES: set[str] = _cloud._PICKLE_BY_VALUE_MODULES

#: Classes that were pickled here and defined here: a copy that returns must not overwrite them.
_native_classes: weakref.WeakSet[type] = weakref.WeakSet()
_received_classes: weakref.WeakSet[type] = weakref.WeakSet()


class OutOfPlace(Exception):
    """A Future where none can be resolved, or what stays in its process; the text says why, and what to do.

    error: what users get
    """

    def __init__(self, reason: str, value: object, error: type[Unpicklable] = StrayFuture) -> None:
        super().__init__(reason)
        self.value, self.error = value, error


class Sink:
    """Where a pickler writes: parts of the pickle, and the buffers beside it."""

    __slots__ = ("borrows", "buffers", "fresh", "parts", "write")

    def __init__(self) -> None:
        self.parts: list[Buffer] = []
        self.write = self.parts.append  # large bytes arrive as the object itself, not as a copy
        self.buffers: list[Buffer] = []
        self.fresh: list[object] = []  # arrays copied by us already; need no second copy
        self.borrows = False  # buffers are copied later: by who keeps them, or by `settle`

    def take(self, buffer: pickle.PickleBuffer) -> bool:
        """Take a buffer out of band; True means "leave it in the pickle"."""
        try:
            raw = buffer.raw()
        except BufferError:
            return True  # not contiguous: the pickler says so itself
        if raw.nbytes < OUT_OF_BAND_BYTES:
            return True
        self.buffers.append(raw if self.borrows else self._own(raw))
        return False

    def settle(self) -> None:
        """Make borrowed buffers our own."""
        self.buffers = [self._own(raw) for raw in self.buffers if isinstance(raw, memoryview)]

    def _own(self, raw: memoryview) -> Buffer:
        source = raw.obj
        if type(source) is bytes and len(source) == raw.nbytes:
            return source  # immutable: needs no copy
        if any(source is array for array in self.fresh):
            return raw
        return bytes(raw)

    def pickled(self) -> bytes:
        parts = self.parts
        if len(parts) == 1 and type(parts[0]) is bytes:
            return parts[0]
        return b"".join(parts)


class PastLimit(Exception):
    """A pickle is to have more bytes than it may: `size` at least, where `most` are allowed."""

    def __init__(self, size: int, most: int) -> None:
        super().__init__(size, most)
        self.size, self.most = size, most

    def error(self, what: str) -> TooLarge:
        """What users get; `what` names the whole."""
        reason = f"at least {self.size:,} bytes in one piece, and a message takes {self.most:,}"
        return TooLarge(what, "", reason)


class BoundedSink(Sink):
    """One that takes no more than `most` bytes, and no buffers beside them."""

    __slots__ = ("most", "size")

    def __init__(self, most: int) -> None:
        self.parts, self.buffers, self.fresh = [], [], []
        self.most, self.size = most, 0

    def write(self, part: Any) -> None:  # a method, for an attribute that is bound would be a cycle
        self.size += memoryview(part).nbytes  # it may be a PickleBuffer, which has no len
        if self.size > self.most:
            raise PastLimit(self.size, self.most)
        self.parts.append(part)


class Pickler(_cloud.Pickler):  # type: ignore[misc]
    """cloudpickle's pickler with a few more reducers.  `in_band=True` keeps every buffer in the pickle.

    owner  the client whose call this is: its futures may be arguments; None: there may be none
    needs  those that were met and have no value yet, in the order of their placeholders
    holds  what keeps objects in their stores that were met: futures' holds, and references
    """

    dump = pickle.Pickler.dump  # cloudpickle's only rewords RecursionError

    def __init__(self, sink: Sink, *, in_band: bool = False) -> None:
        take = None if in_band else sink.take
        # Not through cloudpickle's __init__, which does the same, slower.
        pickle.Pickler.__init__(self, cast(Any, sink), PROTOCOL, buffer_callback=take)
        self.globals_ref: dict[int, dict[str, Any]] = {}
        self.proto = PROTOCOL
        self.sink = sink
        self.owner: Any = None
        self.needs: list[Any] = []
        self.holds: list[Any] = []

    @property
    def dispatch_table(self) -> Any:
        """None of our own: the C pickler then reads copyreg's, live, and cloudpickle's is read below.

        Theirs is a ChainMap of the two and costs 1 us per instance.
        """
        raise AttributeError("dispatch_table")

    def reducer_override(self, obj: Any) -> Any:
        if id(obj) in _stable:
            return NotImplemented
        kind = type(obj)
        reduce = _reducers.get(kind)
        if reduce is not None:
            return reduce(self, obj)
        theirs = _cloud_table.get(kind)
        if theirs is not None:
            return theirs(obj)
        if issubclass(kind, type):
            return _reduce_class(self, obj)
        if kind.__name__ == "ndarray" and kind.__module__ == "numpy":
            _reducers[kind] = _reduce_array  # met for the first time; numpy is not ours to import
            return _reduce_array(self, obj)
        return NotImplemented

    def reuse(self) -> None:
        """Forget all, keep no reference to what was pickled, be ready for the next."""
        self.clear_memo()
        self.globals_ref.clear()
        self.owner = None
        self.sink.parts.clear()
        self.sink.buffers.clear()
        self.sink.fresh.clear()


#: Picklers at rest.  Making one costs three times what a small pickle does.
_spare: list[Pickler] = []


def dump(value: object) -> Payload:
    """Pickle with buffers out of band.  Raises whatever the pickler raises."""
    return cast(Payload, dump_for(None, value))


def dump_for(owner: Any, value: object, keeper: Keeper | None = None) -> Payload | Dependent | Kept:
    """The same for a client's call: a Dependent if the value of a future that it holds is yet to come.

    keeper: may take what is large, in place of whoever gets the payload
    """
    try:
        pickler = _spare.pop()  # so no other thread, and no reducer that calls us, has it
    except IndexError:
        pickler = Pickler(Sink())
    pickler.owner = owner
    sink = pickler.sink
    sink.borrows = keeper is not None
    pickler.dump(value)  # if this raises, the pickler is dropped
    pickled = sink.pickled()
    needs, holds = pickler.needs, pickler.holds
    payload: Payload | Kept
    if keeper is not None and (sink.buffers or holds or len(pickled) >= keeper.least):
        payload = _kept(keeper, pickled, sink, [] if owner is not None else holds)
        if type(payload) is Kept and owner is not None:
            holds.append(payload.hold)
            payload = payload.payload
    else:
        payload = [pickled, *sink.buffers] if sink.buffers else pickled
    if needs or holds:
        pickler.needs, pickler.holds = [], []
        if owner is None and type(payload) is not Kept:
            _outlive(holds)
    if len(pickled) <= OUT_OF_BAND_BYTES:  # after large ones it would keep a large memo table
        pickler.reuse()
        _spare.append(pickler)
    return Dependent(payload, needs, holds) if (needs or holds) and owner is not None else payload


def _kept(keeper: Keeper, pickled: bytes, sink: Sink, refs: list[Any]) -> Payload | Kept:
    """The same in a store, if it is large, or holds references: their objects are held by it from now on."""
    size = len(pickled) + sum(memoryview(buffer).nbytes for buffer in sink.buffers)
    if size >= keeper.least or refs:
        contains = list(dict.fromkeys(ref._handle.id for ref in refs))
        if len(contains) > MOST_IDS:
            _outlive(refs)
            contains = []
        kept = keeper.keep([pickled, *sink.buffers], size, contains)
        if kept is not None:
            return kept
    sink.settle()
    return [pickled, *sink.buffers] if sink.buffers else pickled


def _outlive(refs: list[Any]) -> None:
    """Nobody counts what becomes of these: their objects stay until the session ends."""
    for ref in refs:
        ref._outlive()


def dump_in_band(value: object, most: int = 0) -> bytes:
    """Pickle into one bytes object.  Raises whatever the pickler raises.

    most: PastLimit is raised as soon as it has more bytes; 0: there is no limit
    """
    sink = BoundedSink(most) if most else Sink()
    pickler = Pickler(sink, in_band=True)
    pickler.dump(value)
    _outlive(pickler.holds)
    return sink.pickled()


def by_reference(obj: object) -> bool:
    """Whether a function, class or cached function travels as a name that the other side imports."""
    found = _cloud._lookup_module_and_qualname(obj)
    return found is not None and not _cloud._is_registered_pickle_by_value(found[0])


def module_by_reference(module: types.ModuleType) -> bool:
    return bool(_cloud._should_pickle_by_reference(module))


def global_names(code: types.CodeType) -> list[str]:
    """The names of globals that cloudpickle ships with this code, nested functions included."""
    return list(_cloud._extract_code_globals(code))


# Reducers ------------------------------------------------------------------


def _reduce_function(pickler: Pickler, function: types.FunctionType) -> Any:
    reduced = _cloud.Pickler.reducer_override(pickler, function)
    if reduced is NotImplemented:
        _note_stable(function)
    return reduced


def _reduce_code(_pickler: Pickler, code: types.CodeType) -> Any:
    """With its file's name, which new cloudpickles leave out: tracebacks find their lines by it."""
    make, args = _cloud_table[types.CodeType](code)
    return make, tuple(code.co_filename if part == _NO_FILE else part for part in args)


def _reduce_class(pickler: Pickler, cls: type) -> Any:
    reduced = _cloud.Pickler.reducer_override(pickler, cls)
    if reduced is NotImplemented:
        _note_stable(cls)
    elif len(reduced) == 6:  # by value; shorter ones are built-ins
        if cls not in _received_classes:
            _native_classes.add(cls)
        return (*reduced[:5], _set_class_state)
    return reduced


def _note_stable(obj: Any) -> None:
    """Remember that this goes by reference: finding out costs 2 us, and each small array asks three times."""
    if str(obj.__module__).partition(".")[0] in _STABLE_ROOTS:
        _stable[id(obj)] = obj


def _set_class_state(cls: type, state: Any) -> type:
    """Fill in a class that arrived by value, unless it is one of our own that came back."""
    if cls in _native_classes:
        return cls
    _received_classes.add(cls)
    return cast(type, _cloud._class_setstate(cls, state))


def _reduce_cached(pickler: Pickler, obj: Any) -> Any:
    """A function under functools.lru_cache: its own reducer always goes by reference, even in `__main__`."""
    if by_reference(obj):
        return NotImplemented
    parameters = obj.cache_parameters()
    return _rebuild_cached, (obj.__wrapped__, parameters["maxsize"], parameters["typed"])


def _rebuild_cached(function: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:
    return functools.lru_cache(maxsize, typed)(function)


def _reduce_cached_property(pickler: Pickler, obj: Any) -> Any:
    """Until Python 3.12 each holds a lock, so no class of `__main__` that has one could be pickled."""
    return _rebuild_cached_property, (obj.func, obj.attrname)


def _rebuild_cached_property(function: Callable[[Any], Any], name: str | None) -> Any:
    made: functools.cached_property[Any] = functools.cached_property(function)
    made.attrname = name  # classes are filled by setattr, which does not tell names
    return made


def _reduce_array(pickler: Pickler, array: Any) -> Any:
    """Make a large strided array contiguous here, once; numpy would copy it into the pickle."""
    if array.nbytes < OUT_OF_BAND_BYTES or array.dtype.hasobject:
        return NotImplemented
    flags = array.flags
    if flags.forc:
        if flags.writeable or not pickler.sink.borrows:
            return NotImplemented
        # A view of the store that goes on to the store: whoever reads it there shall have it writable.
        memory = mapping.memory_at(array.ctypes.data, array.nbytes)
        return type(array)(array.shape, array.dtype, memory, 0, array.strides).__reduce_ex__(PROTOCOL)
    if isinstance(pickler.sink, BoundedSink) and array.nbytes > pickler.sink.most:
        raise PastLimit(array.nbytes, pickler.sink.most)  # before it is copied
    array = array.copy(order="C")
    pickler.sink.fresh.append(array)
    return array.__reduce_ex__(PROTOCOL)


def add_reducer(kind: type, reduce: Callable[[Pickler, Any], Any]) -> None:
    """Have instances of exactly this type reduced so."""
    _reducers[kind] = reduce


CachedFunction: type = type(functools.lru_cache(lambda: None))

_reducers: dict[type, Callable[[Pickler, Any], Any]] = {
    types.FunctionType: _reduce_function,
    type: _reduce_class,
    types.CodeType: _reduce_code,
    CachedFunction: _reduce_cached,
    functools.cached_property: _reduce_cached_property,
}
_cloud_table: dict[type, Callable[[Any], Any]] = _cloud.Pickler._dispatch_table

#: What cloudpickle puts in the place of a file's name, since 3.1.
_NO_FILE = "<dynamic-code>"
#: What goes by reference for as long as the process lives, by id(); held, so that ids stay theirs.
_stable: dict[int, object] = {}
_STABLE_ROOTS = frozenset({"numpy", *sys.stdlib_module_names})
