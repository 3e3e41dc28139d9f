"""Mappings that the store's own thread keeps for a while, because to make one costs as much as the copy.

Targets  segments that are filled: their mappings do not count as users, so they are kept for the next time
Views    segments that are read: theirs count, so they go soon after the last chunk was asked for
"""

from __future__ import annotations

import os
from collections import OrderedDict
from time import monotonic

from flamezmq.store import mapping, segments
from flamezmq.store.mapping import Target
from flamezmq.store.pool import Segment

#: Of segments that are filled, mappings of so many bytes are kept.
TARGET_BYTES = 512 << 20
#: A view goes so long after its last use.
VIEW_SECONDS = 0.5


class Targets:
    """By the number of their segment, which no other segment ever has."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, tuple[Target, int]] = OrderedDict()
        self._bytes = 0

    def of(self, segment: Segment) -> Target:
        """To fill this one."""
        if segment.fresh:
            return Target(segment.fd, segment.size, is_fresh=True)
        found = self._kept.get(segment.number)
        if found is not None:
            self._kept.move_to_end(segment.number)
            return found[0]
        target = Target(segment.fd, segment.size, is_fresh=False)
        self._kept[segment.number] = target, segment.size
        self._bytes += segment.size
        while self._bytes > TARGET_BYTES and len(self._kept) > 1:
            _, (_, size) = self._kept.popitem(last=False)
            self._bytes -= size
        return target

    def clear(self) -> None:
        """Let go of all."""
        self._kept.clear()


class Views:
    """By the number of their segment."""

    def __init__(self) -> None:
        self._views: OrderedDict[int, tuple[memoryview, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._views)

    def of(self, segment: Segment) -> memoryview:
        """All of it, read-only.  What is made of this view counts as a user for as long as it lives."""
        found = self._views.pop(segment.number, None)
        view = found[0] if found is not None else _view(segment)
        self._views[segment.number] = view, monotonic()
        return view

    def let_go(self, segment: Segment) -> None:
        """It is to be used for something else."""
        self._views.pop(segment.number, None)

    def look(self) -> None:
        """Let go of those that have had their time."""
        late = monotonic() - VIEW_SECONDS
        while self._views and next(iter(self._views.values()))[1] < late:
            self._views.popitem(last=False)

    def clear(self) -> None:
        """Let go of all."""
        self._views.clear()


def _view(segment: Segment) -> memoryview:
    reader = segments.open_reader(segment.fd)
    try:
        return mapping.shared(reader, segment.size)
    finally:
        os.close(reader)
