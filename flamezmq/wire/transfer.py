"""What stores say to each other: pieces of objects, asked for one by one.

The one that wants an object keeps a few questions on their way, so it is the
credit that bounds what is under way.  A question can be asked again.
"""

from __future__ import annotations

from typing import Final

import msgspec

from flamezmq.errors import ProtocolError

#: Bytes that are asked for at a time.
CHUNK_BYTES: Final = 1 << 20


class Want(msgspec.Struct, tag="want", array_like=True, gc=False):
    """Bytes of an object, as it lies in its segment.  Answer: `Chunk` or `Missing`."""

    id: bytes
    offset: int
    length: int


class Chunk(msgspec.Struct, tag="chunk", array_like=True, gc=False):
    """They follow as a frame of their own; `check` is its CRC-32."""

    id: bytes
    offset: int
    check: int


class Missing(msgspec.Struct, tag="missing", array_like=True, gc=False):
    """The object is not here."""

    id: bytes


encode = msgspec.msgpack.Encoder().encode
_want = msgspec.msgpack.Decoder(Want)
_answer: msgspec.msgpack.Decoder[Chunk | Missing] = msgspec.msgpack.Decoder(Chunk | Missing)


def decode_want(frame: bytes) -> Want:
    """Raises ProtocolError: it is none."""
    try:
        return _want.decode(frame)
    except (msgspec.DecodeError, ValueError) as error:
        raise ProtocolError(f"an unreadable question of a store: {error}") from None


def decode_answer(frame: bytes) -> Chunk | Missing:
    """Raises ProtocolError: it is none."""
    try:
        return _answer.decode(frame)
    except (msgspec.DecodeError, ValueError) as error:
        raise ProtocolError(f"an unreadable answer of a store: {error}") from None
