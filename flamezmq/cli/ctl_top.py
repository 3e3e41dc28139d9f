"""`flmctl top`: a view of the cluster that is drawn again and again."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

from flamezmq.cli.ctl_base import address_option, connect, examples, say
from flamezmq.cli.ctl_list import EXECUTORS, NODES, SESSIONS, by_name, for_people
from flamezmq.cli.ctl_output import Column, Row, counted, executor_row, node_row, plain, session_row, table

if TYPE_CHECKING:
    from flamezmq.client.controller import Controller

#: Of each kind, so many are asked for and counted.
MOST_ROWS = 1024
#: What a screen without a height is taken for.
ROWS_OF_A_SCREEN = 40
RATE = Column("Tasks/s", "rate", "tasks that have ended since the last look, a second", right=True)
_STYLES = {"Open": "green", "Ready": "green", "Bound": "green", "Draining": "yellow", "Dead": "red"}


class View:
    """What was seen last; the next look tells how many tasks have ended since."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.sessions: list[Row] = []
        self.executors: list[Row] = []
        self.nodes: list[Row] = []
        self.title = ""
        self._ended: dict[str, int] = {}
        self._at = 0.0

    def look(self) -> None:
        """Ask the router."""
        sessions, more_sessions = self.controller.sessions(limit=MOST_ROWS)
        executors, more_executors = self.controller.executors(limit=MOST_ROWS)
        nodes, _ = self.controller.nodes(limit=MOST_ROWS)
        now = monotonic()
        ended = {row.id: row.succeed + row.failed for row in sessions}
        took = now - self._at
        self.sessions = for_people([session_row(row) for row in sessions])
        for row in self.sessions:
            before = self._ended.get(row["id"])
            row["rate"] = None if before is None else round((ended[row["id"]] - before) / took)
        self._ended, self._at = ended, now
        self.sessions.sort(key=lambda row: (-row["running"], -row["pending"]))
        self.executors = for_people([executor_row(row) for row in sorted(executors, key=by_name)])
        self.executors.sort(key=lambda row: -row["tasks"])
        self.nodes = for_people([node_row(row) for row in nodes])
        rate, cores = sum(row["rate"] or 0 for row in self.sessions), sum(row.cores for row in nodes)
        busy = sum(1 for row in executors if row.tasks)
        self.title = (
            f"flmctl top  {datetime.now():%H:%M:%S}  {self.controller.address}  "
            f"{counted(len(sessions) + more_sessions, 'session')}, "
            f"{counted(len(executors) + more_executors, 'executor')} ({busy:,} busy), "
            f"{counted(len(nodes), 'node')}, {cores:g} cores, {rate:,} tasks/s"
        )

    def parts(self) -> list[tuple[list[Row], tuple[Column, ...]]]:
        """The tables, in their order."""
        return [(self.sessions, (*SESSIONS, RATE)), (self.executors, EXECUTORS), (self.nodes, NODES)]


@click.command("top", epilog=examples("top", "top -n 1 > now.txt"))
@click.option(
    "-d",
    "--delay",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="From one look to the next.",
)
@click.option(
    "-n", "--count", type=click.IntRange(min=1), help="So many looks, then end; without a terminal it is due."
)
@address_option
def top_command(delay: float, count: int | None, address: str | None) -> None:
    """Show sessions, executors and nodes, and show them anew each second; q or Ctrl-C ends it."""
    watched = bool(sys.stdout and sys.stdout.isatty())
    if not watched and count is None:
        raise click.UsageError("top draws on a terminal; elsewhere say how often: -n 1.")
    with connect(address) as controller:
        view = View(controller)
        if watched:
            _draw_on_screen(view, delay, count)
        else:
            _print(view, delay, count or 1)


def _print(view: View, delay: float, count: int) -> None:
    """One look below the other, for a file or a program that reads."""
    for number in range(count):
        if number:
            select.select([], [], [], delay)
        view.look()
        tables = [table(rows, columns, False) for rows, columns in view.parts()]
        say("\n\n".join([view.title, *tables]) + ("\n" if number < count - 1 else ""))


def _draw_on_screen(view: View, delay: float, count: int | None) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with _keys() as keyboard:
        view.look()
        try:
            with Live(
                picture(view, console.size.height), console=console, screen=True, auto_refresh=False
            ) as live:
                seen = 1
                while (count is None or seen < count) and not _is_left(keyboard, delay):
                    view.look()
                    live.update(picture(view, console.size.height), refresh=True)
                    seen += 1
        except KeyboardInterrupt:
            pass  # the other way to leave


def picture(view: View, height: int) -> Any:
    """As rich draws it; what does not fit is counted."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = [Text(view.title, style="bold", no_wrap=True, overflow="ellipsis"), Text("")]
    left = (height or ROWS_OF_A_SCREEN) - 2
    shares = (2, 2, 1)
    for (rows, columns), share in zip(view.parts(), shares, strict=True):
        room = max(1, (left - 6) * share // sum(shares))
        parts.append(_rich_table(rows[:room], columns))
        hidden = len(rows) - room
        parts.append(Text(f"... and {hidden:,} more" if hidden > 0 else "", style="dim"))
    return Group(*parts)


def _rich_table(rows: list[Row], columns: tuple[Column, ...]) -> Any:
    from rich.table import Table
    from rich.text import Text

    shown = [column for column in columns if not column.wide]
    drawn = Table(box=None, pad_edge=False, header_style="reverse", expand=True)
    for column in shown:
        drawn.add_column(column.head, justify="right" if column.right else "left", no_wrap=True)
    for row in rows:
        words = [plain(row[column.key]) for column in shown]
        drawn.add_row(*(Text(word, style=_STYLES.get(word, "")) for word in words))
    return drawn


@contextmanager
def _keys() -> Iterator[int]:
    """The keyboard, key by key and without an echo: its descriptor, -1 if there is none."""
    import termios
    import tty

    keyboard = sys.stdin.fileno() if sys.stdin and sys.stdin.isatty() else -1
    if keyboard < 0:
        yield -1
        return
    before = termios.tcgetattr(keyboard)
    try:
        tty.setcbreak(keyboard)
        yield keyboard
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def _is_left(keyboard: int, seconds: float) -> bool:
    """Wait so long; whether q came meanwhile (or the terminal has gone)."""
    deadline = monotonic() + seconds
    while (left := deadline - monotonic()) > 0:
        ready, _, _ = select.select([keyboard] if keyboard >= 0 else [], [], [], left)
        if ready:
            keys = os.read(keyboard, 64)
            if not keys or b"q" in keys.lower():
                return True
    return False
