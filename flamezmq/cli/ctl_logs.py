"""`flmctl logs`: what a task, a session or an executor has printed of late."""

from __future__ import annotations

import json
import sys
from time import sleep
from typing import TYPE_CHECKING, Any

import click

from flamezmq.cli.ctl_base import address_option, connect, examples, say
from flamezmq.cli.ctl_complete import session_ids_and_executors
from flamezmq.cli.ctl_output import output_option, plain, time_of
from flamezmq.errors import NotFound

if TYPE_CHECKING:
    from flamezmq.client.controller import Controller
    from flamezmq.wire.messages import LogRow

#: Following, how often the router is asked for more.
FOLLOW_SECONDS = 0.25


@click.command("logs", epilog=examples("logs nightly-XcEzMK -f", "logs nightly-XcEzMK/13012"))
@click.argument("target", metavar="TASK|SESSION|EXECUTOR", shell_complete=session_ids_and_executors)
@click.option("-f", "--follow", is_flag=True, help="Go on, until Ctrl-C, with what comes.")
@output_option
@address_option
def logs_command(target: str, follow: bool, output: str, address: str | None) -> None:
    """Print what a task, a session's tasks, or an executor have printed.

    A TASK is <session id>/<index>, as `future.task_id` says it; an EXECUTOR is <node>/<number>, as
    `flmctl list -e` shows it.  The router keeps the last 64 KiB of each executor, 8 MiB of all.

    The text comes as it was printed; `-o wide` has the time, the executor and the task before each
    line, `-o json` has one object on each line.
    """
    with connect(address) as controller:
        question = find(controller, target)
        after = 0
        printer = Printer(output)
        while True:
            rows, more = controller.logs(**question, after=after)
            for row in rows:
                after = max(after, row.number)
                printer.show(row)
            if sys.stdout:
                sys.stdout.flush()
            if not more or not rows:
                if not follow:
                    return
                sleep(FOLLOW_SECONDS)


def find(controller: Controller, target: str) -> dict[str, Any]:
    """What to ask for.  A session's name comes first, should an executor have the same.

    Raises:
        NotFound: nobody has this name.
    """
    session, _, number = target.rpartition("/")
    is_numbered = bool(session) and number.isascii() and number.isdigit() and len(number) <= 18
    questions: list[dict[str, Any]] = [{"session": target}]
    if is_numbered:
        questions = [{"session": session, "task": int(number)}, {"executor": target}, *questions]
    complaints = []
    for question in questions:
        try:
            controller.logs(**question, after=1 << 62)
        except NotFound as error:
            complaints.append(str(error))
        else:
            return question
    known = [words for words in complaints if "has no task" in words]  # the session is there
    raise NotFound(known[0] if known else f"there is no task, session or executor {target!r}")


class Printer:
    """Prints rows one after the other; of two executors none ends the other's line."""

    def __init__(self, output: str) -> None:
        self._output = output
        self._open = ""  # the executor whose line has not ended

    def show(self, row: LogRow) -> None:
        if self._output == "json":
            say(json.dumps(facts(row)))
            return
        lost = f"... {row.dropped} bytes more than can be shown\n" if row.dropped else ""
        if self._output == "wide":
            self._show_lines(row, lost + row.text)
            return
        if self._open and (lost or self._open != row.executor):
            _write("\n")
        _write(lost + row.text)
        if lost or row.text:
            self._open = "" if (lost + row.text).endswith("\n") else row.executor

    def _show_lines(self, row: LogRow, text: str) -> None:
        time = f"{time_of(row.age):%H:%M:%S.%f}"[:-3]
        task = f"{row.session}/{row.task}" if row.task >= 0 else row.session
        stream = "err" if row.stream == 2 else "out"
        for line in text.splitlines():
            _write(f"{time}  {plain(row.executor)}  {plain(task)}  {stream}  {line}\n")


def facts(row: LogRow) -> dict[str, Any]:
    """For programs."""
    return {
        "time": time_of(row.age).isoformat(timespec="milliseconds"),
        "executor": row.executor,
        "session": row.session,
        "task": f"{row.session}/{row.task}" if row.task >= 0 else None,
        "stream": "stderr" if row.stream == 2 else "stdout",
        "text": row.text,
        "dropped_bytes": row.dropped,
    }


def _write(text: str) -> None:
    if sys.stdout:
        sys.stdout.write(text)
