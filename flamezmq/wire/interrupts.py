"""The messages about tasks that run, and are not wanted any more."""

from __future__ import annotations

import msgspec

from flamezmq.wire.ranges import Index


class Interrupt(msgspec.Struct, tag=47, array_like=True):
    """If one of these tasks runs, have `TaskCancelled` raised in it; answered by how it ends.

    What has not begun is asked back before, by `Drop` or `Retract`.

    indices  empty: whichever task of the session runs
    """

    session: Index
    indices: list[Index]


class Interrupted(msgspec.Struct, tag=68, array_like=True):
    """The task has ended because it was interrupted; it has no result, and is no longer held here."""

    session: Index
    index: Index
    attempt: Index
