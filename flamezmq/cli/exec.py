"""flmexec: run a command, or a script, as many tasks.

Flame's flmexec (-t, -l, -c), and a parallel xargs with the words of GNU parallel.
This file is the command line and its exit codes; what a task runs stands in
flamezmq/scripts.py, since executors import that.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import click

from flamezmq import capacity, config
from flamezmq.address import check
from flamezmq.cli import exec_source
from flamezmq.cli.ending import run_and_exit, sentence
from flamezmq.cli.exec_output import Report, write
from flamezmq.cli.exec_run import Interrupted, Plan, Run
from flamezmq.cli.exec_source import BadInput, Lines, Source
from flamezmq.cli.exec_work import Work
from flamezmq.errors import FlameError
from flamezmq.scripts import LANGUAGES

if TYPE_CHECKING:
    from flamezmq.client.api import Client
    from flamezmq.client.progress import Bar

#: Exit codes: 1 to 100 say how many tasks have failed.
OK, MANY, REFUSED = 0, 101, 255
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
#: One result must stay under the router's limit.
MOST_OUTPUT = 512 << 20

EPILOG = """\b
Examples:
  flmexec -t 10 -c hostname                    ten tasks of a shell command
  flmexec 'echo {} is number {#}' ::: a b c    a task for each input, {} in its place
  flmexec -j 2 --tag wc -c ::: script.py       at most two at a time; the input before each line
  flmexec -l python script.py ::: 1 2 3        a Python script, an input as its argument
  flmexec --timeout 5 -o json -c date          for programs: an object a line

\b
With input (-i):
  find . -name '*.log' | flmexec -i gzip -9
  flmexec -i < commands.txt                    without a command, the inputs are commands
  flmexec -i 'convert {} {.}.png' < pictures.txt

\b
Replacement strings, in shell commands and in arguments; without one the input is appended:
  {}  the input     {.}   without its extension   {#}      the task's number, from 1
  {/} its last part {/.}  that, no extension      {1} {2}  of several inputs (::: a b ::: c d)
  {//} its folder                                 {1.} {2/} and so on

\b
Exit codes:
  0      all tasks have succeeded
  1-100  so many have failed
  101    more than 100 have failed
  130    Ctrl-C; 143, 129: SIGTERM, SIGHUP
  255    bad arguments, no cluster, it was lost on the way, or the output can't be written
"""


class Halt(click.ParamType):  # type: ignore[type-arg]  # no type before click 8.4
    """never, or now|soon,fail=N."""

    name = "halt"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "never":
            return "never", 0
        match = re.fullmatch(r"(now|soon),fail=([1-9]\d*)", value)
        if match is None:
            self.fail(f"{value!r} is neither 'never' nor, for example, 'now,fail=1' or 'soon,fail=3'.")
        return match[1], int(match[2])


class Size(click.ParamType):  # type: ignore[type-arg]
    """Bytes, with k, m or g."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d+)([kmg]?)", str(value).lower())
        if match is None:
            self.fail(f"{value!r} is no size; 100000, 64k, 16m and 1g are.", param, ctx)
        size = int(match[1]) * _UNITS[match[2]]
        if size > MOST_OUTPUT:
            self.fail(f"{value!r} is more than {MOST_OUTPUT >> 20}m, which a result may have.", param, ctx)
        return size


@click.command(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "allow_interspersed_args": False,
    },
    epilog=EPILOG,
    options_metavar="[OPTIONS]",
)
@click.argument("words", nargs=-1, metavar="[COMMAND|SCRIPT] [ARGUMENT]... [::: INPUT...|:::: FILE...]...")
@click.option(
    "-t",
    "--task-num",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many tasks without an input.  [default: 1]",
)
@click.option(
    "-l", "--language", type=click.Choice(list(LANGUAGES)), help="Of SCRIPT, or of CODE.  [default: shell]"
)
@click.option("-c", "--code", metavar="CODE", help="Run this code.")
@click.option("-i", "--stdin", "from_stdin", is_flag=True, help="A task for each line of standard input.")
@click.option("-0", "--null", is_flag=True, help="With -i: inputs end with NUL instead (find -print0).")
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(min=1, max=1024),
    metavar="N",
    help="Executors, at most.  [default: one per usable core, or those of the cluster]",
)
@click.option(
    "-k/-u",
    "--keep-order/--unordered",
    "ordered",
    default=True,
    help="Show tasks in the order of their inputs, or as they end.  [default: -k]",
)
@click.option("--tag", is_flag=True, help="Put the task's input, or its number, before each line of output.")
@click.option(
    "--retries",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Run a task that fails so many times more.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="A task that takes longer is killed, and has failed.",
)
@click.option(
    "--halt",
    type=Halt(),
    default="never",
    show_default=True,
    metavar="WHEN",
    help="When N tasks have failed, kill the others (now,fail=N), or begin no more (soon,fail=N).",
)
@click.option(
    "--max-output",
    type=Size(),
    default="16m",
    show_default=True,
    metavar="SIZE",
    help="Of each of a task's two outputs, what is kept; one that prints more has failed.",
)
@click.option("--progress", is_flag=True, help="Draw a bar, if stderr is a terminal.")
@click.option(
    "--joblog",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write a line for each task that has ended, as GNU parallel does.",
)
@click.option("--dry-run", is_flag=True, help="Print the commands, and run nothing.")
@click.option(
    "-a",
    "--address",
    metavar="ADDRESS",
    help="The router to use.  [default: $FLAMEZMQ_ADDRESS, else the one in flamezmq.toml, else a cluster "
    "of its own]",
)
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["failed", "table", "wide", "json", "none"]),
    default="failed",
    show_default=True,
    help="A table on stderr, at the end: of the tasks that have failed, of all, of all with all columns; or "
    "an object for each task on stdout, in place of what it prints; or nothing.",
)
def command(
    words: tuple[str, ...],
    task_num: int | None,
    language: str | None,
    code: str | None,
    from_stdin: bool,
    null: bool,
    jobs: int | None,
    ordered: bool,
    tag: bool,
    retries: int,
    timeout: float | None,
    halt: tuple[str, int],
    max_output: int,
    progress: bool,
    joblog: str | None,
    dry_run: bool,
    address: str | None,
    form: str,
) -> int:
    """Run a command, or a script, as tasks of a flamezmq cluster, in parallel.

    What a task prints comes whole, never between that of others, in the order of the inputs.
    Options stand before the command.
    """
    own, lists = exec_source.split(words)
    source = _source(task_num, lists, from_stdin, null)
    work = Work(own, language, code, from_stdin or bool(lists), timeout, max_output)
    if dry_run:
        _print(work, source)
        return OK
    log = _opened(joblog) if joblog else None
    client = _connected(address, jobs)
    run = None
    try:
        report = Report(form, tag, log, _bar(progress, source))
        # max_retries: no command runs twice unasked
        session = client.session("flmexec", max_retries=0, max_executors=jobs)
        run = Run(session, work, source, Plan(retries, ordered, *halt), report)
        try:
            run.run()
        except BaseException:
            report.leave()
            raise
        report.close()
    finally:
        client.close()  # whatever has not ended is killed
        if run is not None:
            run.close()
        if log is not None:
            log.close()
    return min(report.failed, MANY)


def _source(
    task_num: int | None, lists: list[list[exec_source.Values]], from_stdin: bool, null: bool
) -> Source:
    """Where the inputs come from, which can be one thing only."""
    if (task_num is not None) + bool(lists) + from_stdin > 1:
        raise click.UsageError("-t, -i and ::: or :::: each say how many tasks there are; give one of them.")
    if null and not from_stdin:
        raise click.UsageError("-0 goes with -i.")
    if lists:
        return exec_source.combined(lists)
    if not from_stdin:
        return exec_source.repeated(task_num or 1)
    try:
        os.fstat(0)
    except OSError as error:
        raise click.UsageError(f"can't read standard input: {error}.") from error
    return Lines(0, null)


def _print(work: Work, source: Source) -> None:
    """What would be run."""
    number = 0
    while not source.ended:
        values = source.pull()
        if values is not None:
            number += 1
            text = work.spell(work.template.fill(number, values))
            write(sys.stdout, text.encode(errors="surrogateescape") + b"\n")


def _opened(joblog: str) -> TextIO:
    try:
        return open(joblog, "w", encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise click.UsageError(f"can't write the log of jobs: {error}.") from error


def _bar(progress: bool, source: Source) -> Bar | None:
    from flamezmq.client.progress import Bar, is_watched

    return Bar("tasks", source.total) if progress and is_watched() else None


def _connected(address: str | None, jobs: int | None) -> Client:
    """The cluster that is meant, or one of our own."""
    from zmq import ZMQError

    from flamezmq.client.api import Client

    executors = None
    try:
        address = address or config.settings("client")["address"]
        if address is None:
            executors = jobs or max(1, int(capacity.usable_cores()))
        else:
            check(address)
        return Client(address, executors=executors, forward_output=False)
    except ZMQError as error:
        raise click.UsageError(f"can't use the address {address!r}: {error}.") from error
    except ValueError as error:
        raise click.UsageError(sentence(str(error))) from error
    except (FlameError, OSError) as error:
        raise click.UsageError(str(error)) from error


def _leave(number: int, _frame: object) -> NoReturn:
    """In order, so that what runs is killed now, and not when the router has noticed."""
    sys.exit(128 + number)


def main() -> NoReturn:
    """The console script."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # else it is nohup's, or our parent's wish
            signal.signal(number, _leave)
    errors: dict[type[Exception], int] = dict.fromkeys((FlameError, Interrupted, BadInput), REFUSED)
    run_and_exit("flmexec", command, errors, usage=REFUSED, failed=REFUSED, otherwise="can't go on: {}")


if __name__ == "__main__":
    main()
