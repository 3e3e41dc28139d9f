"""The run of flmexec: tasks are submitted as inputs come, and shown as it is their turn.

One thread waits in one place for three things: results, input, and the time.
How much is under way, and how much waits for its turn, is bounded; an
input is not read before there is room for its task.
"""

from __future__ import annotations

import os
import select
from collections import deque
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING

from flamezmq.cli.ctl_output import note
from flamezmq.cli.exec_output import Report, Spool, Task
from flamezmq.cli.exec_source import Source
from flamezmq.cli.exec_template import Job
from flamezmq.cli.exec_work import Work
from flamezmq.errors import ClientClosed, FlameError, RouterLost

if TYPE_CHECKING:
    from flamezmq.client.future import Future
    from flamezmq.client.session import Session

#: Tasks that are with the cluster at a time.
MOST_ON_WAY = 4096
#: Those, and those that have ended and wait for their turn.
MOST_HELD = 1 << 16
#: Characters of the commands of all these, above which no more input is taken.
MOST_INPUT = 64 << 20
#: After so long without a first result one may ask whether the cluster has a worker.
PATIENCE_SECONDS = 10.0
_TICK_SECONDS = 0.1


class Interrupted(Exception):
    """The session was closed by somebody else."""


@dataclass(frozen=True)
class Plan:
    """How to run.

    retries    how often a task that fails is run again
    ordered    show tasks in the order of their inputs, else as they end
    halt       "never", or what to do when `most_failed` tasks have failed: "soon" lets those that
               run end, "now" kills them
    """

    retries: int = 0
    ordered: bool = True
    halt: str = "never"
    most_failed: int = 0


class Run:
    """All tasks of one call."""

    def __init__(self, session: Session, work: Work, source: Source, plan: Plan, report: Report) -> None:
        self._session, self._work, self._source = session, work, source
        self._plan, self._report = plan, report
        self._spool = Spool()
        self._number = 0
        self._input = 0  # characters, of tasks that were not shown yet
        self._on_way: dict[Task, Future] = {}
        self._held: dict[int, Task] = {}  # ended, but not shown: by number
        self._next = 1  # to be shown
        self._ended: deque[Task] = deque()  # filled by the client's thread of callbacks
        self._wake = os.eventfd(0, os.EFD_NONBLOCK)
        self._halted = ""  # how, if it was
        self._asked = False

    def run(self) -> None:
        """Until all have ended, or it is halted.

        Raises:
            RouterLost, ClientClosed, Interrupted: it can't go on.
            BadInput: the input is none.
            OSError: the output can't be written, or the input not be read.
        """
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        readable = False
        began = monotonic()
        try:
            while self._halted != "now":
                self._submit_more(readable)
                if not self._on_way and (self._source.ended or self._halted):
                    break
                readable = self._wait(poll, began)
                self._take()
            for number in sorted(self._held):
                self._show(self._held.pop(number))
        finally:
            self._spool.close()

    def close(self) -> None:
        """After the client's end: its thread calls back until then."""
        os.close(self._wake)

    # --- out

    def _submit_more(self, readable: bool) -> None:
        source = self._source
        while self._has_room and not source.ended and not self._halted:
            if not source.ready and not readable:
                return
            values = source.pull()
            readable = False
            if values is not None:
                self._number += 1
                job = self._work.template.fill(self._number, values)
                task = Task(self._number, values, self._work.spell(job))
                self._input += len(task.command)
                self._send(task, job)

    @property
    def _has_room(self) -> bool:
        on_way = len(self._on_way)
        return on_way < MOST_ON_WAY and on_way + len(self._held) < MOST_HELD and self._input < MOST_INPUT

    def _send(self, task: Task, job: Job) -> None:
        future = self._on_way[task] = self._work.submit(self._session, task.number, job)
        future.add_done_callback(lambda _: self._on_done(task))

    def _on_done(self, task: Task) -> None:
        """On the client's thread."""
        self._ended.append(task)
        os.eventfd_write(self._wake, 1)

    # --- in

    def _wait(self, poll: select.poll, began: float) -> bool:
        """For a result or, if there is room for it, for input; returns whether there is some to be read."""
        source, bar = self._source, self._report.bar
        asks = source.fd >= 0 and self._has_room and not source.ended and not self._halted
        if asks:
            poll.register(source.fd, select.POLLIN)
        silent = not self._asked and not self._report.tasks and bool(self._on_way)
        seconds = _TICK_SECONDS if bar is not None else PATIENCE_SECONDS if silent else None
        found = [fd for fd, _ in poll.poll(None if seconds is None else seconds * 1000)]
        if asks:
            poll.unregister(source.fd)
        if bar is not None and not found:
            bar.tick()
        if silent and monotonic() - began > PATIENCE_SECONDS:
            self._ask()
        return asks and source.fd in found

    def _ask(self) -> None:
        """Nothing has ended yet: say so if nothing runs, either."""
        self._asked = True
        try:
            running = self._session.status().running
        except FlameError:
            return  # the futures will say it
        if not running:
            note("flmexec: no task has begun: the executors are busy, or the cluster has none")

    def _take(self) -> None:
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            pass
        while self._ended:
            task = self._ended.popleft()
            if self._on_end(task, self._on_way.pop(task)):
                self._count(task)
                if self._halted == "now":
                    return

    def _on_end(self, task: Task, future: Future) -> bool:
        """Look what came of it; False if there is nothing to be told."""
        try:
            task.result, task.note = future.result(), ""
        except CancelledError as error:
            if self._halted:
                self._report.cancelled += 1
                self._held[task.number] = task
                self._show_what_is_due()
                return False
            raise Interrupted(str(error) or "a task was cancelled by somebody else") from None
        except (RouterLost, ClientClosed):
            raise
        except Exception as error:
            task.result, task.note = None, _sentence(error)
        result = task.result
        if result is not None and result.timed_out:
            task.note = "its time was over"
        if result is not None and result.dropped_bytes:
            task.note = f"{result.dropped_bytes:,} bytes of its output are lost; raise --max-output"
        task.failed = result is None or not result.ok or bool(result.dropped_bytes)
        if task.failed and task.tries <= self._plan.retries and not self._halted:
            task.tries += 1
            self._send(task, self._work.template.fill(task.number, task.values))
            return False
        return True

    def _count(self, task: Task) -> None:
        self._report.ended(task)
        if task.result is not None:
            task.kept = self._spool.put(task.result.stdout_bytes, task.result.stderr_bytes)
            task.result = replace(task.result, stdout_bytes=b"", stderr_bytes=b"")
        self._held[task.number] = task
        self._show_what_is_due(None if self._plan.ordered else task)
        if self._plan.halt != "never" and self._report.failed >= self._plan.most_failed and not self._halted:
            self._halt()

    def _halt(self) -> None:
        self._halted = self._plan.halt
        what = "no more tasks are begun" if self._halted == "soon" else "what runs is killed"
        note(f"flmexec: {self._report.failed:,} failed: {what}")
        if self._halted == "now":
            self._report.cancelled += len(self._on_way)
        else:
            self._session.cancel(list(self._on_way.values()))  # what runs goes on

    # --- shown

    def _show_what_is_due(self, task: Task | None = None) -> None:
        if task is not None:
            self._show(self._held.pop(task.number))
            return
        while (due := self._held.pop(self._next, None)) is not None:
            self._next += 1
            self._show(due)

    def _show(self, task: Task) -> None:
        self._input -= len(task.command)
        if task.kept is not None:
            self._report.show(task, *self._spool.get(task.kept))
            task.kept = None
        elif task.note:
            self._report.show(task, b"", f"flmexec: task {task.number}: {task.note}\n".encode())


def _sentence(error: BaseException) -> str:
    return str(error) if isinstance(error, FlameError) else f"{type(error).__name__}: {error}"
