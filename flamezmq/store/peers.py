"""Who speaks with a store, and what about."""

from __future__ import annotations

import os
import socket
import struct

from flamezmq.store import messages as s
from flamezmq.store.disk import Piece
from flamezmq.store.pool import Segment

_CREDENTIALS = struct.Struct("3i")


class Gone(Exception):
    """This peer has hung up, or has said what makes no sense."""


class Object:
    """One that is here: in a segment, on the disk, or, if it is small, as `data`.

    name     for people
    lost     why it can't be had any more, although it was not dropped
    is_part  of the versions of another one, which is told of instead
    """

    __slots__ = ("data", "is_part", "lost", "name", "piece", "segment", "session", "sizes")

    def __init__(
        self, session: str, sizes: list[int], segment: Segment | None, data: bytes, name: str = ""
    ) -> None:
        self.session, self.sizes, self.segment, self.data = session, sizes, segment, data
        self.name = name
        self.piece: Piece | None = None
        self.lost = ""
        self.is_part = False

    @property
    def is_away(self) -> bool:
        """Whether it is only on the disk."""
        return self.segment is None and self.piece is not None


class Peer:
    """A connection of process `pid`.

    leased  what it may fill
    known   segments that it was passed the descriptor of
    """

    __slots__ = ("known", "leased", "pid", "socket")

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self.socket, self.pid = connection, pid
        self.leased: dict[int, Segment] = {}
        self.known: set[int] = set()


def whose(connection: socket.socket) -> int:
    """Pid of the process that has made this connection; -1: it is another user's."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(packed)
    return int(pid) if uid in (os.getuid(), 0) else -1


class Waiting:
    """A question about objects of which some are not here, or not yet.

    fresh  it may be that their Put has only not been read
    gone   those that can't be had, and what to say of them
    away   those that stay on the disk, and are read there
    """

    __slots__ = ("away", "fresh", "gone", "peer", "question")

    def __init__(self, peer: Peer, question: s.Open) -> None:
        self.peer, self.question = peer, question
        self.fresh = True
        self.gone: dict[bytes, s.Found] = {}
        self.away: set[bytes] = set()
