"""flmctl: look at a cluster and give orders to it.

This file is the group and how it ends: complaints and exit codes.  The
commands stand in the files beside it (`ctl_*.py`, one per family); what is
heavy (ZeroMQ, rich) is imported when a command needs it.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from flamezmq.cli.ctl_apps import register_command, unregister_command, update_command
from flamezmq.cli.ctl_base import (
    FAILED,
    INTERRUPTED,
    NO_ROUTER,
    NOT_FOUND,
    OK,
    REFUSED,
    USAGE,
    Failure,
)
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
from flamezmq.cli.ctl_ping import ping_command
from flamezmq.cli.ctl_top import top_command
from flamezmq.cli.ctl_view import view_command
from flamezmq.cli.options import complaint_of
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
  flmctl suspend SESSION    let nothing more of it run, until flmctl resume SESSION

\b
Exit codes:
  0    done
  1    it could not be done, and why is said on stderr
  2    wrong usage
  3    no router answers at the address, or it has gone meanwhile
  4    there is no such session, task, executor or application
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
    register_command,
    update_command,
    unregister_command,
    top_command,
):
    command.add_command(one)


def _forget_output() -> None:
    """Nobody gets what is left in the buffer."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def main() -> NoReturn:
    """The console script."""
    code, complaint = OK, ""
    try:
        code = command.main(prog_name="flmctl", standalone_mode=False) or OK
        if sys.stdout:
            sys.stdout.flush()  # the help
    except (KeyboardInterrupt, click.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        code = FAILED  # nobody reads us, so nobody wants to know
        _forget_output()
    except click.exceptions.NoArgsIsHelpError as error:
        code, complaint = USAGE, error.format_message()
    except click.ClickException as error:
        code, complaint = USAGE, f"flmctl: {complaint_of(error)}"
    except Failure as error:
        code, complaint = FAILED, f"flmctl: {error}"
    except NotFound as error:
        code, complaint = NOT_FOUND, f"flmctl: {error}"
    except Refused as error:
        code, complaint = REFUSED, f"flmctl: the router refuses us: {error}"
    except RouterLost as error:
        # It is said to programs, who hold a client; a command is simply given again.
        code, complaint = NO_ROUTER, f"flmctl: {error}".replace("open a new Client", "try again")
    except FlameError as error:
        code, complaint = FAILED, f"flmctl: {error}"
    except OSError as error:
        code, complaint = FAILED, f"flmctl: can't write the output: {error}"
        _forget_output()
    if complaint:
        click.echo(complaint, err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
