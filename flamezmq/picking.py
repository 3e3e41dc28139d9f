"""Which free executor a session gets: one near its data, one that is warm for it, or any that suits.

Part of the scheduler; pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flamezmq.scheduler import Scheduler
    from flamezmq.shares import Share


def pick(scheduler: Scheduler, share: Share) -> int | None:
    """One where its data is, a warm one (it served this session last), a promised one, or any that suits."""
    session = share.number
    if session in scheduler.choosy and (near := _near(scheduler, share)) is not None:
        return near
    for executor in reversed(share.warm):
        if scheduler._fits(executor, share):
            return executor
    for executor in share.promised:
        kept = executor in scheduler._promises.kept
        if kept and scheduler._suits(executor, session) and scheduler._fits(executor, share):
            return executor
    free = scheduler._free.latest()
    return next((e for e in free if scheduler._suits(e, session) and scheduler._fits(e, share)), None)


def _near(scheduler: Scheduler, share: Share) -> int | None:
    """A free one on the next of the nodes that it wishes for, as far as there is one."""
    session = share.number
    wished = scheduler._wished.get(session)
    if wished is None:
        wished = scheduler._wished[session] = scheduler._wishes(session)
    while wished:
        executor = free_on(scheduler, share, wished.pop())
        if executor is not None:
            return executor
    return None


def free_on(scheduler: Scheduler, share: Share, node: str) -> int | None:
    """A free one of this node that the session could have."""
    for executor in scheduler._rooms.on_node(node):
        if executor in scheduler._free and scheduler._fits(executor, share):
            if executor in share.warm or scheduler._suits(executor, share.number):
                return executor
    return None
