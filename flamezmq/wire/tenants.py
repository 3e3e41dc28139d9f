"""The messages about room for what sessions submit, where their tenant has a quota.

Such a session gets an allowance: it submits
no further than its last `Room` goes.  What it has to wait with it asks for by
`WantRoom`.  So nothing that was submitted is ever sent back.
"""

from __future__ import annotations

import msgspec

from flamezmq.wire.ranges import Index


class WantRoom(msgspec.Struct, tag=14, array_like=True):
    """So much waits to be submitted; answered by `Room`.  What it could submit yet it gives back.

    tasks  that wait; 0: none, and there is no answer
    bytes  of their arguments, and
    first  of those of the first one
    waits  until there is room; else the answer comes at once, whatever it is
    """

    session: int
    tasks: Index
    bytes: Index
    first: Index
    waits: bool = True


class Room(msgspec.Struct, tag=38, array_like=True):
    """So far the session may submit; before its `Opened`, as an answer to `WantRoom`, or by itself.

    until   tasks with indices below it
    bytes   of arguments in all, since it had its first Room; nil: any number
    over    the quota that keeps it from more ("queued_tasks", "queued_bytes"); empty: it has what it wanted
    limit   that of this quota
    tenant  whose quota it is
    """

    session: int
    until: Index
    bytes: Index | None = None
    over: str = ""
    limit: Index = 0
    tenant: str = ""
