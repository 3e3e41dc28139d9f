"""The private folder of an embedded cluster: sockets and a log, mode 0700, in the runtime directory.

A lock file says whether its cluster lives: the kernel drops the lock with the
last process that holds it, however that one ended.  So whoever can take the
lock may sweep the folder.  A folder gets its final name only when it is locked:
between the two a sweeper would take a new one for a dead one.

Imported by the client before it starts its cluster: nothing heavy at the top.
"""

from __future__ import annotations

import fcntl
import os
from time import time

from flamezmq.processes import kill_marked

#: A socket's path must fit into 108 bytes; what we add to the folder's path is shorter than 24.
MAX_FOLDER_BYTES = 80
#: Folders that one sweep removes at most, so that a start is never slow.
SWEEP_AT_MOST = 32
#: A folder that was never finished is a dead one after so long.
UNFINISHED_SECONDS = 60.0

_LOCK = "lock"


def base_folder() -> str:
    """Where private folders go: $XDG_RUNTIME_DIR if it is ours, else the folder for temporary files."""
    wishes = (os.environ.get("XDG_RUNTIME_DIR"), os.environ.get("TMPDIR"))
    for path in wishes:
        if path and len(os.fsencode(path)) + 32 <= MAX_FOLDER_BYTES and os.access(path, os.W_OK | os.X_OK):
            return os.path.abspath(path)
    return "/tmp"


def _prefix() -> str:
    return f"flamezmq-{os.getuid()}-"


class PrivateFolder:
    """A locked folder.  `lock` is the descriptor that holds the lock: hand it to who should hold it."""

    def __init__(self, path: str, lock: int) -> None:
        self.path, self.lock = path, lock

    @classmethod
    def create(cls, base: str | None = None) -> PrivateFolder:
        """A new one; it is gone, or may be swept, when its lock is held no more."""
        base = base or base_folder()
        while True:
            name = _prefix() + os.urandom(4).hex()
            unfinished, path = os.path.join(base, "." + name), os.path.join(base, name)
            try:
                os.mkdir(unfinished, 0o700)
            except FileExistsError:
                continue
            lock = os.open(os.path.join(unfinished, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(unfinished, path)
            return cls(path, lock)

    def file(self, name: str) -> str:
        return os.path.join(self.path, name)

    def release(self) -> None:
        """Hold the lock no longer; others that got the descriptor still do."""
        lock, self.lock = self.lock, -1
        if lock >= 0:
            os.close(lock)

    def remove(self) -> None:
        """Remove it with all that is in it.  Idempotent."""
        remove_tree(self.path)
        self.release()


def remove_tree(path: str) -> None:
    """Remove a folder of plain files and sockets; what others have removed already is no error."""
    try:
        for entry in os.listdir(path):
            try:
                os.unlink(os.path.join(path, entry))
            except FileNotFoundError:
                pass
            except (IsADirectoryError, PermissionError):
                remove_tree(os.path.join(path, entry))
        os.rmdir(path)
    except OSError:
        pass  # somebody else sweeps it, or put something in: the next sweep will see


def sweep(base: str | None = None, at_most: int = SWEEP_AT_MOST) -> int:
    """Remove folders of ours whose cluster is dead, and kill what it left; returns how many there were."""
    base, swept = base or base_folder(), 0
    try:
        names = sorted(os.listdir(base))
    except OSError:
        return 0  # a place where we may write but not look
    for name in names:
        if name.lstrip(".").startswith(_prefix()) and _is_ours(os.path.join(base, name)):
            swept += _sweep_one(base, name)
            if swept >= at_most:
                break
    return swept


def _is_ours(path: str) -> bool:
    """A folder (no link to one) that belongs to this user: others could put traps into /tmp."""
    import stat

    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()


def _sweep_one(base: str, name: str) -> bool:
    path = os.path.join(base, name)
    if name.startswith("."):
        try:
            unfinished = time() - os.stat(path).st_mtime > UNFINISHED_SECONDS
        except OSError:
            return False
        if unfinished:
            remove_tree(path)
        return unfinished
    try:
        lock = os.open(os.path.join(path, _LOCK), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        remove_tree(path)  # its remover was killed half-way: the lock file goes with the rest
        return True
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        kill_marked(path)
        remove_tree(path)
        return True
    except BlockingIOError:
        return False  # its cluster lives
    finally:
        os.close(lock)
