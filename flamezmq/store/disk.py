"""The disk of a store: objects that had to leave memory, written, read and checked in a thread of their own.

Objects lie one behind the other in *volumes*: files without a name, so that
nothing is left of them however the process ends.  An object costs no descriptor
there.  The room of one that is gone is given back by a hole in its volume, and a
volume without objects is closed.

Written through the page cache, whose pages are told to be needed no more: that
was as fast as O_DIRECT or faster (1.5 against 1.2 GB/s, both ways, 4 MiB at a
time, on a virtual disk), and works on every file system.

What comes back is compared with checksums that stay in memory: a damaged or
shortened file is an error, never a wrong value.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import queue
import threading
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from flamezmq.store.checked import CHECK_BYTES, Damaged, read_part
from flamezmq.store.unlinked import open_unlinked

#: A volume that has so many bytes gets no more objects.
VOLUME_BYTES = 256 << 20
#: What is freed are whole blocks.
BLOCK_BYTES = 4096
#: After so many bytes the page cache is told that what was written is not needed.
ADVICE_BYTES = 4 << 20
#: How long the thread may take to end.
STOP_SECONDS = 1.0
_PUNCH_HOLE, _KEEP_SIZE = 2, 1

_fallocate = ctypes.CDLL(None, use_errno=True).fallocate
_fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class Volume:
    """A file of the disk.  end: where the next object begins.  live: objects in it."""

    __slots__ = ("end", "fd", "live")

    def __init__(self, fd: int) -> None:
        self.fd, self.end, self.live = fd, 0, 0


class Piece(NamedTuple):
    """Where an object lies.  checks: the CRC-32 of each of its parts of CHECK_BYTES."""

    volume: Volume
    offset: int
    size: int
    checks: tuple[int, ...]


def on_disk(size: int) -> int:
    """Bytes that an object of `size` takes there."""
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


class Disk:
    """One store's.  `tell` has a function called by the store's thread.

    folder  of the volumes
    """

    def __init__(self, folder: str, tell: Callable[[Callable[[Any], None], Any], object]) -> None:
        self.folder, self._tell = folder, tell
        self._jobs: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._volumes: list[Volume] = []
        self._current: Volume | None = None

    # --- the store's thread

    def write(self, source: int, size: int, then: Callable[[Piece | str], None]) -> None:
        """Keep the first `size` bytes of a segment; `then` gets where, or why not."""
        self._do(lambda: self._tell(then, self._write(source, size)))

    def read(self, piece: Piece, target: int, then: Callable[[str], None]) -> None:
        """Bring an object into a segment; `then` gets "", or what is wrong with it."""
        self._do(lambda: self._tell(then, self._read(piece, partial(os.pwrite, target))))

    def read_chunk(self, piece: Piece, offset: int, length: int, then: Callable[[bytes | str], None]) -> None:
        """Bytes of an object, which may be shorter at its end; `then` gets them, or what is wrong."""
        self._do(lambda: self._tell(then, self._chunk(piece, offset, length)))

    def free(self, piece: Piece) -> None:
        """This object is needed no more."""
        self._do(lambda: self._free(piece))

    def close(self) -> None:
        """Give all back; what is being written or read is broken off."""
        self._stopping = True
        if self._thread is not None:
            self._jobs.put(lambda: None)
            self._thread.join(STOP_SECONDS)
        for volume in self._volumes:
            os.close(volume.fd)
        self._volumes.clear()

    def _do(self, job: Callable[[], object]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="flm-disk", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    # --- its own

    def _work(self) -> None:
        self._buffer = memoryview(mmap.mmap(-1, CHECK_BYTES))
        while not self._stopping:
            self._jobs.get()()

    def _write(self, source: int, size: int) -> Piece | str:
        try:
            volume = self._volume()
        except OSError as error:
            return f"no file can be made in {self.folder}: {error.strerror}"
        start = volume.end
        try:
            checks = tuple(self._copy_out(source, size, volume.fd, start))
        except OSError as error:
            self._punch(volume, start, on_disk(size))
            return f"writing to {self.folder}: {error.strerror}"
        volume.end += on_disk(size)
        volume.live += 1
        return Piece(volume, start, size, checks)

    def _copy_out(self, source: int, size: int, fd: int, start: int) -> list[int]:
        checks = []
        for at in range(0, size, CHECK_BYTES):
            part = self._buffer[: min(CHECK_BYTES, size - at)]
            os.preadv(source, [part], at)
            checks.append(zlib.crc32(part))
            done = 0
            while done < len(part):
                done += os.pwrite(fd, part[done:], start + at + done)
            if (at + len(part)) % ADVICE_BYTES == 0 or at + len(part) == size:
                os.posix_fadvise(fd, 0, start + at + len(part), os.POSIX_FADV_DONTNEED)
            if self._stopping:
                break
        return checks

    def _read(self, piece: Piece, put: Callable[[memoryview, int], object]) -> str:
        fd = piece.volume.fd
        try:
            for number, check in enumerate(piece.checks):
                at = number * CHECK_BYTES
                part = self._buffer[: min(CHECK_BYTES, piece.size - at)]
                read_part(fd, piece.offset + at, part, check)
                put(part, at)
                if self._stopping:
                    break
            os.posix_fadvise(fd, piece.offset, piece.size, os.POSIX_FADV_DONTNEED)
        except Damaged as error:
            return f"it lay on the disk, in {self.folder}, where {error}"
        except OSError as error:
            return f"it lay on the disk, in {self.folder}, and can't be read: {error.strerror}"
        return ""

    def _chunk(self, piece: Piece, offset: int, length: int) -> bytes | str:
        """Whole parts are read, whatever is asked for, so that they can be compared."""
        first, last = offset // CHECK_BYTES, (offset + length - 1) // CHECK_BYTES
        start = first * CHECK_BYTES
        whole = Piece(
            piece.volume,
            piece.offset + start,
            min(piece.size, (last + 1) * CHECK_BYTES) - start,
            piece.checks[first : last + 1],
        )
        parts: list[bytes] = []
        why = self._read(whole, lambda part, _: parts.append(bytes(part)))
        return why or b"".join(parts)[offset - start : offset - start + length]

    def _free(self, piece: Piece) -> None:
        volume = piece.volume
        volume.live -= 1
        if volume.live:
            self._punch(volume, piece.offset, on_disk(piece.size))
            return
        self._volumes.remove(volume)
        if volume is self._current:
            self._current = None
        os.close(volume.fd)

    def _volume(self) -> Volume:
        if self._current is None or self._current.end >= VOLUME_BYTES:
            self._current = Volume(open_unlinked(self.folder))
            self._volumes.append(self._current)
        return self._current

    @staticmethod
    def _punch(volume: Volume, offset: int, size: int) -> None:
        """Where the file system can't, the room is given back with the volume."""
        _fallocate(volume.fd, _PUNCH_HOLE | _KEEP_SIZE, offset, size)
