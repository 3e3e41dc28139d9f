"""Composed payloads: a call, and the values that it has waited for, put together without being unpickled.

The first piece of a payload is a pickle, which begins with b"\\x80", or it is
empty, and the pickle is the next one.  That of a composed payload begins with
`MARK` instead; behind it stands a msgpack array with an entry for each payload
that it is made of, the call's first: (its first piece, how many of the frames
that follow are its other pieces).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from flamezmq.errors import ProtocolError
from flamezmq.wire.codec import COLUMN_BYTES, Payload

MARK: Final = b"\0"
#: Larger pieces become frames of their own, so that the first piece of any number of values fits into one.
INLINE_BYTES: Final = 1 << 12

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[bytes, int]]).decode


def compose(call: Payload, values: Sequence[Payload]) -> Payload:
    """One payload of a call and its values.  Buffers are neither copied nor read."""
    entries: list[tuple[bytes, int]] = []
    frames: list[Any] = []
    for payload in (call, *values):
        first, others = (payload[0], payload[1:]) if type(payload) is list else (payload, [])
        if len(first) > INLINE_BYTES:
            first, others = b"", [first, *others]
        entries.append((first, len(others)))
        frames += others
    head = MARK + _encode(entries)
    if len(head) > COLUMN_BYTES:
        return [b"", head, *frames]
    return [head, *frames] if frames else head


def is_composed(payload: Any) -> bool:
    """Whether `compose` has made it; it must have come whole."""
    pieces = payload if isinstance(payload, list | tuple) else (payload,)
    first = pieces[0] if len(pieces[0]) or len(pieces) == 1 else pieces[1]
    return bytes(memoryview(first)[:1]) == MARK


def decompose(payload: Any) -> list[Payload]:
    """The payloads that a composed one is made of, the call's first.

    Raises:
        ProtocolError: its first piece can't be read, or does not fit its frames.
    """
    pieces = list(payload) if isinstance(payload, list | tuple) else [payload]
    head, frames = (pieces[0], pieces[1:]) if len(pieces[0]) else (pieces[1], pieces[2:])
    try:
        entries = _decode(memoryview(head)[1:])
    except (msgspec.DecodeError, ValueError) as error:
        raise ProtocolError(f"an unreadable composed payload: {error}") from None
    payloads: list[Payload] = []
    used = 0
    for first, others in entries:
        if others < 0 or used + others > len(frames):
            raise ProtocolError("a composed payload that lacks frames")
        payloads.append([first, *frames[used : used + others]] if others else first)
        used += others
    if used != len(frames) or not payloads:
        raise ProtocolError("a composed payload with frames that nobody claims")
    return payloads
