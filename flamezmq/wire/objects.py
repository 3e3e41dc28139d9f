"""The messages about stores: where they are, whose objects they have, and when these are to go."""

from __future__ import annotations

import msgspec


class AskStores(msgspec.Struct, tag=96, array_like=True):
    """Client -> router: which stores are there?  Answered by `Stores`."""

    request: int


class Stores(msgspec.Struct, tag=97, array_like=True):
    """Answer to `AskStores`: their names, of all nodes.  Who can connect to one is on its node."""

    request: int
    names: list[str]


class Stocks(msgspec.Struct, tag=88, array_like=True):
    """Worker -> router: objects of this session, by its id, are here; tell me when it ends.  Said once."""

    session: str


class Unstock(msgspec.Struct, tag=89, array_like=True):
    """Router -> worker: this session has ended, and its objects with it."""

    session: str
