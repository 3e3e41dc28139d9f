"""The envelope and the codec: messages to frames, frames to messages.

A message is one or more ZeroMQ frames.  The first is an envelope of 22 bytes
(kind, protocol, epoch, sequence number, acknowledgement; little-endian)
directly followed by the msgpack body; the others are out-of-band buffers.

Nothing here keeps state.  What can't be read raises `ProtocolError`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m

HELLO: Final = 1
WELCOME: Final = 2
REFUSE: Final = 3
DATA: Final = 4
ACK: Final = 5
PING: Final = 6
PONG: Final = 7
STRANGER: Final = 8  # router -> dialler: I do not know this connection; say HELLO
BYE: Final = 9  # dialler -> router: forget me

#: kind, protocol, epoch, seq, ack
ENVELOPE: Final = struct.Struct("<BBIQQ")
SIZE: Final = ENVELOPE.size

#: The largest frame that anybody lets in; ZeroMQ cuts the connection of who sends a larger one.
MAX_FRAME_BYTES: Final = 1 << 30
#: A pickle up to it travels in a column of a message; a larger one is a frame of its own.
COLUMN_BYTES: Final = 1 << 16

Buffer = Any  # bytes, bytearray, memoryview or zmq.Frame
Payload = Any  # bytes, or [pickle, buffer, ...]

_encoder = msgspec.msgpack.Encoder()
_encode_into = _encoder.encode_into
_hello = msgspec.msgpack.Decoder(m.Hello)
_welcome = msgspec.msgpack.Decoder(m.Welcome)
_refuse = msgspec.msgpack.Decoder(m.Refuse)
_decoders: dict[str, msgspec.msgpack.Decoder[Any]] = {
    "client": msgspec.msgpack.Decoder(m.FromClient),
    "executor": msgspec.msgpack.Decoder(m.FromExecutor),
    "worker": msgspec.msgpack.Decoder(m.FromWorker),
    "to client": msgspec.msgpack.Decoder(m.ToClient),
    "to executor": msgspec.msgpack.Decoder(m.ToExecutor),
    "to worker": msgspec.msgpack.Decoder(m.ToWorker),
}


def encode(message: Any) -> bytearray:
    """The first frame of a message, with room for its envelope at the front."""
    frame = bytearray(SIZE)
    _encode_into(message, frame, SIZE)
    return frame


def seal(frame: bytearray, kind: int, epoch: int, seq: int, ack: int) -> None:
    """Write the envelope into the room that `encode` left."""
    ENVELOPE.pack_into(frame, 0, kind, m.PROTOCOL, epoch, seq, ack)


def signal(kind: int, epoch: int, seq: int = 0, ack: int = 0) -> bytes:
    """A message that is all envelope: ACK, PING, PONG, STRANGER."""
    return ENVELOPE.pack(kind, m.PROTOCOL, epoch, seq, ack)


def open_envelope(frame: Buffer) -> tuple[int, int, int, int]:
    """(kind, epoch, seq, ack) of a first frame.

    Raises:
        ProtocolError: too short, or of another protocol; HELLO and REFUSE pass
            whatever their protocol is, so that both sides can say what they are.
    """
    try:
        kind, protocol, epoch, seq, ack = ENVELOPE.unpack_from(frame)
    except struct.error:
        raise ProtocolError(f"a frame of {len(frame)} bytes is no flamezmq message") from None
    if protocol != m.PROTOCOL and kind not in (HELLO, REFUSE):
        raise ProtocolError(f"protocol {protocol}; this is protocol {m.PROTOCOL}")
    return kind, epoch, seq, ack


def decode(dialect: str, frame: Buffer) -> Any:
    """The message in a DATA frame.  dialect: "client", "to client", "executor", ..."""
    return _decode(_decoders[dialect].decode, frame)


def decoder(dialect: str) -> Callable[[Buffer], Any]:
    """`decode` for one dialect, looked up once."""
    return partial(_decode, _decoders[dialect].decode)


def decode_hello(frame: Buffer) -> m.Hello:
    return _decode(_hello.decode, frame)  # type: ignore[no-any-return]


def decode_welcome(frame: Buffer) -> m.Welcome:
    return _decode(_welcome.decode, frame)  # type: ignore[no-any-return]


def decode_refuse(frame: Buffer) -> m.Refuse:
    return _decode(_refuse.decode, frame)  # type: ignore[no-any-return]


def _decode(decode: Callable[[Buffer], Any], frame: Buffer) -> Any:
    try:
        return decode(memoryview(frame)[SIZE:])
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError) as error:
        raise ProtocolError(f"unreadable message: {error}") from None


def join_payloads(payloads: Sequence[Payload]) -> tuple[list[bytes], list[int], list[Buffer]]:
    """(column, parts, frames) of payloads some of which have buffers of their own."""
    column: list[bytes] = []
    parts: list[int] = []
    frames: list[Buffer] = []
    for offset, payload in enumerate(payloads):
        if type(payload) is list:
            column.append(payload[0])
            parts += (offset, len(payload) - 1)
            frames += payload[1:]
        else:
            column.append(payload)
    return column, parts, frames


def split_payloads(column: list[bytes], parts: list[int], frames: Sequence[Buffer]) -> list[Payload]:
    """The inverse of `join_payloads`.

    Raises:
        ProtocolError: `parts` does not fit the column or the frames that came.
    """
    if not parts:
        if frames:
            raise ProtocolError(f"{len(frames)} buffer frames that no task claims")
        return column
    if len(parts) % 2:
        raise ProtocolError("`parts` has an odd length")
    payloads: list[Payload] = list(column)
    used, last = 0, -1
    for offset, count in zip(parts[::2], parts[1::2], strict=True):
        if not last < offset < len(column) or count < 1 or used + count > len(frames):
            raise ProtocolError("`parts` does not fit the message")
        payloads[offset] = [column[offset], *frames[used : used + count]]
        used, last = used + count, offset
    if used != len(frames):
        raise ProtocolError(f"{len(frames) - used} buffer frames that no task claims")
    return payloads
