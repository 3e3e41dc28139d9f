"""Where a store serves others: other nodes' stores, and processes on no node.

Part of the store's thread.  Who asks has no more questions on their way than its
credit; of one that has more, or does not take its answers, no more is kept than
`MOST_PARKED` questions, and `HIGH_WATER` messages each way.

Chunks go out as views of their segment, without a copy: a view that is on its way
is a reader like any other, so the segment is not used again before it was sent.
"""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import monotonic
from typing import Any, Protocol

import zmq
from xxhash import xxh3_64_intdigest

from flamezmq.errors import ProtocolError
from flamezmq.store.spread import Spread
from flamezmq.store.uploads import Uploads
from flamezmq.wire import amendments as a
from flamezmq.wire import transfer as t

#: Messages that are kept for one peer, each way: more than the credit of a store for one line.
HIGH_WATER = 64
#: Questions of one peer that wait for a part that is on its way here.
MOST_PARKED = 64
#: Objects of fewer bytes are fetched from their home: to ask who else has it would cost more.
SPREAD_BYTES = 4 << 20


class Source(Protocol):
    """Who has objects to serve."""

    def size_of(self, name: bytes) -> int:
        """Bytes of an object in its segment, if it is here, or on its way here; -1: it is neither."""
        ...

    def lend(self, name: bytes, offset: int, length: int) -> Any:
        """A view of these bytes, which are in it; None: they are on their way here."""
        ...

    def drop(self, names: Iterable[bytes], free: bool) -> None:
        """Their owner needs these no more; free: they are to go, whoever else does."""
        ...

    def ask(self, question: a.Question, reply: Callable[[a.Answer], None]) -> None:
        """About versions of an object; `reply` is called, maybe later."""
        ...

    def stay(self, names: Iterable[bytes]) -> None:
        """Somebody elsewhere has references to these."""
        ...


class Counter:
    """The ROUTER socket, and who is waiting at it."""

    def __init__(self, socket: zmq.Socket[bytes], source: Source, uploads: Uploads) -> None:
        self.socket, self._source, self.uploads = socket, source, uploads
        self.spread = Spread()
        self._parked: dict[bytes, list[tuple[bytes, t.Want]]] = {}
        self._parks: Counts[bytes] = Counts()
        self._doubtful: list[tuple[bytes, t.Seek | t.Want]] = []
        self._deeds: dict[type, Callable[[bytes, Any], None]] = {
            t.Seek: self._on_seek,
            t.Want: self._on_want,
            t.Have: lambda peer, question: self.spread.has(question.id, peer),
            t.Lack: self._on_lack,
            t.Offer: self._on_offer,
            a.Since: self._on_versions,
            a.Amend: self._on_versions,
            t.Discard: lambda _peer, question: self._source.drop(question.ids, question.free),
            t.Stay: lambda _peer, question: self._source.stay(question.ids),
        }

    @property
    def is_busy(self) -> bool:
        """Whether it is to have a turn now and then, though nothing comes."""
        return bool(self.uploads)

    @property
    def is_doubtful(self) -> bool:
        """Whether somebody has asked for what is not here, or not yet."""
        return bool(self._doubtful)

    def on_message(self, frames: list[Any]) -> None:
        """Of a peer.  Raises ProtocolError: it makes no sense."""
        if not 2 <= len(frames) <= 3:
            raise ProtocolError("a question of two frames at most was expected")
        peer, question = frames[0].bytes, t.decode_question(frames[1].buffer)
        if isinstance(question, t.Fill):
            data = frames[2].buffer if len(frames) == 3 else memoryview(b"")
            self._answer(peer, self.uploads.fill(peer, question, data, monotonic()))
        else:
            self._deeds[type(question)](peer, question)

    def look(self, busy: bool) -> None:
        """Answer who asked for what was not here: its Put may have been sent sooner, and been read later."""
        if self.uploads:
            self.uploads.look(monotonic())
        if self._doubtful and not busy:
            doubtful, self._doubtful = self._doubtful, []
            for peer, question in doubtful:
                if self._source.size_of(question.id) < 0:
                    self._answer(peer, t.Missing(question.id))
                else:
                    self._deeds[type(question)](peer, question)

    def on_part(self, name: bytes) -> None:
        """More of this object is here: answer those who have waited for that."""
        for peer, want in self._unpark(name):
            self._on_want(peer, want)

    def on_dropped(self, names: Iterable[bytes]) -> None:
        """These are here no more, and whoever has fetched them is to let go of them."""
        peers: dict[Any, list[bytes]] = {}
        for name in names:
            for peer, _ in self._unpark(name):
                self._answer(peer, t.Missing(name))
            for fetcher in self.spread.forget(name):
                peers.setdefault(fetcher, []).append(name)
        for peer, gone in peers.items():
            for start in range(0, len(gone), t.MOST_PIECES):
                self._answer(peer, t.Gone(gone[start : start + t.MOST_PIECES]))

    def close(self) -> None:
        """Hang up."""
        self.uploads.close()
        self.socket.close(0)

    # --- what peers say

    def _on_seek(self, peer: bytes, question: t.Seek) -> None:
        size = self._source.size_of(question.id)
        if size < 0:
            self._doubt(peer, question)
            return
        near = size < SPREAD_BYTES
        at, others = self.spread.seek(question.id, peer, question.at, question.failed, near, question.keeps)
        self._answer(peer, t.Source(question.id, at, others))

    def _on_want(self, peer: bytes, want: t.Want) -> None:
        size = self._source.size_of(want.id)
        if size < 0:
            self._doubt(peer, want)
        elif want.offset + want.length > size:
            self._answer(peer, t.Missing(want.id))  # it has no such bytes
        else:
            end = want.offset + want.length
            for offset in range(want.offset, end, t.CHUNK_BYTES):
                self._send_chunk(peer, want.id, offset, min(t.CHUNK_BYTES, end - offset))

    def _send_chunk(self, peer: bytes, name: bytes, offset: int, length: int) -> None:
        data = self._source.lend(name, offset, length)
        if data is None:
            self._park(peer, t.Want(name, offset, length))
        else:
            self._answer(peer, t.Chunk(name, offset, xxh3_64_intdigest(data)), data)

    def _on_versions(self, peer: bytes, question: a.Question) -> None:
        def reply(answer: a.Answer) -> None:
            answer.request = question.request
            self._answer(peer, answer)

        self._source.ask(question, reply)

    def _on_lack(self, peer: bytes, question: t.Lack) -> None:
        for name in question.ids:
            self.spread.lacks(name, peer)

    def _on_offer(self, peer: bytes, offer: t.Offer) -> None:
        answer = self.uploads.offer(peer, offer, monotonic())
        if answer is not None:
            self._answer(peer, answer)

    # --- waiting

    def _doubt(self, peer: bytes, question: t.Seek | t.Want) -> None:
        if len(self._doubtful) < MOST_PARKED * MOST_PARKED:
            self._doubtful.append((peer, question))
        else:
            self._answer(peer, t.Missing(question.id))

    def _park(self, peer: bytes, want: t.Want) -> None:
        if self._parks[peer] >= MOST_PARKED:
            self._answer(peer, t.Missing(want.id))
            return
        self._parks[peer] += 1
        self._parked.setdefault(want.id, []).append((peer, want))

    def _unpark(self, name: bytes) -> list[tuple[bytes, t.Want]]:
        parked = self._parked.pop(name, [])
        for peer, _ in parked:
            self._parks[peer] -= 1
            if not self._parks[peer]:
                del self._parks[peer]
        return parked

    def _answer(self, peer: bytes, answer: t.Answer, data: Any = None) -> None:
        """One that does not take what it has asked for will ask again, or not."""
        with suppress(zmq.Again, zmq.ZMQError):
            if data is None:
                self.socket.send_multipart([peer, t.encode(answer)], zmq.DONTWAIT)
            else:
                self.socket.send_multipart([peer, t.encode(answer)], zmq.DONTWAIT | zmq.SNDMORE)
                self.socket.send(data, zmq.DONTWAIT, copy=False)
