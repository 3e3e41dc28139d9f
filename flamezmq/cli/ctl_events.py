"""`flmctl events`: what has happened to a session."""

from __future__ import annotations

import json
from time import sleep
from typing import TYPE_CHECKING, Any

import click

from flamezmq.cli.ctl_base import address_option, connect, examples, say
from flamezmq.cli.ctl_complete import session_ids
from flamezmq.cli.ctl_output import clock, note, output_option, plain, time_of

if TYPE_CHECKING:
    from flamezmq.wire.messages import EventRow

#: Following, how often the router is asked for more.
FOLLOW_SECONDS = 0.25
#: Following, an event is shown when it is so old: then it is known how often it has happened.
SETTLED_SECONDS = 1.0


@click.command("events", epilog=examples("events nightly-XcEzMK", "events nightly-XcEzMK -f -o json"))
@click.argument("session", shell_complete=session_ids)
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens, until it is closed, or Ctrl-C.")
@output_option
@address_option
def events_command(session: str, follow: bool, output: str, address: str | None) -> None:
    """Show what has happened to a session, oldest first.

    Opened and closed, executors that came and went or died, tasks that were lost or run again,
    who has suspended or changed it.  What happens often is one line that counts.  The router keeps
    the last 64 events of a session; with -f they come a second late.  `-o json` has one object on
    each line.
    """
    after, gone, begun = 0, 0, False
    with connect(address) as controller:
        while True:
            rows, more = controller.events(session, after)
            if output != "json" and not begun:  # there is such a session
                say(line("Time", "Event", "What", "Times", "Seconds", output == "wide"))
            begun = True
            over = any(row.kind == "closed" for row in rows)
            for row in rows:
                if follow and not over and row.age < SETTLED_SECONDS:
                    break
                gone += row.number - after - 1
                after = row.number
                show(row, output)
            if not more and (not follow or over):
                break
            sleep(FOLLOW_SECONDS if follow else 0)
    if gone:
        note(f"{gone:,} older ones have been forgotten")


def show(row: EventRow, output: str) -> None:
    """Print one, as a line."""
    from flamezmq.client.happened import sentence

    if output == "json":
        say(json.dumps(facts(row)))
        return
    when = clock(time_of(row.age).isoformat(timespec="seconds"))
    said = plain(sentence(row))
    say(line(when, plain(row.kind), said, str(row.count), f"{row.lasted:.3g}", output == "wide"))


def line(when: str, kind: str, what: str, count: str, seconds: str, wide: bool) -> str:
    """In columns; what comes later is not known yet, so that their widths are fixed."""
    more = f"{count:>8}  {seconds:>8}  " if wide else ""
    return f"{when:<8}  {kind:<18}  {more}{what}"


def facts(row: EventRow) -> dict[str, Any]:
    """For programs."""
    from flamezmq.client.happened import sentence

    return {
        "number": row.number,
        "time": time_of(row.age).isoformat(timespec="milliseconds"),
        "event": row.kind,
        "text": sentence(row),
        "count": row.count,
        "seconds": round(row.lasted, 3),
        "task": row.task if row.task >= 0 else None,
        "executor": row.executor or None,
        "detail": row.text or None,
        "executors_at_most": row.most if row.kind == "bound" else None,
        "executors_left": row.left if row.kind == "bound" else None,
    }
