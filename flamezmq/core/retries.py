"""Second chances: tasks that run again because their options say so.

A task has raised an error that its options name (its executor says so by
`Retry`), or was killed for its timeout.  It runs again under the next attempt,
at once or after a while: until then it stands in its session's heap, and in no
queue.  How often is counted apart from deaths, which `max_retries` bounds: who
asks for two retries of a failed download does not mean two more crashes.

A task that was sent back is a run by itself for the rest of its life, so that
it is granted with its own count.  Functions over the broker's state; same rules.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any

from flamezmq.core import dispatch, endings, events
from flamezmq.core.backoff import pause
from flamezmq.core.members import Effects, Executor, Session
from flamezmq.core.tasks import Run
from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker


def on_retry(
    broker: Broker, peer: int, message: m.Retry, _frames: list[Any], now: float, out: Effects
) -> None:
    """Take the task out of what its executor holds; it runs again, unless its session is closed.

    One that it does not hold, at this attempt, is stale: nothing changes.
    """
    executor = broker.executor_of(peer)
    executor.heard = now
    session, part = executor.session, message.slice
    if part.count != 1:
        raise ProtocolError("one task at a time is sent back to be run again")
    if session is None or session.number != message.session:
        return  # it answers a session that it does not serve any more
    run = take_running(executor, session, part.first, part.attempt, now)
    if run is None:
        return
    if session.closed:
        session.cancelled += 1
    elif part.first in session.unwanted:
        endings.unwanted(session, [part.first], now, out)
    else:
        _again(broker, session, run, message.seconds, now)
    broker.took_from(executor, session)


def take_running(executor: Executor, session: Session, index: int, attempt: int, now: float) -> Run | None:
    """Take a task that has ended without a result from its executor; None if it does not hold it so."""
    held = executor.held
    if not (dispatch.is_first(held, index, 1, attempt) or dispatch.bring_to_front(held, index, 1, attempt)):
        return None
    run = held[0].take(1)
    executor.load -= held[0].estimate
    if not len(held[0]):
        held.popleft()
    executor.tasks -= 1
    session.held -= 1
    executor.finished += 1
    executor.since = now
    executor.stalled = False
    session.begun.pop(index, None)
    return run


def after_timeout(broker: Broker, session: Session, run: Run, now: float) -> bool:
    """A task was killed for its timeout: whether its options let it run again, which is then seen to."""
    options, retried = run.function.options, session.retried.get(run.start, 0)
    if options is None or not options.retry_timeouts or retried >= options.retries:
        return False
    _again(broker, session, run, pause(options.backoff, retried), now)
    return True


def _again(broker: Broker, session: Session, run: Run, seconds: float, now: float) -> None:
    session.retried[run.start] = session.retried.get(run.start, 0) + 1
    run.attempt += 1
    text = f"attempt {run.attempt} in {seconds:.3g} s" if seconds > 0 else f"attempt {run.attempt}"
    events.note(session, events.RETRIED, now, text, run.start)
    if seconds > 0:
        heappush(session.delayed, (now + seconds, run.start, run))
        broker.delaying[session.number] = session
    else:
        _requeue(broker, session, [run])


def release_due(broker: Broker, now: float) -> None:
    """Back into the queue, whose time has come."""
    for session in list(broker.delaying.values()):
        delayed, due = session.delayed, []
        while delayed and delayed[0][0] <= now:
            due.append(heappop(delayed)[2])
        if not delayed:
            del broker.delaying[session.number]
        if due:
            _requeue(broker, session, due)


def _requeue(broker: Broker, session: Session, runs: list[Run]) -> None:
    dispatch.requeue(session, runs)
    broker.fed.update(session.executors)
    broker.demand(session)


def cancel(broker: Broker, session: Session, wanted: set[int]) -> list[int]:
    """Drop those of `wanted` that wait for their time; returns them."""
    gone = sorted(index for _, index, _ in session.delayed if index in wanted)
    if gone:
        session.delayed = [entry for entry in session.delayed if entry[1] not in wanted]
        heapify(session.delayed)
        if not session.delayed:
            del broker.delaying[session.number]
    return gone


def forget(broker: Broker, session: Session) -> int:
    """The session ends: how many tasks have waited for their time, and now never run."""
    count = len(session.delayed)
    session.delayed.clear()
    session.retried.clear()
    broker.delaying.pop(session.number, None)
    return count
