"""The store of a worker: its socket from the start, its thread from the first visitor on."""

from __future__ import annotations

import os
import resource
import threading
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from flamezmq.address import NO_DOOR
from flamezmq.store import segments
from flamezmq.store.doors import open_doors
from flamezmq.store.names import name_of
from flamezmq.store.pool import Files, Pool
from flamezmq.store.terms import Terms
from flamezmq.wire.objects import Holders, News

if TYPE_CHECKING:
    from flamezmq.store.server import Server

#: The most segments, where the system would allow more.
MOST_SEGMENTS = 1 << 20
#: How long the thread may take to end.
STOP_SECONDS = 2.0


class Hosting:
    """What the worker's main thread has of the store.

    name     of the store; "": this system lets us have none
    fds      readable when somebody wants in, and the thread is not there yet; then call `start`
    at       its ZeroMQ address, or ""
    limit    bytes of memory that it may have
    news_fd  readable when the router is to hear something; then call `news`
    """

    def __init__(self, token: str, terms: Terms, limit: int, door: str = "", node: str = "") -> None:
        self._terms, self.limit = terms, limit
        self._server: Server | None = None
        self._thread: threading.Thread | None = None
        self._news: deque[News] = deque()
        self.name, self.at = name_of(token), ""
        self.fds: list[int] = []
        self.news_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            if door == NO_DOOR:
                raise OSError
            self._doors = open_doors(self.name, door, node)
        except OSError:
            self.name = ""  # no such sockets here, or wanted: objects travel, then
        else:
            self.at = self._doors.at
            self.fds = [door.fileno() for door in (self._doors.inner, self._doors.outer) if door is not None]

    def start(self) -> None:
        """Somebody is there: from now on the thread accepts."""
        self.fds = []
        files = Files(create=partial(segments.create, folder=self._terms.folder))
        pool = Pool(self.limit, self.limit // 4, files, _most_segments())
        from flamezmq.store.server import Server  # a cluster without objects starts without it

        self._server = Server(self._doors, pool, self._on_news, self._terms)
        self._thread = threading.Thread(target=self._server.serve, name="flm-store", daemon=True)
        self._thread.start()

    def news(self) -> list[News]:
        """What the router is to hear, since the last call."""
        with suppress(BlockingIOError):
            os.eventfd_read(self.news_fd)
        found = []
        while self._news:
            found.append(self._news.popleft())
        return found

    def on_holders(self, answer: Holders) -> None:
        """The router's answer to a `WhoHas` of the store."""
        if self._server is not None:
            self._server.on_holders(answer)

    def end_session(self, session: str) -> None:
        """Its objects go."""
        if self._server is not None:
            self._server.end_session(session)

    def lose(self, pid: int, last: bytes) -> None:
        """The executor of this pid has ended; of its results those after object `last` reach nobody."""
        if self._server is not None:
            self._server.lose((pid, last))

    def discard(self, ids: list[bytes]) -> None:
        """These objects go."""
        if self._server is not None:
            self._server.drop(ids)

    def stop(self) -> None:
        """End the thread; views of objects that other processes have stay as they are."""
        if self._thread is not None and self._server is not None:
            self._server.stop()
            self._thread.join(STOP_SECONDS)
        elif self.name:
            self._doors.inner.close()
            if self._doors.outer is not None:
                self._doors.outer.close()

    def _on_news(self, message: News) -> None:
        self._news.append(message)
        os.eventfd_write(self.news_fd, 1)


def _most_segments() -> int:
    """How many open files the store may have: a quarter of those that are left is for all else."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY:
        return MOST_SEGMENTS
    return min(MOST_SEGMENTS, max(1, (soft - len(os.listdir("/proc/self/fd"))) * 3 // 4))
