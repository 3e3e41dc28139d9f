"""Credit: how many tasks each executor is given, and how they are taken back.

Credit is time.  An executor holds as many tasks as fill `horizon_seconds` at
the run time learned for their function (`deep_seconds`, where that makes
messages worth their price), and one more as long as the round trip is worth
hiding.  A function that nobody has run yet goes out one task at a time while
others are idle.  What is held but has not begun can be retracted for an idle
one; its holder then gets nothing more until it has ended something.

Functions over the broker's state; same rules.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from heapq import heappush
from itertools import islice
from typing import TYPE_CHECKING

from flamezmq import gangs
from flamezmq.core import actors, devices, events, locality, readers, rests, services, wear
from flamezmq.core.members import Effects, Executor, Session
from flamezmq.core.tasks import Function, Run, merge
from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m
from flamezmq.wire.codec import join_payloads

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker

#: What a function that was never run is taken for where its session has run others.
UNKNOWN_SECONDS = 1e-4
#: So much work is not divided among executors, nor given to an idle one: the messages would cost more.
WORTH_SECONDS = 1e-4
#: To learn what a queue is worth, so many of its runs are looked at.
RUNS = 64
#: A function of more bytes is the only one that its message carries.
FUNCTION_BYTES = 1 << 20
#: A move may free an executor for another session, at most so many times in one turn.
ROUNDS = 8


def balance(broker: Broker, now: float, out: Effects) -> None:
    """Hand out idle executors, feed those that may take more, ask back what is unfairly held.

    In this order: what waits goes to an idle executor rather than behind what
    another one holds, but for a little that is not worth a message of its own.
    """
    if broker.draining:
        broker.fed.clear()  # who holds nothing stays where it is
        return
    lingered, broker.lingering = broker.lingering, {}
    broker.fed.update(lingered)
    for _ in range(ROUNDS):
        given = _balance_once(broker, lingered, now, out)
        if not broker.fed and not (given and broker.scheduler.idle and broker.scheduler.waiting):
            return


def _balance_once(broker: Broker, lingered: dict[int, Executor], now: float, out: Effects) -> bool:
    """Whether idle executors were handed out, or have become idle because a gang needs them no more.

    lingered: those that may not do so again
    """
    scheduler = broker.scheduler
    given = False
    fed, broker.fed = broker.fed, {}
    staying: list[Executor] = []
    dry: list[Executor] = []
    for executor in fed.values():
        session = executor.session
        if session is None:
            continue
        if session.actor:
            if actors.attend(broker, executor, session, now, out):
                staying.append(executor)
        elif session.counted and wear.is_spent(executor, session):
            wear.replace(broker, executor, session, now, out)
        elif session.queued and not executor.leaving and may_have(session):
            if session.inputs and locality.gives_way(broker, executor, session):
                release(broker, executor, now, out)  # the session gets one that is nearer
            else:
                staying.append(executor)
        elif not executor.tasks and not (session.keeps and rests.keep(broker, executor, session, out)):
            dry.append(executor)
    for executor in dry:
        if executor.peer in lingered or not rests.linger(broker, executor):
            release(broker, executor, now, out)
    if staying and scheduler.idle:  # a little is done sooner by who works already
        _feed_all(broker, staying, True, out)
    if scheduler.waiting:
        moves = scheduler.decide(now)
        given = bool(moves.assign)
        to_see: list[Executor] = []
        for peer, number in moves.assign:
            executor, session = broker.executors[peer], broker.sessions[number]
            _bind(broker, executor, session, now, out)
            if session.gpus:
                to_see.append(executor)
            if session.actor:
                actors.settle(broker, executor, session, now, out)
        if to_see:
            devices.allot(broker, to_see, now, out)
        staying = [broker.executors[peer] for peer, _ in moves.assign] + staying
        for peer, _ in moves.replace:
            broker.executors[peer].exiting = True
            out.append((peer, m.Exit(), []))
        for peer in moves.reclaim:
            if not broker.executors[peer].aside:  # else it has become an actor's just now
                _reclaim(broker, broker.executors[peer], now, out)
    if staying:
        idle = scheduler.idle
        _feed_all(broker, staying, False, out)
        given = given or scheduler.idle > idle
    if scheduler.idle and broker.laden:
        _retract_for_idle(broker, now, out)
    return given


# --- sessions


def check_share(spec: m.SessionSpec) -> None:
    """Raises ProtocolError if it asks for a share as there can be none."""
    if not 0 < spec.weight < math.inf:
        raise ProtocolError(f"a session's weight is a number above 0, not {spec.weight}")
    if spec.gang > 1 and spec.resources:
        raise ProtocolError("a session has resources or a gang, not both")
    if 0 < spec.max_executors < spec.gang:
        raise ProtocolError(f"max_executors={spec.max_executors} is less than one gang of {spec.gang}")


def enlist(broker: Broker, session: Session, now: float) -> None:
    """Tell the scheduler of a new session.  The tasks of a task count for the session that it is from."""
    spec = session.spec
    outer = session.root.spec if session.root else spec
    request = {resource.name: resource.amount for resource in spec.resources if resource.amount}
    if session.actor and request:
        request.setdefault("cpu", 0.0)  # its process takes no executor's place
    broker.scheduler.add_session(
        session.number,
        now,
        weight=outer.weight,
        limit=spec.max_executors,
        minimum=spec.min_executors,
        tenant=session.tenant,
        priority=outer.priority,
        request=request,
        enters=session.application.enters if session.application is not None else 0.0,
        gang=spec.gang,
        counts=not session.actor,
    )


# --- giving


def worth(session: Session, executors: int) -> int:
    """How many executors could share what is queued, so that each gets more than a message costs.

    executors: so many there are; more need not be counted
    """
    enough = executors * WORTH_SECONDS
    seconds = 0.0
    for run in islice(session.queue, RUNS):
        estimate = run.function.seconds
        if not 0 <= estimate < WORTH_SECONDS:
            return session.queued
        seconds += estimate * len(run)
        if seconds >= enough:
            return session.queued
    if len(session.queue) > RUNS:
        return session.queued
    return min(session.queued, int(seconds / WORTH_SECONDS) + 1)


def may_have(session: Session) -> bool:
    """Whether any of its tasks may be handed out now."""
    if session.readers is not None and readers.kept_out(session):
        return False
    return not (session.suspended or session.client.held_back)


def suits(executor: Executor, session: Session) -> bool:
    """Whether it may serve the session: no other program's modules, nor tenant's data, are in there."""
    if executor.environment is None:
        return True  # it has served nobody
    if executor.confined or executor.tenant != session.tenant or is_confined(session):
        return False
    if (executor.devices or session.gpus) and not devices.suits(executor, session):
        return False
    return executor.owner == session.client.peer or executor.environment == session.spec.environment


def lending(session: Session, gang: Session) -> float:
    """Seconds until an executor that begins a task of the one can serve the other; inf: nobody can tell."""
    if session.seconds < 0:
        return math.inf
    if session is gang:
        return session.seconds
    same = session.client is gang.client or session.spec.environment == gang.spec.environment
    if same and session.tenant == gang.tenant and not (is_confined(session) or is_confined(gang)):
        return session.seconds
    return session.seconds + gangs.FRESH_SECONDS


def is_confined(session: Session) -> bool:
    """Whether it shares no process with other sessions."""
    return session.application is not None and session.application.application.isolation == "session"


def _bind(broker: Broker, executor: Executor, session: Session, now: float, out: Effects) -> None:
    executor.session = session
    executor.leaving = False
    executor.heard = now
    session.executors[executor.peer] = executor
    events.bound(session, executor, now)
    if executor.service is not None and executor.service is not session:
        services.unbind(executor, out)
    if executor.unbinding:
        services.watch(broker, executor, now)


def _unbind(broker: Broker, executor: Executor, session: Session, now: float, out: Effects) -> None:
    executor.session, executor.leaving = None, False
    executor.rests_since, executor.rests_until, executor.preempt_at = None, math.inf, math.inf
    if session.closed and executor.service is session:
        services.unbind(executor, out)
    if executor.devices and executor.environment is None:
        executor.devices = ()  # its process was told nothing yet, and may serve who asks for none
    del session.executors[executor.peer]
    events.unbound(session, now)
    broker.scheduler.release(executor.peer, now)
    broker.forget_if_over(session)


def release(broker: Broker, executor: Executor, now: float, out: Effects) -> None:
    """It holds nothing: whoever needs it may have it."""
    if executor.session is not None:
        _unbind(broker, executor, executor.session, now, out)
        if executor.departing:
            dismiss(broker, executor, now, out)


def _feed_all(broker: Broker, executors: list[Executor], little: bool, out: Effects) -> None:
    """Feed each; the tail of a queue is for all that serve the session, whether they are fed now or soon.

    little: only what is not worth waking another executor for
    """
    shares: dict[int, int] = {}  # session -> tasks for each
    for executor in executors:
        session = executor.session
        if session is None or executor.leaving or executor.unbinding:
            continue  # reclaimed just now, or not ready
        share = shares.get(session.number)
        if share is None:
            share = shares[session.number] = -(-session.queued // len(session.executors))
        if session.queued:
            _feed(broker, executor, session, share, little, out)
        if not (little or executor.tasks or session.actor or executor.peer in broker.holding_out):
            broker.fed[executor.peer] = executor  # the others have taken all: it is free again


def _feed(
    broker: Broker, executor: Executor, session: Session, share: int, little: bool, out: Effects
) -> None:
    """Grant what fits under the executor's credit and into its share of the queue, as one message."""
    runs: list[Run] = []
    count = 0
    queue = session.queue
    before = executor.tasks
    limits = broker.limits
    most = limits.max_grant
    if session.counted:
        most = min(most, wear.left(executor, session))
    while queue:
        run = queue[0]
        if session.readers is not None and readers.kept_out(session):
            break
        known = run.function.seconds >= 0
        estimate = _estimate(run.function, session)
        n = _credit(broker, session, executor, estimate, before + count, little)
        if executor.stalled or (broker.scheduler.idle and not known):
            n = min(n, 1 - before - count)  # it may be long: an idle one shall have the next
        n = min(n, max(share, int(WORTH_SECONDS / estimate) if known else 1) - count)
        n = min(n, len(run), most - count)
        if session.actor and session.blocked:
            n = min(n, actors.gate(session) - run.start)
        if n <= 0:
            break
        if session.inputs:
            n, function = locality.bring_near(broker, executor, session, n, little), run.function
            if not n:
                break
            run = queue[0]
            if run.function is not function:
                n, estimate = 1, _estimate(run.function, session)
        if n == len(run):
            queue.popleft()
        else:
            run = run.take(n)
        run.estimate = estimate if estimate >= 0 else limits.short_seconds
        executor.load += n * run.estimate
        session.queued -= n
        count += n
        runs.append(run)
        executor.tasks = before + count
        if len(run.function.blob) > FUNCTION_BYTES and run.function.number not in executor.known:
            break  # a message of its own: it has to fit into a frame
    if count:
        if executor.bound_to != session.number:
            wear.bind(executor, session, out)
        if session.counted:
            wear.take(executor, session, count)
            if executor.binding and executor.enters_at is None:
                executor.enters_at = broker.now
        if session.meter is not None:
            session.meter.on_leave(runs)
        _grant(broker, executor, session, runs, count, out)
        if session.spec.within:
            taken = [index for run in runs for index in range(run.start, run.end)]
            out.append((session.client.peer, m.Taken(session.alias, taken), []))
        if not before:
            session.busy += 1
            executor.since = broker.now
            if executor.rests_since is not None:
                rests.end(broker, executor)
        session.held += count
        if executor.tasks > 1 and not session.actor:  # nothing of an actor's goes elsewhere
            broker.laden[executor.peer] = executor
        broker.demand(session)


def _estimate(function: Function, session: Session) -> float:
    """Seconds that one task of this function will take; -1.0 when nobody can tell."""
    if function.seconds >= 0:
        return function.seconds
    return max(session.seconds, UNKNOWN_SECONDS) if session.seconds >= 0 else -1.0


def _credit(
    broker: Broker, session: Session, executor: Executor, estimate: float, holds: int, little: bool
) -> int:
    """How many more tasks of this run time the executor may be given."""
    limits = broker.limits
    if estimate < 0 or estimate >= limits.short_seconds:
        enough = session.queued > 2 * len(session.executors)
        hide = 0 <= estimate < limits.hidden_seconds and enough and not little
        return max((2 if hide else 1) - holds, 0)
    if holds == 1 and executor.load >= limits.short_seconds:
        return 0  # what it has is long, or nobody can tell: a short one shall not wait for that
    horizon = limits.horizon_seconds
    if little:
        horizon = WORTH_SECONDS
    elif not broker.scheduler.crowded:  # where sessions take turns, each turn shall be short
        horizon = max(horizon, min(limits.batch_tasks * estimate, limits.deep_seconds))
    room = horizon - executor.load
    if holds > 1 and room < horizon / 2:
        return 0  # refill by halves: larger messages
    return max(int(room / estimate), (1 if little else 2) - holds)


def _grant(
    broker: Broker, executor: Executor, session: Session, runs: list[Run], count: int, out: Effects
) -> None:
    functions: list[m.NewFunction] = []
    known = executor.known
    for run in runs:
        function = run.function
        if function.number not in known:
            known[function.number] = None
            functions.append(m.NewFunction(function.number, function.blob, function.label))
        if function.timeout:
            overdue = broker.now + function.timeout + broker.limits.grace_seconds
            broker.look_at = min(broker.look_at, overdue)
    forget: list[int] = []
    if len(known) > broker.limits.known_functions:
        forget = _forget(broker, executor, runs)
    slices = [m.Slice(run.function.number, run.start, len(run), run.attempt) for run in runs]
    if len(runs) == 1 and not runs[0].done:
        inputs = runs[0].inputs
    else:
        inputs = [payload for run in runs for payload in run.inputs[run.done :]]
    parts: list[int] = []
    frames: list[object] = []
    if any(run.big for run in runs):
        inputs, parts, frames = join_payloads(inputs)
    retried = [session.retried.get(run.start, 0) for run in runs] if session.retried else []
    executor.held.extend(runs)
    grant = m.Grant(session.number, functions, forget, slices, inputs, parts, retried)
    out.append((executor.peer, grant, frames))


def _forget(broker: Broker, executor: Executor, runs: list[Run]) -> list[int]:
    """Functions that the executor may throw away: the oldest ones, none that it still needs."""
    needed = {run.function.number for held in (executor.held, runs) for run in held}
    surplus = len(executor.known) - broker.limits.known_functions // 2
    forget = [number for number in executor.known if number not in needed][:surplus]
    for number in forget:
        del executor.known[number]
    return forget


# --- taking back


def _reclaim(broker: Broker, executor: Executor, now: float, out: Effects) -> None:
    """The executor is to serve another session as soon as it holds nothing."""
    session = executor.session
    assert session is not None
    let_run_dry(broker, executor, session)
    if not executor.tasks:
        broker.fed[executor.peer] = executor
    elif executor.tasks > 1 and not executor.asked and executor.load > broker.limits.horizon_seconds:
        ask(executor, session, 1, out)
    if session.spec.preempt_after and session.spec.max_retries and executor.tasks:
        executor.preempt_at = now + session.spec.preempt_after
        heappush(broker.preempts, (executor.preempt_at, executor.peer))


def let_run_dry(broker: Broker, executor: Executor, session: Session) -> None:
    """It gets no more tasks, and no longer counts as one that the session has."""
    if not executor.leaving:
        executor.leaving = True
        if executor.tasks:
            session.busy -= 1
        broker.demand(session)


def _retract_for_idle(broker: Broker, now: float, out: Effects) -> None:
    """Idle executors get what others hold and have not begun, where it would wait for long."""
    limits = broker.limits
    idle = broker.scheduler.idle
    for executor in list(broker.laden.values()):
        session = executor.session
        if idle <= 0:
            return
        if executor.asked or session is None or session.closed:
            continue
        silent = now - executor.heard
        if silent < limits.overdue_seconds or silent < 2 * executor.load / executor.tasks:
            continue
        executor.stalled = True
        ask(executor, session, 1, out)
        idle -= executor.tasks - 1


def dismiss(broker: Broker, executor: Executor, now: float, out: Effects) -> None:
    """It holds nothing and serves nobody: it may go."""
    broker.scheduler.remove_executor(executor.peer, now)
    executor.exiting = True
    out.append((executor.peer, m.Exit(), []))


def ask(executor: Executor, session: Session, keep: int, out: Effects) -> None:
    """Retract all that has not begun but the `keep` oldest."""
    executor.asked.append((session, None))
    out.append((executor.peer, m.Retract(session.number, keep), []))


def take_back(executor: Executor, session: Session, indices: set[int]) -> list[Run]:
    """Remove these tasks from what the executor holds; returns them as runs, in their order."""
    kept: deque[Run] = deque()
    back: list[Run] = []
    for run in executor.held:
        here = {i for i in range(run.start, run.end) if i in indices}
        if not here:
            kept.append(run)
            continue
        kept.extend(run.without(here))
        back.extend(run.without(set(range(run.start, run.end)) - here))
        executor.load -= len(here) * run.estimate
        executor.tasks -= len(here)
        session.held -= len(here)
        if session.counted:
            wear.take(executor, session, -len(here))
    executor.held = kept
    return back


def is_first(held: deque[Run], first: int, count: int, attempt: int) -> bool:
    """Whether these tasks are the first ones held, in their order: so executors run and report them."""
    index = first
    for run in held:
        if run.first + run.done != index or run.attempt != attempt:
            return False
        index = run.first + len(run.inputs)
        if index - first >= count:
            return count > 0
    return False


def bring_to_front(held: deque[Run], first: int, count: int, attempt: int) -> bool:
    """Arrange that these tasks are the first ones held; False, and no change, when one is not held so."""
    if not 0 < count <= sum(map(len, held)):
        return False
    wanted = set(range(first, first + count))
    front: list[Run] = []
    rest: list[Run] = []
    for run in held:
        if run.attempt != attempt or run.start >= first + count or run.end <= first:
            rest.append(run)
            continue
        rest += run.without(wanted)
        front.append(run.between(max(run.start, first), min(run.end, first + count)))
    if sum(map(len, front)) != count:
        return False
    held.clear()
    held.extend(merge(front))
    held.extend(rest)
    return True


def requeue(session: Session, runs: Iterable[Run]) -> None:
    """Back to the front of the queue (of their priority), in the order of their indices."""
    back = merge(list(runs))
    for run in reversed(back):
        session.queue.appendleft(run)
        session.queued += len(run)
    if session.meter is not None:
        session.meter.on_return(back)
