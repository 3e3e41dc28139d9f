"""How the pieces of a payload lie in a segment: one behind the other, each at a multiple of 64 bytes.

64 is what vector instructions like, and what numpy and Arrow align to.  An
object is described by the sizes of its pieces alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

ALIGNMENT = 64
#: Copied at a time: between two of them other threads of this process may have the GIL.
CHUNK_BYTES = 2 << 20


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
        for start in range(0, len(source), CHUNK_BYTES):
            part = source[start : start + CHUNK_BYTES]
            target[offset + start : offset + start + len(part)] = part
        offset += len(source)


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
