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


def _map(fd: int, size: int, access: int, kind: int) -> memoryview:
    address = _mmap(None, size, access, kind, fd, 0)
    if address == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, f"mapping {size:,} bytes: {os.strerror(number)}")
    memory = (ctypes.c_ubyte * size).from_address(address)
    # At the end of the process the kernel does it: an array of the user's may be looked at until then.
    weakref.finalize(memory, _munmap, address, size).atexit = False
    return memoryview(memory).cast("B")
