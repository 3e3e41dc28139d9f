"""References: small things that stand for objects, wherever these lie.

Made by `Session.put`.  A reference that is pickled is a reference again where it
is unpickled; only as an argument of `submit` or `map` it stands for its value.
Where no store is in reach it carries the value itself.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any

from flamezmq.errors import ObjectLost
from flamezmq.serialize.pickler import Pickler, add_reducer
from flamezmq.serialize.values import load_pieces
from flamezmq.store import access, gateway
from flamezmq.store.keeping import Hold, arrive
from flamezmq.store.names import shown
from flamezmq.wire.handles import Handle, pack, unpack

#: Of what a reference says about its value's type, in its text.
KIND_CHARS = 80


class ObjectRef:
    """Stands for a value that was put once, and is read by whoever has this.

    Made by `put`; small, hashable, and picklable: wherever it is unpickled it is a reference to the same
    object.  As an argument of `submit` or `map`, or anywhere inside one, it stands for its value.

    Attributes:
        id: of the object, 32 hexadecimal digits; equal references have equal ones.
        size: bytes of the value, as it is stored.
        kind: the type of the value, in words, with dtype and shape if it is an array.
        name: as given to `put`; "" if it has none.
        session_id: of the session with which the object goes.
    """

    __slots__ = ("__weakref__", "_handle", "_hold", "_pieces", "id", "kind", "name", "session_id", "size")

    def __init__(
        self,
        id: bytes,
        where: Handle | Sequence[bytes],
        session_id: str = "",
        name: str = "",
        kind: str = "",
        hold: Hold | None = None,
    ) -> None:
        self._handle = where if isinstance(where, Handle) else None
        self._pieces = () if isinstance(where, Handle) else tuple(where)
        self.id = id.hex()
        self.size = where.size if isinstance(where, Handle) else sum(map(len, where))
        self.session_id, self.name, self.kind = session_id, name, kind
        self._hold = hold

    def get(self, copy: bool = False) -> Any:
        """The value.

        Args:
            copy: in memory of its own, which may be written to.  False gives arrays, and other large
                buffers, as views of shared memory: nothing is copied, and who writes to one gets numpy's
                "read-only" error.  What is smaller than 16 KiB is always the reader's own.

        Raises:
            ObjectLost: it was freed, or its session was closed.
            StoreLost: the node's store has ended.

        Each call makes the value anew, but for its large buffers.  Some tens of microseconds on the node
        of the object, or where it was read before; otherwise it is fetched first.
        """
        pieces = self._fetch()
        return load_pieces(*(map(bytearray, pieces) if copy else pieces))

    def __eq__(self, other: object) -> bool:
        return self.id == other.id if isinstance(other, ObjectRef) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return f"<flamezmq.ObjectRef {shown(self.id)}{name}: {self.kind}, {self.size:,} bytes>"

    def __reduce__(self) -> Any:
        self._outlive()
        return self._reduced()

    def _reduced(self) -> Any:
        where = self._pieces if self._handle is None else pack(self._handle)
        return _arrived, (bytes.fromhex(self.id), where, self.session_id, self.name, self.kind)

    def _free(self) -> None:
        """Have the object go."""
        if self._handle is None:
            self._pieces = ()
        elif access.is_here(self._handle.home):
            access.of(self._handle.home).free([self._handle.id])
        elif self._handle.at:
            gateway.discard(self._handle.at, [self._handle.id], free=True)

    def _fetch(self, private: bool = False) -> list[memoryview]:
        access.has_lent = True
        if self._handle is not None:
            return access.fetch(self._handle, private)
        if not self._pieces:
            raise ObjectLost(self.id, self.size)
        copies: Iterable[Any] = map(bytearray, self._pieces) if private else self._pieces
        return [memoryview(piece) for piece in copies]

    def _outlive(self) -> None:
        """It is on its way to somebody of whom nothing is known: the object stays until its session ends."""
        if self._hold is not None:
            self._hold.stay()


def private(value: Any) -> Any:
    """A value that may be written to, and nobody else sees that.

    Args:
        value: an ObjectRef: its value, with arrays mapped copy-on-write, so that only what is written to
            is copied, page by page.  Anything else, such as a task's argument that came from a reference:
            a deep copy of it, arrays in memory of their own.

    Raises:
        ObjectLost, StoreLost: as `ObjectRef.get`.
    """
    if isinstance(value, ObjectRef):
        return load_pieces(*value._fetch(private=True))
    return deepcopy(value)


def values_of(refs: Sequence[ObjectRef], copy: bool = False) -> list[Any]:
    """The values of many references, by few questions to each store."""
    by_home: dict[str, list[Handle]] = {}
    for ref in refs:
        if ref._handle is not None:
            by_home.setdefault(ref._handle.home, []).append(ref._handle)
    found: dict[bytes, list[memoryview]] = {}
    for home, handles in by_home.items():
        if access.is_here(home):
            for handle, pieces in zip(handles, access.of(home).open(handles), strict=True):
                if pieces is not None:
                    found[handle.id] = pieces
    values = []
    for ref in refs:
        pieces = found.get(ref._handle.id) if ref._handle is not None else None
        mine = ref._fetch() if pieces is None else pieces  # which says why it can't be had
        values.append(load_pieces(*(map(bytearray, mine) if copy else mine)))
    return values


def argument_of(handle: bytes) -> Any:
    """The value of an object, as a task gets it: read-only.  Pickles of calls refer to this by name."""
    access.has_lent = True
    return load_pieces(*access.fetch(unpack(handle), private=False))


def inline_argument_of(*pieces: Any) -> Any:
    """The same of one that has come along with the call."""
    access.has_lent = True
    return load_pieces(*(memoryview(piece).toreadonly() for piece in pieces))


def kind_of(value: object) -> str:
    """The type of a value in words; of an array with its dtype and shape."""
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
        if isinstance(shape, tuple) and dtype is not None:
            name = f"{name} {dtype} {shape}"
        elif kind in (list, tuple, dict, set, frozenset):
            name = f"{name} of {len(value)}"  # type: ignore[arg-type]
    except Exception:  # properties of the user's
        pass
    return name if len(name) <= KIND_CHARS else f"{name[: KIND_CHARS - 3]}..."


def _arrived(id: bytes, where: bytes | Sequence[bytes], session_id: str, name: str, kind: str) -> ObjectRef:
    """What a pickled reference becomes."""
    if not isinstance(where, bytes):
        return ObjectRef(id, where, session_id, name, kind)
    handle = unpack(where)
    return ObjectRef(id, handle, session_id, name, kind, arrive(handle))


def _reduce(pickler: Pickler, ref: ObjectRef) -> Any:
    """In a call its value; elsewhere itself."""
    if ref._handle is not None:
        pickler.holds.append(ref)  # so that it is there when the call, or what contains it, is read
    if pickler.owner is None:
        return ref._reduced()
    if ref._handle is not None:
        return argument_of, (pack(ref._handle),)
    return inline_argument_of, tuple(map(pickle.PickleBuffer, ref._pieces))


add_reducer(ObjectRef, _reduce)
