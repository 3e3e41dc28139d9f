"""Flags made from the descriptions in flamezmq.config, and what all daemons' commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from flamezmq import config
from flamezmq.config import Option
from flamezmq.errors import ConfigError, FlameError

F = TypeVar("F", bound=Callable[..., Any])

#: Exit codes.
ERRORS: dict[type[Exception], int] = {FlameError: 1, OSError: 1}
_METAVARS = {
    "address": "ADDRESS",
    "place": "ADDRESS",
    "door": "HOST[:PORT]",
    "text": "NAME",
    "integer": "N",
    "number": "SECONDS",
    "size": "SIZE",
    "folder": "FOLDER",
    "resources": "NAME=AMOUNT,...",
}

EPILOG = """\b
Every option may also be set in the environment, or in a file (TOML, a table [{table}] with the
option's name without dashes: {example}).  Flags win over the environment, that
over the file.  Without --config the first of these is read: ./flamezmq.toml,
~/.config/flamezmq/flamezmq.toml, /etc/flamezmq/flamezmq.toml.

\b
Examples:
{examples}

\b
Signals:
  SIGTERM, SIGINT  stop: running tasks may end first (--drain-seconds); a second one stops at once

\b
Exit codes:
  0  stopped as it was told to
  1  {failed}
  2  wrong usage, or a file or variable that says what nobody understands
"""


class Checked(click.ParamType):  # type: ignore[type-arg]  # no type before click 8.4
    """A value by the rules of its option."""

    def __init__(self, option: Option) -> None:
        self.option = option
        self.name = option.kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self.option.parse(value) if isinstance(value, str) else self.option.check(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def help_of(table: str, option: Option) -> str:
    """The sentence, the default, the variables."""
    variables = " or ".join(option.variables(table))
    return f"{option.help}  [default: {option.default_in_words}; environment: {variables}]"


def flags_of(table: str) -> Callable[[F], F]:
    """A decorator: `--config`, and a flag for each option of the table; all of them None unless given."""

    def decorate(function: F) -> F:
        for option in reversed(config.TABLES[table]):
            flag = option.flag
            if option.kind == "switch":
                name = flag.removeprefix("--")
                made = click.option(f"{flag}/--no-{name}", default=None, help=help_of(table, option))
            else:
                metavar = "|".join(option.choices) or _METAVARS[option.kind]
                if option.kind == "number" and not option.name.endswith(("seconds", "timeout")):
                    metavar = "N"
                made = click.option(flag, type=Checked(option), metavar=metavar, help=help_of(table, option))
            function = made(function)
        file = click.option(
            "--config",
            "file",
            metavar="FILE",
            help=f"The file to read.  [default: see below; environment: {config.FILE_VARIABLE}]",
        )
        return file(function)

    return decorate


def epilog(table: str, example: str, failed: str, examples: str) -> str:
    return EPILOG.format(table=table, example=example, failed=failed, examples=examples)


def settings(table: str, file: str | None, given: dict[str, Any]) -> dict[str, Any]:
    """Flags, environment, file and defaults together.

    Raises:
        click.UsageError: somebody has said what nobody understands.
    """
    try:
        return config.settings(table, given, file)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
