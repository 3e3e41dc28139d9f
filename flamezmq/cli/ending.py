"""How a console script ends: its exit code, and at most one sentence on stderr.

The same for all of them; which error has which code is each one's own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import NoReturn

import click

from flamezmq.errors import Refused, RouterLost

INTERRUPTED = 130


def run_and_exit(
    name: str,
    command: click.Command,
    errors: Mapping[type[Exception], int],
    *,
    usage: int = 2,
    failed: int = 1,
    otherwise: str = "can't write the output: {}",
) -> NoReturn:
    """Run the command of this name, and end the process.

    errors: the exit code of each kind, which speaks for itself; the first that fits counts.
    usage: the code for wrong arguments.
    failed: the code where the output can't be written.
    otherwise: what is said of an OSError that is not among `errors`.
    """
    code, complaint = 0, ""
    try:
        code = command.main(prog_name=name, standalone_mode=False) or 0
        if sys.stdout:
            sys.stdout.flush()  # the help
    except (KeyboardInterrupt, click.Abort):
        code = INTERRUPTED
    except tuple(errors) as error:
        code = next(errors[kind] for kind in errors if isinstance(error, kind))
        complaint = f"{name}: {_said(error)}"
    except BrokenPipeError:
        code = failed  # nobody reads us, so nobody wants to know
        _forget_output()
    except click.ClickException as error:
        is_help = isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ()))  # since click 8.2
        code, complaint = usage, error.format_message() if is_help else f"{name}: {_complaint(error)}"
    except OSError as error:
        code, complaint = failed, f"{name}: {otherwise.format(error)}"
        _forget_output()
    if complaint:
        click.echo(complaint, err=True)
    sys.exit(code)


def _complaint(error: click.ClickException) -> str:
    """One sentence for somebody who has typed something wrong; and where to look, if it does not say."""
    text = error.format_message()
    if type(error) is click.BadOptionUsage:  # click does not tell of which command
        return f"{sentence(text)} See --help."
    unknown = isinstance(error, click.NoSuchOption | click.MissingParameter) or text.startswith(
        ("No such command", "Got unexpected extra argument")
    )
    context = getattr(error, "ctx", None)
    if not unknown or context is None:
        return text
    return f"{sentence(text)} See {context.command_path} --help."


def sentence(text: str) -> str:
    """The same, with an end."""
    return text if text.endswith((".", "?", "?)")) else f"{text}."


def _said(error: Exception) -> str:
    if isinstance(error, Refused):
        return f"the router refuses us: {error}"
    if isinstance(error, RouterLost):  # said to programs, who hold a client; a command is simply given again
        return str(error).replace("open a new Client", "try again")
    return str(error)


def _forget_output() -> None:
    """Nobody gets what is left in the buffer."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
