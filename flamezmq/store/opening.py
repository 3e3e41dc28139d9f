"""Opening objects for a process: what it is told of each, and the descriptors that it gets."""

from __future__ import annotations

import os
from collections.abc import Mapping

from flamezmq.store import messages as s
from flamezmq.store import segments
from flamezmq.store.peers import Object, Waiting


class Opening:
    """The answer to one question; `close` when it was sent.

    found, fds  what is said of the first objects that were asked for, and their descriptors
    """

    def __init__(self, asked: Waiting, objects: Mapping[bytes, Object]) -> None:
        self._asked = asked
        self._room = s.PACKET_BYTES // 2  # for what lies in no segment
        self.found: list[s.Found] = []
        self.fds: list[int] = []
        try:
            for name in asked.question.ids[: s.MOST_FDS]:
                found = self._open(name, objects.get(name))
                if found is None:
                    break  # it has a question of its own next
                self.found.append(found)
        except OSError:  # no descriptors are left for more, or not even for one
            if not self.found:
                raise

    def close(self) -> None:
        """The descriptors are passed, or nobody takes them."""
        for fd in self.fds:
            os.close(fd)

    def _open(self, name: bytes, one: Object | None) -> s.Found | None:
        if one is None:
            return self._asked.gone.get(name) or s.Found([])
        if one.lost:
            return s.Found([], why=one.lost)
        if one.segment is not None:
            self.fds.append(segments.open_reader(one.segment.fd))
            return s.Found(one.sizes, one.segment.size)
        if one.piece is not None:
            return self._open_on_disk(name, one)
        self._room -= len(one.data)
        return None if self._room < 0 and self.found else s.Found(one.sizes, 0, one.data)

    def _open_on_disk(self, name: bytes, one: Object) -> s.Found | None:
        piece = one.piece
        if piece is None or name not in self._asked.away:
            return None
        if self._asked.question.modest:
            return s.Found([])
        self.fds.append(segments.open_reader(piece.volume.fd))
        return s.Found(one.sizes, piece.size, offset=piece.offset, checks=piece.checks)
