"""`flmctl list`: sessions, executors, nodes."""

from __future__ import annotations

import click

from flamezmq.cli.ctl_base import address_option, connect
from flamezmq.cli.ctl_output import (
    Column,
    Row,
    clock,
    executor_row,
    memory,
    node_row,
    note,
    output_option,
    session_row,
    show,
)

#: Flame's columns, and more when there is room.
SESSIONS: tuple[Column, ...] = (
    Column("ID", "id"),
    Column("State", "state"),
    Column("App", "app"),
    Column("Slots", "slots", right=True),
    Column("Pending", "pending", right=True),
    Column("Running", "running", right=True),
    Column("Succeed", "succeed", right=True),
    Column("Failed", "failed", right=True),
    Column("Created", "created"),
    Column("Cancelled", "cancelled", wide=True, right=True),
    Column("TaskTime", "task_seconds", wide=True, right=True),
    Column("Retries", "max_retries", wide=True, right=True),
    Column("Host", "host", wide=True),
    Column("Closed", "closed", wide=True),
    Column("Ending", "ending", wide=True),
)
EXECUTORS: tuple[Column, ...] = (
    Column("ID", "id"),
    Column("State", "state"),
    Column("Session", "session"),
    Column("Node", "node"),
    Column("Pid", "pid", right=True),
    Column("Tasks", "tasks", right=True),
    Column("Task", "task", wide=True),
    Column("For", "task_running_seconds", wide=True, right=True),
    Column("Finished", "finished", wide=True, right=True),
)
NODES: tuple[Column, ...] = (
    Column("Name", "name"),
    Column("State", "state"),
    Column("Cpu", "cpu", right=True),
    Column("Memory", "memory", right=True),
    Column("Gpu", "gpu", right=True),
    Column("Executors", "executors", right=True),
    Column("Since", "since"),
    Column("Busy", "busy", wide=True, right=True),
    Column("Wanted", "wanted", wide=True, right=True),
    Column("Pid", "pid", wide=True, right=True),
)


@click.command("list")
@click.option("-e", "--executors", "what", flag_value="executors", help="The executors instead.")
@click.option("-n", "--nodes", "what", flag_value="nodes", help="The nodes instead.")
@click.option("-A", "--all", "closed", is_flag=True, help="Sessions that have ended of late, too.")
@click.option("--limit", type=click.IntRange(min=1), default=10_000, show_default=True, help="Rows, at most.")
@output_option
@address_option
def list_command(what: str | None, closed: bool, limit: int, output: str, address: str | None) -> None:
    """List the sessions that are open (-A: and the last that were), or executors, or nodes."""
    if closed and what:
        raise click.UsageError("-A is for sessions; it does not go with -e or -n.")
    with connect(address) as controller:
        if what == "executors":
            executors, more = controller.executors(limit)
            rows, columns = [executor_row(executor) for executor in executors], EXECUTORS
        elif what == "nodes":
            nodes, more = controller.nodes(limit)
            rows, columns = [node_row(node) for node in nodes], NODES
        else:
            sessions, more = controller.sessions(closed, limit)
            rows, columns = [session_row(session) for session in sessions], SESSIONS
    show(rows if output == "json" else for_people(rows), columns, output)
    if more:
        note(f"{more:,} more are not shown; --limit shows more")
    elif not rows and not what and not closed and output != "json":
        note("no session is open; -A shows those that have ended of late")


def for_people(rows: list[Row]) -> list[Row]:
    """Times and sizes as people read them."""
    shown = []
    for row in rows:
        new = dict(row)
        for key in row.keys() & {"created", "closed", "since"}:
            new[key] = clock(row[key])
        if "memory" in row:
            new["memory"] = memory(row["memory"])
        shown.append(new)
    return shown
