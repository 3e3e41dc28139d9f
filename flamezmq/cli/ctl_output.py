"""How flmctl shows things: tables for people, wide ones, and JSON for programs.

A row is a dict of plain values: JSON is made of it as it is, a table of some of
its columns.  Where nobody looks (a pipe, a file) there is no colour, and no
column is ever cut.  What a peer has named itself may hold control characters;
a table shows them as question marks.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import click

from flamezmq import states
from flamezmq.cli.ctl_base import F, say
from flamezmq.wire import messages as m

Row = dict[str, Any]

#: Colours of states, where somebody looks.
_COLOURS = {
    "Open": "32", "Ready": "32", "Bound": "32", "Running": "32", "Succeed": "32",
    "Failed": "31", "Dead": "31",
    "Pending": "33", "Suspended": "33", "Draining": "33", "Starting": "33", "Cancelled": "33",
}  # fmt: skip


class Column(NamedTuple):
    """key: of the row.  about: what it is, for the documents.  wide: only in a wide table.
    right: numbers stand right.
    """

    head: str
    key: str
    about: str
    wide: bool = False
    right: bool = False


def output_option(function: F) -> F:
    """`-o`."""
    return click.option(
        "-o", "--output", type=click.Choice(["table", "wide", "json"]), default="table", show_default=True,
        help="Form: for people, with all columns, or for programs.",
    )(function)  # fmt: skip


def show(rows: Sequence[Row], columns: Sequence[Column], output: str) -> None:
    """Print all rows."""
    if output == "json":
        say(json.dumps(list(rows), indent=2))
    else:
        say(table(rows, columns, output == "wide"))


def note(text: str) -> None:
    """Something beside the output, for people: on stderr."""
    click.echo(text, err=True)


def table(rows: Sequence[Row], columns: Sequence[Column], wide: bool) -> str:
    """A head and a line for each row, in columns as wide as need be."""
    shown = [column for column in columns if wide or not column.wide]
    cells = [[plain(row[column.key]) for column in shown] for row in rows]
    widths = [max([len(column.head), *(len(line[at]) for line in cells)]) for at, column in enumerate(shown)]
    colours = is_watched()

    def line(words: Sequence[str], coloured: bool) -> str:
        pieces = []
        for word, width, column in zip(words, widths, shown, strict=True):
            piece = word.rjust(width) if column.right else word.ljust(width)
            colour = _COLOURS.get(word) if coloured else None
            pieces.append(f"\x1b[{colour}m{piece}\x1b[0m" if colour else piece)
        return "  ".join(pieces).rstrip()

    return "\n".join([line([column.head for column in shown], False), *(line(c, colours) for c in cells)])


def plain(value: Any) -> str:
    """For a cell; nothing is a dash."""
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}"
    text = str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def is_watched() -> bool:
    """Whether a person looks at standard output, and likes colours."""
    return bool(sys.stdout and sys.stdout.isatty() and not os.environ.get("NO_COLOR"))


# --- rows


def counted(count: int, what: str) -> str:
    """As in "1 session" and "2,000 sessions"."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def session_row(s: m.SessionRow) -> Row:
    created = time_of(s.age)
    return {
        "id": s.id,
        "state": name_of(states.SessionState, s.state),
        "app": s.application or s.name,
        "slots": s.slots,
        "pending": s.pending,
        "running": s.running,
        "succeed": s.succeed,
        "failed": s.failed,
        "cancelled": s.cancelled,
        "created": created.isoformat(timespec="seconds"),
        "closed": time_of(s.closed).isoformat(timespec="seconds") if s.closed >= 0 else None,
        "ending": s.ending,
        "task_seconds": s.seconds if s.seconds >= 0 else None,
        "tenant": s.tenant,
        "priority": s.priority,
        "weight": s.weight,
        "max_retries": s.max_retries,
        "host": s.host,
        "clients": s.clients if s.clients >= 0 else None,
        "detached": s.detached,
        "kept": s.kept if s.detached else None,
        "kept_bytes": s.kept_bytes if s.detached else None,
        "gang": s.gang if s.gang > 1 else None,
        "gangs": s.gangs if s.gang > 1 else None,
        "gathered": s.gathered if s.gathered >= 0 else None,
        "min_executors": s.min_executors,
        "max_executors": s.max_executors or None,
        "resources": {one.name: one.amount for one in s.resources},
        "objects": s.objects,
        "object_bytes": s.object_bytes,
    }


def executor_row(e: m.ExecutorRow) -> Row:
    return {
        "id": e.name,
        "state": name_of(states.ExecutorState, e.state),
        "session": e.session,
        "node": e.node,
        "pid": e.pid,
        "tasks": e.tasks,
        "task": f"{e.session}/{e.running}" if e.running >= 0 else None,
        "task_running_seconds": round(e.since, 3) if e.since >= 0 else None,
        "finished": e.finished,
    }


def node_row(n: m.NodeRow) -> Row:
    return {
        "name": n.name,
        "state": name_of(states.NodeState, n.state),
        "cpu": n.cores,
        "memory": n.memory,
        "gpu": n.gpus,
        "resources": {one.name: one.amount for one in n.resources},
        "executors": n.executors,
        "busy": n.busy,
        "objects": n.objects,
        "store_used": n.store_used,
        "store_limit": n.store_limit,
        "wanted": n.wanted,
        "pid": n.pid,
        "since": time_of(n.age).isoformat(timespec="seconds"),
    }


def task_row(t: m.TaskRow, session: str) -> Row:
    state = name_of(states.TaskState, t.state)
    return {
        "task": f"{session}/{t.first}",
        "first": t.first,
        "count": t.count,
        "state": state,
        "function": t.function,
        "attempt": t.attempt,
        "executor": t.executor,
        "since": time_of(t.since).isoformat(timespec="milliseconds") if t.since >= 0 else None,
        "seconds": t.seconds if t.seconds >= 0 else None,
        "delay_seconds": round(t.delay, 3) if t.delay > 0 else None,
    }


def name_of(kind: Any, number: int) -> str:
    """A state's name, as people write it; a number that we do not know stays one."""
    try:
        return str(kind(number).name.capitalize())
    except ValueError:
        return str(number)


def time_of(age: float) -> datetime:
    """The local time so many seconds ago; ages come from a peer, and may be anything."""
    try:
        return datetime.now().astimezone() - timedelta(seconds=age)
    except (OverflowError, ValueError):
        return datetime.fromtimestamp(0).astimezone()


def clock(iso: str | None) -> str:
    """A time for a table: the time of day, and the day if it was another one."""
    if iso is None:
        return ""
    when = datetime.fromisoformat(iso)
    if when.date() == datetime.now().date():
        return when.strftime("%H:%M:%S")
    return when.strftime("%Y-%m-%d %H:%M")


def gang(size: int, whole: int, gathered: int | None) -> str:
    """What a session has that gets executors so many at a time: "2 x 8, gathering 3 of 8"."""
    text = f"{whole} x {size}"
    return text if gathered is None else f"{text}, gathering {gathered} of {size}"


def memory(size: int) -> str:
    """Bytes for people: 15.6 GiB."""
    amount, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:
        amount /= 1024
        units.pop(0)
    return f"{amount:.0f} {units[0]}" if units[0] == "B" else f"{amount:.1f} {units[0]}"
