"""Segments: anonymous files in memory that hold one object each, and that the kernel counts the users of.

The rule of the whole store stands here: memory is used again only when nobody
holds a view of it, nor a private mapping.  Nobody keeps books on views: they
live in other processes, which get killed.  Instead each reader gets an open
file of its own (`open_reader`), and a mapping keeps that file open for as long
as it lives, also in a forked child, also after the descriptor is closed.  The
kernel grants the owner a write lease exactly when no other open file of this
inode is left: `is_unused` asks for it, and gives it back.

Writers get the owner's own open file, which does not count: a writer may keep
its mapping, with the page tables that are dear to make, for its next object.

Pages are allocated when a segment is made, so that a full system is an error
here (OSError: ENOSPC, ENOMEM) and never a SIGBUS in the user's program.
"""

from __future__ import annotations

import fcntl
import os

from flamezmq.store.unlinked import open_unlinked

#: Classes of sizes: so many steps from one power of two to the next, none finer than a page.
STEPS = 16
PAGE_BYTES = 4096


def round_up(size: int) -> int:
    """Bytes of the segment for an object of `size` bytes: a class of sizes, so that segments fit again.

    At most one sixteenth is lost, or what is missing to a page.
    """
    size = max(size, 1)
    step = max(PAGE_BYTES, 1 << max(0, (size - 1).bit_length() - 1 - STEPS.bit_length() + 1))
    return -(-size // step) * step


def create(size: int, folder: str = "") -> int:
    """A new segment of `size` bytes, all of them allocated; its descriptor is the owner's.

    folder: of a tmpfs that is to hold it, by a file without a name; "": memory that no file system limits.

    Raises:
        OSError: ENOSPC or ENOMEM, there is no memory for it; EMFILE, the process has too many files.
    """
    if folder:
        fd = open_unlinked(folder)
    else:
        made = os.memfd_create("flamezmq-object", os.MFD_CLOEXEC)
        try:
            fd = _reopen(made, os.O_RDWR)  # the first file of a memfd does not count as a writer: no leases
        finally:
            os.close(made)
    try:
        if size:
            os.posix_fallocate(fd, 0, size)
    except OSError:
        os.close(fd)
        raise
    return fd


def open_reader(fd: int) -> int:
    """A read-only open file of its own; to be passed to one process, and closed here."""
    return _reopen(fd, os.O_RDONLY)


def is_unused(fd: int) -> bool:
    """Whether no process has this segment open or mapped but by the owner's descriptor.

    False where the file system knows no leases: the memory is then freed when its last user ends, and
    only not used again.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError:
        return False
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return True


def empty(fd: int) -> None:
    """Give the pages back, though a writer may still have them mapped (it will not touch them); and close."""
    try:
        os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def _reopen(fd: int, flags: int) -> int:
    return os.open(f"/proc/self/fd/{fd}", flags | os.O_CLOEXEC)
