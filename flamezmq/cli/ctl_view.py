"""`flmctl view`: one session, and its tasks."""

from __future__ import annotations

import json

import click

from flamezmq import states
from flamezmq.cli.ctl_apps import about_application, application_row
from flamezmq.cli.ctl_base import address_option, connect, examples, say
from flamezmq.cli.ctl_complete import session_ids
from flamezmq.cli.ctl_list import for_people
from flamezmq.cli.ctl_output import Column, Row, note, output_option, plain, session_row, table, task_row

TASKS = (
    Column(
        "Task",
        "task",
        "its index, or the first and the last of several alike; in JSON, the name of the first",
    ),
    Column("State", "state", "Pending, Running, Succeed, Failed"),
    Column("Function", "function", "its function"),
    Column("Attempt", "attempt", "from 1; it rises when a task runs again", right=True),
    Column("Executor", "executor", "that runs or holds it, or ran it; none for what waits in the router"),
    Column("Since", "since", "when it began, when it ended, or in how many seconds it may run again"),
    Column("Seconds", "seconds", "how long it took (each of them, on average)", right=True),
    Column("Count", "count", "how many there are in the row", wide=True, right=True),
)
#: The lines of a session, as far as there is something to say.
LINES = (
    ("ID", "id"),
    ("State", "state"),
    ("App", "app"),
    ("Tenant", "tenant"),
    ("Slots", "slots"),
    ("Min", "min_executors"),
    ("Max", "max_executors"),
    ("Resources", "resources"),
    ("Gang", "gang"),
    ("Pending", "pending"),
    ("Running", "running"),
    ("Succeed", "succeed"),
    ("Failed", "failed"),
    ("Cancelled", "cancelled"),
    ("Objects", "stored"),
    ("Created", "created"),
    ("Closed", "closed"),
    ("Ending", "ending"),
    ("TaskTime", "task_seconds"),
    ("Clients", "clients"),
    ("Detached", "detached"),
    ("Kept", "kept"),
    ("KeptBytes", "kept_bytes"),
)
WIDE_LINES = (
    ("Priority", "priority"),
    ("Weight", "weight"),
    ("Retries", "max_retries"),
    ("Host", "host"),
)


@click.command(
    "view",
    epilog=examples("view nightly-XcEzMK", "view nightly-XcEzMK -t --state failed", "view --app model"),
)
@click.argument("session", shell_complete=session_ids)
@click.option("-t", "--tasks", "tasks", is_flag=True, help="Its tasks, too: a row for each run of like ones.")
@click.option(
    "--state",
    type=click.Choice([state.name.lower() for state in states.TaskState if state.name != "CANCELLED"]),
    help="With -t: only tasks in this state.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 256),
    default=100,
    show_default=True,
    help="With -t: rows, at most.",
)
@click.option("--app", "app", is_flag=True, help="An application instead: SESSION is its name.")
@output_option
@address_option
def view_command(
    session: str, tasks: bool, state: str | None, limit: int, app: bool, output: str, address: str | None
) -> None:
    """Show one session, open or ended of late; with -t its tasks; or an application.

    Of the tasks it shows those that run, some of those that wait, and the last that have ended.
    """
    if app:
        if tasks or state:
            raise click.UsageError("-t and --state are for sessions; they do not go with --app.")
        with connect(address) as controller:
            found_app = application_row(controller.application(session))
        say(json.dumps(found_app, indent=2) if output == "json" else about_application(found_app))
        return
    number = states.TaskState[state.upper()] if state else -1
    with connect(address) as controller:
        row = session_row(controller.session(session))
        found, more = controller.tasks(session, number, limit) if tasks or state else ([], 0)
    rows = [task_row(task, row["id"]) for task in found]
    if output == "json":
        say(json.dumps({**row, "tasks": rows, "tasks_not_shown": more} if tasks or state else row, indent=2))
        return
    say(about(row, output == "wide"))
    if tasks or state:
        say("\n" + table([_for_people(task) for task in for_people(rows)], TASKS, output == "wide"))
        if more:
            note(f"{more:,} more tasks are not shown; see --limit and --state")


def about(row: Row, wide: bool) -> str:
    """A line for each thing that is known of the session."""
    (shown,) = for_people([row])
    lines = [(head, shown[key]) for head, key in LINES + (WIDE_LINES if wide else ())]
    return "\n".join(f"{head:<9}  {plain(value)}" for head, value in lines if value not in ("", None, False))


def _for_people(row: Row) -> Row:
    first, count = row["first"], row["count"]
    since = f"in {row['delay_seconds']:.1f} s" if row["delay_seconds"] else row["since"]
    return {**row, "task": str(first) if count == 1 else f"{first}-{first + count - 1}", "since": since}
