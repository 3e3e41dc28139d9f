"""The documents say what the code says.

Parts of ARCHITECTURE.md and PROTOCOL.md are made from the tables in the code.
They stand between `<!-- made: NAME -->` and `<!-- end -->`; after a change of
the code, `python -m tests.test_docs` writes them anew.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import click
import msgspec
import pytest

import flamezmq
from flamezmq import config, states
from flamezmq.cli import ctl, ctl_apps, ctl_list, ctl_objects, ctl_tenants, ctl_view, exec_output, ping
from flamezmq.cli import exec as flmexec
from flamezmq.cli.ctl_output import Column
from flamezmq.client.mapping import Mapped
from flamezmq.client.progress import Progress
from flamezmq.client.status import Status
from flamezmq.client.stream import Stream
from flamezmq.client.waiting import DoneAndNotDone
from flamezmq.core import applications, caller, link
from flamezmq.core.members import Limits
from flamezmq.net import board, line
from flamezmq.wire import codec
from flamezmq.wire import messages as m
from tests.test_layers import LAYERS

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = (
    "README.md",
    "ARCHITECTURE.md",
    "PROTOCOL.md",
    "CHANGELOG.md",
    *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")),
)


# --- what is made from the code ----------------------------------------------------------


def layers() -> str:
    """From the top down, what is there now."""
    there = {path.stem for path in (ROOT / "flamezmq").iterdir()}
    rows = [
        (str(number), " ".join(f"`{name}`" for name in names.split() if name in there))
        for number, names in enumerate(LAYERS)
    ]
    return table(("layer", "modules and packages of `flamezmq/`"), [row for row in reversed(rows) if row[1]])


def diagram(moves: Mapping[Any, Sequence[Any]]) -> str:
    """A state diagram that many viewers draw, and that people can read as it is."""

    def name(state: IntEnum) -> str:
        return state.name.capitalize()

    lines = [f"    [*] --> {name(next(iter(moves)))}"]
    for state, others in moves.items():
        lines += [f"    {name(state)} --> {name(other)}" for other in others] or [
            f"    {name(state)} --> [*]"
        ]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```"])


#: name: direction, body, meaning.  The numbers are the code's.
KINDS = {
    "HELLO": ("dialler -> router", "Hello", "begin an epoch"),
    "WELCOME": ("router -> dialler", "Welcome", "the epoch has begun"),
    "REFUSE": ("router -> dialler", "Refuse", "go away; the link is over"),
    "DATA": ("both", "a message", "numbered, and kept until it is acknowledged"),
    "ACK": ("both", "none", "acknowledges, nothing more"),
    "PING": ("router -> dialler", "none", "are you there? (a router answers one, too)"),
    "PONG": ("both", "none", "answer to PING"),
    "STRANGER": (
        "router -> dialler",
        "none",
        "say HELLO: this connection is unknown, or there was a gap",
    ),
    "BYE": ("dialler -> router", "none", "forget me; the link is over"),
}


def kinds() -> str:
    rows = [(str(getattr(codec, name)), name, *about) for name, about in KINDS.items()]
    return table(("kind", "name", "direction", "body", "meaning"), rows)


def limits() -> str:
    ours = Limits()
    rows = [
        (
            "tasks of a client with the router, unfinished",
            f"{ours.max_tasks:,}",
            "`max_tasks` in WELCOME; a client that puts more than twice as many into one queue is refused",
            "`core/members.py`, `core/broker.py`",
        ),
        (
            "bytes of large payloads with the router, per client",
            mebibytes(ours.max_bytes),
            "`max_bytes` in WELCOME; kept by the client",
            "`core/members.py`, `client/session.py`",
        ),
        (
            "bytes of values kept for tasks that need them, per client",
            mebibytes(ours.max_bytes),
            "values are let go, and had from the client again, for one task at a time if need be",
            "`core/needs.py`",
        ),
        (
            "tasks, and bytes of large payloads, in one Submit",
            f"{caller.SUBMIT_TASKS:,}, {mebibytes(caller.SUBMIT_BYTES)}",
            "the client makes another one",
            "`core/caller.py`",
        ),
        (
            "tasks in one Grant",
            f"{ours.max_grant:,}",
            "the rest waits for the next one",
            "`core/members.py`",
        ),
        (
            "functions that an executor keeps",
            f"{ours.known_functions:,}",
            "it is told to forget the oldest, down to half",
            "`core/members.py`",
        ),
        (
            "applications, and bytes of their services, that are registered",
            f"{applications.MOST_APPLICATIONS:,}, {mebibytes(applications.MOST_BYTES)}",
            "another one is refused",
            "`core/applications.py`",
        ),
        (
            "one frame",
            mebibytes(codec.MAX_FRAME_BYTES),
            "ZeroMQ cuts the connection of who sends it",
            "`wire/codec.py`",
        ),
        (
            "results that a client has not taken",
            mebibytes(board.BACKLOG_BYTES),
            "nothing more is granted for it until they are down to half",
            "`net/board.py`",
        ),
        (
            "results that a detached session keeps",
            mebibytes(ours.max_kept_bytes),
            "what was fetched is let go; nothing more is granted until what was not is down to half",
            "`core/keeping.py`",
        ),
        (
            "what was received without an acknowledgement",
            f"{link.ACK_AFTER_MESSAGES} messages, {mebibytes(link.ACK_AFTER_BYTES)}",
            "an ACK of its own goes out",
            "`core/link.py`",
        ),
        (
            "a HELLO without an answer",
            f"{line.HELLO_AGAIN_SECONDS:g} s",
            "it is said again",
            "`net/line.py`",
        ),
        ("silence of a peer", f"{board.PROBE_SECONDS:g} s", "the router sends PING", "`net/board.py`"),
        (
            "a peer that can't be sent to",
            f"{board.PATIENCE_SECONDS:g} s",
            "the router gives it up, as after BYE",
            "`net/board.py`",
        ),
    ]
    return table(("what", "at most", "and then", "where"), rows)


def mebibytes(size: int) -> str:
    return f"{size >> 20:,} MiB"


def arrays(*classes: type[msgspec.Struct]) -> Callable[[], str]:
    return lambda: messages_table(classes)


def direction(union: types.UnionType) -> Callable[[], str]:
    return lambda: messages_table(get_args(union))


def messages_table(classes: Sequence[type[msgspec.Struct]]) -> str:
    tagged = any(cls.__struct_config__.tag is not None for cls in classes)
    rows = []
    for cls in classes:
        columns = ", ".join(column(field) for field in msgspec.structs.fields(cls)) or "none"
        name = cls.__name__.removeprefix("Routed")  # what the router leaves unread
        row = (f"`{name}`", columns, meaning(cls))
        rows.append((str(cls.__struct_config__.tag), *row) if tagged else row)
    return table(
        ("tag", "message", "columns", "meaning") if tagged else ("array", "columns", "meaning"), rows
    )


def meaning(cls: type[msgspec.Struct]) -> str:
    """The docstring in one cell; each `name  what it is` gets a line."""
    sentences: list[str] = []
    columns: list[str] = []
    for row in (inspect.getdoc(cls) or "").splitlines():
        named = re.fullmatch(r"([a-z_]+(?:, [a-z_]+)*)  +(\S.*)", row)
        if named:
            names = ", ".join(f"`{name}`" for name in named[1].split(", "))
            columns.append(f"{names}: {named[2]}")
        elif row:
            sentences.append(re.sub("  +", " ", row))
    return "<br>".join([" ".join(sentences), *columns])


def column(field: msgspec.structs.FieldInfo) -> str:
    made = field.default_factory() if callable(field.default_factory) else field.default
    default = "" if field.required else " = " + spelled(made)
    return f"`{field.name}` {type_name(field.type)}{default}"


def spelled(value: Any) -> str:
    if isinstance(value, msgspec.Struct):
        return "[...]"
    if value in ((), []):
        return "[]"
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "nil"
    return repr(value).removeprefix("b").replace("'", '"')


def type_name(kind: Any) -> str:
    """In the words of msgpack; [T] is an array of T."""
    if get_origin(kind) is Annotated:  # bounds are told by the docstring
        return type_name(get_args(kind)[0])
    if get_origin(kind) in (list, tuple):
        return f"[{type_name(get_args(kind)[0])}]"
    if get_origin(kind) is types.UnionType:
        return " or ".join(type_name(one) for one in get_args(kind))
    if get_origin(kind) is Literal:
        return type_name(type(get_args(kind)[0]))
    if get_origin(kind) is dict:
        return "map"
    words = {bytes: "bin", msgspec.Raw: "[bin]", types.NoneType: "nil"}
    return words.get(kind, kind.__name__)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def settings_table(name: str) -> Callable[[], str]:
    head = ["key", "flag", "environment", "what it is", "default", "meaning"]

    def row(one: config.Option) -> list[str]:
        variables = "<br>".join(f"`{variable}`" for variable in one.variables(name))
        default = one.shown or f"`{one.default_in_words}`"
        return [f"`{one.name}`", f"`{one.flag}`", variables, one.expected, default, one.help]

    def made() -> str:
        rows = [head, *map(row, config.TABLES[name])]
        if name == "client":  # it has arguments instead
            rows = [[cell for cell in cells if cell != cells[1]] for cells in rows]
        return table(rows[0], rows[1:])

    return made


def tenants_table() -> str:
    rows = [(f"`{one.name}`", one.expected, one.shown, one.help) for one in config.TENANT]
    return table(("key", "what it is", "default", "meaning"), rows)


def commands(group: click.Group) -> str:
    """A row for each flag of each command."""
    found = dict(group.commands)
    for name, inner in group.commands.items():
        if isinstance(inner, click.Group):
            found |= {f"{name} {word}": command for word, command in inner.commands.items()}
    rows = []
    for name, command in sorted(found.items()):
        words = " ".join([name, *(p.make_metavar(click.Context(command)) for p in arguments(command))])
        words = words.replace("|", r"\|")
        rows.append((f"`{words}`", "", (command.help or "").split("\n\n")[0].replace("\n", " ")))
        options = [p for p in command.params if isinstance(p, click.Option) and p.name != "address"]
        rows += [("", ", ".join(f"`{flag}`" for flag in o.opts), o.help or "") for o in options]
    return table(("command", "flag", "meaning"), rows)


def flags(command: click.Command) -> str:
    options = [option for option in command.params if isinstance(option, click.Option)]
    rows = [
        (", ".join(f"`{flag}`" for flag in (*one.opts, *one.secondary_opts)), one.help or "")
        for one in options
    ]
    return table(("flag", "meaning"), rows)


def arguments(command: click.Command) -> list[click.Parameter]:
    return [parameter for parameter in command.params if isinstance(parameter, click.Argument)]


def columns(all_of_them: Sequence[Column]) -> str:
    rows = [(c.head, "wide" if c.wide else "", f"`{c.key}`", c.about) for c in all_of_them]
    return table(("column", "shown", "key in JSON", "meaning"), rows)


def exit_codes(epilog: str) -> str:
    rows = [tuple(line.split(None, 1)) for line in epilog.splitlines() if re.match(r" +\d", line)]
    return table(("code", "meaning"), rows)


MADE: dict[str, dict[str, Callable[[], str]]] = {
    "ARCHITECTURE.md": {
        "layers": layers,
        "states of a session": lambda: diagram(states.SESSION_MOVES),
        "states of a task": lambda: diagram(states.TASK_MOVES),
        "states of an executor": lambda: diagram(states.EXECUTOR_MOVES),
        "states of a node": lambda: diagram(states.NODE_MOVES),
    },
    "PROTOCOL.md": {
        "kinds": kinds,
        "handshake": arrays(m.Hello, m.Welcome, m.Refuse),
        "structures": arrays(m.Slice, m.NewFunction, m.Options, m.Environment, m.Resource, m.SessionSpec),
        "applications": arrays(m.Application, m.Service),
        "rows": arrays(
            m.SessionRow,
            m.ExecutorRow,
            m.NodeRow,
            m.TenantRow,
            m.TaskRow,
            m.LogRow,
            m.EventRow,
            m.Why,
            m.RouterRow,
            m.ObjectRow,
            m.ApplicationRow,
        ),
        "client to router": direction(m.FromClient),
        "router to client": direction(m.ToClient),
        "executor to router": direction(m.FromExecutor),
        "router to executor": direction(m.ToExecutor),
        "worker to router": direction(m.FromWorker),
        "router to worker": direction(m.ToWorker),
        "limits": limits,
    },
    "docs/flmctl.md": {
        "commands": lambda: commands(ctl.command),
        "columns of sessions": lambda: columns(ctl_list.SESSIONS),
        "columns of executors": lambda: columns(ctl_list.EXECUTORS),
        "columns of nodes": lambda: columns(ctl_list.NODES),
        "columns of applications": lambda: columns(ctl_apps.APPLICATIONS),
        "columns of tasks": lambda: columns(ctl_view.TASKS),
        "columns of objects": lambda: columns(ctl_objects.OBJECTS),
        "columns of tenants": lambda: columns(ctl_tenants.TENANTS),
        "exit codes": lambda: exit_codes(ctl.EPILOG),
    },
    "docs/flmexec.md": {
        "flags": lambda: flags(flmexec.command),
        "columns": lambda: columns(exec_output.COLUMNS),
        "exit codes": lambda: exit_codes(flmexec.EPILOG.partition("Exit codes:")[2]),
    },
    "docs/daemons.md": {
        **{f"settings of the {name}": settings_table(name) for name in ("router", "worker", "client")},
        "settings of tenants": tenants_table,
    },
}
_BLOCK = re.compile(r"<!-- made: (.+?) -->\n(.*?)\n?<!-- end -->", re.DOTALL)


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def rewrite() -> None:
    """Make all blocks anew."""
    for document, makers in MADE.items():

        def made(block: re.Match[str], makers: dict[str, Callable[[], str]] = makers) -> str:
            return f"<!-- made: {block[1]} -->\n{makers[block[1]]()}\n<!-- end -->"

        (ROOT / document).write_text(_BLOCK.sub(made, text_of(document)), encoding="utf-8")


# --- the tests ---------------------------------------------------------------------------


@pytest.mark.parametrize("document", MADE)
def test_what_is_made_from_the_code_is_up_to_date(document: str) -> None:
    found = dict(_BLOCK.findall(text_of(document)))

    assert found == {name: make() for name, make in MADE[document].items()}, "run: python -m tests.test_docs"


def test_every_message_and_every_column_is_in_the_protocol() -> None:
    text = text_of("PROTOCOL.md")
    structs = [
        value
        for value in vars(m).values()
        if isinstance(value, type) and issubclass(value, msgspec.Struct) and value is not msgspec.Struct
    ]
    structs.remove(m.RoutedResults)  # Results, as the router reads it
    structs.remove(m.RoutedPart)  # and Part

    missing = [
        f"{cls.__name__}.{field.name}"
        for cls in structs
        for field in msgspec.structs.fields(cls)
        if not re.search(rf"^\|.*`{cls.__name__}` \|.*`{field.name}`", text, re.MULTILINE)
    ]

    assert not missing
    assert not [cls.__name__ for cls in structs if not inspect.getdoc(cls)], "not explained"


def test_every_kind_of_frame_is_in_the_protocol() -> None:
    numbers = {name: value for name, value in vars(codec).items() if name.isupper() and type(value) is int}
    for other in ("SIZE", "MAX_FRAME_BYTES", "COLUMN_BYTES"):
        numbers.pop(other)

    assert numbers.keys() == KINDS.keys()


def test_every_diagram_names_every_state() -> None:
    for moves in (states.SESSION_MOVES, states.TASK_MOVES, states.EXECUTOR_MOVES, states.NODE_MOVES):
        kind = type(next(iter(moves)))
        assert set(moves) == set(kind), "each state has its line in the table"


def files_named_in(text: str) -> Iterator[str]:
    """Whatever looks like a file of ours: in backticks, or the target of a link."""
    for word in re.findall(r"`([^`\s]+)`|\]\(([^)#\s]+)\)", text):
        name = (word[0] or word[1]).rstrip("/")
        if re.fullmatch(r"[\w./-]+\.(py|md|toml|txt|sh)|(bin|tests|perf|flamezmq|\.ci)(/[\w.-]+)*", name):
            yield name


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_is_named_exists(document: str) -> None:
    places = (ROOT, ROOT / "flamezmq", (ROOT / document).parent)
    missing = [
        name
        for name in files_named_in(text_of(document))
        if not any((place / name).exists() for place in places)
    ]

    assert not missing


def test_every_source_file_has_its_place_in_the_architecture() -> None:
    named = set(files_named_in(text_of("ARCHITECTURE.md")))
    homeless = [
        str(path.relative_to(ROOT / "flamezmq"))
        for path in sorted((ROOT / "flamezmq").rglob("*.py"))
        if path.name != "__init__.py" and str(path.relative_to(ROOT / "flamezmq")) not in named
    ]

    assert not homeless, "where would somebody look for what they do?"


def public_things() -> Iterator[tuple[str, Any]]:
    """Every name that flamezmq exports, and every public method and property that is flamezmq's own."""
    exported = {name: getattr(flamezmq, name) for name in flamezmq.__all__ if name != "__version__"}
    for module in [thing for thing in exported.values() if inspect.ismodule(thing)]:
        exported |= {f"{module.__name__}.{name}": getattr(module, name) for name in module.__all__}
    given = {
        cls.__name__: cls for cls in (Status, Mapped, Stream, DoneAndNotDone, Progress)
    }  # by what is exported
    for name, thing in (exported | given).items():
        yield name, thing
        if isinstance(thing, type):
            for attribute, member in vars(thing).items():
                if not attribute.startswith("_") and (callable(member) or isinstance(member, property)):
                    yield f"{name}.{attribute}", member


def test_everything_that_is_public_says_what_it_does() -> None:
    silent = [name for name, thing in public_things() if not (thing.__doc__ or "").strip()]

    assert not silent


def test_every_parameter_of_what_is_public_is_explained() -> None:
    unexplained = [
        f"{name}({parameter})"
        for name, thing in public_things()
        if inspect.isfunction(thing)
        for parameter in list(inspect.signature(thing).parameters)
        if parameter != "self" and not re.search(rf"\b{parameter}\b", thing.__doc__ or "")
    ]

    assert not unexplained


@pytest.mark.parametrize("document", ["README.md", "docs/flmping.md"])
def test_the_flags_that_are_shown_are_those_of_the_command(document: str) -> None:
    lines = re.findall(r"^ *(?:\$ )?flmping (.*)$|`flmping ([^`]*)`", text_of(document), re.MULTILINE)
    flags = {flag for line in lines for flag in re.findall(r"(?<!\S)--?[a-z][\w-]*", " ".join(line))}

    assert flags
    assert flags <= known_flags()


def known_flags() -> set[str]:
    return {"-h", "--help"}.union(*(option.opts for option in ping.command.params))


def test_every_flag_of_flmping_is_explained_and_no_other() -> None:
    rows = re.findall(r"^\| `(-\w)`, `(--[\w-]+)` \| \S", text_of("docs/flmping.md"), re.MULTILINE)

    assert {flag for row in rows for flag in row} == known_flags()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_document_names_a_place_of_one_machine(document: str) -> None:
    assert not re.findall(r"/(?:home|root|work|tmp)/\S+", text_of(document))


if __name__ == "__main__":
    rewrite()
