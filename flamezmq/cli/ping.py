"""flmping: send tasks through a cluster and say how long it took.

Every task is a real one: pickled, routed, run in an executor process, its
result unpickled and checked.  The words are Flame's.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import click

BAR = 45


def ping(seconds: float, payload: bytes) -> bytes:
    """The task: burn so much CPU time, then give the payload back."""
    if seconds:
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass
    return payload


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: flmping -t 10000 -p.  Exit codes: 0 done, 1 a result was wrong, 2 bad arguments or no cluster, "  # noqa: E501
    "130 interrupted.",
)
@click.option(
    "-t", "--task-num", type=click.IntRange(1), default=10, show_default=True, help="Number of tasks."
)
@click.option("-d", "--duration", type=click.FloatRange(0), default=0.0, help="CPU time of each task in ms.")
@click.option(
    "-s", "--size", type=click.IntRange(0), default=0, help="Payload of each task in bytes, both ways."
)
@click.option("-e", "--executors", type=click.IntRange(1), help="Executors of the embedded cluster.")
@click.option("-a", "--address", help="Router to use; without one an embedded cluster is started.")
@click.option(
    "-p", "--perf", is_flag=True, help="Add throughput, CPU per task, round trips and the four-hop floor."
)
@click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", help="Form of the output."
)
def main(
    task_num: int,
    duration: float,
    size: int,
    executors: int | None,
    address: str | None,
    perf: bool,
    output: str,
) -> None:
    """Run TASK_NUM tasks through a flamezmq cluster and print how long they took."""
    import flamezmq as flm

    try:
        with flm.Client(address, executors=executors) as client:
            facts = _run(client, task_num, duration / 1000, os.urandom(size), output == "table")
            if perf:
                facts.update(_perf(client, facts, task_num))
    except KeyboardInterrupt:
        sys.exit(130)
    except (flm.FlameError, ValueError) as error:
        click.echo(f"flmping: {error}", err=True)
        sys.exit(2)
    _report(facts, output)
    sys.exit(1 if facts["wrong"] else 0)


def _run(client: Any, count: int, seconds: float, payload: bytes, show: bool) -> dict[str, Any]:
    start = time.perf_counter()
    session = client.session("flmping")
    created = time.perf_counter() - start
    if show:
        click.echo(
            f"Session <{session.id}> was created in <{created * 1000:.0f} ms>, "
            f"start to run <{count:,}> tasks in the session:\n"
        )
    with session:
        before = _cpu(client)
        start = time.perf_counter()
        futures = [session.submit(ping, seconds, payload) for _ in range(count)]
        wrong = 0
        drawn = start
        live = show and sys.stdout.isatty()
        for done, future in enumerate(futures):
            wrong += future.result() != payload
            if live and not done % 256 and time.perf_counter() - drawn > 0.1:
                drawn = time.perf_counter()
                _bar(done, count, "\r")
        took = time.perf_counter() - start
        cpu = {role: value - before.get(role, 0.0) for role, value in _cpu(client).items()}
    if show:
        _bar(count, count, "\n")
    return {
        "session": session.id,
        "created_ms": created * 1000,
        "tasks": count,
        "milliseconds": took * 1000,
        "wrong": wrong,
        "cpu_us_per_task": {role: value / count * 1e6 for role, value in cpu.items()},
    }


def _bar(done: int, count: int, end: str) -> None:
    filled = "=" * (BAR * done // count)
    print(f"[{100 * done // count:3d}%] {filled:<{BAR}}   {done}/{count}", end=end, flush=True)


def _cpu(client: Any) -> dict[str, float]:
    """CPU seconds so far, by role; processes that have gone do not count."""
    seconds = {"client": time.process_time()}
    for role, pids in client.processes().items():
        for pid in pids:
            try:
                for thread in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
                        seconds[role] = seconds.get(role, 0.0) + int(file.read().split()[0]) / 1e9
            except OSError:
                continue
    return seconds


def _perf(client: Any, facts: dict[str, Any], count: int) -> dict[str, Any]:
    from flamezmq.cli import four_hop

    times = []
    with client.session("flmping-trips") as session:
        for turn in range(2200):
            start = time.perf_counter()
            session.submit(ping, 0.0, b"").result()
            if turn >= 200:
                times.append(time.perf_counter() - start)
    times.sort()
    trips = {
        name: times[int(len(times) * q)] * 1e6 for name, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
    }
    return {
        "tasks_per_second": count / facts["milliseconds"] * 1000,
        "round_trip_us": trips,
        "four_hop_floor": four_hop.measure(),
    }


def _report(facts: dict[str, Any], output: str) -> None:
    if output == "json":
        click.echo(json.dumps(facts, indent=2))
        return
    click.echo(f"\n<{facts['tasks']:,}> tasks was completed in <{facts['milliseconds']:.0f} ms>.")
    if facts["wrong"]:
        click.echo(f"{facts['wrong']} results were not what was sent", err=True)
    if "round_trip_us" in facts:
        cpu, trips, floor = facts["cpu_us_per_task"], facts["round_trip_us"], facts["four_hop_floor"]
        parts = ", ".join(f"{role} {value:.1f}" for role, value in cpu.items())
        click.echo(f"\nthroughput      {facts['tasks_per_second']:,.0f} tasks/s")
        click.echo(f"CPU per task    {sum(cpu.values()):.1f} us ({parts})")
        click.echo("round trip      " + ", ".join(f"{name} {value:.0f} us" for name, value in trips.items()))
        click.echo(
            f"four-hop floor  p50 {floor['p50_us']:.0f} us, p90 {floor['p90_us']:.0f} us, p99 {floor['p99_us']:.0f} us"  # noqa: E501
        )


if __name__ == "__main__":
    main()
