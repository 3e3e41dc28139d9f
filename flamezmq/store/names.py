"""Names: of stores and their sockets, and of objects."""

from __future__ import annotations

import itertools
import os
from _blake2 import blake2b  # hashlib loads OpenSSL for it


def name_of(token: str) -> str:
    """The name of the store of the node whose worker has drawn this token, which is no client's business."""
    return blake2b(token.encode(), digest_size=8).hexdigest()


def address(store: str) -> str:
    """Of its socket: in the abstract namespace, where a process that is killed leaves nothing behind."""
    return f"\0flamezmq-{store}"


def shown(id: str) -> str:
    """An object's id for people: of 32 digits the 4 that tell its makers apart, and its number as theirs."""
    return f"{id[:4]}-{int(id[16:], 16)}"


class Ids:
    """Ids of objects: 8 bytes drawn by this process, and a count."""

    def __init__(self) -> None:
        self._fork()
        os.register_at_fork(after_in_child=self._fork)

    def _fork(self) -> None:
        self._prefix = os.urandom(8)
        self._count = itertools.count(1)

    def next(self) -> bytes:
        """One that nobody else makes; from any thread."""
        return self._prefix + next(self._count).to_bytes(8, "big")


ids = Ids()
