"""All that a store has to do with others than the processes of its node: a part of its thread.

    counter  serves them, takes in what they bring
    courier  fetches from them

The store (`Shelves`) has the objects; what comes is put into segments of its pool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Protocol

import zmq

from flamezmq.errors import ProtocolError
from flamezmq.store.counter import HIGH_WATER, Counter
from flamezmq.store.courier import TURN_MESSAGES, Courier
from flamezmq.store.layout import cut_packed, extent, fill
from flamezmq.store.lifetimes import Lifetimes
from flamezmq.store.mapped import Targets, Views
from flamezmq.store.pool import Segment
from flamezmq.store.uploads import Shelf, Uploads
from flamezmq.wire import amendments as a
from flamezmq.wire import transfer as t


class Lying(Protocol):
    """An object as a store has it: in a segment, on its disk (`is_away`), or, if it is small, as `data`.

    lost  it is nowhere, and why
    """

    sizes: list[int]
    segment: Segment | None
    data: bytes
    lost: str

    @property
    def is_away(self) -> bool: ...


class Shelves(Protocol):
    """The store.

    on_fetched   an object has come, into the segment that was given for it; or not, and why
    lifetimes    knows who needs which object
    ask_holders  has the router asked which stores have this one; False: there is none to ask
    """

    lifetimes: Lifetimes

    def find(self, name: bytes) -> Lying | None: ...
    def take(self, size: int) -> Segment | None: ...
    def give(self, segment: Segment) -> None: ...
    def read_chunk(
        self, name: bytes, offset: int, length: int, then: Callable[[bytes | None], None]
    ) -> None: ...
    def keep(self, offer: t.Offer, segment: Segment) -> None: ...
    def drop(self, names: Iterable[bytes]) -> None: ...
    def ask(self, question: a.Question, reply: Callable[[a.Answer], None]) -> None: ...
    def drop_copies(self, names: Iterable[bytes]) -> None: ...
    def on_fetched(self, name: bytes, why_not: str, lost: bool) -> None: ...
    def ask_holders(self, name: bytes) -> bool: ...


class Transit:
    """Its sockets, made when there is one to serve, or the first object is to be fetched.

    at    the address where others reach this store, or ""
    more  there may be something to take in that no descriptor tells of
    """

    def __init__(self, shelves: Shelves, at: str, upload_bytes: int) -> None:
        self._shelves, self.at = shelves, at
        self._context: zmq.Context[Any] = zmq.Context()
        self._courier = Courier(
            self._context, at, self._on_end, self._on_part, shelves.drop_copies, shelves.ask_holders
        )
        shelf = Shelf(shelves.take, shelves.give, shelves.keep, lambda name: shelves.find(name) is not None)
        self._uploads = Uploads(shelf, upload_bytes)
        self._counter: Counter | None = None
        self._coming: dict[bytes, Segment] = {}
        self._targets, self._views = Targets(), Views()
        self._chunks: dict[bytes, dict[tuple[int, int], bytes | None]] = {}  # from disk; None: being read
        self.more = False

    @property
    def is_busy(self) -> bool:
        """Whether `turn` is to be called now and then, though nothing comes."""
        return bool(self._courier.fetches or self._views) or (
            self._counter is not None and self._counter.is_busy
        )

    def serve(self, listener_fd: int) -> None:
        """Answer at `at`; the descriptor listens there already, and is ours now."""
        socket: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        socket.linger = 0
        socket.maxmsgsize = t.MOST_FRAME_BYTES
        socket.sndhwm = socket.rcvhwm = HIGH_WATER
        socket.ipv6 = "[" in self.at
        socket.setsockopt(zmq.USE_FD, listener_fd)
        socket.bind(self.at)
        self._counter = Counter(socket, self, self._uploads)
        self._courier.changed = True

    def fetch(self, name: bytes, home: str, segment: Segment, size: int) -> None:
        """Have an object of `size` bytes brought into the segment; then `on_fetched` is called."""
        self._coming[name] = segment
        self._courier.fetch(name, home, self._targets.of(segment), size)
        self.more = True

    def on_holders(self, names: list[bytes], at: list[list[str]]) -> None:
        """The router's answer about these objects: the addresses of stores that have them."""
        for name, addresses in zip(names, at, strict=False):
            self._courier.on_holders(name, addresses)
        self.more = True

    def watch(self, register: Callable[[int], None]) -> None:
        """Have the descriptors watched, edge by edge, if there are new ones."""
        if self._courier.changed:
            self._courier.changed = False
            fds = self._courier.fds()
            if self._counter is not None:
                fds.append(int(self._counter.socket.getsockopt(zmq.FD)))
            for fd in fds:
                with suppress(FileExistsError):
                    register(fd)
            self.more = True

    def turn(self, busy: bool) -> None:
        """Take in what came.  busy: so did packets of this node's processes; there may be more of them."""
        self.more = False
        if self._counter is not None:
            self._counter.look(busy)
            self._take(self._counter)
            self.more = self.more or self._counter.is_doubtful
        if self._courier.turn():
            self.more = True
        self._views.look()

    def on_dropped(self, names: list[bytes]) -> None:
        """These are to go."""
        for name in names:
            one = self._shelves.find(name)
            if one is not None and one.segment is not None:
                self._views.let_go(one.segment)
            self._chunks.pop(name, None)
        if self._counter is not None:
            self._counter.on_dropped(names)
            self.more = True
        self._courier.on_dropped(names)

    def close(self) -> None:
        """Hang up."""
        self._courier.close()
        self._views.clear()
        self._targets.clear()
        if self._counter is not None:
            self._counter.close()
        self._context.term()

    def _take(self, counter: Counter) -> None:
        for _ in range(TURN_MESSAGES):
            try:
                frames = counter.socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return
            self.more = True  # what is sent may have hidden what has come
            with suppress(ProtocolError):  # nobody of ours: let it wait for an answer
                counter.on_message(frames)

    def _on_end(self, name: bytes, why_not: str, lost: bool) -> None:
        segment = self._coming.pop(name)
        if why_not:
            self._views.let_go(segment)
            self._on_part(name)  # who waits for more of it waits for nothing
        self._shelves.on_fetched(name, why_not, lost)
        if not why_not:
            self._on_part(name)

    def _on_part(self, name: bytes) -> None:
        if self._counter is not None:
            self._counter.on_part(name)

    # --- for the counter

    def size_of(self, name: bytes) -> int:
        """As of `counter.Source`."""
        one = self._shelves.find(name)
        if one is not None:
            return -1 if one.lost else extent(one.sizes)
        fetch = self._courier.fetches.get(name)
        return fetch.size if fetch is not None else -1

    def lend(self, name: bytes, offset: int, length: int) -> Any:
        """As of `counter.Source`."""
        one = self._shelves.find(name)
        if one is None:
            has = self._courier.fetches[name].has(offset, length)
            return self._views.of(self._coming[name])[offset : offset + length] if has else None
        if one.is_away:
            return self._lend_from_disk(name, offset, length)
        if one.segment is None:
            lying = bytearray(extent(one.sizes))
            fill(memoryview(lying), cut_packed(one.data, one.sizes))
            return memoryview(lying)[offset : offset + length]
        return self._views.of(one.segment)[offset : offset + length]

    def _lend_from_disk(self, name: bytes, offset: int, length: int) -> Any:
        """Who asks for these bytes waits until they have been read."""
        chunks = self._chunks.setdefault(name, {})
        if (offset, length) not in chunks:
            chunks[offset, length] = None

            def on_read(data: bytes | None) -> None:
                if self._chunks.get(name) is chunks:
                    if data is None:
                        del self._chunks[name]
                    else:
                        chunks[offset, length] = data
                self._on_part(name)
                self.more = True

            self._shelves.read_chunk(name, offset, length, on_read)
        elif chunks[offset, length] is not None:
            data = chunks.pop((offset, length))
            if not chunks:
                del self._chunks[name]
            return memoryview(data or b"")
        return None

    def drop(self, names: Iterable[bytes], free: bool) -> None:
        """As of `counter.Source`."""
        if free:
            self._shelves.lifetimes.free(list(names))
        else:
            self._shelves.drop(names)

    def ask(self, question: a.Question, reply: Callable[[a.Answer], None]) -> None:
        """As of `counter.Source`."""
        self._shelves.ask(question, reply)

    def stay(self, names: Iterable[bytes]) -> None:
        """As of `counter.Source`."""
        self._shelves.lifetimes.stay(list(names))
