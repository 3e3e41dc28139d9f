"""What it costs the router to share 1,000 executors between 1, 10, 100 or 1,000 sessions.

The cores alone: no process, no socket.  A *bind* is an executor that is free, and is
given to a session, where all sessions could use more than they have.  A *task* is one
result that comes in, and the next task that goes out, as messages of the broker
(columns of one; real ones are longer).  Neither may cost more where there are more sessions.
"""

from __future__ import annotations

import gc
from random import Random
from time import perf_counter

import msgspec

from flamezmq.core.broker import Broker
from flamezmq.core.members import Effects
from flamezmq.scheduler import Scheduler
from flamezmq.wire import messages as m
from perf.engines import OURS
from perf.report import Report, at_most
from perf.settings import Settings

EXECUTORS = 1000
SESSIONS = (1, 10, 100, 1000)
#: From 1 session to 1,000, a task may cost so much more.
MOST_GROWTH = 1.5
#: Results that come in before the router's turn ends.
TURN = 16
TASK_SECONDS = 0.01
NOTHING = msgspec.Raw(msgspec.msgpack.encode([b""]))


def run(settings: Settings, report: Report) -> None:
    rounds = settings.repeats(5)
    binds, tasks = settings.pick(20_000, 2000), settings.pick(40_000, 4000)
    first = 0.0
    for sessions in SESSIONS:
        each = min(seconds_per_bind(sessions, binds) for _ in range(rounds))
        report.add(f"a bind, {sessions:,} sessions", OURS, each * 1e6, "us")
    for sessions in SESSIONS:
        each = min(seconds_per_task(sessions, tasks) for _ in range(rounds))
        first = first or each
        target = at_most(MOST_GROWTH * first * 1e6) if sessions > 1 else None
        report.add(f"a task, {sessions:,} sessions", OURS, each * 1e6, "us", target)


def seconds_per_bind(sessions: int, binds: int) -> float:
    """Executors come free in any order, and are handed out one by one."""
    chance = Random(sessions)
    scheduler = Scheduler()
    for number in range(1, sessions + 1):
        scheduler.add_session(number, 0.0, weight=chance.choice((1.0, 2.0, 4.0)))
        scheduler.want(number, 10 * EXECUTORS)
    executors = range(1, EXECUTORS + 1)
    for executor in executors:
        scheduler.add_executor(executor)
    now = 0.0
    scheduler.decide(now)
    free = [chance.choice(executors) for _ in range(binds)]
    gc.collect()
    began = perf_counter()
    for executor in free:
        now += 1e-5
        scheduler.release(executor, now)
        scheduler.decide(now)
    return (perf_counter() - began) / binds


def seconds_per_task(sessions: int, tasks: int) -> float:
    """Executors end their tasks in turn, and get the next ones of their sessions."""
    broker = Broker()
    out: Effects = []
    client, worker, first = 1, 2, 10
    broker.on_client(client)
    broker.on_message(worker, m.Register("node", "token", 1, 1.0, 1, EXECUTORS), [], 0.0, out)
    for number in range(EXECUTORS):
        broker.on_message(first + number, m.Ready("node", "token", number, number + 1), [], 0.0, out)
    each = 2 + (3 * EXECUTORS + tasks) // sessions
    for alias in range(1, sessions + 1):
        broker.on_message(client, m.Open(alias, f"s{alias}", m.SessionSpec("s")), [], 0.0, out)
        part = m.Slice(1, 0, each, 1)
        submit = m.Submit(alias, [m.NewFunction(1, b"f%d" % alias)], [], [part], [b""] * each, [])
        broker.on_message(client, submit, [], 0.0, out)
    broker.on_turn_end(0.0, out)
    _answer(broker, EXECUTORS, 0.0, out)
    gc.collect()
    began = perf_counter()
    _answer(broker, tasks, 1.0, out)
    return (perf_counter() - began) / tasks


def _answer(broker: Broker, tasks: int, now: float, out: Effects) -> None:
    """So many results come in, each for the oldest task that was granted."""
    executors = list(broker.executors.values())
    for step in range(tasks):
        executor = executors[step % len(executors)]
        session = executor.session
        if session is not None and executor.held:
            run = executor.held[0]
            part = m.Slice(run.function.number, run.start, 1, run.attempt)
            result = m.RoutedResults(session.number, [part], [], [TASK_SECONDS], [], NOTHING)
            broker.on_message(executor.peer, result, [], now, out)
        if step % TURN == TURN - 1:
            now += TASK_SECONDS * TURN / len(executors)
            broker.on_turn_end(now, out)
            out.clear()
