"""Options in real processes: tasks run again, are ended in time, come in their order."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flamezmq as flm
from flamezmq.shims.alarm import alarm
from tests.waiting import until
from tests.wasting import waste

pytestmark = pytest.mark.processes

#: Generous: the machine may be busy.
WAIT_SECONDS = 30.0


@pytest.fixture(scope="module")
def client() -> Iterator[flm.Client]:
    with flm.Client(executors=1) as one:
        yield one


def note(path: Path, word: str) -> list[str]:
    """Append a word to the file; returns all that it holds."""
    with path.open("a") as file:
        file.write(word + "\n")
    return path.read_text().split()


def words(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def fails_until(path: Path, attempt: int, error: type[BaseException] = OSError) -> int:
    tried = len(note(path, "x"))
    if tried < attempt:
        raise error(f"attempt {tried}")
    return flm.current().attempt


# --- again


def test_a_task_runs_again_until_it_works(client: flm.Client, tmp_path: Path) -> None:
    future = client.submit(flm.options(retries=5)(fails_until), tmp_path / "x", 4)
    assert future.result(WAIT_SECONDS) == 4
    assert len(words(tmp_path / "x")) == 4


def test_the_last_error_is_the_one_that_counts_and_says_how_often_it_was_tried(
    client: flm.Client, tmp_path: Path
) -> None:
    error = client.submit(flm.options(retries=2)(fails_until), tmp_path / "x", 9).exception(WAIT_SECONDS)
    assert repr(error) == "OSError('attempt 3')"
    assert error is not None
    assert error.__notes__ == ["flamezmq: it has failed after 3 attempts"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_is_no_reason_fails_at_once(
    client: flm.Client, tmp_path: Path, error: type[BaseException]
) -> None:
    retry_on: Any = None if issubclass(error, SystemExit | KeyboardInterrupt) else OSError
    once = flm.options(retries=5, retry_on=retry_on)(fails_until)
    assert type(client.submit(once, tmp_path / "x", 3, error).exception(WAIT_SECONDS)) is error
    assert words(tmp_path / "x") == ["x"]


def test_while_a_task_waits_for_its_time_its_executor_serves_others(
    client: flm.Client, tmp_path: Path
) -> None:
    path = tmp_path / "x"
    late = client.submit(flm.options(retries=1, backoff=0.3)(fails_until), path, 2)
    others = [client.submit(note, path, "other") for _ in range(20)]
    assert late.result(WAIT_SECONDS) == 2
    assert [future.result(WAIT_SECONDS)[-1] for future in others] == ["other"] * 20
    assert words(path) == ["x", *["other"] * 20, "x"]


def test_results_of_neighbours_are_neither_lost_nor_mixed_up(client: flm.Client, tmp_path: Path) -> None:
    flaky = flm.options(retries=1)(fails_until)
    futures: list[Any] = []
    for number in range(60):
        futures.append(client.submit(pow, number, 2))
        if not number % 10:
            futures.append(client.submit(flaky, tmp_path / f"{number}", 2))
    values = [future.result(WAIT_SECONDS) for future in futures]
    assert [value for value in values if value not in (2,)] == [n * n for n in range(60)]
    assert values.count(2) == 6


def test_a_sessions_options_are_for_all_its_functions(client: flm.Client, tmp_path: Path) -> None:
    with client.session("again", options=flm.options(retries=3)) as session:
        assert session.submit(fails_until, tmp_path / "x", 3).result(WAIT_SECONDS) == 3
        in_place = session.map(fails_until, [tmp_path / "y"], [3])
        assert list(in_place) == [1], "the slice has one attempt"
        own = flm.options(retries=0)(fails_until)
        assert session.submit(own, tmp_path / "z", 2).exception(WAIT_SECONDS) is not None
    with pytest.raises(TypeError, match=r"flm\.options"):
        client.session("x", options={"retries": 3})  # type: ignore[call-overload]


def test_what_waits_for_its_time_is_pending_and_can_be_cancelled(client: flm.Client, tmp_path: Path) -> None:
    with client.session("late") as session:
        late = session.submit(flm.options(retries=1, backoff=1000)(fails_until), tmp_path / "x", 2)
        until(lambda: words(tmp_path / "x") == ["x"])
        until(lambda: session.status().running == 0)
        assert session.status().pending == 1
        assert late.cancel()
        assert session.status().cancelled == 1


def test_a_session_that_is_left_forgets_what_waits_in_it(client: flm.Client, tmp_path: Path) -> None:
    session = client.session("left")
    late = session.submit(flm.options(retries=1, backoff=1000)(fails_until), tmp_path / "x", 2)
    until(lambda: words(tmp_path / "x") == ["x"])
    session.close(cancel=True)
    assert late.cancelled()
    assert client.submit(pow, 2, 3).result(WAIT_SECONDS) == 8


def test_a_task_that_kills_its_executor_is_named(client: flm.Client) -> None:
    def crash() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with client.session("bad", max_retries=0) as session:
        error = session.submit(flm.options(name="the crash", retries=3)(crash)).exception(WAIT_SECONDS)
    assert isinstance(error, flm.TaskLost)
    assert error.name == "the crash"
    assert str(error).startswith(f"task {error.task_id} (the crash) took down an executor")


# --- in time


@pytest.mark.parametrize("how", ["sleep", "busy", "stubborn", "in C"])
def test_a_task_ends_in_time_whatever_it_does_and_its_neighbours_do_not_suffer(
    client: flm.Client, how: str
) -> None:
    before = client.submit(os.getpid).result(WAIT_SECONDS)
    with client.session("neighbours", max_retries=0) as session:
        first = [session.submit(pow, n, 2) for n in range(5)]
        late = session.submit(flm.options(timeout=0.2)(waste), how)
        rest = [session.submit(pow, n, 2) for n in range(5, 10)]

        error = late.exception(WAIT_SECONDS)

        assert isinstance(error, flm.TaskTimeout)
        assert (error.task_id, error.seconds, error.attempt) == (late.task_id, 0.2, 1)
        assert [future.result(WAIT_SECONDS) for future in first + rest] == [n * n for n in range(10)]
        assert session.status().failed == 1
    killed = client.submit(os.getpid).result(WAIT_SECONDS) != before
    assert killed == (how in ("stubborn", "in C"))


def test_what_is_quick_enough_has_its_value_and_may_clean_up_if_it_is_not(
    client: flm.Client, tmp_path: Path
) -> None:
    def tidy(path: Path) -> None:
        try:
            time.sleep(1000)
        finally:
            note(path, "tidied")

    assert client.submit(flm.options(timeout=100)(waste), "quick").result(WAIT_SECONDS) == "quick"
    error = client.submit(flm.options(timeout=0.1)(tidy), tmp_path / "x").exception(WAIT_SECONDS)
    assert isinstance(error, flm.TaskTimeout)
    assert words(tmp_path / "x") == ["tidied"]


def test_a_sessions_task_timeout_is_for_tasks_whose_options_have_none(client: flm.Client) -> None:
    with client.session("short", task_timeout=0.1, options=flm.options(retries=0)) as session:
        errors = [
            session.submit(waste, "sleep").exception(WAIT_SECONDS),
            session.submit(flm.options(timeout=0.2)(waste), "sleep").exception(WAIT_SECONDS),
            next_error(session.map(waste, ["sleep"])),
        ]
        assert [type(error) for error in errors] == [flm.TaskTimeout] * 3
        assert [error.seconds for error in errors] == [0.1, 0.2, 0.1]  # type: ignore[union-attr]
    with client.session("long", task_timeout=0.1, options=flm.options(timeout=0.3)) as session:
        error = session.submit(waste, "sleep").exception(WAIT_SECONDS)
        assert isinstance(error, flm.TaskTimeout)
        assert error.seconds == 0.3
    with pytest.raises(ValueError, match="`task_timeout` is -1"):
        client.session("x", task_timeout=-1)


def next_error(results: Iterator[Any]) -> BaseException | None:
    try:
        next(results)
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize("how", ["sleep", "in C"])
def test_a_timeout_is_a_reason_to_run_again(client: flm.Client, how: str) -> None:
    def late_once() -> int:
        if flm.current().attempt == 1:
            waste(how)
        return flm.current().attempt

    with client.session("again", max_retries=0) as session:
        again = flm.options(timeout=0.3, retries=1, retry_on=flm.TaskTimeout)(late_once)
        assert session.submit(again).result(WAIT_SECONDS) == 2
        once = flm.options(timeout=0.3, retries=1, retry_on=ValueError)(late_once)
        assert isinstance(session.submit(once).exception(WAIT_SECONDS), flm.TaskTimeout)


def test_sigalrm_is_the_users_own_in_tasks_without_a_timeout(client: flm.Client) -> None:
    def take() -> None:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)

    def whose() -> tuple[Any, Any]:
        return signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)

    client.submit(take).result(WAIT_SECONDS)
    client.submit(flm.options(timeout=100)(waste), "quick").result(WAIT_SECONDS)
    assert client.submit(whose).result(WAIT_SECONDS) == (signal.SIG_IGN, (0.0, 0.0))
    client.submit(lambda: signal.signal(signal.SIGALRM, signal.SIG_DFL)).result(WAIT_SECONDS)


def test_of_two_clocks_that_due_first_rings_and_the_other_goes_on(client: flm.Client) -> None:
    """As when a nested task with a timeout runs in place."""

    def two(outer: float, inner: float) -> tuple[float, float]:
        def inside() -> float:
            try:
                alarm.call(inner, 1, time.sleep, 1000)
            except flm.TaskTimeout as error:
                if error.seconds == outer:
                    raise
                time.sleep(1000)
            return 0.0

        try:
            alarm.call(outer, 1, inside)
        except flm.TaskTimeout as error:
            return error.seconds, signal.getitimer(signal.ITIMER_REAL)[0]
        return -1.0, -1.0

    assert client.submit(two, 0.3, 0.1).result(WAIT_SECONDS) == (0.3, 0.0)
    assert client.submit(two, 0.1, 50.0).result(WAIT_SECONDS) == (0.1, 0.0)


# --- not too late


def hold(gate: Path) -> None:
    until(gate.exists)


def test_what_has_not_begun_in_time_fails_with_that_and_what_needs_it_as_well(
    client: flm.Client, tmp_path: Path
) -> None:
    with client.session("late") as session:
        first = session.submit(hold, tmp_path / "gate")
        until(lambda: session.status().running == 1)
        soon = flm.options(deadline=0.2, name="the news")(note)
        late = session.submit(soon, tmp_path / "x", "late")
        needy = session.submit(len, late)
        patient = session.submit(flm.options(deadline=1000)(note), tmp_path / "x", "patient")

        error = late.exception(WAIT_SECONDS)

        assert isinstance(error, flm.DeadlinePassed)
        assert (error.task_id, error.name, error.seconds) == (late.task_id, "the news", 0.2)
        assert isinstance(needy.exception(WAIT_SECONDS), flm.DependencyFailed)
        assert not first.done()
        (tmp_path / "gate").touch()
        assert patient.result(WAIT_SECONDS) == ["patient"]
        assert session.status().failed == 2
        assert [event.kind for event in session.events()].count("task too late") == 1


def test_what_has_begun_before_its_deadline_may_end_after_it(client: flm.Client) -> None:
    assert client.submit(flm.options(deadline=0.5)(time.sleep), 0.8).exception(WAIT_SECONDS) is None


def test_a_sessions_deadline_is_for_all_its_tasks_and_slices(client: flm.Client, tmp_path: Path) -> None:
    with client.session("late", options=flm.options(deadline=0.2)) as session:
        client.submit(hold, tmp_path / "gate")
        until(lambda: client._own().status().running == 1)
        results = session.map(abs, range(3))
        assert [type(next_error(results)) for _ in range(3)] == [flm.DeadlinePassed] * 3
        own = session.submit(flm.options(deadline=math.inf)(abs), -1)
        (tmp_path / "gate").touch()
        assert own.result(WAIT_SECONDS) == 1


def test_a_nested_task_that_comes_too_late_does_not_run_in_place(client: flm.Client) -> None:
    def parent() -> str:
        inside = flm.current().client
        late = inside.submit(flm.options(deadline=0.05)(abs), -1)
        time.sleep(0.1)
        return type(late.exception()).__name__

    assert client.submit(parent).result(WAIT_SECONDS) == "DeadlinePassed"


# --- map, and tasks of tasks


def test_items_of_a_map_are_tried_and_timed_one_by_one(client: flm.Client, tmp_path: Path) -> None:
    whole = flm.options(retries=1, timeout=0.2, retry_on=OSError)(
        lambda n: waste("sleep") if n == 5 else fails_until(tmp_path / f"{n}", 2) and n
    )
    results = client.map(whole, range(8), chunksize=4)
    values: list[Any] = []
    for _ in range(8):
        try:
            values.append(next(results))
        except flm.TaskTimeout as error:
            values.append((error.seconds, error.attempt))
    assert values == [0, 1, 2, 3, 4, (0.2, 2), 6, 7]


def test_an_item_that_must_be_killed_takes_its_slice_with_it(client: flm.Client) -> None:
    whole = flm.options(timeout=0.2)(lambda n: waste("in C") if n == 1 else n)
    results = client.map(whole, range(4), chunksize=2)
    errors = []
    for _ in range(2):
        with pytest.raises(flm.TaskTimeout) as caught:
            next(results)
        errors.append(caught.value.seconds)
    assert errors == [0.2, 0.2]
    assert list(results) == [2, 3]


def test_a_nested_task_that_runs_in_place_has_its_options(client: flm.Client, tmp_path: Path) -> None:
    def parent(path: Path) -> tuple[int, str]:
        inside = flm.current().client
        again = inside.submit(flm.options(retries=2)(fails_until), path, 3).result()
        error = inside.submit(flm.options(timeout=0.1)(waste), "sleep").exception()
        return again, type(error).__name__

    value, error = client.submit(parent, tmp_path / "x").result(WAIT_SECONDS)
    assert value == 3, "in place, too, each attempt has its number"
    assert error == "TaskTimeout"
    assert len(words(tmp_path / "x")) == 3


# --- in order


def test_higher_priorities_run_first(client: flm.Client, tmp_path: Path) -> None:
    def hold(gate: Path) -> None:
        while not gate.exists():
            time.sleep(0.005)

    path = tmp_path / "x"
    with client.session("ranks") as session:
        session.submit(hold, tmp_path / "gate")
        until(lambda: session.status().running == 1)
        for number in range(3):
            session.submit(note, path, f"low{number}")
            session.submit(flm.options(priority=5)(note), path, f"high{number}")
            session.submit(flm.options(priority=-5)(note), path, f"last{number}")
        until(lambda: session.status().pending == 9)
        (tmp_path / "gate").touch()
    assert words(path) == [f"{rank}{number}" for rank in ("high", "low", "last") for number in range(3)]
