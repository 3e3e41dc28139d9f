"""The messages about tenants, and about room for what their sessions submit.

A session whose tenant has a quota gets an allowance: it submits
no further than its last `Room` goes.  What it has to wait with it asks for by
`WantRoom`.  So nothing that was submitted is ever sent back.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from flamezmq.wire.ranges import Index, Limit

#: Of a tenant, among all that have any work; as in the settings.
LEAST_WEIGHT, MOST_WEIGHT = 0.001, 1e6
Weight = Annotated[float, msgspec.Meta(ge=LEAST_WEIGHT, le=MOST_WEIGHT)]


class WantRoom(msgspec.Struct, tag=14, array_like=True):
    """So much waits to be submitted; answered by `Room`.  What it could submit yet it gives back.

    tasks  that wait; 0: none, and there is no answer
    bytes  of their arguments, and
    first  of those of the first one
    waits  until there is room; else the answer comes at once, whatever it is
    sent   bytes of arguments that it has submitted so far, of those that it has counted; nil: it counts none
    """

    session: int
    tasks: Index
    bytes: Index
    first: Index
    waits: bool = True
    sent: Index | None = None


class Room(msgspec.Struct, tag=38, array_like=True):
    """So far the session may submit; before its `Opened`, as an answer to `WantRoom`, or by itself.

    until   tasks with indices below it
    bytes   of arguments in all, since it had its first Room with a number here; nil: any number
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


class AskTenants(msgspec.Struct, tag=48, array_like=True):
    """Which tenants are there?  Answered by `Tenants`.

    after  only those whose names come later
    """

    request: int
    after: str | None = None


class TenantRow(msgspec.Struct, array_like=True):
    """A tenant, as a controller sees it; "*" stands for all that are not named, "" has no name.

    named          the settings, or somebody since, have said what it may have; else what "*" says counts
    weight, max_executors, resources, queued_tasks, queued_bytes  that, as in the settings; 0, "": no limit
    sessions       that are open, without those of tasks
    executors      that serve them, and those of their tasks
    tasks          of these sessions that wait with the router
    bytes          of their arguments; -1: it has no quota of bytes, and nobody counts
    asking         clients whose `submit` waits for room
    """

    name: str
    named: bool
    weight: float
    max_executors: int
    resources: str
    queued_tasks: int
    queued_bytes: int
    sessions: int = 0
    executors: int = 0
    tasks: int = 0
    bytes: int = -1
    asking: int = 0


class Tenants(msgspec.Struct, tag=92, array_like=True):
    """Answer to `AskTenants`, whose `request` it quotes: rows by name, and so many that follow."""

    request: int
    rows: list[TenantRow] = []
    more: Index = 0


class SetTenant(msgspec.Struct, tag=69, array_like=True):
    """Change what a tenant may have from now on, until the router ends; answered by `Done`.

    by   who wants it, for people
    new  it need not be known: neither named before, nor that of an open session
    weight, max_executors, resources, queued_tasks, queued_bytes  as in the settings; 0, "": no limit;
         nil: as it is
    """

    request: int
    name: str
    by: str
    new: bool = False
    weight: Weight | None = None
    max_executors: Limit | None = None
    resources: str | None = None
    queued_tasks: Limit | None = None
    queued_bytes: Limit | None = None


AboutTenants = WantRoom | AskTenants | SetTenant
ToTenants = Room | Tenants
