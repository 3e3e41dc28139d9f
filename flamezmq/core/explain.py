"""Explanations: why a task waits, or the tasks of a session do; facts, of which others make sentences.

It is asked by people, now and then: so it may look through a queue, but through no
more than `MOST_RUNS` runs.  Ages go out, not times.

Functions over the broker's state; same rules.  Nothing here changes anything.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING

from flamezmq import waits
from flamezmq.core import actors, commons, events, locality, readers, unsent
from flamezmq.core.backoff import ACCIDENTS
from flamezmq.core.blocked import Blocked, Key
from flamezmq.core.control import cancelled_by
from flamezmq.core.dispatch import may_have, suits
from flamezmq.core.members import NAME_CHARACTERS, Executor, Session
from flamezmq.core.records import Ended
from flamezmq.resources import in_words
from flamezmq.states import TaskState
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker

#: Runs of a queue that are looked at.
MOST_RUNS = 4096
#: Needed tasks that are named.
MOST_NAMES = 3
#: An executor's death is worth telling, of a worker that has none, for so long.
RECENT_SECONDS = 30.0


def of_task(broker: Broker, session: Session, index: int, now: float) -> m.Why:
    """Where the task stands.  It was submitted (0 <= `index` < `session.next_index`), or is `unsent`."""
    why = m.Why(session.id, index)
    why.state = TaskState.PENDING
    if unsent.has(session, index):
        why.where = "client"
        unsent.explain(session, why, now)
        return why
    found = (
        _on_executor(session, index, why, now)
        or _delayed(session, index, why, now)
        or _blocked(session, index, why, now)
        or _queued(session, index, why, now)
    )
    if not found:
        _ended(session, index, why, now)
    elif why.where == "queue" or (why.where == "retry" and not may_have(session)):
        _cause(broker, session, why, now)
    if session.inputs:
        locality.explain(broker, session, why)
    return why


def of_session(broker: Broker, session: Session, now: float) -> m.Why:
    """How many of its tasks are where, and why the next one is not handed out."""
    why = m.Why(session.id, -1)
    why.where, why.by = "session", session.ending
    if session.closed:
        why.cause, why.since = "closed", now - session.closed_at
        return why
    running = sum(1 for executor in session.executors.values() if executor.tasks)
    why.queued, why.running, why.held = session.queued, running, session.held - running
    why.delayed, why.blocked = len(session.delayed), len(session.blocked)
    if session.queue:
        why.since = now - session.queue[0].came
    if session.queued or session.suspended:
        _cause(broker, session, why, now)
        if session.inputs and why.cause in ("now", "all", "share"):
            locality.explain(broker, session, why)
    else:
        readers.explain_own(session, why, now)
    unsent.explain(session, why, now)
    return why


# --- where a task stands; whether it does


def _on_executor(session: Session, index: int, why: m.Why, now: float) -> bool:
    for executor in session.executors.values():
        before = 0
        for run in executor.held:
            if run.start <= index < run.end:
                before += index - run.start
                why.where = "held" if before else "runs"
                why.state = TaskState.PENDING if before else TaskState.RUNNING
                why.executor, why.ahead, why.attempt = executor.name, before, run.attempt
                why.current = executor.held[0].start
                why.since, why.runs_for = now - run.came, now - executor.since
                if executor.paused is not None:
                    why.paused_for, why.reads = now - executor.paused, executor.reads
                why.binding = executor.binding
                return True
            before += len(run)
    return False


def _delayed(session: Session, index: int, why: m.Why, now: float) -> bool:
    for when, number, run in session.delayed:
        if number == index:
            why.where, why.delay, why.attempt = "retry", max(when - now, 0.0), run.attempt
            why.since = now - run.came
            return True
    return False


def _blocked(session: Session, index: int, why: m.Why, now: float) -> bool:
    blocked = session.blocked.get(index)
    if blocked is None:
        return False
    why.where, why.attempt, why.since = "needs", 1, now - blocked.came
    lacking = [key for key in blocked.needs if blocked.awaits(key)]
    why.lacking = len(lacking)
    why.fetching = blocked.fetching or not blocked.lacks
    for key in lacking[:MOST_NAMES]:
        _name_need(blocked, key, why, now)
    return True


def _name_need(blocked: Blocked, key: Key, why: m.Why, now: float) -> None:
    """The name of a needed task, and in which state it is."""
    other = blocked.session.client.sessions.get(key[0])
    if other is None:
        return  # its session is closed: its client supplies the value
    index, found = key[1], m.Why(other.id, key[1])
    finders = _on_executor, _delayed, _queued
    is_here = index in other.blocked or any(find(other, index, found, now) for find in finders)
    state = TaskState.RUNNING if found.where == "runs" else TaskState.PENDING
    why.needs.append(f"{other.id}/{index}")
    why.need_states.append(state if is_here else TaskState.SUCCEED)


def _queued(session: Session, index: int, why: m.Why, now: float) -> bool:
    ahead = 0
    for run in islice(session.queue, MOST_RUNS):
        if run.start <= index < run.end:
            why.ahead, why.attempt, why.since = ahead + index - run.start, run.attempt, now - run.came
            why.where = "queue"
            return True
        ahead += len(run)
    if len(session.queue) <= MOST_RUNS:
        return False
    why.where, why.ahead = "queue", ahead  # or it has ended; the queue is too long to tell
    return True


def _ended(session: Session, index: int, why: m.Why, now: float) -> None:
    why.where, why.state = "ended", -1
    by = cancelled_by(session, index)
    if by:
        why.state, why.by = TaskState.CANCELLED, by
        return
    for ended in map(Ended._make, reversed(session.recent)):
        position = 0
        for part, seconds in zip(ended.slices, ended.seconds, strict=True):
            if part.attempt and part.first <= index < part.first + part.count:
                failed = position + index - part.first in ended.failed
                why.state = TaskState.FAILED if failed else TaskState.SUCCEED
                why.executor, why.attempt, why.since = ended.executor, part.attempt, now - ended.when
                why.seconds = max(seconds / part.count, -1.0)
                return
            position += part.count
    if session.closed:
        why.since, why.cause, why.by = now - session.closed_at, "closed", session.ending


# --- why nothing is handed out


def _cause(broker: Broker, session: Session, why: m.Why, now: float) -> None:
    """The first thing that keeps tasks of this session from executors, and since when it does."""
    why.executors = sum(_counts(executor) for executor in broker.executors.values())
    why.have, why.limit = len(session.executors), session.spec.max_executors
    why.workers = sum(not worker.leaving for worker in broker.workers.values())
    why.cause_since = -1.0
    readers.explain(broker, session, why, now)
    if session.suspended:
        why.cause, why.by, why.cause_since = "suspended", session.suspended, now - session.suspended_at
    elif session.client.held_back:
        why.cause, why.cause_since = "held back", now - session.client.held_since
        kept = commons.kept_in_full(broker, session)
        if kept:
            why.cause, why.by = "kept", f"{kept:,}"
    elif broker.draining:
        why.cause, why.cause_since = "router stops", now - broker.drains_since
    elif readers.kept_out(session):
        why.cause, why.cause_since = "readers", now - broker.readers.since
    elif session.actor:
        _actor(broker, session, why, now)
    elif not why.executors:
        _no_executors(broker, why, now)
    elif why.limit and why.have >= why.limit:
        why.cause, why.cause_since = "limit", now - events.served_since(session)
    else:
        why.cause_since = now - events.served_since(session)
        _share(broker, session, why)
        if session.spec.resources and why.cause != "now":
            _rooms(broker, session, why, now)
        if session.spec.gang > 1:
            _gang(broker, session, why)
        _tenant(broker, session, why)
        _failing(broker, why, now)


def _actor(broker: Broker, session: Session, why: m.Why, now: float) -> None:
    if session.blocked and session.queue and session.queue[0].start > actors.gate(session):
        why.cause, why.current = "actor waits", actors.gate(session)
        why.cause_since = now - session.blocked[why.current].came
        return
    if session.executors:
        why.cause = "actor is busy"
        why.cause_since = now - next(iter(session.executors.values())).since
        return
    why.cause_since = now - broker.unplaced.get(session.number, now)
    if session.spec.resources and _lacks_room(broker, session):
        why.cause = "no room"
        _rooms(broker, session, why, now)
        return
    if session.number in broker.placing:
        why.cause = "actor starts"
    else:
        why.cause, why.limit = "too many actors", broker.limits.actors_per_worker


def _lacks_room(broker: Broker, session: Session) -> bool:
    """No node has room for what an actor asks for."""
    return not any(broker.scheduler.has_room(w.token, session.number) for w in broker.workers.values())


def _no_executors(broker: Broker, why: m.Why, now: float) -> None:
    why.cause = "no executors" if why.workers else "no workers"
    if not broker.executors:
        since = broker.bare_since if broker.workers else broker.alone_since
        why.cause_since = now - max(since, broker.born)
    for worker in broker.workers.values():
        if worker.last_death and now - worker.died_at < RECENT_SECONDS:
            why.cause, why.executor, why.by = (
                "executors die",
                worker.node[:NAME_CHARACTERS],
                worker.last_death,
            )
            why.cause_since, why.stillborn = now - worker.died_at, worker.stillborn
            why.failing_for = now - worker.failing_since if worker.stillborn else -1.0


def _failing(broker: Broker, why: m.Why, now: float) -> None:
    """Others serve, but executors of some node die as they start, so that it waits longer and longer."""
    for worker in broker.workers.values():
        if worker.stillborn >= ACCIDENTS and now - worker.died_at < RECENT_SECONDS:
            why.executor, why.failing = worker.node[:NAME_CHARACTERS], worker.last_death
            why.stillborn, why.failing_for = worker.stillborn, now - worker.failing_since


def _share(broker: Broker, session: Session, why: m.Why) -> None:
    """Others have what it does not have, or all serve it."""
    why.rivals = sum(1 for other in broker.sessions.values() if other.executors) - bool(session.executors)
    why.waiting_rivals = sum(
        1
        for other in broker.sessions.values()
        if other is not session and other.queued and not other.suspended
    )
    free = [e for e in broker.executors.values() if _is_free(e)]
    scheduler = broker.scheduler
    if any(suits(executor, session) and scheduler.fits(executor.peer, session.number) for executor in free):
        why.cause = "now"
    elif free:
        why.cause, why.free = "unsuitable", len(free)
    else:
        why.cause = "share" if why.rivals else "all"


def _rooms(broker: Broker, session: Session, why: m.Why, now: float) -> None:
    """Nodes, and not only executors, decide where a session with a request can be served."""
    found = waits.explain(broker.scheduler, session.number)
    if found.cause == "no node fits":
        parts = (f"{name}={in_words(asked)} (at most {in_words(had)})" for name, asked, had in found.missing)
        why.cause, why.by = found.cause, ", ".join(parts)[:NAME_CHARACTERS] or _together(session)
        why.cause_since = now - max(session.homeless_since, session.opened_at)
    elif found.cause == "no room" or why.cause == "unsuitable":
        why.cause = "no room"


def _gang(broker: Broker, session: Session, why: m.Why) -> None:
    """It gets executors in gangs only."""
    found = waits.explain(broker.scheduler, session.number)
    if found.cause in ("gang", "gang too large", "limit"):
        why.cause, why.gang, why.gathered = found.cause, session.spec.gang, found.gathered


def _tenant(broker: Broker, session: Session, why: m.Why) -> None:
    """Its tenant may have no more, whatever there is."""
    found = waits.explain(broker.scheduler, session.number)
    if found.cause not in ("tenant", "beyond tenant"):
        return
    why.cause, why.tenant = found.cause, session.tenant
    place = found.terms if re.fullmatch(r"[\w-]+", found.terms) else f'"{found.terms}"'
    said: list[str] = []
    for name, used, most in found.limits:
        option = "resources" if name else "max_executors"
        has, may = (_amount(name, used), _amount(name, most))
        between = "of its" if found.cause == "tenant" else "and its tenant may have"
        said.append(f"{has} {between} {may} ({option} of [tenants.{place}])")
    why.by = " and ".join(said)


def _amount(name: str, amount: float) -> str:
    """Of a resource, or, where it has no name, of executors."""
    if name:
        return f"{name}={in_words(amount)}"
    return f"{amount:.0f} executor{'' if amount == 1 else 's'}"


def _together(session: Session) -> str:
    """Of each of them some node has enough, but none of all."""
    asked = (f"{one.name}={in_words(one.amount)}" for one in session.spec.resources)
    return f"{', '.join(asked)}, all of it on one node"[:NAME_CHARACTERS]


def _counts(executor: Executor) -> bool:
    """Whether tasks of any session could come to it, now or later."""
    return not (executor.exiting or executor.departing or executor.aside)


def _is_free(executor: Executor) -> bool:
    return executor.session is None and _counts(executor)
