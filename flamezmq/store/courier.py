"""Objects on their way between nodes: served to other stores, fetched from them.

Part of the store's thread.  `fetch` begins to have an object brought; its
segment fills by chunks, of which `WINDOW` are asked for at a time; when all are
here, or when it can't be had, `on_end` is told.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any, Protocol

import zmq

from flamezmq.errors import ProtocolError
from flamezmq.store.knocking import Knock
from flamezmq.wire import transfer as t

#: Chunks of one object that are asked for at a time.
WINDOW = 8
#: A store that says nothing for so long, while something is wanted of it, is given up.
SILENCE_SECONDS = 10.0
#: After so long it is asked whether anybody listens there at all.
KNOCK_SECONDS = 0.5
#: Messages taken in, in one turn.
TURN_MESSAGES = 32
#: How often a chunk that came in pieces is asked for again.
MOST_REPEATS = 3


class Source(Protocol):
    """Who has objects to serve."""

    def read(self, name: bytes, offset: int, length: int) -> bytes | None:
        """Bytes of an object as it lies in its segment; None: it is not here, or has no such bytes."""
        ...


class Fetch:
    """One object on its way here.

    fd       of the segment that it fills
    asked    offset behind the last chunk that was asked for
    missing  offsets of chunks that are on their way -> how often each was asked for
    """

    __slots__ = ("address", "asked", "fd", "heard", "missing", "name", "size")

    def __init__(self, name: bytes, address: str, fd: int, size: int) -> None:
        self.name, self.address, self.fd, self.size = name, address, fd, size
        self.asked = 0
        self.missing: dict[int, int] = {}
        self.heard = monotonic()


class Courier:
    """The sockets to other stores.

    on_end  called with the name of an object, why it did not come ("": it is here), and whether that
            is because its node can't be reached
    """

    def __init__(
        self, context: zmq.Context[Any], source: Source, on_end: Callable[[bytes, str, bool], None]
    ) -> None:
        self._context, self._source, self._on_end = context, source, on_end
        self._counter: zmq.Socket[bytes] | None = None
        self._lines: dict[str, zmq.Socket[bytes]] = {}
        self._knocks: dict[str, Knock] = {}
        self.fetches: dict[bytes, Fetch] = {}

    def serve(self, address: str, listener_fd: int) -> None:
        """Answer other stores at this address; the descriptor listens there already, and is ours now."""
        counter = self._counter = self._socket(zmq.ROUTER)
        counter.setsockopt(zmq.USE_FD, listener_fd)
        counter.bind(address)

    def fetch(self, name: bytes, address: str, fd: int, size: int) -> None:
        """Have an object of `size` bytes brought into the segment `fd`, which stays the caller's."""
        fetch = self.fetches[name] = Fetch(name, address, fd, size)
        self._ask_on(fetch)

    def fds(self) -> list[int]:
        """Readable when `turn` is to be called, edge by edge."""
        return [int(socket.getsockopt(zmq.FD)) for socket in self._sockets()]

    def turn(self) -> bool:
        """Take in what came; whether there is more."""
        more = False
        if self._counter is not None:
            more = self._take(self._counter, self._on_want)
        for line in list(self._lines.values()):
            more = self._take(line, self._on_answer) or more
        if self.fetches:
            self._look()
        return more

    def close(self) -> None:
        """Hang up; what is on its way does not come."""
        for socket in self._sockets():
            socket.close(0)
        self._lines.clear()
        for knock in self._knocks.values():
            knock.close()
        self._knocks.clear()
        self._counter = None
        self.fetches.clear()

    def _sockets(self) -> list[zmq.Socket[bytes]]:
        return [*self._lines.values(), *([self._counter] if self._counter is not None else [])]

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        socket.linger = 0
        socket.maxmsgsize = 2 * t.CHUNK_BYTES
        return socket

    def _take(self, socket: zmq.Socket[bytes], deed: Callable[[list[bytes]], None]) -> bool:
        for _ in range(TURN_MESSAGES):
            try:
                frames = socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return False
            with suppress(ProtocolError):  # nobody of ours: let it wait for an answer
                deed(frames)
        return True

    # --- serving

    def _on_want(self, frames: list[bytes]) -> None:
        if len(frames) != 2 or self._counter is None:
            return
        want = t.decode_want(frames[1])
        data = self._source.read(want.id, want.offset, min(want.length, t.CHUNK_BYTES))
        if data is None:
            answer = [frames[0], t.encode(t.Missing(want.id))]
        else:
            answer = [frames[0], t.encode(t.Chunk(want.id, want.offset, zlib.crc32(data))), data]
        with suppress(zmq.Again):  # it does not take what it asks for: it will ask again, or not
            self._counter.send_multipart(answer, zmq.DONTWAIT)

    # --- fetching

    def _ask_on(self, fetch: Fetch) -> None:
        while fetch.asked < fetch.size and len(fetch.missing) < WINDOW:
            self._ask(fetch, fetch.asked)
            fetch.asked += t.CHUNK_BYTES

    def _ask(self, fetch: Fetch, offset: int) -> None:
        fetch.missing[offset] = fetch.missing.get(offset, 0) + 1
        line = self._lines.get(fetch.address)
        if line is None:
            line = self._lines[fetch.address] = self._socket(zmq.DEALER)
            line.connect(fetch.address)
        length = min(t.CHUNK_BYTES, fetch.size - offset)
        with suppress(zmq.Again):
            line.send(t.encode(t.Want(fetch.name, offset, length)), zmq.DONTWAIT)

    def _on_answer(self, frames: list[bytes]) -> None:
        answer = t.decode_answer(frames[0])
        fetch = self.fetches.get(answer.id)
        if fetch is None:
            return
        if isinstance(answer, t.Missing):
            self._end(fetch, "its node does not have it any more")
            return
        if len(frames) != 2 or answer.offset not in fetch.missing:
            return
        data = frames[1]
        fetch.heard = monotonic()
        if len(data) != min(t.CHUNK_BYTES, fetch.size - answer.offset) or zlib.crc32(data) != answer.check:
            if fetch.missing[answer.offset] >= MOST_REPEATS:
                self._end(fetch, "it came damaged, again and again")
            else:
                self._ask(fetch, answer.offset)
            return
        os.pwrite(fetch.fd, data, answer.offset)
        del fetch.missing[answer.offset]
        self._ask_on(fetch)
        if not fetch.missing:
            self._end(fetch, "")

    def _look(self) -> None:
        now = monotonic()
        for fetch in list(self.fetches.values()):
            silent = now - fetch.heard
            if silent > SILENCE_SECONDS:
                self._end(fetch, f"its store, at {fetch.address}, does not answer", lost=True)
            elif silent > KNOCK_SECONDS and self._is_refused(fetch.address):
                self._end(fetch, f"nobody listens at {fetch.address} any more", lost=True)

    def _is_refused(self, address: str) -> bool:
        """Whether nobody listens there; learned by a connection of its own, for ZeroMQ tries for ever."""
        knock = self._knocks.get(address)
        if knock is None:
            knock = self._knocks[address] = Knock(address)
        refused = knock.refused()
        if refused is not None:
            del self._knocks[address]
        return bool(refused)

    def _end(self, fetch: Fetch, why_not: str, lost: bool = False) -> None:
        del self.fetches[fetch.name]
        self._on_end(fetch.name, why_not, lost)
