"""`flmctl register`, `update` and `unregister`, and what `list` and `view` show of applications."""

from __future__ import annotations

import json
from typing import IO, TYPE_CHECKING

import click

from flamezmq.cli.ctl_base import Failure, address_option, connect, examples, say
from flamezmq.cli.ctl_change import by
from flamezmq.cli.ctl_complete import application_names
from flamezmq.cli.ctl_output import Column, Row, clock, output_option, plain, time_of
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.client.application import Application

APPLICATIONS: tuple[Column, ...] = (
    Column("Name", "name", "what sessions call it by"),
    Column("Shim", "shim", "the way that it is run"),
    Column("Sessions", "open_sessions", "open sessions of it", right=True),
    Column("Registered", "registered", "when it was registered, or updated last"),
    Column("Description", "description", "for people"),
    Column("Isolation", "isolation", "app, or session: each has processes of its own", wide=True),
    Column("Command", "command", "the program of other shims than python, with its arguments", wide=True),
    Column("By", "by", "who has registered it, or updated it last", wide=True),
)
#: The lines of one, as far as there is something to say.
LINES = (
    ("Name", "name"),
    ("Shim", "shim"),
    ("Description", "description"),
    ("Labels", "labels"),
    ("Command", "command"),
    ("Service", "service_bytes"),
    ("Environment", "environment"),
    ("Folder", "working_directory"),
    ("Image", "image"),
    ("Isolation", "isolation"),
    ("MaxExecutors", "max_executors"),
    ("DelayRelease", "delay_release"),
    ("BindRetries", "bind_retries"),
    ("Grace", "grace"),
    ("Options", "options"),
    ("Schema", "schema"),
    ("Registered", "registered"),
    ("By", "by"),
    ("Sessions", "sessions"),
)

file_option = click.option(
    "-f",
    "--file",
    "source",
    type=click.File(encoding="utf-8"),
    required=True,
    help="YAML that describes it; - is standard input.",
)


@click.command("register", epilog=examples("register -f app.yaml", "register -f - < app.yaml"))
@file_option
@output_option
@address_option
def register_command(source: IO[str], output: str, address: str | None) -> None:
    """Register an application, which a file describes.

    To register the same again changes nothing.  Refused if another one has its name.
    """
    application = _described(source)
    with connect(address) as controller:
        done, text = controller.register(application.described(), by())
    _tell(done, text, output)


@click.command("update", epilog=examples("update -f app.yaml"))
@file_option
@output_option
@address_option
def update_command(source: IO[str], output: str, address: str | None) -> None:
    """Put an application in the place of the registered one of its name.

    Refused while sessions of it are open; they are named.
    """
    application = _described(source)
    with connect(address) as controller:
        done, text = controller.update(application.described(), by())
    _tell(done, text, output)


@click.command("unregister", epilog=examples("unregister model"))
@click.argument("name", shell_complete=application_names)
@output_option
@address_option
def unregister_command(name: str, output: str, address: str | None) -> None:
    """Have the router forget an application.

    Refused while sessions of it are open; they are named.
    """
    with connect(address) as controller:
        done, text = controller.unregister(name)
    _tell(done, text, output)


def _described(source: IO[str]) -> Application:
    from flamezmq.cli.app_file import Mistake, read

    path = "standard input" if source.name == "<stdin>" else source.name
    try:
        return read(path, source.read())
    except Mistake as error:
        raise click.UsageError(f"{error}.") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise click.UsageError(f"{path}, line {line}: no YAML: this is no text in UTF-8.") from error


def _tell(done: bool, text: str, output: str) -> None:
    if not done:
        raise Failure(text)
    say(json.dumps({"done": True, "text": text}) if output == "json" else text)


def application_row(row: m.ApplicationRow) -> Row:
    """For a table, and for programs."""
    one = row.application
    return {
        "name": one.name,
        "shim": one.shim,
        "description": one.description,
        "labels": one.labels,
        "command": " ".join([one.command, *one.arguments]).strip(),
        "service_bytes": row.bytes or None,
        "environment": one.environment,
        "working_directory": one.working_directory,
        "image": one.image,
        "isolation": one.isolation,
        "max_executors": one.max_executors or None,
        "delay_release": one.delay_release or None,
        "bind_retries": one.bind_retries,
        "grace": one.grace,
        "options": one.options,
        "schema": one.schema,
        "registered": time_of(row.age).isoformat(timespec="seconds"),
        "by": row.by,
        "sessions": row.sessions,
        "open_sessions": row.open,
    }


def about_application(row: Row) -> str:
    """A line for each thing that is known of it."""
    shown = {**row, "registered": clock(row["registered"])}
    more = row["open_sessions"] - len(row["sessions"])
    shown["sessions"] = ", ".join(row["sessions"]) + (f" and {more} more" if more else "")
    if row["service_bytes"]:
        shown["service_bytes"] = f"pickled, {row['service_bytes']:,} bytes"
    for key in ("labels", "environment", "options"):
        shown[key] = ", ".join(f"{name}={value}" for name, value in row[key].items())
    shown["schema"] = ", ".join(row["schema"])
    return "\n".join(f"{head:<12}  {plain(shown[key])}" for head, key in LINES if shown[key])
