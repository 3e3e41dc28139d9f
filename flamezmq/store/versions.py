"""A process's side of versions: reading what came after one, making a new one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from flamezmq.errors import ObjectLost, StaleVersion, StoreLost
from flamezmq.store import access, afar
from flamezmq.store.keeping import Kept, outlive_elsewhere
from flamezmq.store.layout import cut_packed
from flamezmq.store.names import ids, shown
from flamezmq.wire import amendments as a
from flamezmq.wire.handles import Handle

#: How often a reader begins anew because what it was about to open was replaced meanwhile.
MOST_TRIES = 100

Pieces = list[memoryview]


class News(NamedTuple):
    """What came after a version.

    version  up to which
    whole    older parts are of no use any more: the first of these is a base
    kind     of the value; "": as it was put
    parts    in their order
    """

    version: int
    whole: bool
    kind: str
    parts: list[Pieces]


def as_put(handle: Handle, private: bool = False) -> Pieces | None:
    """The pieces of an object of this node with one version; None: it has more, or is gone, or elsewhere."""
    if not access.is_here(handle.home):
        return None
    return access.of(handle.home).open([handle], private)[0]


def read(handle: Handle, after: int = 0, private: bool = False) -> News:
    """What came after this version of an object; at least what there is when this is called.

    after: 0: all of it
    private: as of `access.fetch`

    Raises:
        ObjectLost: the object was freed, its home is gone, or it is replaced faster than it can be read.
    """
    parts: list[Pieces] = []
    whole, goal, tries, lacked = False, 0, 0, b""
    while True:
        came = _since(handle, after)
        if not came.newest:
            raise ObjectLost(handle.id.hex(), handle.size)
        goal = goal or came.newest
        pieces = _open(handle, came.parts, private)
        if isinstance(pieces, bytes):  # it was replaced meanwhile, or is lost
            tries += 1
            if tries == MOST_TRIES or pieces == lacked:
                why = "a part of it is lost" if pieces == lacked else "it is replaced faster than it is read"
                raise ObjectLost(handle.id.hex(), handle.size, why)
            lacked = pieces
            continue
        if came.whole:
            whole, parts = True, []
        parts += pieces
        after = came.first + len(pieces) - 1
        if after >= goal:
            return News(after, whole, came.kind, parts)


class Change(NamedTuple):
    """What a new version is.

    appends   what comes behind the old one; else it takes its place
    kind      of the value that takes the old one's place
    was       of the value as it was put
    expected  the version that has to be the newest; 0: any
    """

    appends: bool
    kind: str
    was: str
    expected: int = 0


class Changing:
    """A keeper that makes what it is given a new version of an object of this session."""

    least = 0

    def __init__(self, handle: Handle, session: str, change: Change) -> None:
        self._handle, self._session, self._change = handle, session, change
        self._answer: a.Amended | None = None

    def keep(self, pieces: Sequence[Any], size: int, contains: Sequence[bytes] = ()) -> Kept:
        """As of `Keeper`; raises StoreFull and ObjectLost."""
        sizes = [memoryview(piece).nbytes for piece in pieces]
        if self._handle.id in contains:
            return Kept(b"")
        outlive_elsewhere(contains, self._handle.home)
        appends, kind, was, expected = self._change
        name, part = self._handle.id, ids.next()
        amend = a.Amend(name, part, sizes, appends, kind, was, expected, b"", list(contains))
        self._answer = _amend(self._handle, self._session, amend, pieces)
        return Kept(b"")

    def result(self) -> a.Amended:
        """What became of it.

        Raises:
            StaleVersion: another version than was expected is the newest.
            TypeError: something else than a list was to be appended to.
            ObjectLost: the object was freed.
            ValueError: it would contain itself.
        """
        answer, handle = self._answer, self._handle
        if answer is None:
            raise ValueError(
                f"object {shown(handle.id.hex())} would contain a reference to itself, and never go; "
                f"refer to it by something else, its id for instance"
            )
        if answer.refusal == a.STALE:
            raise StaleVersion(handle.id.hex(), self._change.expected, answer.version)
        if answer.refusal == a.NO_LIST:
            raise TypeError(
                f"only to a list can be appended, and object {shown(handle.id.hex())} is a "
                f"{answer.kind.partition(' ')[0]}; put a list, or update the whole"
            )
        if answer.refusal:
            why = "" if answer.refusal == a.GONE else "what was to be its new version did not arrive there"
            raise ObjectLost(handle.id.hex(), handle.size, why)
        return answer


def _since(handle: Handle, after: int) -> a.Parts:
    try:
        return access.of(handle.home).since(handle.id, after)
    except StoreLost as error:
        access.check_elsewhere(handle, error)
    return afar.since(handle, after)


def _amend(handle: Handle, session: str, amend: a.Amend, pieces: Sequence[Any]) -> a.Amended:
    try:
        return access.of(handle.home).amend(amend, pieces)
    except StoreLost as error:
        access.check_elsewhere(handle, error)
    return afar.amend(handle, session, amend, pieces)


def _open(handle: Handle, parts: Sequence[a.Part], private: bool) -> list[Pieces] | bytes:
    """The pieces of these; or the id of one that is not there any more."""
    large = [
        handle._replace(id=part.id, sizes=tuple(part.sizes))
        for part in parts
        if not part.data and any(part.sizes)
    ]
    opened = iter(access.fetch_all(large, private))
    found: list[Pieces] = []
    for part in parts:
        if not part.sizes:
            return part.id
        if part.data or not any(part.sizes):
            pieces = cut_packed(part.data, part.sizes)
            found.append([memoryview(bytearray(piece) if private else piece) for piece in pieces])
        else:
            came = next(opened)
            if came is None:
                return part.id
            found.append(came)
    return found
