"""`flmctl close`, `cancel`, `suspend`, `resume`, `set`: orders about other people's sessions and tasks."""

from __future__ import annotations

import json

import click

from flamezmq.cli.ctl_base import Failure, address_option, connect, examples, say
from flamezmq.cli.ctl_complete import session_ids
from flamezmq.cli.ctl_output import output_option

#: Priorities are from -HIGHEST to HIGHEST.
HIGHEST = 1 << 31
#: Executors that can be asked for.
MOST = 1_000_000


@click.command("close", epilog=examples("close nightly-XcEzMK", "close nightly-XcEzMK --drain"))
@click.argument("session", shell_complete=session_ids)
@click.option("--drain", is_flag=True, help="Cancel nothing: close it when the tasks that it has have ended.")
@output_option
@address_option
def close_command(session: str, drain: bool, output: str, address: str | None) -> None:
    """Close a session: what waits is cancelled, what runs is interrupted.

    What goes on for another second is killed with its executor.  Its client is told, and so are its
    futures: they are cancelled, with the reason.
    """
    with connect(address) as controller:
        if drain:
            done, text = controller.change_session(session, by(), drain=True)
        else:
            done, text = controller.close_session(session, by())
    _tell(done, text, output)


@click.command(
    "cancel", epilog=examples("cancel nightly-XcEzMK/13012", "cancel nightly-XcEzMK/13012 --running")
)
@click.argument("task", shell_complete=session_ids)
@click.option("--running", is_flag=True, help="Interrupt it if it has begun, and wait for its end.")
@output_option
@address_option
def cancel_command(task: str, running: bool, output: str, address: str | None) -> None:
    """Cancel a task that has not begun, or one that runs.

    TASK is <session id>/<index>, as `future.task_id` says it.  A task that runs is interrupted with
    --running only; if it goes on for another second it is killed with its executor.
    """
    session, index = task_of(task)
    with connect(address) as controller:
        done, text = controller.cancel_task(session, index, by(), running)
    _tell(done, text, output)


@click.command("suspend", epilog=examples("suspend nightly-XcEzMK"))
@click.argument("session", shell_complete=session_ids)
@output_option
@address_option
def suspend_command(session: str, output: str, address: str | None) -> None:
    """Suspend a session: what runs ends, nothing more is handed out until it is resumed.

    What executors hold and have not begun waits again, and they serve other sessions.  Its client
    goes on submitting and waiting; `list` shows it as Suspended.
    """
    with connect(address) as controller:
        done, text = controller.change_session(session, by(), suspended=True)
    _tell(done, text, output)


@click.command("resume", epilog=examples("resume nightly-XcEzMK"))
@click.argument("session", shell_complete=session_ids)
@output_option
@address_option
def resume_command(session: str, output: str, address: str | None) -> None:
    """Resume a session that is suspended: its tasks are handed out again."""
    with connect(address) as controller:
        done, text = controller.change_session(session, by(), suspended=False)
    _tell(done, text, output)


@click.command("set", epilog=examples("set nightly-XcEzMK --weight 2 --max 8", "set nightly-XcEzMK --max 0"))
@click.argument("session", shell_complete=session_ids)
@click.option("--weight", type=float, help="Its part of what is left to the sessions of its priority.")
@click.option("--priority", type=click.IntRange(-HIGHEST, HIGHEST), help="Higher ones get nearly all.")
@click.option("--min", "least", type=click.IntRange(0, MOST), help="Executors that it keeps.")
@click.option("--max", "most", type=click.IntRange(0, MOST), help="Executors at a time; 0: no limit.")
@output_option
@address_option
def set_command(
    session: str,
    weight: float | None,
    priority: int | None,
    least: int | None,
    most: int | None,
    output: str,
    address: str | None,
) -> None:
    """Change a session's share of the executors while it runs.

    What it has above a lower share, or limit, it gives back as its tasks end.
    """
    if weight is not None and not 0 < weight <= 1e18:
        raise click.UsageError(f"--weight is a number above 0, not {weight}.")
    asked = {"weight": weight, "priority": priority, "min_executors": least, "max_executors": most}
    if all(value is None for value in asked.values()):
        raise click.UsageError("nothing was to be set; give --weight, --priority, --min or --max.")
    with connect(address) as controller:
        done, text = controller.change_session(session, by(), **asked)
    _tell(done, text, output)


def _tell(done: bool, text: str, output: str) -> None:
    if not done:
        raise Failure(text)
    say(json.dumps({"done": True, "text": text}) if output == "json" else text)


def task_of(name: str) -> tuple[str, int]:
    """(session id, index) of a task's name.

    Raises:
        click.UsageError: it is none.
    """
    session, _, index = name.rpartition("/")
    if not session or not (index.isascii() and index.isdigit()) or len(index) > 18:
        raise click.UsageError(f"{name!r} is no task; write <session id>/<index>, as future.task_id says it.")
    return session, int(index)


def by() -> str:
    """Who we are, for the people whose tasks it is about."""
    from flamezmq.client import surroundings

    return surroundings.who("flmctl")
