"""The messages about stores: where they are, what they have, whose it is, and when that is to go."""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from flamezmq.wire.ranges import Index

#: Marks of an object in a store: its home is another one; it stays though nobody refers to it; it is on disk.
COPY: Final = 1
PINNED: Final = 2
SPILLED: Final = 4
#: Objects in one report of a store, and in one question.
MOST_OBJECTS: Final = 512


class AskStores(msgspec.Struct, tag=96, array_like=True):
    """Client -> router: which stores are there?  Answered by `Stores`."""

    request: int


class Stores(msgspec.Struct, tag=97, array_like=True):
    """Answer to `AskStores`: their names, of all nodes.  Who can connect to one is on its node.

    at     where each is reached from elsewhere; "": nowhere
    nodes  the names of their nodes
    """

    request: int
    names: list[str]
    at: list[str] = []
    nodes: list[str] = []


class Stocks(msgspec.Struct, tag=88, array_like=True):
    """Worker -> router: objects of this session, by its id, are here; tell me when it ends.  Said once."""

    session: str


class Unstock(msgspec.Struct, tag=89, array_like=True):
    """Router -> worker: this session has ended, and its objects with it."""

    session: str


class Stocked(msgspec.Struct, tag=116, array_like=True):
    """Worker -> router: what has come to the store, has changed there or has gone since this was said last.

    What has come and gone in between is not told.  The columns `ids`, `owners`, `sizes` and `marks` have one
    entry for each object that is there:

    used      bytes of memory that the store has in use now
    sessions  ids of those whose objects they are
    ids       of 16 bytes
    owners    index into `sessions`; -1: a copy, of which the store does not know whose it is
    sizes     bytes of all pieces
    marks     sums of 1 (a copy: its home is elsewhere), 2 (pinned), 4 (on disk)
    names     position in `ids` -> the name that its owner has given it
    readers   position in `ids` -> so many processes have it, as far as the store knows
    gone      ids of those that are not there any more
    """

    used: Index
    sessions: list[str]
    ids: list[bytes]
    owners: list[int]
    sizes: list[Index]
    marks: list[int]
    names: dict[int, str] = {}
    readers: dict[int, int] = {}
    gone: list[bytes] = []


class ObjectRow(msgspec.Struct, array_like=True):
    """An object, as a controller sees it: what stores have reported.

    number   the router's; those that it has heard of later have greater ones
    session  by its id; "": a copy, and nobody has told yet whose it is
    name     that its owner has given it; "": none
    nodes    that have it, its home first
    copies   of these, those that have a copy only
    pinned   it stays until its session ends, whoever refers to it
    spilled  it is on disk, on some node
    readers  processes that have it, as far as the stores know
    """

    number: int
    id: bytes
    session: str
    name: str
    size: int
    nodes: list[str]
    copies: int = 0
    pinned: bool = False
    spilled: bool = False
    readers: int = 0


class WhoHas(msgspec.Struct, tag=117, array_like=True):
    """Worker -> router: which other stores have these objects?  Answered by `Holders`."""

    ids: list[bytes]


class Holders(msgspec.Struct, tag=118, array_like=True):
    """Answer to `WhoHas`: for each id the ZeroMQ addresses of stores that have it, its home's first.

    It is what they have reported: some may have gone meanwhile, and what has just come is not there yet.
    """

    ids: list[bytes]
    at: list[list[str]]


class Unclaimed(msgspec.Struct, tag=110, array_like=True):
    """Router -> worker: this executor is gone; of its tasks' results I have heard up to object `last`.

    What it has put as a result after that one (the ids of a process ascend) reaches nobody: it may go.

    last  empty: I have heard of none
    """

    pid: int
    last: bytes


class Discard(msgspec.Struct, tag=111, array_like=True):
    """Router -> worker: these objects are results that nobody waits for any more: they may go."""

    ids: list[bytes]


#: What a store has to say to the router.
News: TypeAlias = Stocks | Stocked | WhoHas
