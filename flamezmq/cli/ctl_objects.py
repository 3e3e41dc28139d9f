"""`flmctl objects`: what lies in the stores of the nodes."""

from __future__ import annotations

import click

from flamezmq.cli.ctl_base import address_option, connect, examples
from flamezmq.cli.ctl_complete import session_ids
from flamezmq.cli.ctl_output import Column, Row, memory, note, output_option, show
from flamezmq.wire import messages as m

OBJECTS: tuple[Column, ...] = (
    Column(
        "Object", "object", "its name, if its owner has given it one, else its id; in JSON `name` and `id`"
    ),
    Column("Session", "session", "whose it is, and with which it goes"),
    Column("Size", "size", "its bytes, without what its memory is rounded up by", right=True),
    Column("Nodes", "nodes", "that have it, its home first"),
    Column("Pinned", "pinned", "yes: it stays until its session ends, whoever refers to it"),
    Column("Readers", "readers", "processes that refer to it, as far as the stores know of them", right=True),
    Column("Spilled", "spilled", "yes: it is on disk, and read again when it is used"),
    Column("ID", "id", "32 hexadecimal digits, as errors quote them", wide=True),
    Column("Copies", "copies", "of its nodes, those that have fetched it", wide=True, right=True),
)


@click.command("objects", epilog=examples("objects", "objects nightly-XcEzMK -o wide", "objects -o json"))
@click.argument("session", required=False, shell_complete=session_ids)
@click.option("--limit", type=click.IntRange(min=1), default=10_000, show_default=True, help="Rows, at most.")
@output_option
@address_option
def objects_command(session: str | None, limit: int, output: str, address: str | None) -> None:
    """List the objects in the stores of all nodes, or those of one session, in the order they came.

    Stores report a moment later: what has come or gone within some tens of milliseconds may not be seen yet.
    """
    with connect(address) as controller:
        found, more = controller.objects(session or "", limit)
    rows = [object_row(row) for row in found]
    show(rows if output == "json" else [_for_people(row) for row in rows], OBJECTS, output)
    if more:
        note(f"{more:,} more are not shown; --limit shows more")
    elif not rows and output != "json":
        note("no object is in any store" + (f" of session {session}" if session else ""))


def object_row(row: m.ObjectRow) -> Row:
    """For programs."""
    return {
        "id": row.id.hex(),
        "name": row.name or None,
        "session": row.session or None,
        "size": row.size,
        "nodes": row.nodes,
        "copies": row.copies,
        "pinned": row.pinned,
        "spilled": row.spilled,
        "readers": row.readers,
    }


def _for_people(row: Row) -> Row:
    yes = {key: "yes" if row[key] else None for key in ("pinned", "spilled")}
    nodes = ", ".join(row["nodes"])
    return row | yes | {"object": row["name"] or row["id"], "size": memory(row["size"]), "nodes": nodes}
