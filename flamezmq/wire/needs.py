"""The messages about tasks that take the values of others; what a task needs stands in its `Submit`.

A value that the router lacks it asks its client for: by the time that the
question is read, the client has the result, or it passes the router later.
"""

from __future__ import annotations

import msgspec

from flamezmq.wire.ranges import Index


class Supply(msgspec.Struct, tag=6, array_like=True):
    """Answer to `Wanted`, for a task that has ended.

    failed  it has no value, or none that can be pickled
    value   its output, as in the `outputs` of Results (`parts` and frames, too); empty when it failed
    """

    session: int
    index: Index
    failed: bool
    value: list[bytes]
    parts: list[int]


class Wanted(msgspec.Struct, tag=28, array_like=True):
    """Others wait for the values of these tasks: supply those that have ended (`Supply`), ignore the rest.

    What has not ended when this comes passes the router when it does; but of a task that runs again, under
    another number, it is supplied that the old one has failed.
    """

    session: int
    indices: list[Index]


class Unmet(msgspec.Struct, tag=29, array_like=True):
    """These tasks will not run: what they need has failed, was lost or was cancelled.

    tasks  flat quadruples (session and index of the task, those of what it needs), each behind its need's
    """

    tasks: list[Index]
