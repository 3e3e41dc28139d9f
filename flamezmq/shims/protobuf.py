"""The little of Protocol Buffers that flame.proto needs: messages of texts, bytes and numbers.

A message is a dict, field number -> value.  It saves the executor a dependency,
and us generated code: there are four messages of at most four fields.
"""

from __future__ import annotations

from collections.abc import Mapping

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_VARINT_BYTES = 10


def encode(fields: Mapping[int, str | bytes | int | None]) -> bytes:
    """None is left out, as are 0 and "", which proto3 takes for absent anyway; b"" is not."""
    parts: list[bytes] = []
    for number, value in fields.items():
        if isinstance(value, bytes):
            parts += (_varint(number << 3 | _BYTES), _varint(len(value)), value)
        elif isinstance(value, str) and value:
            data = value.encode()
            parts += (_varint(number << 3 | _BYTES), _varint(len(data)), data)
        elif isinstance(value, int) and value:
            parts += (_varint(number << 3 | _VARINT), _varint(value))
    return b"".join(parts)


def decode(data: bytes) -> dict[int, bytes | int]:
    """Texts come as bytes; of a repeated field, the last one.

    Raises:
        ValueError: it is no such message.
    """
    fields: dict[int, bytes | int] = {}
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        kind = key & 7
        if kind == _VARINT:
            fields[key >> 3], at = _read_varint(data, at)
            continue
        if kind == _BYTES:
            length, at = _read_varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"a field of wire type {kind}")
        if at + length > len(data):
            raise ValueError(f"it ends within field {key >> 3}")
        fields[key >> 3] = data[at : at + length]
        at += length
    return fields


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place, byte in enumerate(data[at : at + _MOST_VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError("a number without an end")
