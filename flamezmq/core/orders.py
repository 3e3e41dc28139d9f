"""What a client says beside its tasks: opening, closing, cancelling, asking.

Restartable, as core/caller.py is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from flamezmq.core.link import Link
from flamezmq.wire import codec


class Orders:
    """Messages of control, in the order in which they are to go out.

    Each has the number that the link will give it, 0 until it is about to be
    committed: what is found with a number may be in the link already.
    """

    def __init__(self) -> None:
        self._waiting: deque[list[Any]] = deque()  # [message, number, frames]

    def __len__(self) -> int:
        return len(self._waiting)

    def append(self, message: Any, frames: Iterable[Any] = ()) -> None:
        self._waiting.append([message, 0, frames])

    def complete(self, link: Link) -> None:
        """Finish what was begun."""
        waiting = self._waiting
        if waiting and waiting[0][1]:
            self._commit(link, waiting[0])

    def stage(self, link: Link) -> None:
        """Commit all of them to the link."""
        while self._waiting:
            order = self._waiting[0]
            if not order[1]:
                order[1] = link.sent + 1
            self._commit(link, order)

    def _commit(self, link: Link, order: list[Any]) -> None:
        if link.sent < order[1]:
            frames = [codec.encode(order[0]), *order[2]]
            link.enqueue(frames, sum(map(len, frames)))
        self._waiting.popleft()
