"""Whether the same bytes were put before: found by samples, decided by comparing all of them.

A hash of the whole would be cheap up to a megabyte only: XXH3 of 64 KiB was measured to take 1 us of the
30 us of a put, of 1 MiB 16 of 110, of 256 MiB two thirds of it.  A few samples cost the same whatever the
size; where these agree the bytes are compared, which costs what the copy would have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

from xxhash import xxh3_128

from flamezmq.errors import ObjectLost
from flamezmq.store import access, copying
from flamezmq.store.keeping import Hold
from flamezmq.store.messages import INLINE_BYTES
from flamezmq.wire.handles import Handle

#: So many samples of so many bytes are taken of each piece.
SAMPLES, SAMPLE_BYTES = 16, 1 << 10


class Contents:
    """What has been put, by its samples, for as long as somebody here has a reference to it."""

    def __init__(self) -> None:
        self._puts: WeakValueDictionary[bytes, Hold] = WeakValueDictionary()

    def find(self, store: str, pieces: Sequence[Any]) -> tuple[bytes, Handle | None]:
        """(samples, an object of this store with the same bytes); b"": too small; None: there is none."""
        views = [memoryview(piece).cast("B") for piece in pieces]
        if sum(map(len, views)) < INLINE_BYTES:
            return b"", None
        samples = _samples(views)
        hold = self._puts.get(samples)
        if hold is None or hold.handle.home != store or hold.handle.sizes != tuple(map(len, views)):
            return samples, None
        try:
            others = access.of(store).open([hold.handle])[0]
        except ObjectLost:
            others = None
        is_same = others is not None and all(map(copying.are_same, views, others))
        return samples, hold.handle if is_same else None

    def note(self, samples: bytes, hold: Hold) -> None:
        """This object has them."""
        if samples:
            self._puts[samples] = hold


def _samples(views: Sequence[memoryview]) -> bytes:
    taken = xxh3_128()
    for view in views:
        size = len(view)
        taken.update(size.to_bytes(8, "big"))
        if size <= SAMPLES * SAMPLE_BYTES:
            taken.update(view)
            continue
        for k in range(SAMPLES):
            start = k * (size - SAMPLE_BYTES) // (SAMPLES - 1)
            taken.update(view[start : start + SAMPLE_BYTES])
    return taken.digest()
