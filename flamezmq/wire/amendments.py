"""What is said about versions of objects: to the home of an object, by any process that has a reference.

Parts of an object, its base and its deltas, are objects of their own.  Small ones
ride along; others are opened, or fetched, by their ids.  A question can be asked
again: an amendment is known by its part, and made once.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec

Id: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Version: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=(1 << 62))]
Size: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=(1 << 62))]
Sizes: TypeAlias = Annotated[list[Size], msgspec.Meta(min_length=1, max_length=1 << 16)]

#: Why a new version was not made: it was to follow another one than the newest; only a list can be
#: appended to; there is no such object; its part is not here.
STALE: Final = "stale"
NO_LIST: Final = "no list"
GONE: Final = "gone"
NO_PART: Final = "no part"


class Since(msgspec.Struct, tag="since", array_like=True, gc=False):
    """What came after this version of an object, 0 for all of it.  Answer: `Parts`.

    request  quoted by the answer
    """

    id: Id
    after: Version
    request: int = 0


class Amend(msgspec.Struct, tag="amend", array_like=True):
    """Make a new version of an object.  Answer: `Amended`.

    part      id of the new base, or of the new delta
    sizes     of its pieces
    appends   it is a delta
    kind      type of the value, if it is a base, in words; what begins with "list" can be appended to
    was       type of the value as it was put, for the home does not know that
    expected  the version that it is made for; 0: whichever is the newest
    data      the pieces of a small part, one behind the other; a large one was brought before
    contains  objects that references in it stand for
    """

    id: Id
    part: Id
    sizes: Sizes
    appends: bool
    kind: str
    was: str
    expected: Version = 0
    data: bytes = b""
    contains: list[Id] = []
    request: int = 0


class Part(msgspec.Struct, array_like=True):
    """sizes: of its pieces; empty: it is lost.  data: all of them, if small; else it is had by its id."""

    id: Id
    sizes: list[Size]
    data: bytes = b""


class Parts(msgspec.Struct, tag="parts", array_like=True):
    """Answer to `Since`: maybe not all that came; then ask again.

    newest  the newest version; 0: there is no such object here
    first   the version that the first of these parts made
    whole   what the asker has is of no use any more: the first of these is a base
    kind    type of the value; "": as it was put
    """

    id: Id
    newest: Version
    first: Version = 0
    whole: bool = False
    kind: str = ""
    parts: list[Part] = []
    request: int = 0


class Amended(msgspec.Struct, tag="amended", array_like=True):
    """Answer to `Amend`.

    version  the newest one
    refusal  why it is not of this amendment; "": it is
    kind     type of the value
    """

    id: Id
    version: Version
    refusal: str = ""
    kind: str = ""
    request: int = 0


Question: TypeAlias = Since | Amend
Answer: TypeAlias = Parts | Amended
