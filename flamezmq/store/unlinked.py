"""Files without a name: they are gone with the last process that has them open, however it ends."""

from __future__ import annotations

import os
from contextlib import suppress


def open_unlinked(folder: str) -> int:
    """The descriptor of a new one in this folder.

    Raises:
        OSError: none can be made there.
    """
    with suppress(OSError):  # a file system that knows no such files; what else is wrong is seen below
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    import tempfile

    fd, name = tempfile.mkstemp(prefix="flamezmq-", dir=folder)
    os.unlink(name)
    return fd
