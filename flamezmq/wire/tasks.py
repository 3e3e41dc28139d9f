"""What messages about tasks are made of: slices, functions, and how these are to be run."""

from __future__ import annotations

import msgspec

from flamezmq.wire.ranges import Count, Index, Priority, Seconds


class Slice(msgspec.Struct, array_like=True, gc=False):
    """`count` tasks of one function: indices `first`, `first + 1`, ...

    count    from 1
    attempt  from 1; an answer that quotes an older one is dropped
    """

    function: int
    first: Index
    count: Count
    attempt: Index


class Options(msgspec.Struct, array_like=True, frozen=True):
    """How the tasks of a function are to be run, as far as that is the router's business.

    retries         how often a task runs again after an error that its options name
    backoff         seconds to wait before the first of these runs; doubled before each further one
    timeout         seconds that one run may take; 0: as long as it likes
    priority        higher ones are granted first, within their session
    retry_timeouts  whether having been killed for its timeout is such an error
    deadline        seconds from the submit within which a task must have begun; 0: whenever it can
    """

    retries: Index = 0
    backoff: Seconds = 0.0
    timeout: Seconds = 0.0
    priority: Priority = 0
    retry_timeouts: bool = False
    deadline: Seconds = 0.0


class NewFunction(msgspec.Struct, array_like=True):
    """A pickled function.

    number   the client's (per session) on the way to the router, the router's on the way to executors
    label    its name for people
    options  an array, or nil if there are none; executors find theirs in the pickle
    """

    number: int
    blob: bytes
    label: str = ""
    options: Options | None = None
