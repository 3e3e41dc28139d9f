"""`flmctl list`: sessions, executors, nodes."""

from __future__ import annotations

import click

from flamezmq.cli.ctl_apps import APPLICATIONS, application_row
from flamezmq.cli.ctl_base import address_option, connect, examples
from flamezmq.cli.ctl_output import (
    Column,
    Row,
    clock,
    executor_row,
    gang,
    memory,
    node_row,
    note,
    output_option,
    session_row,
    show,
)
from flamezmq.resources import in_words
from flamezmq.wire import messages as m

#: Flame's columns, and more when there is room.
SESSIONS: tuple[Column, ...] = (
    Column("ID", "id", "its id, as `session.id` says it"),
    Column(
        "State",
        "state",
        "Open, Suspended (its tasks wait), Draining (to be closed when its tasks have ended) or Closed",
    ),
    Column("App", "app", "its application, else the name that it was opened with"),
    Column("Slots", "slots", "executors that serve it now", right=True),
    Column(
        "Pending",
        "pending",
        "tasks that wait: in the router's queue, for a retry, or on an executor behind others",
        right=True,
    ),
    Column("Running", "running", "tasks that run: one for each of its executors that is busy", right=True),
    Column("Succeed", "succeed", "tasks that have ended with a value", right=True),
    Column("Failed", "failed", "tasks that have ended with an error", right=True),
    Column("Created", "created", "when it was opened; the date, if that was another day"),
    Column("Cancelled", "cancelled", "tasks that never ran", wide=True, right=True),
    Column("TaskTime", "task_seconds", "average run time of its tasks, in seconds", wide=True, right=True),
    Column(
        "Retries",
        "max_retries",
        "how often a task is started again after it took its executor down",
        wide=True,
        right=True,
    ),
    Column("Tenant", "tenant", "for whom it is; none: for all that name none, together", wide=True),
    Column("Priority", "priority", "among the sessions of its tenant", wide=True, right=True),
    Column("Weight", "weight", "of its share, among those of its tenant and priority", wide=True, right=True),
    Column("Min", "min_executors", "executors that it keeps", wide=True, right=True),
    Column("Max", "max_executors", "executors that it may have at a time", wide=True, right=True),
    Column("Resources", "resources", "what each of its executors needs of its node", wide=True),
    Column(
        "Objects",
        "stored",
        "those that it has in stores, and their bytes; in JSON `objects` and `object_bytes`",
        wide=True,
    ),
    Column("Host", "host", "the machine of its client", wide=True),
    Column("Clients", "clients", "of a session with an id: how many are in it now", wide=True, right=True),
    Column("Kept", "kept", "of a detached session: results that are kept", wide=True, right=True),
    Column(
        "Gang",
        "gang",
        "of a session with `gang=8`: `2 x 8`, its whole gangs, and `gathering 3 of 8` while executors for "
        "a further one are set aside; in JSON `gang` (8), `gangs` (2) and `gathered` (3)",
        wide=True,
    ),
    Column("Closed", "closed", "when it was closed", wide=True),
    Column(
        "Ending",
        "ending",
        "why: `closed by its client`, `its client is gone`, `closed by flmctl (...)`",
        wide=True,
    ),
)
EXECUTORS: tuple[Column, ...] = (
    Column("ID", "id", "node and number"),
    Column(
        "State",
        "state",
        "Idle, Bound (to a session), Draining (leaves it, or the node, when it holds nothing), Dead",
    ),
    Column("Session", "session", "the session that it serves"),
    Column("Node", "node", "its node"),
    Column("Pid", "pid", "its process there", right=True),
    Column("Tasks", "tasks", "tasks that it holds, the one that runs counted", right=True),
    Column("Task", "task", "the task that it runs, as far as the router knows", wide=True),
    Column("For", "task_running_seconds", "for how many seconds", wide=True, right=True),
    Column("Finished", "finished", "tasks that it has ended in all its life", wide=True, right=True),
)
NODES: tuple[Column, ...] = (
    Column("Name", "name", "the node's name"),
    Column("State", "state", "Starting (no executor of it is here yet), Ready, Draining (its worker leaves)"),
    Column("Cpu", "cpu", "cores that it may use, by affinity and cgroup", right=True),
    Column("Memory", "memory", "memory that it may use", right=True),
    Column(
        "Gpu", "gpu", "graphics processors of Nvidia: devices, or those of CUDA_VISIBLE_DEVICES", right=True
    ),
    Column("Others", "resources", "what else it has, as its worker was told"),
    Column("Executors", "executors", "executors that are here", right=True),
    Column(
        "Store",
        "store",
        "memory that its store of objects has in use / may have; in JSON `store_used` and `store_limit`",
        right=True,
    ),
    Column("Since", "since", "when its worker came"),
    Column("Busy", "busy", "executors that hold tasks", wide=True, right=True),
    Column("Objects", "objects", "that its store has", wide=True, right=True),
    Column("Wanted", "wanted", "executors that its worker was started with", wide=True, right=True),
    Column("Pid", "pid", "the worker's process", wide=True, right=True),
)


@click.command("list", epilog=examples("list", "list -e -o wide", "list -A -o json"))
@click.option("-e", "--executors", "what", flag_value="executors", help="The executors instead.")
@click.option("-n", "--nodes", "what", flag_value="nodes", help="The nodes instead.")
@click.option("--apps", "what", flag_value="apps", help="The registered applications instead.")
@click.option("-A", "--all", "closed", is_flag=True, help="Sessions that have ended of late, too.")
@click.option("--limit", type=click.IntRange(min=1), default=10_000, show_default=True, help="Rows, at most.")
@output_option
@address_option
def list_command(what: str | None, closed: bool, limit: int, output: str, address: str | None) -> None:
    """List the sessions that are open (-A: and the last that were), executors, nodes or applications."""
    if closed and what:
        raise click.UsageError("-A is for sessions; it does not go with -e, -n or --apps.")
    with connect(address) as controller:
        if what == "executors":
            executors, more = controller.executors(limit)
            rows, columns = [executor_row(one) for one in sorted(executors, key=by_name)], EXECUTORS
        elif what == "nodes":
            nodes, more = controller.nodes(limit)
            rows, columns = [node_row(node) for node in nodes], NODES
        elif what == "apps":
            applications, more = controller.applications(limit=limit)
            rows, columns = [application_row(row) for row in applications], APPLICATIONS
        else:
            sessions, more = controller.sessions(closed, limit)
            rows, columns = [session_row(session) for session in sessions], SESSIONS
    show(rows if output == "json" else for_people(rows), columns, output)
    if more:
        note(f"{more:,} more are not shown; --limit shows more")
    elif not rows and not what and not closed and output != "json":
        note("no session is open; -A shows those that have ended of late")


def by_name(executor: m.ExecutorRow) -> tuple[str, int]:
    """Node by node, as they are numbered there: the router knows them in the order in which they came."""
    node, _, number = executor.name.rpartition("/")
    return node, int(number) if number.isdecimal() else 0


def for_people(rows: list[Row]) -> list[Row]:
    """Times and sizes as people read them."""
    shown = []
    for row in rows:
        new = dict(row)
        for key in row.keys() & {"created", "closed", "since", "registered"}:
            new[key] = clock(row[key])
        if "min_executors" in row:
            new["min_executors"] = row["min_executors"] or None
        if "memory" in row:
            new["memory"] = memory(row["memory"])
        if "object_bytes" in row:
            new["stored"] = f"{row['objects']:,}, {memory(row['object_bytes'])}" if row["objects"] else None
        if "store_limit" in row:
            room = memory(row["store_limit"])
            new["store"] = f"{memory(row['store_used'])} / {room}" if row["store_limit"] else None
        if row.get("kept_bytes") is not None:
            new["kept_bytes"] = memory(row["kept_bytes"])
        if row.get("gang") is not None:
            new["gang"] = gang(row["gang"], row["gangs"], row["gathered"])
        if "resources" in row:
            new["resources"] = ",".join(f"{name}={in_words(n)}" for name, n in row["resources"].items())
        shown.append(new)
    return shown
