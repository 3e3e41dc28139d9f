"""What stores say to each other, and processes on no node to them: pieces of objects, asked for one by one.

The one that wants an object keeps a few questions on their way, so it is the
credit that bounds what is under way; whoever brings one does the same with what
has not been confirmed.  A question can be asked again.

No frame has more than `MOST_FRAME_BYTES`, no message more than two: the message, and
bytes of an object as it lies in its segment, with their XXH3 (64 bits) for a check.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec

from flamezmq.errors import ProtocolError
from flamezmq.wire import amendments as a

#: Bytes that travel in one message.
CHUNK_BYTES: Final = 1 << 20
#: Chunks that are asked for by one question: each question wakes two threads.
MOST_CHUNKS: Final = 4
MOST_FRAME_BYTES: Final = 2 * CHUNK_BYTES
#: Addresses that are told at a time, and pieces that an object that is brought may have.
MOST_ADDRESSES: Final = 16
MOST_PIECES: Final = 1 << 16

Id: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Ids: TypeAlias = Annotated[list[Id], msgspec.Meta(max_length=MOST_PIECES)]
Offset: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=(1 << 62))]
Address: TypeAlias = Annotated[str, msgspec.Meta(max_length=300)]


class Seek(msgspec.Struct, tag="seek", array_like=True, gc=False):
    """Where am I to fetch this object?  Answer: `Source` or `Missing`.

    at      where the asker is reached by others, who will be sent there; "": nowhere, it is no store
    failed  where it was sent before, and got nothing
    keeps   it has the object afterwards, and is to hear when that goes
    """

    id: Id
    at: Address = ""
    failed: Address = ""
    keeps: bool = True


class Want(msgspec.Struct, tag="want", array_like=True, gc=False):
    """Bytes of an object, as it lies in its segment, from the beginning of a chunk on.

    Answer: a `Chunk` for each of them, or `Missing`.
    """

    id: Id
    offset: Offset
    length: Annotated[int, msgspec.Meta(ge=1, le=MOST_CHUNKS * CHUNK_BYTES)]


class Have(msgspec.Struct, tag="have", array_like=True, gc=False):
    """This object has come as a whole, to who had asked for its source."""

    id: Id


class Lack(msgspec.Struct, tag="lack", array_like=True):
    """These, whose source I had asked for, I do not have any more."""

    ids: Ids


class Offer(msgspec.Struct, tag="offer", array_like=True):
    """An object is going to come, chunk by chunk.  Answer: `Stored` when it is there, or `Refusal`.

    session  by whose end it goes
    sizes    of its pieces
    terms    1: it stays when its session ends
    name     for people
    """

    id: Id
    session: Annotated[str, msgspec.Meta(max_length=300)]
    sizes: Annotated[list[Offset], msgspec.Meta(min_length=1, max_length=MOST_PIECES)]
    terms: int = 0
    name: Annotated[str, msgspec.Meta(max_length=300)] = ""


class Fill(msgspec.Struct, tag="fill", array_like=True, gc=False):
    """Bytes of an object that was offered follow.  Answer: `Got`, `Stored` after the last, or `Refusal`."""

    id: Id
    offset: Offset
    check: int


class Discard(msgspec.Struct, tag="discard", array_like=True):
    """The owner of these needs them no more.  free: they are to go, whoever else needs them."""

    ids: Ids
    free: bool = False


class Stay(msgspec.Struct, tag="stay", array_like=True):
    """Processes on other nodes may have references to these: they stay until their session ends."""

    ids: Ids


class Source(msgspec.Struct, tag="source", array_like=True):
    """Answer to `Seek`.

    at      ask there; "": here.  Who is there may have a part yet, and answers when it has what was asked for
    others  who else has it, or will: for when this one, and we, are gone
    """

    id: Id
    at: Address
    others: Annotated[list[Address], msgspec.Meta(max_length=MOST_ADDRESSES)] = []


class Chunk(msgspec.Struct, tag="chunk", array_like=True, gc=False):
    """They follow as a frame of their own."""

    id: Id
    offset: Offset
    check: int


class Missing(msgspec.Struct, tag="missing", array_like=True, gc=False):
    """The object is not here."""

    id: Id


class Gone(msgspec.Struct, tag="gone", array_like=True):
    """These, which you have fetched, are no objects any more: let go of your copies."""

    ids: Ids


class Got(msgspec.Struct, tag="got", array_like=True, gc=False):
    """What was filled is here; or, if it is not good, its check was wrong: send it again."""

    id: Id
    offset: Offset
    good: bool


class Stored(msgspec.Struct, tag="stored", array_like=True, gc=False):
    """All of it is here."""

    id: Id


class Refusal(msgspec.Struct, tag="refusal", array_like=True, gc=False):
    """This object is not taken in, and why."""

    id: Id
    why: Annotated[str, msgspec.Meta(max_length=1000)]


Question: TypeAlias = Seek | Want | Have | Lack | Offer | Fill | Discard | Stay | a.Since | a.Amend
Answer: TypeAlias = Source | Chunk | Missing | Gone | Got | Stored | Refusal | a.Parts | a.Amended

encode = msgspec.msgpack.Encoder().encode
_question: msgspec.msgpack.Decoder[Question] = msgspec.msgpack.Decoder(Question)
_answer: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def decode_question(frame: bytes | memoryview) -> Question:
    """Raises ProtocolError: it is none."""
    try:
        return _question.decode(frame)
    except (msgspec.DecodeError, ValueError) as error:
        raise ProtocolError(f"an unreadable question of a store: {error}") from None


def decode_answer(frame: bytes | memoryview) -> Answer:
    """Raises ProtocolError: it is none."""
    try:
        return _answer.decode(frame)
    except (msgspec.DecodeError, ValueError) as error:
        raise ProtocolError(f"an unreadable answer of a store: {error}") from None
