"""Logs: the last of what each executor has printed, and which task printed it.

Bounded twice: each executor keeps its latest `EXECUTOR_BYTES`, and when all
together pass `TOTAL_BYTES`, who has been silent for longest loses its oldest
lines.  An executor's log outlives it.  Nothing is kept, and nothing costs, while
nobody prints.

Pure: texts and `now` come in, rows go out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

EXECUTOR_BYTES = 64 << 10
TOTAL_BYTES = 8 << 20
#: What a piece costs beside its characters, about.
PIECE_BYTES = 150


class Piece(NamedTuple):
    """What one task printed in one go.  number: rising over all; task: its index, -1 if no task did."""

    number: int
    when: float
    executor: str
    session: str
    task: int
    stream: int
    text: str
    dropped: int

    @property
    def size(self) -> int:
        return len(self.text) + PIECE_BYTES


class Shelf:
    """The pieces of one executor, oldest first; `sessions` counts them by session id."""

    __slots__ = ("pieces", "sessions", "size")

    def __init__(self) -> None:
        self.pieces: deque[Piece] = deque()
        self.sessions: dict[str, int] = {}
        self.size = 0

    def put(self, piece: Piece) -> None:
        self.pieces.append(piece)
        self.size += piece.size
        self.sessions[piece.session] = self.sessions.get(piece.session, 0) + 1

    def drop_oldest(self) -> None:
        piece = self.pieces.popleft()
        self.size -= piece.size
        left = self.sessions[piece.session] - 1
        if left:
            self.sessions[piece.session] = left
        else:
            del self.sessions[piece.session]


class Logs:
    """All of them, by the executor's name; the one that printed last comes last."""

    def __init__(self, executor_bytes: int = EXECUTOR_BYTES, total_bytes: int = TOTAL_BYTES) -> None:
        self.executor_bytes, self.total_bytes = executor_bytes, total_bytes
        self.size = 0
        self._shelves: dict[str, Shelf] = {}
        self._last = 0

    def __contains__(self, executor: str) -> bool:
        return executor in self._shelves

    def add(
        self, executor: str, session: str, task: int, stream: int, text: str, dropped: int, now: float
    ) -> None:
        """Keep a text; what is longer than an executor may keep loses its beginning."""
        self._last += 1
        text = text[-(self.executor_bytes - PIECE_BYTES) :]
        piece = Piece(self._last, now, executor, session, task, stream, text, dropped)
        shelf = self._shelves.pop(executor, None) or Shelf()
        self._shelves[executor] = shelf
        self.size -= shelf.size
        shelf.put(piece)
        while shelf.size > self.executor_bytes:
            shelf.drop_oldest()
        self.size += shelf.size
        while self.size > self.total_bytes:
            silent, shelf = next(iter(self._shelves.items()))
            self.size -= shelf.pieces[0].size
            shelf.drop_oldest()
            if not shelf.pieces:
                del self._shelves[silent]

    def find(self, executor: str, session: str, task: int, after: int) -> Iterator[Piece]:
        """What fits the question ("" and -1: any) and came after piece number `after`, in that order."""
        if executor:
            shelf = self._shelves.get(executor)
            shelves = [shelf] if shelf is not None else []
        else:
            shelves = [s for s in self._shelves.values() if not session or session in s.sessions]
        found = [
            piece
            for shelf in shelves
            if shelf.pieces[-1].number > after
            for piece in shelf.pieces
            if piece.number > after
            and (not session or piece.session == session)
            and (task < 0 or piece.task == task)
        ]
        found.sort()
        return iter(found)

    def statistics(self) -> dict[str, int]:
        return {"executors": len(self._shelves), "bytes": self.size, "pieces": self._last}

    def check(self) -> None:
        """Compare every index with every other."""
        for name, shelf in self._shelves.items():
            assert shelf.pieces and shelf.size == sum(piece.size for piece in shelf.pieces)
            assert all(piece.executor == name for piece in shelf.pieces)
            assert sum(shelf.sessions.values()) == len(shelf.pieces)
            assert shelf.size <= self.executor_bytes
        assert self.size == sum(shelf.size for shelf in self._shelves.values()) <= self.total_bytes
