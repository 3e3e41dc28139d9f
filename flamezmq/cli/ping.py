"""flmping: send tasks through a cluster, check each result, say how long it took.

Every task is a real one: pickled, routed, run in an executor process, its result
unpickled and compared.  The clock runs from the first submit to the last
comparison; before it starts, each executor of an embedded cluster has answered
once.  The words are Flame's.

What this file adds to a task is a comparison and a look at a counter, so that
the engine is measured and not its measure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from math import ceil, inf, isnan
from time import monotonic, perf_counter, process_time
from typing import TYPE_CHECKING, Any, NoReturn

import click

from flamezmq import capacity, config
from flamezmq.address import check
from flamezmq.cli.ending import run_and_exit
from flamezmq.cli.tasks import carry, echo, who, work
from flamezmq.errors import FlameError

if TYPE_CHECKING:
    from flamezmq.client.api import Client
    from flamezmq.client.session import Session

#: The progress bar's width, and how often it is drawn at most.
BAR_COLUMNS = 45
BAR_SECONDS = 0.1
#: Submitted before the first of them is gathered; twice as many may be on their way.
AHEAD_TASKS = 1 << 16
AHEAD_BYTES = 64 << 20
#: Each frame of a message must stay under the router's limit.
MOST_BYTES = 512 << 20
#: An executor that has not answered after so long will not come.
PATIENCE_SECONDS = 20.0
#: How long each `who` task stays, so that the next one goes to another executor.
STAY_SECONDS = 0.002
#: Round trips and floor of -p.
TRIPS = 1000
TRIPS_SECONDS = 5.0

FAILED = 1


class Failure(Exception):
    """A task failed, or its result is wrong."""


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  flmping -t 10000                 10,000 tasks through a cluster of this machine
  flmping -t 10000 -p              the same, and what it cost, beside bare ZeroMQ
  flmping -t 200 -d 10 -s 100000   10 ms of CPU and 100 kB each way per task

\b
Exit codes:
  0    every result came and was the right one
  1    a task failed, a result was wrong, or the cluster was lost on the way
  2    bad arguments, or no cluster to be had
  130  Ctrl-C
""",
)
@click.option(
    "-t", "--task-num", type=click.IntRange(min=1), default=10, show_default=True, help="How many tasks."
)
@click.option(
    "-d",
    "--duration",
    type=click.FloatRange(min=0, max=3_600_000),
    default=0.0,
    metavar="MS",
    help="CPU time of each task, milliseconds.",
)
@click.option(
    "-s",
    "--size",
    type=click.IntRange(min=0, max=MOST_BYTES),
    default=0,
    metavar="BYTES",
    help="Payload of each task, and of its result.",
)
@click.option(
    "-e",
    "--executors",
    type=click.IntRange(min=1, max=1024),
    metavar="N",
    help="Executors of the cluster that flmping starts.  [default: one per usable core]",
)
@click.option(
    "-a",
    "--address",
    metavar="ADDRESS",
    help="The router to use, tcp://host:port or ipc://path.  [default: $FLAMEZMQ_ADDRESS, else the address "
    "in flamezmq.toml, else a cluster of its own]",
)
@click.option(
    "-p",
    "--perf",
    is_flag=True,
    help="Add throughput, CPU per task by process, round trips one at a time, and the same round trip "
    "through a bare ZeroMQ broker (the four-hop floor).",
)
@click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Form."
)
def command(
    task_num: int,
    duration: float,
    size: int,
    executors: int | None,
    address: str | None,
    perf: bool,
    output: str,
) -> None:
    """Send tasks through a flamezmq cluster and say how long they took.

    Every task is a real one: pickled, routed, run in an executor process, its result unpickled
    and checked.
    """
    if isnan(duration):
        raise click.UsageError("Invalid value for '-d' / '--duration': nan is not in the range.")
    address = address or _configured()
    if address is None:
        executors = executors or max(1, int(capacity.usable_cores()))
    elif executors is not None:
        raise click.UsageError("-e starts a cluster of its own; it does not go with an address.")
    else:
        try:
            check(address)
        except ValueError as error:
            raise click.UsageError(f"{error}.") from error
    client = _connected(address, executors)
    with client:
        _warm_up(client, executors)
        began = perf_counter()
        with client.session("flmping") as session:
            created = perf_counter() - began
            ping = Ping(client, session, task_num, duration / 1000, size, perf)
            facts: dict[str, Any] = {
                "session": session.id,
                "tasks": task_num,
                "duration_ms": duration,
                "size_bytes": size,
                "executors": executors,
                "created_ms": round(created * 1e3, 3),
            }
            if output == "table":
                _say(
                    f"Session <{session.id}> was created in <{_ms(created)}>, "
                    f"start to run <{task_num:,}> tasks in the session:\n"
                )
            facts["completed_ms"] = round(ping.run(Bar(task_num, output == "table")) * 1e3, 3)
            if output == "table":
                _say(f"\n<{task_num:,}> tasks was completed in <{_ms(ping.seconds)}>.")
            if perf:
                facts["perf"] = ping.measure()
    if output == "json":
        _say(json.dumps(facts, indent=2))
    elif perf:
        _show(facts["perf"])


def _ms(seconds: float) -> str:
    return f"{ceil(seconds * 1e3):,} ms"


# --- the cluster -------------------------------------------------------------------------


def _configured() -> str | None:
    """The address in the environment or the file of settings."""
    try:
        found: str | None = config.settings("client")["address"]
    except FlameError as error:
        raise click.UsageError(str(error)) from error
    return found


def _connected(address: str | None, executors: int | None) -> Client:
    from zmq import ZMQError

    from flamezmq.client.api import Client

    try:
        return Client(address, executors=executors)
    except ZMQError as error:
        raise click.UsageError(f"can't use the address {address!r}: {error}.") from error
    except (FlameError, ValueError, OSError) as error:
        raise click.UsageError(str(error)) from error


def _warm_up(client: Client, executors: int | None) -> None:
    """Wait until every executor of our own cluster, or somebody in another one, has answered."""
    answered: set[int] = set()
    wanted = executors or 1
    until = monotonic() + PATIENCE_SECONDS
    with client.session("flmping-start") as session:
        while len(answered) < wanted:
            try:
                futures = [session.submit(who, STAY_SECONDS) for _ in range(2 * wanted)]
                answered.update(future.result(until - monotonic()) for future in futures)
            except FlameError as error:
                raise click.UsageError(str(error)) from error
            except TimeoutError:
                session.close(cancel=True)
                raise click.UsageError(
                    f"{len(answered)} of {wanted} executors have answered in {PATIENCE_SECONDS:g} s; "
                    "has the cluster a worker?"
                ) from None


# --- the run -----------------------------------------------------------------------------


class Ping:
    """`count` tasks, each with `seconds` of CPU and `size` bytes each way; `perf`: for `measure`."""

    def __init__(
        self, client: Client, session: Session, count: int, seconds: float, size: int, perf: bool
    ) -> None:
        self.client, self.session = client, session
        self.count, self.task_seconds, self.size = count, seconds, size
        self.seconds = 0.0
        self._data = os.urandom(max(size - 8, 0))  # behind the number, which makes each payload another
        self._perf = perf
        self._cpu: dict[str, float] = {}

    def run(self, bar: Bar) -> float:
        """Submit all, gather and check all; returns the seconds that it took."""
        ahead = AHEAD_TASKS if not self.size else min(AHEAD_TASKS, max(1, AHEAD_BYTES // self.size))
        before = self._cpu_seconds()
        began = perf_counter()
        waiting = self._submit(range(min(ahead, self.count)))
        for first in range(0, self.count, ahead):
            following = self._submit(range(first + ahead, min(first + 2 * ahead, self.count)))
            self._gather(waiting, first, bar)
            waiting = following
        self.seconds = perf_counter() - began
        self._cpu = {name: spent - before.get(name, 0.0) for name, spent in self._cpu_seconds().items()}
        bar.end()
        return self.seconds

    def _submit(self, numbers: range) -> list[Any]:
        submit, seconds, data = self.session.submit, self.task_seconds, self._data
        if self.size:
            return [submit(carry, number, seconds, self._head(number) + data) for number in numbers]
        if seconds:
            return [submit(work, number, seconds) for number in numbers]
        return [submit(echo, number) for number in numbers]

    def _gather(self, futures: list[Any], first: int, bar: Bar) -> None:
        is_right = self._is_right_data if self.size else int.__eq__
        look = 0 if self.task_seconds or self.size else 255  # short ones need no look after each
        for number, future in enumerate(futures, first):
            try:
                result = future.result()
            except Exception as error:
                raise Failure(f"task {future.task_id} failed: {_sentence(error)}") from error
            if is_right(number, result) is not True:
                raise Failure(f"task {future.task_id} gave {_brief(result)}, which is not what was sent")
            if not number & look and monotonic() >= bar.due:
                bar.draw(number + 1)
        futures.clear()

    def _head(self, number: int) -> bytes:
        return number.to_bytes(8, "little")[: self.size]

    def _is_right_data(self, number: int, result: object) -> bool:
        return (
            type(result) is bytes
            and len(result) == self.size
            and result.startswith(self._head(number))
            and result.endswith(self._data)
        )

    # --- -p

    def measure(self) -> dict[str, Any]:
        """What `run` cost, and round trips one at a time, half before the floor and half after it."""
        from flamezmq.cli import four_hop

        cpu = {name: round(spent / self.count * 1e6, 2) for name, spent in self._cpu.items()}
        transport = "tcp" if self.client.address.startswith("tcp") else "ipc"
        took = self._trips(TRIPS // 2)
        try:
            floor = four_hop.measure(TRIPS, transport)
        except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
            raise Failure(f"the four-hop floor could not be measured: {_last_line(error)}") from error
        took += self._trips(TRIPS - TRIPS // 2)
        p50, p90, p99 = _percentiles(took)
        return {
            "tasks_per_second": round(self.count / self.seconds),
            "cpu_us_per_task": {"all": round(sum(cpu.values()), 2), **cpu},
            "round_trip_us": {"p50": p50, "p90": p90, "p99": p99, "rounds": len(took)},
            "four_hop_floor_us": {
                "p50": floor.p50_us,
                "p90": floor.p90_us,
                "p99": floor.p99_us,
                "rounds": floor.rounds,
                "transport": transport,
            },
        }

    def _trips(self, rounds: int) -> list[float]:
        """Seconds of each; stops early where they are slow."""
        submit = self.session.submit
        for number in range(50):
            submit(echo, number).result()
        took: list[float] = []
        until = monotonic() + TRIPS_SECONDS / 2
        while len(took) < rounds and monotonic() < until:
            began = perf_counter()
            submit(echo, 1).result()
            took.append(perf_counter() - began)
        return took

    def _cpu_seconds(self) -> dict[str, float]:
        """Used so far, by role: this process, and those of the cluster if it is ours."""
        if not self._perf:
            return {}
        from flamezmq.cli.four_hop import cpu_seconds

        spent = {"client": process_time()}
        for role, pids in self.client.processes().items():
            spent[role] = sum(map(_or_nothing(cpu_seconds), pids))
        return spent


def _or_nothing(cpu_seconds: Callable[[int], float]) -> Callable[[int], float]:
    """A process that has just ended has used nothing."""

    def safely(pid: int) -> float:
        try:
            return cpu_seconds(pid)
        except OSError:
            return 0.0

    return safely


def _percentiles(seconds: Sequence[float]) -> list[float]:
    """p50, p90 and p99, in microseconds."""
    ordered = sorted(seconds)
    return [round(ordered[int(len(ordered) * q)] * 1e6, 1) for q in (0.50, 0.90, 0.99)]


def _sentence(error: BaseException) -> str:
    return str(error) if isinstance(error, FlameError) else f"{type(error).__name__}: {error}"


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:40]}... ({len(text)} characters)"


# --- what is shown -----------------------------------------------------------------------


class Bar:
    """The progress bar: on a terminal drawn in place, elsewhere only its last state."""

    def __init__(self, count: int, shown: bool) -> None:
        self.count, self.shown = count, shown
        self.due = inf  # when it may be drawn again
        self._open = False
        if shown and sys.stdout and sys.stdout.isatty():
            self.draw(0)

    def draw(self, done: int) -> None:
        self._open = True
        _say("\r" + self._line(done), end="")
        self.due = monotonic() + BAR_SECONDS

    def end(self) -> None:
        if self.shown:
            _say(("\r" if self._open else "") + self._line(self.count))
        self._open = False

    def _line(self, done: int) -> str:
        bar = "=" * (BAR_COLUMNS * done // self.count)
        total = str(self.count)
        return f"[{100 * done // self.count:3d}%] {bar:<{BAR_COLUMNS}}   {done:>{len(total)}}/{total}"


def _say(text: str, end: str = "\n") -> None:
    """On standard output, now; nowhere if it was closed before we began."""
    if sys.stdout:
        sys.stdout.write(text + end)
        sys.stdout.flush()


def _show(perf: dict[str, Any]) -> None:
    cpu = dict(perf["cpu_us_per_task"])
    trip, floor = perf["round_trip_us"], perf["four_hop_floor_us"]
    total = cpu.pop("all")
    parts = ", ".join(f"{name} {spent:.1f}" for name, spent in cpu.items())
    whose = "all processes together" if len(cpu) > 1 else "this process only; the cluster is not ours"

    def times(found: dict[str, Any]) -> str:
        return ", ".join(f"{name} {found[name]:.0f} us" for name in ("p50", "p90", "p99"))

    _say(f"\nthroughput      {perf['tasks_per_second']:,} tasks/s")
    _say(f"CPU per task    {total:.1f} us, {whose}: {parts}")
    _say(f"round trip      {times(trip)} ({trip['rounds']:,} empty tasks, one at a time)")
    _say(
        f"four-hop floor  {times(floor)} (the same through a bare ZeroMQ broker, {floor['transport']}, "
        "in this run)"
    )


def main() -> NoReturn:
    """The console script."""
    run_and_exit("flmping", command, {Failure: FAILED, FlameError: FAILED})


if __name__ == "__main__":
    main()
