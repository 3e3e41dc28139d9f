"""What the processes of a node and its store say to each other, over a unix socket that keeps packets whole.

A question has one answer; the others have none.  Descriptors of segments travel
beside the packets.  Objects are named by the 16 bytes of their id.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from flamezmq.wire import amendments as a

#: Objects of fewer bytes lie in the store's own heap, and travel in its packets.
INLINE_BYTES: Final = 1 << 16
#: The most descriptors that the kernel passes beside one packet, and a bound on ids in a question.
MOST_FDS: Final = 200
#: Of one packet; more than any of these messages takes.
PACKET_BYTES: Final = 1 << 18
#: Ids in one packet.
MOST_IDS: Final = 4096
#: Terms of an object: it stays when its session ends; it is needed by the process that puts it, with whose
#: end it goes, and by no other owner; it is what a task has returned.
PINNED: Final = 1
OF_PROCESS: Final = 2
RESULT: Final = 4

#: Why an object of another node can't be had here, though it can be read there.
NO_ROOM: Final = "its bytes are on another node, and the store of this one has no room for them"


class Lease(msgspec.Struct, tag="lease", array_like=True, gc=False):
    """A segment to fill, of at least `size` bytes.  Answer: `Leased`, or `Full`.

    more     so many others of its size are welcome, if they lie about
    patient  where memory and disk are full, wait for a while
    """

    size: int
    more: int = 0
    patient: bool = False


class Small(msgspec.Struct, tag="smalls", array_like=True, gc=False):
    """So many bytes of small objects will follow.  Answer: `Granted`, or `Full`.

    patient  as in `Lease`
    """

    size: int
    patient: bool = False


class Return(msgspec.Struct, tag="return", array_like=True, gc=False):
    """This leased segment will not be filled."""

    segment: int


class Forget(msgspec.Struct, tag="forget", array_like=True, gc=False):
    """This process has let go of its mapping of this segment: pass the descriptor when it is leased again."""

    segment: int


class Put(msgspec.Struct, tag="put", array_like=True):
    """A leased segment has been filled: it is an object now.

    session   by whose end it goes
    sizes     of its pieces, in bytes, as they lie in it (`layout`)
    terms     flags: PINNED, OF_PROCESS, RESULT
    contains  objects that references in it stand for: they are needed as long as it is here
    name      for people
    """

    id: bytes
    session: str
    segment: int
    sizes: list[int]
    terms: int = 0
    contains: list[bytes] = []
    name: str = ""


class PutSmall(msgspec.Struct, tag="small", array_like=True):
    """An object as a whole: its pieces one behind the other; the rest as in `Put`."""

    id: bytes
    session: str
    sizes: list[int]
    data: bytes
    terms: int = 0
    contains: list[bytes] = []
    name: str = ""


class Share(msgspec.Struct, tag="share", array_like=True):
    """An object with the bytes of another one, `like`, which has a segment.  Answer: `Shared`.

    The rest as in `Put`.
    """

    id: bytes
    session: str
    like: bytes
    terms: int = 0
    contains: list[bytes] = []
    name: str = ""


class Open(msgspec.Struct, tag="open", array_like=True):
    """These objects, to read them; at most MOST_FDS.  Answer: `Opened`, when what is elsewhere has come.

    at      where each is fetched from if it is not here (`Handle.at`); "": nowhere
    sizes   of the pieces of each
    modest  what is on the disk is not wanted, unless there is room for it that nobody else has to leave
    """

    ids: list[bytes]
    at: list[str]
    sizes: list[tuple[int, ...]]
    modest: bool = False


class Hold(msgspec.Struct, tag="hold", array_like=True):
    """This process has references to these objects, beside their owners, until it says `Drop`, or ends."""

    ids: list[bytes]


class Stay(msgspec.Struct, tag="stay", array_like=True):
    """Somebody of whom nothing is known may have references to these: they stay until their session ends."""

    ids: list[bytes]


class Drop(msgspec.Struct, tag="drop", array_like=True):
    """This process needs these no more: one `Hold` of it is over; or, if it has none, their owner has let go.

    Views of an object stay as they are when it goes.
    """

    ids: list[bytes]


class Free(msgspec.Struct, tag="free", array_like=True):
    """These are to go now, whoever needs them.  Answer: `Freed`, when they are gone."""

    ids: list[bytes]


class Ask(msgspec.Struct, tag="ask", array_like=True):
    """About the versions of an object whose home this store is.  Answer: that of the question.

    segment  a leased one that holds the part of an amendment; 0: there is none
    """

    question: a.Question
    segment: int = 0


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


class Granted(msgspec.Struct, tag="granted", array_like=True, gc=False):
    """There is room for them."""


class Shared(msgspec.Struct, tag="shared", array_like=True, gc=False):
    """done: it is there; else there is no such other one, or it has no segment just now: put it."""

    done: bool


class Full(msgspec.Struct, tag="full", array_like=True):
    """There is no room: what was asked for, what there is, and what holds it."""

    wanted: int
    limit: int
    holders: str


class Found(msgspec.Struct, array_like=True):
    """One of the objects that were asked for.

    sizes  of its pieces; empty: it is not here, and if it is known, `why`
    size   of its segment, whose descriptor is the next of the packet's; 0: its bytes are `data`
    why    it is not here, if more is known than that
    lost   its node can't be reached
    checks of its parts (`checked`), if it is on the disk, and there is no room to bring it back: then the
           descriptor is of a file, where it begins at `offset`
    """

    sizes: list[int]
    size: int = 0
    data: bytes = b""
    why: str = ""
    lost: bool = False
    offset: int = 0
    checks: tuple[int, ...] = ()


class Freed(msgspec.Struct, tag="freed", array_like=True):
    """They are gone."""


class Opened(msgspec.Struct, tag="opened", array_like=True):
    """In the order of the ids; maybe fewer than were asked for, never none: ask again for the others."""

    found: list[Found]


Question: TypeAlias = (
    Lease | Small | Return | Forget | Put | PutSmall | Share | Open | Hold | Stay | Drop | Free | Ask
)
Answer: TypeAlias = Hello | Leased | Granted | Shared | Full | Freed | Opened | a.Parts | a.Amended

encode = msgspec.msgpack.Encoder().encode
decode_question = msgspec.msgpack.Decoder(Question).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode
