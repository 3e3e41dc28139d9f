"""Handles: what travels in place of a payload that lies in a store.

The first piece of a payload is a pickle, which begins with b"\\x80"; a handle
begins with `MARK` instead, and stands alone.  Behind the mark there is a msgpack
array (id of the object, name of the store that keeps it, sizes of its pieces,
where that store is reached from other nodes, the name of its node).
Routers pass it on as they do any payload.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from flamezmq.errors import ProtocolError

MARK: Final = b"\1"
#: Payloads of so many bytes lie in a store, where there is one.
KEPT_BYTES: Final = 1 << 16
ID_BYTES: Final = 16


class Handle(NamedTuple):
    """id: of the object.  home: the store that keeps it.  sizes: of its pieces, in bytes.

    at: the ZeroMQ address of that store; "": it has none, for all are on its node.
    node: the name of its node, for people.
    """

    id: bytes
    home: str
    sizes: tuple[int, ...]
    at: str = ""
    node: str = ""

    @property
    def size(self) -> int:
        """Bytes of all pieces."""
        return sum(self.sizes)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[bytes, str, tuple[int, ...], str, str]).decode


def pack(handle: Handle) -> bytes:
    """The payload that stands for it."""
    return MARK + _encode(tuple(handle))


def is_handle(payload: Any) -> bool:
    """Whether a payload is a handle."""
    return not isinstance(payload, list | tuple) and bytes(memoryview(payload)[:1]) == MARK


def unpack(payload: Any) -> Handle:
    """The handle that a payload is.

    Raises:
        ProtocolError: it can't be read.
    """
    try:
        handle = Handle(*_decode(memoryview(payload)[1:]))
    except (msgspec.DecodeError, ValueError) as error:
        raise ProtocolError(f"an unreadable handle of an object: {error}") from None
    if len(handle.id) != ID_BYTES or not handle.sizes or min(handle.sizes) < 0:
        raise ProtocolError("a handle of no object")
    return handle
