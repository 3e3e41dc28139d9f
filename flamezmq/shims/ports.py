"""Ports of 127.0.0.1 for servers that are about to start: a free one, and whose it is in the end.

Between our choice and the server's bind somebody else may take the port, most
likely another executor that starts a server at the same moment.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable

HOST = "127.0.0.1"
_LISTENING = "0A"


def free_port() -> int:
    with socket.socket() as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])


def is_free(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that have ended do not count
        try:
            one.bind((HOST, port))
        except OSError:
            return False
    return True


def listens(port: int, pids: Iterable[int]) -> bool:
    """Is it one of these processes that listens at the port?  False if that can't be seen."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(port)}
    return any(wanted.intersection(_sockets(pid)) for pid in pids) if wanted else False


def _inodes(port: int) -> Iterable[str]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table) as file:
                rows = file.read().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            columns = row.split()
            if columns[3] == _LISTENING and int(columns[1].rpartition(":")[2], 16) == port:
                yield columns[9]


def _sockets(pid: int) -> Iterable[str]:
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        try:
            yield os.readlink(f"{folder}/{name}")
        except OSError:
            continue  # it has just been closed
