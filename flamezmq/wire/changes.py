"""The message that changes a session while it runs; `messages.py` says who may say it."""

from __future__ import annotations

import msgspec

from flamezmq.wire.ranges import Limit, Priority, Weight


class ChangeSession(msgspec.Struct, tag=17, array_like=True):
    """Change a session, by its id, whoever's it is; answered by `Done`.

    by         who wants it, for people
    suspended  nothing of it is handed out any more, or again; nil: that stays as it is
    drain      it takes nothing more, and is closed when what it has has ended
    weight, priority, min_executors, max_executors  as in `SessionSpec`, from now on; nil: as they are
    """

    request: int
    session: str
    by: str
    suspended: bool | None = None
    drain: bool = False
    weight: Weight | None = None
    priority: Priority | None = None
    min_executors: Limit | None = None
    max_executors: Limit | None = None
