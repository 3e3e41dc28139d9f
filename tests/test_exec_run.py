"""The loop of flmexec with a cluster that the test plays: order, retries, halts, how much is under way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any

import pytest

from flamezmq.cli import exec_run
from flamezmq.cli.exec_output import Report, Task
from flamezmq.cli.exec_run import Interrupted, Plan, Run
from flamezmq.cli.exec_source import Listed, combined
from flamezmq.cli.exec_template import Job
from flamezmq.cli.exec_work import Work
from flamezmq.errors import RouterLost
from flamezmq.scripts import ScriptResult
from tests.waiting import until

GOOD, BAD = ScriptResult(0, b"", b"", 0.1), ScriptResult(1, b"", b"", 0.1)


class Stage:
    """A session whose tasks end as the test says; `sent`: number and future of each that was submitted."""

    def __init__(self, source: Listed, plan: Plan) -> None:
        self.sent: list[tuple[int, Future[Any]]] = []
        self.shown: list[int] = []
        self.report = Report("none", False, None, None)
        self.report.show = self.show  # type: ignore[method-assign, assignment]
        work = Work(["echo"], None, None, True, None, 10)
        work.submit = self.submit  # type: ignore[method-assign, assignment]
        self.run = Run(self, work, source, plan, self.report)  # type: ignore[arg-type]
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._run)

    def submit(self, _session: Any, number: int, _job: Job) -> Future[Any]:
        future: Future[Any] = Future()
        self.sent.append((number, future))
        return future

    def cancel(self, futures: list[Future[Any]]) -> int:
        """All but the first have not begun."""
        return sum(future.cancel() for future in futures[1:])

    def show(self, task: Task, _stdout: bytes, _stderr: bytes) -> None:
        self.shown.append(task.number)

    def end(self, number: int, result: ScriptResult = GOOD) -> None:
        """End the last try of a task, once it is there."""
        tries = until(lambda: [f for n, f in self.sent if n == number and not f.done()], f"task {number}")
        tries[-1].set_result(result)

    def _run(self) -> None:
        try:
            self.run.run()
        except BaseException as error:
            self.failure = error

    def join(self) -> None:
        self.thread.join(20)
        assert not self.thread.is_alive()
        self.run.close()


@pytest.fixture
def stages() -> Iterator[Any]:
    """Makes stages, and sees to their ends."""
    made: list[Stage] = []

    def make(source: Listed, **plan: Any) -> Stage:
        made.append(Stage(source, Plan(**plan)))
        made[-1].thread.start()
        return made[-1]

    yield make
    for stage in made:
        while stage.thread.is_alive():
            for _, future in list(stage.sent):
                if not future.done():
                    future.set_exception(RouterLost("the test is over"))
            stage.thread.join(0.01)


def has_taken(stage: Stage, count: int) -> bool:
    return stage.report.tasks == count


def inputs(count: int) -> Listed:
    return combined([[(str(number),) for number in range(count)]])


@pytest.mark.parametrize(("ordered", "shown"), [(True, [1, 2, 3]), (False, [3, 1, 2])])
def test_tasks_are_shown_in_order_or_as_they_end(ordered: bool, shown: list[int], stages: Any) -> None:
    stage = stages(inputs(3), ordered=ordered)
    for position, number in enumerate((3, 1, 2)):
        stage.end(number)
        until(partial(has_taken, stage, position + 1), "it has been taken")
    stage.join()

    assert stage.shown == shown
    assert (stage.report.failed, stage.failure) == (0, None)


def test_who_fails_is_sent_again_so_often_and_no_more(stages: Any) -> None:
    stage = stages(inputs(2), retries=2)
    for result in (BAD, BAD, GOOD):
        stage.end(1, result)
    for _ in range(3):
        stage.end(2, BAD)
    stage.join()

    assert [number for number, _ in stage.sent].count(1) == 3
    assert [number for number, _ in stage.sent].count(2) == 3
    assert (stage.report.tasks, stage.report.failed) == (2, 1)


def test_output_that_is_lost_is_a_failure(stages: Any) -> None:
    stage = stages(inputs(1))
    stage.end(1, ScriptResult(0, b"x", b"", 0.1, dropped_bytes=5))
    stage.join()

    assert stage.report.failed == 1


def test_halting_soon_waits_for_what_runs_and_skips_the_rest(stages: Any) -> None:
    stage = stages(inputs(4), halt="soon", most_failed=1)
    until(lambda: len(stage.sent) == 4, "all are sent")
    stage.end(2, BAD)
    stage.end(1)
    stage.join()

    assert stage.shown == [1, 2]
    assert (stage.report.tasks, stage.report.cancelled) == (2, 2)


def test_halting_now_shows_what_has_ended_and_waits_for_nobody(stages: Any) -> None:
    stage = stages(inputs(4), halt="now", most_failed=2)
    stage.end(4, BAD)
    stage.end(3, BAD)
    stage.join()

    assert stage.shown == [3, 4]


def test_a_task_that_somebody_else_has_cancelled_ends_the_run(stages: Any) -> None:
    stage = stages(inputs(2))
    until(lambda: len(stage.sent) == 2, "both are sent")
    stage.sent[0][1].cancel()
    stage.join()

    assert isinstance(stage.failure, Interrupted)


@pytest.mark.parametrize(("size", "most"), [(10, exec_run.MOST_ON_WAY), (1 << 20, 65)])
def test_so_many_tasks_are_under_way_and_so_much_input_and_no_more(size: int, most: int, stages: Any) -> None:
    pulled = 0

    def endless() -> Iterator[tuple[str, ...]]:
        nonlocal pulled
        while True:
            pulled += 1
            yield ("x" * size,)

    stage = stages(Listed(endless(), 1 << 60))
    until(lambda: len(stage.sent) >= most - 1, "as many as may be")
    for number in (1, 2, 3):
        stage.end(number)
        until(partial(has_taken, stage, number), "it has been taken")

    assert pulled <= most + 3
