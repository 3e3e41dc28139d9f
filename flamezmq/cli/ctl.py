"""flmctl: look at a cluster and give orders to it.

This file is the group and its exit codes.  The commands stand in the files beside
it (`ctl_*.py`, one per family); what is heavy (ZeroMQ, rich) is imported when a
command needs it.
"""

from __future__ import annotations

from typing import NoReturn

import click

from flamezmq.cli.ctl_apps import register_command, unregister_command, update_command
from flamezmq.cli.ctl_base import FAILED, NO_ROUTER, NOT_FOUND, REFUSED, Failure
from flamezmq.cli.ctl_change import (
    cancel_command,
    close_command,
    resume_command,
    set_command,
    suspend_command,
)
from flamezmq.cli.ctl_events import events_command
from flamezmq.cli.ctl_explain import explain_command
from flamezmq.cli.ctl_list import list_command
from flamezmq.cli.ctl_logs import logs_command
from flamezmq.cli.ctl_objects import objects_command
from flamezmq.cli.ctl_ping import ping_command
from flamezmq.cli.ctl_tenants import tenants_command
from flamezmq.cli.ctl_top import top_command
from flamezmq.cli.ctl_view import view_command
from flamezmq.cli.ending import run_and_exit
from flamezmq.config import DEFAULT_ADDRESS
from flamezmq.errors import FlameError, NotFound, Refused, RouterLost

EPILOG = """\b
Examples:
  flmctl ping               does the router answer, and how fast
  flmctl list               the sessions that are open
  flmctl list -e -o json    the executors, for a program
  flmctl view SESSION -t    one session, and its tasks
  flmctl logs SESSION       what its tasks have printed
  flmctl events SESSION     what has happened to it
  flmctl explain TASK       why it waits, and since when
  flmctl top                all of it, anew each second
  flmctl cancel TASK        that has not begun
  flmctl close SESSION      and cancel what waits in it
  flmctl register -f FILE   an application that FILE describes, for flmctl list --apps
  flmctl set SESSION --weight 2   give it twice the share
  flmctl objects            what lies in the stores of the nodes
  flmctl tenants            what each tenant may have, and has; flmctl tenants set changes it
  flmctl suspend SESSION    let nothing more of it run, until flmctl resume SESSION

\b
Exit codes:
  0    done
  1    it could not be done, and why is said on stderr
  2    wrong usage
  3    no router answers at the address, or it has gone meanwhile
  4    there is no such session, task, executor, application or tenant
  5    the router refuses us (another version, another Python)
  130  Ctrl-C
"""


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}, epilog=EPILOG
)
@click.option(
    "-a",
    "--address",
    metavar="ADDRESS",
    help=f"The router's; else $FLAMEZMQ_ADDRESS, else the one in flamezmq.toml, else {DEFAULT_ADDRESS}.",
)
@click.pass_context
def command(context: click.Context, address: str | None) -> None:
    """Look at a flamezmq cluster, and give orders to it."""
    context.obj = address


for one in (
    ping_command,
    list_command,
    view_command,
    close_command,
    cancel_command,
    suspend_command,
    resume_command,
    set_command,
    logs_command,
    events_command,
    explain_command,
    objects_command,
    register_command,
    update_command,
    unregister_command,
    tenants_command,
    top_command,
):
    command.add_command(one)


def main() -> NoReturn:
    """The console script."""
    errors: dict[type[Exception], int] = {
        Failure: FAILED,
        NotFound: NOT_FOUND,
        Refused: REFUSED,
        RouterLost: NO_ROUTER,
        FlameError: FAILED,
    }
    run_and_exit("flmctl", command, errors)


if __name__ == "__main__":
    main()
