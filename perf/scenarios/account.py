"""The account: what every step of one round trip, and of one task in bulk, costs in CPU.

The real client, router and executor run in one thread (perf/loopback.py), so that
a step can be timed without the waiting.  Three tables: one task there and back,
10,000 at once (per message steps), and what each task pays (per task functions,
in loops).  The first two are timed by wrapping functions (perf/stopwatch.py);
the totals by thread come from runs without any wrapping.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import median
from time import process_time_ns, thread_time_ns
from typing import Any

from perf.engines import OURS
from perf.floor import four_hop
from perf.loopback import WHO, Loopback, Watch, counted, loopback
from perf.report import Report
from perf.settings import Settings
from perf.stopwatch import Point, Stopwatch, loop_us, medians
from perf.tasks import noop

TASKS = 10_000


@dataclass(frozen=True, slots=True)
class Account:
    """Microseconds of one trip, or of one task in bulk.

    threads      by who: its application thread
    io           ZeroMQ's I/O threads, all of them together
    steps        by label "who: what"
    calls        by who: function calls, Python's and C's
    """

    threads: dict[str, float]
    io: float
    steps: dict[str, float]
    calls: dict[str, float]


def run(settings: Settings, report: Report) -> None:
    trips, bulks = settings.pick(1000, 100), settings.pick(9, 2)
    found = report.attempt_ours(settings, "one trip", "us", None, accounts, trips, bulks, limit=100)
    if found is None:
        return
    for kind, account in found.items():
        _add(report, kind, account)
    bare = four_hop(1000, one_core=True).cpu_us
    note = f"{bare:.3g} us, with their sleeping and waking, which is left out of ours"
    ratio = _total(found["one trip"]) / bare
    report.add("one trip: all, times the bare four hops' CPU", OURS, ratio, "x", None, note)
    loops = report.attempt("in loops", OURS, "us", None, per_task, limit=60)
    for what, microseconds in (loops or {}).items():
        report.add(f"each task: {what}", OURS, microseconds, "us", note="in a loop")


def _add(report: Report, kind: str, account: Account) -> None:
    report.add(f"{kind}: all", OURS, _total(account), "us", note=f"I/O threads {account.io:.3g} of them")
    for who in WHO:
        steps = {what: us for what, us in account.steps.items() if what.startswith(f"{who}: ")}
        note = f"calls {account.calls[who]:.4g}; timed steps {sum(steps.values()):.3g} in all"
        report.add(f"{kind}: {who}", OURS, account.threads[who], "us", note=note)
        for what, microseconds in steps.items():
            report.add(f"{kind}:   {what}", OURS, microseconds, "us")
    report.raw.append({"kind": kind} | asdict(account))


def _total(account: Account) -> float:
    return sum(account.threads.values()) + account.io


def accounts(trips: int, bulks: int) -> dict[str, Account]:
    """Of one trip, and of one task of TASKS in bulk."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # steady; the I/O threads inherit it
    with loopback() as loop:
        return {
            "one trip": _account(loop, lambda watch: loop.trip(noop, watch), 1, trips),
            "one of 10,000": _account(loop, lambda watch: loop.bulk(noop, TASKS, watch), TASKS, bulks),
        }


Once = Callable[[Watch], None]


def _account(loop: Loopback, once: Once, tasks: int, rounds: int) -> Account:
    for _ in range(min(rounds, 50)):
        once(_Clocks().watch)  # warm
    plain = [_clocked(once) for _ in range(rounds)]
    stopwatch = Stopwatch()
    timed = []
    wrapped = points(loop)
    order = dict.fromkeys([label for label, _, _ in wrapped] + [f"{who}: the rest" for who in WHO])
    with stopwatch.on(wrapped):
        for _ in range(rounds):
            once(lambda who: stopwatch.label(f"{who}: the rest"))
            timed.append(stopwatch.take())
    counts = [counted(once) for _ in range(3)]
    threads = {who: median(clocks.threads[who] for clocks in plain) / tasks / 1e3 for who in WHO}
    return Account(
        threads,
        median(clocks.all - sum(clocks.threads.values()) for clocks in plain) / tasks / 1e3,
        {label: us / tasks for label, us in medians(timed, order).items()},
        {who: median(count[who] for count in counts) / tasks for who in WHO},
    )


class _Clocks:
    """CPU nanoseconds: of the thread, by who; of the whole process."""

    def __init__(self) -> None:
        self.threads = dict.fromkeys(WHO, 0)
        self.all = 0

    @contextmanager
    def watch(self, who: str) -> Iterator[None]:
        began = thread_time_ns()
        try:
            yield
        finally:
            self.threads[who] += thread_time_ns() - began


def _clocked(once: Once) -> _Clocks:
    clocks = _Clocks()
    outside, began = thread_time_ns(), process_time_ns()
    once(clocks.watch)
    whole, thread = process_time_ns() - began, thread_time_ns() - outside
    # What the thread did between the steps (looking whether something has come) is nobody's.
    clocks.all = whole - (thread - sum(clocks.threads.values()))
    return clocks


# --- the steps


def points(loop: Loopback) -> list[Point]:
    """The functions that are timed, in the order of a task's life.

    What client and executor share is wrapped on the object, not on the class.
    """
    from flamezmq.client.pump import Pump
    from flamezmq.client.session import Session
    from flamezmq.core.broker import Broker
    from flamezmq.core.caller import Calls
    from flamezmq.executor import Executor
    from flamezmq.net.board import Board
    from flamezmq.router import Router

    client, executor = loop.client._line, loop.executor.line
    return [
        ("client: name, pickle, future, into the outbox", Session, "submit"),
        ("client: whose turn it is, locks (push)", Pump, "push"),
        ("client: outbox to a message: columns, encode", Calls, "stage"),
        ("client: send: seal, hand to ZeroMQ", client, "_flush"),
        ("client: whose turn it is, locks (drive)", Pump, "drive"),
        ("client: wait", client, "turn"),
        ("client: receive, decode", client, "_take_messages"),
        ("client: apply: whose message it is", client, "_apply"),
        ("client: apply: finish the futures", Calls, "on_results"),
        ("router: receive, open, decode, the rest of the turn", Router, "turn"),
        ("router: wait for the first frame", Board, "_wait"),
        ("router: silent peers, when to come back", Board, "probe"),
        ("router: silent peers, when to come back", Broker, "next_deadline"),
        ("router: broker queues, or settles", Broker, "on_message"),
        ("router: broker decides: credit, grants", Broker, "on_turn_end"),
        ("router: send: encode, number", Board, "send"),
        ("router: send: seal, hand to ZeroMQ", Board, "flush"),
        ("executor: locks", Executor, "_flush"),
        ("executor: wait", executor, "turn"),
        ("executor: receive, decode", executor, "_take_messages"),
        ("executor: apply: grant to tasks", executor, "_apply"),
        ("executor: run: load, call, dump", Executor, "_work"),
        ("executor: results to a message: columns, encode", Executor, "_commit"),
        ("executor: send: seal, hand to ZeroMQ", executor, "_flush"),
    ]


def per_task() -> dict[str, float]:
    """What is done once for each task, whatever the batch, each in a loop of its own."""
    from flamezmq.client.future import Future
    from flamezmq.core.caller import FINISHED
    from flamezmq.serialize.functions import FunctionTable
    from flamezmq.serialize.values import dump_call, dump_value, load_call, load_value

    table, session = FunctionTable(), Any
    table.name(noop)
    call, value = dump_call((), {}, noop), dump_value(None)
    done: Any = Future(session)  # type: ignore[arg-type]
    done._value, done._state = value, FINISHED
    done.result()
    return {
        "client: name the function": loop_us(lambda: table.name(noop)),
        "client: pickle the arguments": loop_us(lambda: dump_call((), {}, noop)),
        "client: make a future": loop_us(lambda: Future(session)),  # type: ignore[arg-type]
        "client: unpickle the result": loop_us(lambda: load_value(value)),
        "client: result() of one that is done and was looked at": loop_us(done.result),
        "executor: unpickle the arguments": loop_us(lambda: load_call(call)),
        "executor: call a function that does nothing": loop_us(noop),
        "executor: pickle the result": loop_us(lambda: dump_value(None)),
    }
