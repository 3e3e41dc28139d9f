"""The messages of streams, and of what tasks publish while they run.

A `Part` goes the way of results: executor, router, client.  A `Pull` goes back
the same way, and is the credit of one stream: its executor sends so many values
beyond those that the reader has taken, and no more (`shims/streaming.py`).
What is published needs no credit: its newest values count.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from flamezmq.wire.ranges import Count, Index

#: What a Part may hold: values of a stream, of one that may be run again after some were delivered, or
#: what a task has published.
STREAMED, REPLAYED, PUBLISHED = 0, 1, 2
Kind = Annotated[int, msgspec.Meta(ge=0, le=2)]


class Part(msgspec.Struct, tag=34, array_like=True):
    """Executor -> router -> client: values that a running task gives, before its result.

    attempt  as in `Slice`; what quotes an older one is dropped
    kind     0: the next values of a stream; 1: the same, and the stream may be replayed; 2: published
    first    how many values of that kind this attempt has given before
    count    how many these are
    window   of a stream: so many values its executor may be ahead of the reader from now on
    parts    as in `Results`, for `values`, which are pickles
    """

    session: int
    index: Index
    attempt: Index
    kind: Kind
    first: Index
    count: Count
    window: Count
    parts: list[int]
    values: list[bytes]


class RoutedPart(msgspec.Struct, tag=34, array_like=True):
    """`Part` as the router reads it: the values stay as they came, unread."""

    session: int
    index: Index
    attempt: Index
    kind: Kind
    first: Index
    count: Count
    window: Count
    parts: list[int]
    values: msgspec.Raw


class Pull(msgspec.Struct, tag=15, array_like=True):
    """Client -> router -> executor: the reader of a stream has taken so many values, or wants no more.

    attempt  that the values were of; 0 with `stop`: whichever runs
    taken    of that attempt, in all; a later Pull repeats what earlier ones have said
    stop     close the generator
    """

    session: int
    index: Index
    attempt: Index
    taken: Index
    stop: bool = False
