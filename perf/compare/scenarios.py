"""What every engine is asked to do, and the figures that come of it.

A scenario asks a session, and returns figures by name.  Its size is the number of
tasks (rounds, items, seconds); a slow peer's file may ask for less, which the
table says.  Those that are `beside` are measured for flamezmq too in each run, so
that there are ratios within one run.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import monotonic, sleep

from perf import isolate
from perf.compare.face import Peer
from perf.compare.session import PeerFailed, Session, environment
from perf.measure import sample
from perf.scenarios.cold import start

WORKERS = 2
MEGABYTE = 1_000_000
KILL_TASK_SECONDS = 5e-3
#: After a kill, beyond twice the usual time.
PATIENCE_SECONDS = 10.0
#: fib(n) for `nested`.
FIBONACCI = (0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144)

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Scenario:
    """`fresh`: it begins in a session of its own, because it weighs memory, or breaks the engine."""

    run: Callable[[Session, int], Figures]
    full: int
    quick: int
    beside: bool = False
    fresh: bool = False


def ping(session: Session, tasks: int) -> Figures:
    """Rate and CPU, warm: the median of three if they are short."""
    session.ask("ping", 60, tasks=max(tasks // 4, 1))
    runs: list[tuple[float, float]] = []
    began = monotonic()
    while len(runs) < 3 and (not runs or monotonic() - began < 5):
        answer, cost = session.measured("ping", 60, tasks=tasks)
        runs.append((tasks / answer["seconds"], cost.cpu_us(tasks)))
    return {"tasks_per_s": median(rate for rate, _ in runs), "cpu_us": median(cpu for _, cpu in runs)}


def roundtrip(session: Session, rounds: int) -> Figures:
    """One at a time, warm."""
    session.ask("roundtrip", 30, rounds=max(rounds // 10, 1))
    return session.ask("roundtrip", 60, rounds=rounds)


def batch(session: Session, items: int) -> Figures:
    """The best batch call."""
    return {"items_per_s": items / session.ask("batch", 60, items=items)["seconds"]}


def short(session: Session, tasks: int) -> Figures:
    """The share of two workers' time that is work, when tasks take 1 ms."""
    session.ask("spin", 30, tasks=max(tasks // 10, 20), seconds=1e-3)
    took = session.ask("spin", 60, tasks=tasks, seconds=1e-3)["seconds"]
    return {"efficiency": tasks * 1e-3 / (WORKERS * took)}


def payload(session: Session, count: int) -> Figures:
    """MB/s of 1 MB each, out and in."""
    found = {}
    for way in ("results", "arguments"):
        session.ask(way, 30, size=MEGABYTE, count=max(count // 10, 2))
        found[f"{way}_mb_per_s"] = count / session.ask(way, 40, size=MEGABYTE, count=count)["seconds"]
    return found


def idle(session: Session, seconds: int) -> Figures:
    """CPU seconds of all processes in ten seconds without work, after a moment of calm."""
    sleep(1.0)
    cost = sample(session.pids(), lambda: sleep(seconds))
    return {"cpu_s": sum(cost.cpu.values()) * 10 / cost.seconds}


def nested(session: Session, number: int) -> Figures:
    """fib of this number, submit and wait in each call."""
    return {"seconds": session.ask("fib", 25, number=number, expected=FIBONACCI[number])["seconds"]}


def queue(session: Session, tasks: int) -> Figures:
    """What a queued task weighs, all processes together.  The session is over then."""
    session.ask("hold", 30)
    before = session.memory()
    queued = session.ask("fill", 40, tasks=tasks, seconds=20.0)["queued"]
    deadline, last = monotonic() + 15, session.memory()
    while monotonic() < deadline:
        sleep(0.5)
        now = session.memory()
        if now - last < 1 << 20:  # the last submits have arrived
            break
        last = now
    session.end(gently=False)  # its workers are held
    return {"kb_per_task": (max(now, last) - before) / queued / 1000, "queued": queued}


def kill(session: Session, tasks: int) -> Figures:
    """How tasks ended when one of two workers was killed, how much longer it took, when it was replaced."""
    limit = 80.0
    asked = {"tasks": tasks, "seconds": KILL_TASK_SECONDS, "patience": PATIENCE_SECONDS}
    found = session.ask("kill", limit, **asked)
    kept = ("done", "wrong", "failed", "pending", "repeated")
    cost = {"extra_seconds": found["seconds"] - found["usual"], "gap_seconds": found["gap"]}
    return {name: found[name] for name in kept} | cost


SCENARIOS: dict[str, Scenario] = {
    "ping": Scenario(ping, 10_000, 500, beside=True),
    "roundtrip": Scenario(roundtrip, 1_000, 50, beside=True),
    "batch": Scenario(batch, 1_000_000, 1_000, beside=True),
    "short": Scenario(short, 2_000, 100, beside=True),
    "payload": Scenario(payload, 500, 20, beside=True),
    "idle": Scenario(idle, 5, 1),
    "nested": Scenario(nested, 12, 5),
    "queue": Scenario(queue, 200_000, 2_000, fresh=True),
    "kill": Scenario(kill, 2_000, 200, fresh=True),
}
COLD = "cold"


def cold(kind: type[Peer], python: Path, repeats: int) -> Figures:
    """From the start of the peer's Python to the first result: the median, after one unmeasured start.

    Where that one took seconds, one more is enough.
    """
    folder = Path(tempfile.mkdtemp(prefix="flmp-", dir="/tmp"))
    try:
        asked = (kind.program, python, environment(python, folder))
        first = isolate.isolated(start, *asked, limit=45).result
        repeats = repeats if first < 2 else 1
        seconds = [isolate.isolated(start, *asked, limit=45).result for _ in range(repeats)]
    except isolate.JobFailed as why:
        raise PeerFailed(f"{str(why)[:120]}...") from None  # it may quote the whole program
    finally:
        isolate.leaks.clear()  # daemons of a peer: they are ended
        shutil.rmtree(folder, ignore_errors=True)
    return {"seconds": median(seconds)}
