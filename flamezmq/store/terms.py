"""What a node's store may use: of memory, and where."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flamezmq.errors import ConfigError
from flamezmq.store.unlinked import open_unlinked

#: Where disks are, and no memory that looks like one.
SPILL_FOLDER = "/var/tmp"
WAIT_SECONDS = 10.0
#: Of the node's memory, a store that is told nothing may have one part in so many.
PART = 3


@dataclass(frozen=True)
class Terms:
    """limit: bytes that all objects may have in memory; 0: a part of the node's.

    folder: of a tmpfs that is to hold them; "": memory that no file system limits.

    spill_folder: where objects go that have to leave it.
    spill_limit: bytes that they may have there; None: half of what is free.
    wait_seconds: how long `put` waits when memory and disk are full.
    """

    limit: int = 0
    folder: str = ""
    spill_folder: str = SPILL_FOLDER
    spill_limit: int | None = None
    wait_seconds: float = WAIT_SECONDS

    def limit_of(self, memory: int) -> int:
        """Bytes, on a node that has `memory`."""
        return self.limit or memory // PART

    def spill_limit_now(self) -> int:
        """Bytes; 0 where no files can be made."""
        if self.spill_limit is not None:
            return self.spill_limit
        try:
            found = os.statvfs(self.spill_folder)
        except OSError:
            return 0
        return found.f_bavail * found.f_frsize // 2


def terms_of(settings: Mapping[str, Any]) -> Terms:
    """What the settings of a worker say (`flamezmq.config`).

    Raises:
        ConfigError: a folder that they name can't be used on this machine.
    """
    folder = settings.get("store_folder") or ""
    if folder:
        check_folder("store_folder", folder)
    spill_folder = settings.get("spill_folder") or ""
    if spill_folder:
        check_folder("spill_folder", spill_folder)
    wait_seconds = settings.get("store_wait_seconds")
    return Terms(
        settings.get("store_limit") or 0,
        folder,
        spill_folder or SPILL_FOLDER,
        settings.get("spill_limit"),
        WAIT_SECONDS if wait_seconds is None else wait_seconds,
    )


def check_folder(option: str, folder: str) -> None:
    """Whether files can be made there, which are gone again at once.

    Raises:
        ConfigError: they can't, and why.
    """
    try:
        os.close(open_unlinked(folder))
    except OSError as error:
        raise ConfigError(
            f"{option}: no files can be made in {folder!r} ({error.strerror}); name a folder that there is, "
            "on a file system of this machine, or leave the option out"
        ) from error
