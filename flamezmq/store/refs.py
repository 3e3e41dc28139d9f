"""References: small things that stand for objects, wherever these lie.

Made by `Session.put`.  A reference that is pickled is a reference again where it
is unpickled; only as an argument of `submit` or `map` it stands for its value.
Where no store is in reach it carries the value itself.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from contextlib import suppress
from copy import deepcopy
from typing import Any

from flamezmq.errors import ObjectLost
from flamezmq.serialize.pickler import Pickler, add_reducer
from flamezmq.serialize.values import load_pieces
from flamezmq.store import access, gateway, versions
from flamezmq.store.keeping import Hold, arrive
from flamezmq.store.names import shown
from flamezmq.store.versioned import Seen, Versioned
from flamezmq.wire.handles import Handle, pack, unpack


class ObjectRef(Versioned):
    """Stands for a value that was put once, and is read by whoever has this.

    Made by `put`; small, hashable, and picklable: wherever it is unpickled it is a reference to the same
    object.  As an argument of `submit` or `map`, or anywhere inside one, it stands for its value.

    Attributes:
        id: of the object, 32 hexadecimal digits; equal references have equal ones.
        size: bytes of the value, as it was put.
        kind: the type of the value, in words, with dtype and shape if it is an array.
        version: the newest that this reference has made or read; 1 is what was put.
        name: as given to `put`; "" if it has none.
        session_id: of the session with which the object goes.
    """

    __slots__ = ("__weakref__", "_hold", "_pieces", "name", "size")

    def __init__(
        self,
        id: bytes,
        where: Handle | Sequence[bytes],
        session_id: str = "",
        name: str = "",
        kind: str = "",
        hold: Hold | None = None,
        version: int = 1,
    ) -> None:
        self._handle = where if isinstance(where, Handle) else None
        self._pieces = () if isinstance(where, Handle) else tuple(where)
        self.id = id.hex()
        self.size = where.size if isinstance(where, Handle) else sum(map(len, where))
        self.session_id, self.name, self.kind = session_id, name, kind
        self._hold = hold
        self._was, self._version = kind, version
        self._seen: Seen | None = None

    def get(self, copy: bool = False) -> Any:
        """The value, of the newest version that there is.

        Args:
            copy: in memory of its own, which may be written to.  False gives arrays, and other large
                buffers, as views of shared memory: nothing is copied, and who writes to one gets numpy's
                "read-only" error.  What is smaller than 16 KiB is always the reader's own.

        Raises:
            ObjectLost: it was freed, or its session was closed.
            StoreLost: the node's store has ended.

        Each call makes the value anew, but for its large buffers; and but for the items of a list that was
        appended to, which are made once, so that a call costs what came since the last one.  Some tens of
        microseconds on the node of the object, or where it was read before; otherwise it is fetched first.
        """
        pieces = self._put_pieces()
        if pieces is None:
            return self._newest(copy)
        return load_pieces(*(map(bytearray, pieces) if copy else pieces))

    def __eq__(self, other: object) -> bool:
        return self.id == other.id if isinstance(other, ObjectRef) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        what = f"{self.size:,} bytes" if self._version == 1 else f"version {self._version}"
        return f"<flamezmq.ObjectRef {shown(self.id)}{name}: {self.kind}, {what}>"

    def __reduce__(self) -> Any:
        self._outlive()
        return self._reduced()

    def _reduced(self) -> Any:
        where = self._pieces if self._handle is None else pack(self._handle)
        state = bytes.fromhex(self.id), where, self.session_id, self.name, self._was, self._version
        return _arrived, state

    def _free(self) -> None:
        """Have the object go."""
        if self._handle is None:
            self._pieces = ()
        elif access.is_here(self._handle.home):
            access.of(self._handle.home).free([self._handle.id])
        elif self._handle.at:
            gateway.discard(self._handle.at, [self._handle.id], free=True)

    def _put_pieces(self, private: bool = False) -> list[memoryview] | None:
        """What was put, if that is all there is and nobody else has to be asked."""
        access.has_lent = True
        if self._handle is not None:
            return versions.as_put(self._handle, private) if self._version == 1 else None
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
        pieces = value._put_pieces(private=True)
        return value._newest(private=True) if pieces is None else load_pieces(*pieces)
    return deepcopy(value)


def values_of(refs: Sequence[ObjectRef], copy: bool = False) -> list[Any]:
    """The values of many references, by few questions to each store."""
    by_home: dict[str, list[Handle]] = {}
    for ref in refs:
        if ref._handle is not None and ref._version == 1:
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
        if pieces is None:
            values.append(ref.get(copy))  # which says why it can't be had
        else:
            values.append(load_pieces(*(map(bytearray, pieces) if copy else pieces)))
    return values


def argument_of(handle: bytes, version: int = 1) -> Any:
    """The value of an object, as a task gets it: read-only.  Pickles of calls refer to this by name.

    version: at least this one
    """
    access.has_lent = True
    found = unpack(handle)
    if version == 1:
        with suppress(ObjectLost):  # it may have versions now
            return load_pieces(*access.fetch(found, private=False))
    return ObjectRef(found.id, found, version=version)._newest()


def inline_argument_of(*pieces: Any) -> Any:
    """The same of one that has come along with the call."""
    access.has_lent = True
    return load_pieces(*(memoryview(piece).toreadonly() for piece in pieces))


def _arrived(
    id: bytes, where: bytes | Sequence[bytes], session_id: str, name: str, kind: str, version: int = 1
) -> ObjectRef:
    """What a pickled reference becomes."""
    if not isinstance(where, bytes):
        return ObjectRef(id, where, session_id, name, kind)
    handle = unpack(where)
    return ObjectRef(id, handle, session_id, name, kind, arrive(handle), version)


def _reduce(pickler: Pickler, ref: ObjectRef) -> Any:
    """In a call its value; elsewhere itself."""
    if ref._handle is not None:
        pickler.holds.append(ref)  # so that it is there when the call, or what contains it, is read
    if pickler.owner is None:
        return ref._reduced()
    if ref._handle is not None:
        return argument_of, (pack(ref._handle), ref._version)
    return inline_argument_of, tuple(map(pickle.PickleBuffer, ref._pieces))


add_reducer(ObjectRef, _reduce)
