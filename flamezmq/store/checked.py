"""Objects by copy: where nothing can be mapped, and from the disk, by checksums."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence

#: Bytes of what is on the disk that have a checksum of their own, and are read and written at a time.
CHECK_BYTES = 1 << 20


class Damaged(Exception):
    """What stands on the disk is not what was written; the text says how that was seen."""


def read_part(fd: int, offset: int, target: memoryview, check: int) -> None:
    """Fill `target`, which is one part of an object, and compare.

    Raises:
        Damaged: it is another one, or the file ends before it does.
        OSError: it can't be read.
    """
    if _read(fd, offset, target) < len(target):
        raise Damaged("its file was cut short")
    if zlib.crc32(target) != check:
        raise Damaged("its checksum is another one")


def checked_copy(fd: int, offset: int, size: int, checks: Sequence[int]) -> memoryview:
    """An object that begins there in a file, in memory of this process.

    Raises:
        Damaged: something else stands there, or nothing can be read.
    """
    memory = memoryview(bytearray(size))
    try:
        for number, check in enumerate(checks):
            start = number * CHECK_BYTES
            read_part(fd, offset + start, memory[start : start + CHECK_BYTES], check)
    except OSError as error:
        raise Damaged(f"it can't be read: {error.strerror}") from error
    return memory


def copy_of(fd: int, size: int) -> memoryview:
    """What stands in a segment, in memory of this process."""
    memory = memoryview(bytearray(size))
    _read(fd, 0, memory)
    return memory


def _read(fd: int, offset: int, target: memoryview) -> int:
    done = 0
    while done < len(target):
        read = os.preadv(fd, [target[done:]], offset + done)
        if not read:
            break
        done += read
    return done
