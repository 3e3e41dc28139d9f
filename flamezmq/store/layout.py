"""How the pieces of a payload lie in a segment: one behind the other, each at a multiple of 64 bytes.

64 is what vector instructions like, and what numpy and Arrow align to.  An
object is described by the sizes of its pieces alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from flamezmq.store.copying import copy

ALIGNMENT = 64


def extent(sizes: Iterable[int]) -> int:
    """Bytes from the first byte of the first piece to the last one of the last."""
    end = 0
    for size in sizes:
        end = _aligned(end) + size
    return end


def fill(target: memoryview, pieces: Sequence[bytes | bytearray | memoryview]) -> None:
    """Copy the pieces into their places; the only copy that a put makes."""
    offset = 0
    for piece in pieces:
        source = memoryview(piece).cast("B")
        offset = _aligned(offset)
        copy(target[offset : offset + len(source)], source)
        offset += len(source)


def write(fd: int, pieces: Sequence[Any]) -> None:
    """The same by writing to the segment's file.

    For one that is fresh: its pages are made when they are first touched, and who touches them through a
    mapping has them cleared before they are copied over.  That takes twice as long as this.
    """
    offset = 0
    for piece in pieces:
        source = memoryview(piece).cast("B")
        offset = _aligned(offset)
        while source:  # two gigabytes at a time
            written = os.pwrite(fd, source, offset)
            source, offset = source[written:], offset + written


def chunks(pieces: Sequence[Any], length: int) -> Iterator[tuple[int, memoryview | bytearray]]:
    """(offset, bytes) of what `fill` would make, `length` bytes at a time.

    Views where they are of one piece; what is of several is put together.
    """
    placed = []
    end = 0
    for piece in pieces:
        source = memoryview(piece).cast("B")
        placed.append((_aligned(end), source))
        end = _aligned(end) + len(source)
    first = 0
    for offset in range(0, end, length):
        until = min(offset + length, end)
        while placed[first][0] + len(placed[first][1]) <= offset:
            first += 1
        begins, source = placed[first]
        if begins <= offset and until <= begins + len(source):
            yield offset, source[offset - begins : until - begins]
        else:
            yield offset, _assembled(placed, first, offset, until)


def _assembled(placed: list[tuple[int, memoryview]], first: int, offset: int, until: int) -> bytearray:
    made = bytearray(until - offset)
    for k in range(first, len(placed)):
        begins, source = placed[k]
        if begins >= until:
            break
        low, high = max(begins, offset), min(begins + len(source), until)
        if low < high:
            made[low - offset : high - offset] = source[low - begins : high - begins]
    return made


def cut(memory: memoryview, sizes: Iterable[int]) -> list[memoryview]:
    """The pieces, as views of `memory`."""
    pieces = []
    offset = 0
    for size in sizes:
        offset = _aligned(offset)
        pieces.append(memory[offset : offset + size])
        offset += size
    return pieces


def cut_packed(data: bytes, sizes: Iterable[int]) -> list[bytes]:
    """The pieces of a small object, which stand one behind the other; each in memory of its own."""
    pieces = []
    offset = 0
    for size in sizes:
        pieces.append(data[offset : offset + size])
        offset += size
    return pieces


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
