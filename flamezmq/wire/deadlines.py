"""The message about tasks that have not begun in time; how long they had stands in `Options`."""

from __future__ import annotations

import msgspec

from flamezmq.wire.ranges import Index, Seconds


class Expired(msgspec.Struct, tag=37, array_like=True):
    """These tasks had a deadline, did not begin before it, and will not run.

    deadline  seconds from their submit
    label     their function's name for people
    """

    session: int
    indices: list[Index]
    deadline: Seconds
    label: str = ""
