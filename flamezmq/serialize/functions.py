"""Functions by number: each is pickled once, and again when what it refers to has changed.

A client keeps one `FunctionTable`.  It gives every function a small number
and the hash of its pickle; the blob goes to an executor once, tasks quote the
number.

Rules of this file:

- A number means one blob, for ever.  Numbers are dense, start at 0 and are
  never used again, not even for the same function after its eviction.
- Two function objects with the same pickle share a number.
- A function that refers to nothing mutable is pickled once per change of what
  it refers to (`captures.Watch`).  One that refers to a list, dict, array or
  instance, and every bound method and callable instance, is pickled in each
  call of `name` and told apart by its hash: pass heavy data as arguments.
- The table holds a strong reference to a function only if it can capture
  nothing big and mutable, and to at most `MAX_FUNCTIONS` of them.
"""

from __future__ import annotations

import functools
import pickle
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

from flamezmq.optioned import Configured
from flamezmq.serialize.blobs import dump_blob
from flamezmq.serialize.captures import Watch
from flamezmq.serialize.heavy import HEAVY_BYTES, HeavyFunction, warn_heavy
from flamezmq.serialize.values import missing_module
from flamezmq.wire.messages import Options

try:
    from _blake2 import blake2b  # what hashlib would give, without 2 ms for loading OpenSSL
except ImportError:
    from hashlib import blake2b

__all__ = ["FunctionName", "FunctionTable", "HeavyFunction", "dump_function", "label", "load_function"]

#: Function objects that are known by identity.
MAX_FUNCTIONS = 1_024
#: Names that no known function object has; kept because their pickle may come back.
MAX_IDLE_NAMES = 256
MAX_IDLE_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True, eq=False)
class FunctionName:
    """A function as tasks quote it.

    number   small, dense per table, never used again
    digest   16 bytes of blake2b over the blob
    blob     the pickle, for `load_function`
    label    module.qualname, for people
    options  what the router must know of its options, if it has any
    """

    number: int
    digest: bytes
    blob: bytes
    label: str
    options: Options | None = None


class _Known:
    """A function object, its name, and what must stay the same for the name to stay right."""

    __slots__ = ("checks", "function", "modules", "name", "used")

    def __init__(self, function: object, name: FunctionName, watch: Watch) -> None:
        self.function = function  # strong: its id stays its own while it is known
        self.name = name
        self.checks = tuple(watch.checks)
        self.modules = watch.modules
        self.used = False


class FunctionTable:
    """The functions of one client.  Safe to call from several threads."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}  # by id(); oldest first, with a second chance for used ones
        self._names: dict[bytes, FunctionName] = {}
        self._holders: dict[int, int] = {}  # number -> how many of _known have that name
        self._idle: OrderedDict[int, FunctionName] = OrderedDict()  # held by none, oldest first
        self._idle_bytes = 0
        self.evicted: deque[int] = deque()  # numbers, dropped since the last `take_evicted`
        self._warned: set[str] = set()
        self._numbers = count()
        self._given = 0
        self._pickled = 0
        self._lock = threading.Lock()
        self._changing = 0  # ident of the thread that holds the lock to change the table

    def name(self, function: Callable[..., Any]) -> FunctionName:
        """The function's name; pickles it if it is new or may have changed.

        Raises:
            Unpicklable: names what it refers to that can't travel.
            TypeError: not callable.
        """
        known = self._known.get(id(function))
        if known is not None and (not known.modules or known.modules == len(sys.modules)):
            for ask, about, answer in known.checks:  # Watch.changed(), without the call
                if ask(about) is not answer:
                    break
            else:
                known.used = True
                return known.name
        return self._pickle(function)

    def remembers(self, function: Callable[..., Any]) -> bool:
        """Whether `name` knows this object, so that it need not pickle it the next time."""
        return id(function) in self._known

    def take_evicted(self) -> list[int]:
        """Numbers that the table has dropped since the last call, oldest first.

        They come up never again.  The caller tells executors to forget them
        once no task that it holds quotes them.  For one thread at a time.
        """
        return [self.evicted.popleft() for _ in range(len(self.evicted))]

    def statistics(self) -> dict[str, int]:
        with self._lock:
            return {
                "functions": len(self._known),
                "names": len(self._names),
                "idle_names": len(self._idle),
                "idle_bytes": self._idle_bytes,
                "numbers_given": self._given,
                "pickled": self._pickled,
            }

    def check(self) -> None:
        """Compare the indexes with each other."""
        with self._lock:
            holders: dict[int, int] = {}
            for known in self._known.values():
                holders[known.name.number] = holders.get(known.name.number, 0) + 1
            numbers = {name.number for name in self._names.values()}
            assert holders == self._holders
            assert numbers == holders.keys() | self._idle.keys()
            assert not holders.keys() & self._idle.keys()
            assert self._idle_bytes == sum(len(name.blob) for name in self._idle.values())

    def _pickle(self, function: Callable[..., Any]) -> FunctionName:
        if not callable(function):
            raise TypeError(f"a task needs a function, not {type(function).__qualname__}")
        watch = Watch(function)  # before the pickle: a change between the two is seen next time
        blob = dump_function(function)
        me = threading.get_ident()
        if self._changing == me:  # a signal handler, that has interrupted what follows: it must not wait
            return self._new_name(b"", blob, function)
        with self._lock:
            self._changing = me
            try:
                name = self._register(function, blob, watch)
            finally:
                self._changing = 0
        if len(blob) > HEAVY_BYTES and name.label not in self._warned:
            self._warned.add(name.label)
            warn_heavy(function, name.label, len(blob))
        return name

    def _register(self, function: object, blob: bytes, watch: Watch) -> FunctionName:
        self._pickled += 1
        name = self._named(blob, function)
        self._hold(name)  # so that what is dropped below is not this one
        self._forget(id(function))
        if not watch.volatile:
            self._remember(_Known(function, name, watch))
        self._release(name)
        return name

    def _named(self, blob: bytes, function: object) -> FunctionName:
        digest = blake2b(blob, digest_size=16).digest()
        name = self._names.get(digest)
        if name is None:
            name = self._names[digest] = self._new_name(digest, blob, function)
        return name

    def _new_name(self, digest: bytes, blob: bytes, function: object) -> FunctionName:
        terms = function.terms() if isinstance(function, Configured) else None
        name = FunctionName(next(self._numbers), digest, blob, label(function), terms)
        self._given = name.number + 1
        return name

    def _remember(self, known: _Known) -> None:
        while len(self._known) >= MAX_FUNCTIONS:
            oldest = next(iter(self._known))
            if self._known[oldest].used:
                second = self._known.pop(oldest)
                second.used = False
                self._known[oldest] = second
            else:
                self._forget(oldest)
        self._known[id(known.function)] = known
        self._hold(known.name)

    def _forget(self, function_id: int) -> None:
        known = self._known.pop(function_id, None)
        if known is not None:
            self._release(known.name)

    def _hold(self, name: FunctionName) -> None:
        if self._idle.pop(name.number, None) is not None:
            self._idle_bytes -= len(name.blob)
        self._holders[name.number] = self._holders.get(name.number, 0) + 1

    def _release(self, name: FunctionName) -> None:
        """One holder less; a name without holders is idle, and the newest idle one always stays."""
        self._holders[name.number] -= 1
        if self._holders[name.number]:
            return
        del self._holders[name.number]
        self._idle[name.number] = name
        self._idle_bytes += len(name.blob)
        while len(self._idle) > 1 and (len(self._idle) > MAX_IDLE_NAMES or self._idle_bytes > MAX_IDLE_BYTES):
            number, oldest = self._idle.popitem(last=False)
            self._idle_bytes -= len(oldest.blob)
            del self._names[oldest.digest]
            self.evicted.append(number)


def dump_function(function: object) -> bytes:
    """One pickle, buffers inside: it is hashed, sent once and kept."""
    return dump_blob(f"function {label(function)}", function)


def load_function(blob: bytes) -> Callable[..., Any]:
    """The function, in the executor.

    Raises:
        MissingModule: it, or something that it refers to, is of a module that can't be imported here.
    """
    try:
        function: Callable[..., Any] = pickle.loads(blob)
    except ModuleNotFoundError as error:
        raise missing_module(error) from error
    return function


def label(function: object) -> str:
    """module.qualname, or the name that its options give it.

    For a partial that of its function, for an instance that of its class.
    """
    if isinstance(function, Configured):
        return function.label(label(function.fn))
    if isinstance(function, functools.partial):
        return f"partial({label(function.func)})"
    qualname = getattr(function, "__qualname__", None) or getattr(function, "__name__", None)
    named = function if isinstance(qualname, str) else type(function)
    module = getattr(named, "__module__", None) or getattr(type(named), "__module__", "")
    return f"{module}.{qualname if named is function else type(function).__qualname__}"
