"""What the processes of a node and its store say to each other, over a unix socket that keeps packets whole.

A question has one answer; the others have none.  Descriptors of segments travel
beside the packets.  Objects are named by the 16 bytes of their id.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

#: Objects of fewer bytes lie in the store's own heap, and travel in its packets.
INLINE_BYTES: Final = 1 << 16
#: The most descriptors that the kernel passes beside one packet, and a bound on ids in a question.
MOST_FDS: Final = 200
#: Of one packet; more than any of these messages takes.
PACKET_BYTES: Final = 1 << 18


class Lease(msgspec.Struct, tag="lease", array_like=True, gc=False):
    """A segment to fill, of at least `size` bytes.  Answer: `Leased`, or `Full`.

    more  so many others of its size are welcome, if they lie about
    """

    size: int
    more: int = 0


class Return(msgspec.Struct, tag="return", array_like=True, gc=False):
    """This leased segment will not be filled."""

    segment: int


class Forget(msgspec.Struct, tag="forget", array_like=True, gc=False):
    """This process has let go of its mapping of this segment: pass the descriptor when it is leased again."""

    segment: int


class Put(msgspec.Struct, tag="put", array_like=True):
    """A leased segment has been filled: it is an object now.

    session  by whose end it goes
    sizes    of its pieces, in bytes, as they lie in it (`layout`)
    """

    id: bytes
    session: str
    segment: int
    sizes: list[int]


class PutSmall(msgspec.Struct, tag="small", array_like=True):
    """An object as a whole: its pieces one behind the other."""

    id: bytes
    session: str
    sizes: list[int]
    data: bytes


class Open(msgspec.Struct, tag="open", array_like=True):
    """These objects, to read them; at most MOST_FDS.  Answer: `Opened`, when what is elsewhere has come.

    at     where each is fetched from if it is not here (`Handle.at`); "": nowhere
    sizes  of the pieces of each
    """

    ids: list[bytes]
    at: list[str]
    sizes: list[tuple[int, ...]]


class Drop(msgspec.Struct, tag="drop", array_like=True):
    """Nobody needs these any more; views of them stay as they are."""

    ids: list[bytes]


class Hello(msgspec.Struct, tag="hello", array_like=True, gc=False):
    """What the store says first.  at: its ZeroMQ address, or "".  node: the name of its node."""

    at: str
    node: str = ""


class Lent(msgspec.Struct, array_like=True, gc=False):
    """A segment to fill.

    known  this peer was passed its descriptor before; otherwise it comes with this
    fresh  nobody has filled it yet: it is to be written, not mapped (`layout.write`), and is not known later
    """

    segment: int
    known: bool
    fresh: bool


class Leased(msgspec.Struct, tag="leased", array_like=True):
    """One segment or more, each of `size` bytes; descriptors come in their order."""

    size: int
    lent: list[Lent]


class Full(msgspec.Struct, tag="full", array_like=True):
    """There is no room: what was asked for, what there is, and what holds it."""

    wanted: int
    limit: int
    holders: str


class Found(msgspec.Struct, array_like=True):
    """One of the objects that were asked for.

    sizes  of its pieces; empty: it is not here
    size   of its segment, whose descriptor is the next of the packet's; 0: its bytes are `data`
    why    it is not here, if more is known than that
    lost   its node can't be reached
    """

    sizes: list[int]
    size: int = 0
    data: bytes = b""
    why: str = ""
    lost: bool = False


class Opened(msgspec.Struct, tag="opened", array_like=True):
    """In the order of the ids; maybe fewer than were asked for, never none: ask again for the others."""

    found: list[Found]


Question: TypeAlias = Lease | Return | Forget | Put | PutSmall | Open | Drop
Answer: TypeAlias = Hello | Leased | Full | Opened

encode = msgspec.msgpack.Encoder().encode
decode_question = msgspec.msgpack.Decoder(Question).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode
