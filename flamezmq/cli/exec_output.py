"""What flmexec prints: each task's output whole, the log of jobs, the table at the end.

What a task has printed is written by one `write`, when it is its turn.  What has to wait
for its turn is kept in memory up to a bound, and beyond it in a file without a name.
"""

from __future__ import annotations

import json
import sys
import tempfile
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TextIO

from flamezmq.cli.ctl_output import Column, Row, note, table

if TYPE_CHECKING:
    from flamezmq.client.progress import Bar
    from flamezmq.scripts import ScriptResult

#: Outputs that wait for their turn, in memory.
MOST_BYTES = 32 << 20
#: Rows of a table; of that of the tasks that have failed.
MOST_ROWS, MOST_FAILED_ROWS = 1000, 20

COLUMNS = [
    Column("Task", "task", "its number, from 1", right=True),
    Column("Exit", "exit_code", "its exit code; none if its executor has died", right=True),
    Column("Seconds", "seconds", "how long it ran", right=True),
    Column("Executor", "executor", "node and number of the executor that has run it"),
    Column("Signal", "signal", "what has killed it", wide=True),
    Column("Tries", "tries", "how often it was run", wide=True, right=True),
    Column("Began", "began", "when it was started the last time", wide=True),
    Column("Command", "command", "what was run", wide=True),
    Column("Note", "note", "what else is to be said"),
]
#: GNU parallel's.
_LOG_HEAD = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n"


class Kept(NamedTuple):
    """Where outputs are: in memory, or in the file from `at` on."""

    stdout: bytes
    stderr: bytes
    at: int = -1
    sizes: tuple[int, int] = (0, 0)


class Task:
    """One task, from its input to its end.

    result  of the last try, without what it has printed; None while it runs, or if it was lost
    kept    what it has printed
    note    why it was lost, or what its result lacks
    """

    __slots__ = ("command", "failed", "kept", "note", "number", "result", "tries", "values")

    def __init__(self, number: int, values: tuple[str, ...], command: str) -> None:
        self.number, self.values, self.command = number, values, command
        self.tries = 1
        self.result: ScriptResult | None = None
        self.failed = False
        self.note = ""
        self.kept: Kept | None = None


class Spool:
    """Outputs that wait for their turn."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._in_memory = self._in_file = 0
        self._file: IO[bytes] | None = None

    def put(self, stdout: bytes, stderr: bytes) -> Kept:
        """Keep them.

        Raises:
            OSError: they are to go to the disk, and that is full.
        """
        size = len(stdout) + len(stderr)
        if self._in_memory + size <= self._most:
            self._in_memory += size
            return Kept(stdout, stderr)
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="flmexec-")
        at = self._file.seek(0, 2)
        self._file.write(stdout + stderr)
        self._in_file += 1
        return Kept(b"", b"", at, (len(stdout), len(stderr)))

    def get(self, kept: Kept) -> tuple[bytes, bytes]:
        """Have them back, once."""
        if kept.at < 0:
            self._in_memory -= len(kept.stdout) + len(kept.stderr)
            return kept.stdout, kept.stderr
        assert self._file is not None
        self._file.seek(kept.at)
        found = self._file.read(kept.sizes[0]), self._file.read(kept.sizes[1])
        self._in_file -= 1
        if not self._in_file:
            self._file.truncate(0)
        return found

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class Report:
    """All that is said about tasks.

    form    "failed", "table", "wide", "json" or "none"
    tagged  put each task's input before its lines
    joblog  where to write GNU parallel's log of jobs
    """

    def __init__(self, form: str, tagged: bool, joblog: TextIO | None, bar: Bar | None) -> None:
        self.form, self.tagged, self.joblog, self.bar = form, tagged, joblog, bar
        self.tasks = self.failed = self.cancelled = 0
        self._rows: list[Row] = []
        if joblog is not None:
            joblog.write(_LOG_HEAD)

    def ended(self, task: Task) -> None:
        """A task has ended for good."""
        self.tasks += 1
        self.failed += task.failed
        if self.bar is not None:
            self.bar.advance(1, task.failed)
        if self.joblog is not None:
            self.joblog.write(_log_line(task))
            self.joblog.flush()
        if self.form in ("table", "wide"):
            wanted = len(self._rows) < MOST_ROWS
        else:
            wanted = self.form == "failed" and task.failed and len(self._rows) < MOST_FAILED_ROWS
        if wanted:
            self._rows.append(row_of(task))

    def show(self, task: Task, stdout: bytes, stderr: bytes) -> None:
        """It is its turn.

        Raises:
            BrokenPipeError: nobody reads us any more.
            OSError: the output can't be written.
        """
        if self.form == "json":
            text = {"stdout": stdout.decode(errors="replace"), "stderr": stderr.decode(errors="replace")}
            dropped = task.result.dropped_bytes if task.result is not None else 0
            found = {**row_of(task), "input": task.values, "dropped_bytes": dropped, **text}
            write(sys.stdout, (json.dumps(found) + "\n").encode())
            return
        if self.tagged:
            tag = " ".join(task.values or [str(task.number)]).encode(errors="surrogateescape") + b"\t"
            stdout, stderr = _marked(stdout, tag), _marked(stderr, tag)
        write(sys.stdout, stdout)
        write(sys.stderr, stderr)

    def leave(self) -> None:
        """No more is to be said: something went wrong."""
        if self.bar is not None:
            self.bar.close()

    def close(self) -> None:
        """The end: the table."""
        self.leave()
        self._rows.sort(key=lambda row: int(row["task"]))
        if self._rows:
            noted = any(row["note"] for row in self._rows)
            shown = [column for column in COLUMNS if column.key != "note" or noted]
            note(table(self._rows, shown, self.form == "wide"))
        more = (self.tasks if self.form in ("table", "wide") else self.failed) - len(self._rows)
        if self._rows and more > 0:
            note(f"{more:,} more are not shown; --joblog FILE has them all")
        if self.failed and self.form == "failed":
            cancelled = f", and {self.cancelled:,} more were cancelled" if self.cancelled else ""
            note(f"{self.failed:,} of {self.tasks:,} tasks have failed{cancelled}")


def row_of(task: Task) -> Row:
    result = task.result
    began = datetime.fromtimestamp(result.began).astimezone() if result is not None else None
    return {
        "task": task.number,
        "exit_code": result.exit_code if result is not None else None,
        "seconds": round(result.seconds, 3) if result is not None else None,
        "executor": result.executor if result is not None else None,
        "signal": (result.signal or None) if result is not None else None,
        "tries": task.tries,
        "began": began.isoformat(timespec="milliseconds") if began is not None else None,
        "command": task.command,
        "note": task.note or None,
    }


def _log_line(task: Task) -> str:
    result = task.result
    command = task.command.replace("\n", "\\n").replace("\t", "\\t")
    if result is None:
        return f"{task.number}\t-\t0\t0\t0\t0\t-1\t0\t{command}\n"
    import signal

    number = int(getattr(signal, result.signal, 0)) if result.signal else 0
    size = len(result.stdout_bytes) + len(result.stderr_bytes) + result.dropped_bytes
    host = result.executor.rpartition("/")[0]
    code = 0 if number and not result.timed_out else result.exit_code
    times = f"{result.began:.3f}\t{result.seconds:.3f}"
    return f"{task.number}\t{host}\t{times}\t0\t{size}\t{code}\t{number}\t{command}\n"


def _marked(data: bytes, tag: bytes) -> bytes:
    lines = data.split(b"\n")
    last = lines.pop()
    return b"".join(tag + line + b"\n" for line in lines) + (tag + last if last else b"")


def write(stream: Any, data: bytes) -> None:
    """All of it, now; as text where a bar may be drawn between."""
    if not data or stream is None:
        return
    if stream.isatty():
        stream.write(data.decode(errors="replace"))
    else:
        stream.flush()
        stream.buffer.write(data)
        stream = stream.buffer
    stream.flush()
