"""Actors in real processes: calls, order, errors, handles, and actors of tasks."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import flamezmq as flm
from tests.stateful import WAIT_SECONDS, Counter, is_gone, square
from tests.waiting import until

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def client() -> Iterator[flm.Client]:
    with flm.Client(executors=2) as one:
        yield one


# --- calls


def test_calls_see_the_state_that_earlier_ones_have_left(client: flm.Client) -> None:
    with client.actor(Counter, 5, step=2) as counter:
        assert [counter.add().result() for _ in range(3)] == [7, 9, 11]
        assert counter.add(times=10).result() == 31


def test_ten_thousand_calls_run_in_the_order_of_their_submission(client: flm.Client) -> None:
    with client.actor(Counter) as counter:
        for number in range(10_000):
            counter.note(number)
        assert counter.read().result() == list(range(10_000))


def test_the_calls_of_each_thread_keep_their_order(client: flm.Client) -> None:
    with client.actor(Counter) as counter:

        def work(name: int) -> None:
            for number in range(300):
                counter.note((name, number))
            counter.add().result()

        threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        notes = counter.read().result()
        assert len(notes) == 1200
        for name in range(4):
            assert [number for who, number in notes if who == name] == list(range(300))


def test_a_call_that_waits_for_a_value_holds_back_those_behind_it(client: flm.Client, tmp_path: Path) -> None:
    go = tmp_path / "go"

    def slow() -> str:
        while not go.exists():
            time.sleep(0.002)
        return "late"

    with client.actor(Counter) as counter:
        counter.note("first")
        counter.note(client.submit(slow))
        last = counter.note("last")
        assert client.submit(square, 3).result() == 9
        assert not last.done()
        go.touch()
        assert counter.read().result() == ["first", "late", "last"]


def test_those_behind_go_on_when_that_value_does_not_come(client: flm.Client) -> None:
    def fail() -> None:
        raise KeyError("nothing")

    with client.actor(Counter) as counter:
        dependent = counter.note(client.submit(fail))
        counter.note("next")
        assert counter.read().result() == ["next"]
        with pytest.raises(flm.DependencyFailed):
            dependent.result()


def test_values_of_calls_are_arguments_of_tasks_and_of_other_actors(client: flm.Client) -> None:
    with client.actor(Counter, 3) as one, client.actor(Counter, 10) as two:
        assert client.submit(square, one.add()).result() == 16
        assert two.add(one.add()).result() == 15


def test_an_exception_fails_its_call_only(client: flm.Client) -> None:
    with client.actor(Counter) as counter:
        failed = counter.fail()
        assert counter.add().result() == 2
        with pytest.raises(ValueError, match="on purpose"):
            failed.result()


def test_calls_can_be_cancelled_before_they_begin(client: flm.Client, tmp_path: Path) -> None:
    with client.actor(Counter) as counter:
        counter.wait_for(str(tmp_path / "go"))
        unwanted, wanted = counter.note("unwanted"), counter.note("wanted")
        assert unwanted.cancel()
        (tmp_path / "go").touch()
        wanted.result()
        assert counter.read().result() == ["wanted"]


def test_a_call_that_runs_can_be_cancelled_and_the_instance_survives_it(client: flm.Client) -> None:
    with client.actor(Counter) as counter:
        counter.add().result()
        running = counter.wait_for("/never")
        until(running.running)
        assert running.cancel(running=True)
        assert counter.add().result() == 2


def test_an_actor_starts_while_tasks_occupy_every_executor(client: flm.Client, tmp_path: Path) -> None:
    go = tmp_path / "go"

    def occupy() -> None:
        while not go.exists():
            time.sleep(0.002)

    tasks = [client.submit(occupy) for _ in range(4)]
    until(lambda: sum(task.running() for task in tasks) == 2)
    with client.actor(Counter) as counter:
        assert counter.add().result(WAIT_SECONDS) == 1
        assert not any(task.done() for task in tasks)
    go.touch()
    for task in tasks:
        task.result(WAIT_SECONDS)


class Flaky:
    def __init__(self) -> None:
        self.tries = 0
        self.notes: list[str] = []

    def flaky(self) -> int:
        self.tries += 1
        if self.tries < 3:
            raise OSError("not yet")
        self.notes.append("flaky")
        return self.tries

    def note(self, what: str) -> list[str]:
        self.notes.append(what)
        return self.notes

    def hang(self) -> None:
        time.sleep(60)

    def cling(self) -> None:
        """What does not let itself be interrupted."""
        while True:
            with contextlib.suppress(flm.TaskTimeout):
                time.sleep(60)


def test_a_call_that_is_retried_keeps_its_place(client: flm.Client) -> None:
    with client.actor(Flaky) as flaky:
        tried = flaky.flaky.options(retries=5, retry_on=OSError)()
        assert flaky.note("behind").result() == ["flaky", "behind"]
        assert tried.result() == 3


def test_a_call_has_a_timeout_and_the_instance_survives_it(client: flm.Client) -> None:
    with client.actor(Flaky) as flaky:
        late = flaky.hang.options(timeout=0.05, name="patience")()
        assert flaky.note("behind").result() == ["behind"]
        with pytest.raises(flm.TaskTimeout):
            late.result()


def test_a_call_that_clings_to_its_process_is_ended_with_it(client: flm.Client) -> None:
    flaky = client.actor(Flaky, max_restarts=1)
    late = flaky.cling.options(timeout=0.05)()
    behind = flaky.note("on a fresh instance")
    with pytest.raises(flm.TaskTimeout):
        late.result(WAIT_SECONDS)
    assert behind.result(WAIT_SECONDS) == ["on a fresh instance"]
    flaky.close()


# --- handles


def test_only_public_methods_of_the_class_can_be_reached(client: flm.Client) -> None:
    with client.actor(Counter) as counter:
        for name in ("ad", "value", "_secret", "__len__"):
            with pytest.raises(AttributeError, match=name):
                getattr(counter, name)
        with pytest.raises(AttributeError):
            counter.value = 5  # type: ignore[attr-defined]
        assert {"add", "note", "close"} <= set(dir(counter))
        assert "_secret" not in dir(counter)


def test_a_handle_does_not_travel(client: flm.Client) -> None:
    with client.actor(Counter) as counter:
        for what in (counter, counter.add):
            with pytest.raises(TypeError, match="stays in its program"):
                pickle.dumps(what)
            with pytest.raises(flm.StrayClient, match=r"argument 1.* pass their futures"):
                client.submit(id, what).result()


def test_what_can_not_be_an_actor_is_refused(client: flm.Client) -> None:
    with pytest.raises(TypeError, match="class"):
        client.actor(square, 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_restarts"):
        client.actor(Counter, max_restarts=-1)
    with pytest.raises(ValueError, match="max_retries"):
        client.actor(Counter, max_retries=1.5)  # type: ignore[arg-type]
    with pytest.raises(flm.Unpicklable, match="argument 1"):
        client.actor(Counter, threading.Lock())
    with pytest.raises(flm.StrayFuture, match="result"):
        client.actor(Counter, client.submit(square, 1))


def test_a_handle_that_nobody_has_any_more_ends_its_actor_when_the_calls_have_ended(
    client: flm.Client, tmp_path: Path
) -> None:
    counter = client.actor(Counter)
    pid = counter.pid().result()
    counter.wait_for(str(tmp_path / "go"))
    last = counter.add()
    del counter
    gc.collect()
    (tmp_path / "go").touch()
    assert last.result() == 1
    until(lambda: is_gone(pid))


def test_a_method_keeps_its_actor(client: flm.Client) -> None:
    add = client.actor(Counter).add
    assert [add().result() for _ in range(3)] == [1, 2, 3]


# --- inside tasks


def use_an_actor(times: int) -> tuple[int, bool]:
    with flm.current().client.actor(Counter) as counter:
        for _ in range(times):
            last = counter.add()
        return last.result(), counter.pid().result() != os.getpid()


def use_one_with_values(times: int) -> list[int]:
    client = flm.current().client
    with client.actor(Counter) as counter:
        for number in range(times):
            counter.note(client.submit(square, number) if number % 2 else number * number)
        return counter.read().result()


@pytest.mark.parametrize("executors", [1, 2])
def test_a_task_makes_an_actor_and_waits_for_its_calls(executors: int) -> None:
    with flm.Client(executors=executors) as client:
        assert client.submit(use_an_actor, 50).result(WAIT_SECONDS) == (50, True)
        assert list(client.map(use_an_actor, [3, 4], chunksize=1)) == [(3, True), (4, True)]


def test_calls_of_a_tasks_actor_keep_their_order_when_some_need_values(client: flm.Client) -> None:
    assert client.submit(use_one_with_values, 7).result(WAIT_SECONDS) == [0, 1, 4, 9, 16, 25, 36]


def leave_one(path: str) -> int:
    counter = flm.current().client.actor(Counter)
    pid = counter.pid().result()
    Path(path).write_text(str(pid))
    raise ValueError("left")


def test_a_tasks_actor_ends_with_its_task(client: flm.Client, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with pytest.raises(ValueError, match="left"):
        client.submit(leave_one, str(path)).result(WAIT_SECONDS)
    until(lambda: is_gone(int(path.read_text())))


class Parent:
    def work(self, n: int) -> int:
        """A call with tasks of its own."""
        return sum(f.result() for f in [flm.current().client.submit(square, i) for i in range(n)])


def test_a_call_has_tasks_of_its_own(client: flm.Client) -> None:
    with client.actor(Parent) as parent:
        assert parent.work(10).result(WAIT_SECONDS) == 285
