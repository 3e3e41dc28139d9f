"""What all commands of flmctl share: exit codes, the address, the connection, saying something."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from flamezmq import config
from flamezmq.address import check
from flamezmq.config import DEFAULT_ADDRESS
from flamezmq.errors import ConfigError

if TYPE_CHECKING:
    from flamezmq.client.controller import Controller

#: Exit codes, beside those that all commands have (see `ending`).
FAILED, NO_ROUTER, NOT_FOUND, REFUSED = 1, 3, 4, 5

F = TypeVar("F", bound=Callable[..., Any])


class Failure(Exception):
    """What was asked for could not be done; the text says why."""


def address_option(function: F) -> F:
    """`-a` behind the command's name, too; the one given last counts."""
    return click.option(
        "-a", "--address", metavar="ADDRESS", help="The router's (see flmctl --help)."
    )(function)  # fmt: skip


def address_of(address: str | None) -> str:
    """The router's address: as given here, to the group, as it is set for clients, or the usual one.

    Raises:
        click.UsageError: it is none, or the settings can't be read.
    """
    context = click.get_current_context(silent=True)
    above = context.find_root().obj if context is not None else None
    found = address or above or _configured() or DEFAULT_ADDRESS
    try:
        return check(found)
    except ValueError as error:
        raise click.UsageError(f"{error}.") from error


def _configured() -> str | None:
    """By the environment or the file of settings."""
    try:
        found: str | None = config.settings("client")["address"]
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    return found


def connect(address: str | None, patience_seconds: float = 3.0) -> Controller:
    """A connection to the router that is meant.

    Raises:
        click.UsageError: the address can't be used.
        RouterLost, Refused: see `Controller`.
    """
    from zmq import ZMQError

    from flamezmq.client.controller import Controller

    found = address_of(address)
    try:
        return Controller(found, patience_seconds)
    except ZMQError as error:
        raise click.UsageError(f"can't use the address {found!r}: {error}.") from error


def examples(*calls: str) -> str:
    """What stands below a command's help: calls of it, as one types them behind `flmctl`."""
    return "\n".join(["\b", "Examples:", *(f"  flmctl {call}" for call in calls)])


def say(text: str) -> None:
    """A line on standard output, now; nowhere if it was closed before we began."""
    if sys.stdout:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
