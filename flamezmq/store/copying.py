"""Copying, and comparing, without the GIL, and as a whole.

A copy of 256 MiB takes some 25 ms, in which other threads of the user's may run.
In parts of some megabytes it would take 40 ms: what is larger than a good part
of the cache the C library writes past the cache, if it sees all of it.
"""

from __future__ import annotations

import ctypes
from typing import Any

#: What is smaller is copied faster than the GIL is let go of and had again.
LARGE_BYTES = 4 << 20
_SIMPLE = 0


class _Buffer(ctypes.Structure):
    """Python's Py_buffer: how C code sees an object's memory (part of the stable ABI since 3.11)."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_get, _release = ctypes.pythonapi.PyObject_GetBuffer, ctypes.pythonapi.PyBuffer_Release
_get.argtypes = [ctypes.py_object, ctypes.POINTER(_Buffer), ctypes.c_int]
_release.argtypes = [ctypes.POINTER(_Buffer)]
_release.restype = None
_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]


def copy(target: memoryview, source: memoryview) -> None:
    """Copy the bytes of one contiguous view into another one of the same length, which is writable.

    Raises:
        ValueError: they are not of one length.
    """
    if len(target) != len(source) or target.readonly:
        raise ValueError(f"{len(source):,} bytes into {len(target):,}, or into what is read-only")
    if len(source) < LARGE_BYTES:
        target[:] = source
        return
    to, of = _Buffer(), _Buffer()
    _borrow(target, to)
    try:
        _borrow(source, of)
        try:
            ctypes.memmove(to.buf, of.buf, len(source))
        finally:
            _release(ctypes.byref(of))
    finally:
        _release(ctypes.byref(to))


def are_same(one: memoryview, other: memoryview) -> bool:
    """Whether two contiguous views have the same bytes."""
    if len(one) != len(other):
        return False
    this, that = _Buffer(), _Buffer()
    _borrow(one, this)
    try:
        _borrow(other, that)
        try:
            return bool(_memcmp(this.buf, that.buf, len(one)) == 0)
        finally:
            _release(ctypes.byref(that))
    finally:
        _release(ctypes.byref(this))


def _borrow(view: Any, buffer: _Buffer) -> None:
    _get(view, ctypes.byref(buffer), _SIMPLE)
