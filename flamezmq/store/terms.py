"""What a node's store may use: of memory, and where."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flamezmq.errors import ConfigError

#: Of the node's memory, a store that is told nothing may have one part in so many.
PART = 3


@dataclass(frozen=True)
class Terms:
    """limit: bytes that all objects may have in memory; 0: a part of the node's.

    folder: of a tmpfs that is to hold them; "": memory that no file system limits.
    """

    limit: int = 0
    folder: str = ""

    def limit_of(self, memory: int) -> int:
        """Bytes, on a node that has `memory`."""
        return self.limit or memory // PART


def terms_of(settings: Mapping[str, Any]) -> Terms:
    """What the settings of a worker say (`flamezmq.config`).

    Raises:
        ConfigError: a folder that they name can't be used on this machine.
    """
    folder = settings.get("store_folder") or ""
    if folder:
        check_folder("store_folder", folder)
    return Terms(settings.get("store_limit") or 0, folder)


def check_folder(option: str, folder: str) -> None:
    """Whether files can be made there.

    Raises:
        ConfigError: they can't, and why.
    """
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise ConfigError(
            f"{option}: no files can be made in {folder!r} ({error.strerror}); name a folder that there is, "
            "on a file system of this machine, or leave the option out"
        ) from error
