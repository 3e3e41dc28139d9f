"""Preemption: executors that are due to others leave their tasks, if these take too long.

Usually a task is left to end.  A session may say for how long (`preempt_after`): then
the executor is killed, if somebody still waits for it, and another one comes.  The task
runs again, and is not charged.  Where none may be started twice nobody is killed.

Functions over the broker's state; same rules.
"""

from __future__ import annotations

from heapq import heappop
from math import inf
from typing import TYPE_CHECKING

from flamezmq.core import deaths, events
from flamezmq.core.members import Effects
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker


def kill_due(broker: Broker, now: float, out: Effects) -> None:
    """End those whose time is over (`dispatch` notes when), and for which somebody waits."""
    preempts = broker.preempts
    while preempts and preempts[0][0] <= now:
        due, peer = heappop(preempts)
        executor = broker.executors.get(peer)
        if executor is None or executor.preempt_at != due:
            continue
        executor.preempt_at = inf
        if (
            executor.leaving
            and executor.tasks
            and executor.paused is None
            and broker.scheduler.is_awaited(peer)
        ):
            deaths.kill(broker, executor, m.Kill(executor.number), out)
            if executor.session is not None:
                text = f"for {executor.session.spec.preempt_after:g} s; its task runs again"
                events.note(executor.session, events.PREEMPTED, now, text, executor=executor.name)
