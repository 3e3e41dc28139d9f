"""Deaths: what a dead executor held runs again, or is lost; who is charged.

Executors run what they hold in order, and their worker has seen which task ran.
Only that one is charged.  Functions over the broker's state; same rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flamezmq.core.dispatch import requeue
from flamezmq.core.members import Effects, Executor, Session
from flamezmq.core.tasks import Run
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker


def mourn(executor: Executor, session: Session, died: m.Died | None, out: Effects) -> None:
    """What a dead executor held goes back, or is lost if it can't be run again.

    Executors run what they hold in order.  The worker's report tells which task
    ran; those before it had finished, but their results died with it: they run
    again without a charge, and so do those that had not begun.  Without a report
    the oldest is taken for the one that ran.
    """
    running, executed = _last_moments(executor, session, died)
    again: list[Run] = []
    position = 0
    for run in executor.held:
        for index in range(run.start, run.end):
            began = position <= executed
            position += 1
            piece = run.between(index, index + 1)
            if index == running:
                session.charges[index] = session.charges.get(index, 0) + 1
            charged = session.charges.get(index, 0)
            if (began and session.spec.max_retries == 0) or charged > session.spec.max_retries:
                session.failed += 1
                session.charges.pop(index, None)
                out.append((session.client.peer, _lost(executor, session, index, run.attempt, died), []))
                continue
            if began:
                piece.attempt += 1
            again.append(piece)
    executor.held.clear()
    executor.tasks = 0
    requeue(session, _rejoin(again))


def _last_moments(executor: Executor, session: Session, died: m.Died | None) -> tuple[int, int]:
    """(index of the task that ran or -1, position of the last task that had begun or -1)."""
    order = [i for run in executor.held for i in range(run.start, run.end)]
    if died is None:
        # Nobody saw the end: any of them may have begun.
        return order[0], len(order) - 1 if session.spec.max_retries == 0 else 0
    finished = max(died.finished - executor.finished, 0)
    if died.session == session.number and died.running in order:
        return (-1 if died.expected else died.running), order.index(died.running)
    # What it was to drop, and has not answered for, may have been given back before it was reached.
    dropped = {i for _, indices in executor.asked for i in indices or ()}
    executed = -1
    for position, index in enumerate(order):
        if finished <= 0:
            break
        executed = position
        finished -= index not in dropped
    return -1, executed


def _rejoin(pieces: list[Run]) -> list[Run]:
    """Neighbours of one attempt become one run again."""
    joined: list[Run] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if (
            last is not None
            and last.function is piece.function
            and last.attempt == piece.attempt
            and last.end == piece.start
        ):
            last.inputs.extend(piece.inputs)
            last.big = last.big or piece.big
        else:
            joined.append(piece)
    return joined


def _lost(executor: Executor, session: Session, index: int, attempts: int, died: m.Died | None) -> m.Lost:
    if died is None:
        died = m.Died(
            executor.number, executor.pid, executor.node, session.number, index, executor.finished,
            "", 0, False, 0, (f"its node {executor.node} is gone",),
        )  # fmt: skip
    return m.Lost(session.alias, index, attempts, died)


def kill_orphans(broker: Broker, orphans: dict[int, float], now: float, out: Effects) -> None:
    """End executors that still run a task whose client is gone."""
    for peer, due in list(orphans.items()):
        executor = broker.executors.get(peer)
        if executor is None or not executor.tasks:
            del orphans[peer]
        elif now >= due:
            del orphans[peer]
            for worker in broker.workers.values():
                if worker.token == executor.token:
                    out.append((worker.peer, m.Kill(executor.number), []))
