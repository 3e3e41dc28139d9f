"""Mappings of segments into this process, as memoryviews.

`mmap.mmap` keeps a descriptor open for each mapping, up to Python 3.12: a
program with some thousand views would run out of them.  So the system call is
made here.  A mapping lives as long as anything that was made of its view: numpy
arrays, slices, the pieces of a pickle.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref

_libc = ctypes.CDLL(None, use_errno=True)
_mmap, _munmap = _libc.mmap, _libc.munmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_madvise = _libc.madvise
_madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_POPULATE_WRITE = 23
_FAILED = ctypes.c_void_p(-1).value


def shared(fd: int, size: int) -> memoryview:
    """What stands in the segment, read-only.

    Raises:
        OSError: the kernel has no room for another mapping (ENOMEM).
    """
    return _map(fd, size, mmap.PROT_READ, mmap.MAP_SHARED).toreadonly()


def private(fd: int, size: int) -> memoryview:
    """The same, writable: a page becomes this process's own when it is first written to."""
    return _map(fd, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE)


def writable(fd: int, size: int) -> memoryview:
    """The segment itself, to fill it; its page tables are made at once: one by one they cost a multiple."""
    return _map(fd, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | mmap.MAP_POPULATE)


def memory_at(address: int, size: int) -> memoryview:
    """Memory of somebody else's, as long as that is there; said to be writable, whatever its owner says."""
    return memoryview((ctypes.c_ubyte * size).from_address(address)).cast("B")


class Target:
    """A segment that is filled chunk by chunk, by its owner's own descriptor, which does not count as a user.

    One of which nothing was written to yet is written to: the kernel clears a page of it before it maps it,
    but not before it is written to as a whole.  All others are mapped, which is twice as fast; who fills the
    segment again does so in the same mapping.
    """

    def __init__(self, fd: int, size: int, is_fresh: bool) -> None:
        self._fd = fd
        self._memory = None if is_fresh else _map(fd, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED)
        self._touched: set[int] = set()

    def write(self, data: memoryview, offset: int) -> None:
        """Copy to there."""
        if self._memory is None:
            os.pwrite(self._fd, data, offset)
            return
        there = self._memory[offset : offset + len(data)]
        if offset not in self._touched:
            self._touched.add(offset)
            _touch(there)
        there[:] = data


def _touch(there: memoryview) -> None:
    """Make the page tables at once.  Kernels before 5.14 make them one by one, which takes longer."""
    address = ctypes.addressof(ctypes.c_ubyte.from_buffer(there))
    before = address % mmap.PAGESIZE
    _madvise(address - before, before + len(there), _POPULATE_WRITE)


def _map(fd: int, size: int, access: int, kind: int) -> memoryview:
    address = _mmap(None, size, access, kind, fd, 0)
    if address == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, f"mapping {size:,} bytes: {os.strerror(number)}")
    memory = (ctypes.c_ubyte * size).from_address(address)
    # At the end of the process the kernel does it: an array of the user's may be looked at until then.
    weakref.finalize(memory, _munmap, address, size).atexit = False
    return memoryview(memory).cast("B")
