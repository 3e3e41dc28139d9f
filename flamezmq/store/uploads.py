"""Objects on their way in from processes on no node.

Each is offered first, which takes its segment; then it is filled chunk by chunk,
in any order; with the last one it is an object like any other.  One of which
nothing more comes is given up.  What all of them together may take is bounded,
so that who offers much and brings nothing keeps nobody else from the store for long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

from flamezmq.store.layout import extent
from flamezmq.store.mapping import Target
from flamezmq.store.pool import Segment
from flamezmq.wire import transfer as t

#: One of which nothing has come for so long is given up.
SILENCE_SECONDS = 15.0
#: At a time, of everybody.
MOST_UPLOADS = 256


class Shelf(NamedTuple):
    """What the store does for uploads.

    take  a segment of so many bytes, or None: there is no room
    give  takes one back
    keep  makes an object of what was offered, in its segment
    has   whether there is an object of this id
    """

    take: Callable[[int], Segment | None]
    give: Callable[[Segment], None]
    keep: Callable[[t.Offer, Segment], None]
    has: Callable[[bytes], bool]


class Upload:
    """missing: offsets of the chunks that have not come.  peer: who brings it."""

    __slots__ = ("heard", "missing", "offer", "peer", "segment", "size", "target")

    def __init__(self, peer: bytes, offer: t.Offer, segment: Segment, size: int, now: float) -> None:
        self.peer, self.offer = peer, offer
        self.segment, self.size, self.heard = segment, size, now
        self.target = Target(segment.fd, segment.size, segment.fresh)
        self.missing = set(range(0, size, t.CHUNK_BYTES))


class Uploads:
    """most_bytes: of all that are on their way."""

    def __init__(self, shelf: Shelf, most_bytes: int) -> None:
        self._shelf, self._most_bytes = shelf, most_bytes
        self._uploads: dict[bytes, Upload] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._uploads)

    def offer(self, peer: bytes, offer: t.Offer, now: float) -> t.Answer | None:
        """The answer; None: it may be brought."""
        if self._shelf.has(offer.id):
            return t.Stored(offer.id)
        if offer.id in self._uploads:
            return t.Refusal(offer.id, "it is being brought already")
        size = extent(offer.sizes)
        if self.bytes + size > self._most_bytes or len(self) >= MOST_UPLOADS:
            return t.Refusal(offer.id, "too much is being brought at a time")
        segment = self._shelf.take(size)
        if segment is None:
            return t.Refusal(offer.id, "there is no room for it")
        upload = self._uploads[offer.id] = Upload(peer, offer, segment, size, now)
        self.bytes += size
        return self._end_if_all(offer.id, upload)

    def fill(self, peer: bytes, fill: t.Fill, data: memoryview, now: float) -> t.Answer:
        """Take in a chunk."""
        upload = self._uploads.get(fill.id)
        if upload is None or upload.peer != peer:
            if self._shelf.has(fill.id):
                return t.Stored(fill.id)
            return t.Refusal(fill.id, "it was not offered, or was given up")
        if fill.offset in upload.missing:
            right = min(t.CHUNK_BYTES, upload.size - fill.offset)
            if len(data) != right or xxh3_64_intdigest(data) != fill.check:
                return t.Got(fill.id, fill.offset, False)
            upload.target.write(data, fill.offset)
            upload.missing.discard(fill.offset)
        upload.heard = now
        return self._end_if_all(fill.id, upload) or t.Got(fill.id, fill.offset, True)

    def look(self, now: float) -> None:
        """Give up those of which nothing comes."""
        for name, upload in list(self._uploads.items()):
            if now - upload.heard > SILENCE_SECONDS:
                self._shelf.give(self._remove(name).segment)

    def close(self) -> None:
        """What is on its way does not come."""
        for name in list(self._uploads):
            self._shelf.give(self._remove(name).segment)

    def _end_if_all(self, name: bytes, upload: Upload) -> t.Stored | None:
        if upload.missing:
            return None
        self._remove(name)
        self._shelf.keep(upload.offer, upload.segment)
        return t.Stored(name)

    def _remove(self, name: bytes) -> Upload:
        upload = self._uploads.pop(name)
        self.bytes -= upload.size
        return upload
