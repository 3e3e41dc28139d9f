"""Tasks that submit tasks and wait for them, in real processes."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flamezmq as flm
from flamezmq.client.controller import Controller
from flamezmq.client.nested import NestedClient
from tests.waiting import until

pytestmark = pytest.mark.processes

WAIT_SECONDS = 40.0


@pytest.fixture(scope="module", params=[1, 2, 4])
def client(request: pytest.FixtureRequest) -> Iterator[flm.Client]:
    with flm.Client(executors=request.param) as one:
        yield one


@pytest.fixture
def pair() -> Iterator[flm.Client]:
    with flm.Client(executors=2) as one:
        yield one


def fib(n: int) -> int:
    if n < 2:
        return n
    client = flm.current().client
    one, two = client.submit(fib, n - 1), client.submit(fib, n - 2)
    return one.result() + two.result()


def chain(n: int) -> int:
    return 1 + flm.current().client.submit(chain, n - 1).result() if n else 0


def quicksort(items: list[float]) -> list[float]:
    if len(items) < 2:
        return items
    client = flm.current().client
    pivot = items[len(items) // 2]
    low = client.submit(quicksort, [item for item in items if item < pivot])
    high = client.submit(quicksort, [item for item in items if item > pivot])
    return low.result() + [item for item in items if item == pivot] + high.result()


@pytest.mark.parametrize(("n", "value"), [(12, 144), (18, 2584)])
def test_fibonacci_of_tasks(client: flm.Client, n: int, value: int) -> None:
    assert client.submit(fib, n).result(WAIT_SECONDS) == value


def test_many_of_them_at_a_time(client: flm.Client) -> None:
    futures = [client.submit(fib, 10) for _ in range(20)]
    assert [future.result(WAIT_SECONDS) for future in futures] == [55] * 20


def test_quicksort_of_tasks(client: flm.Client) -> None:
    items = [random.Random(7).random() for _ in range(1000)]
    assert client.submit(quicksort, items).result(WAIT_SECONDS) == sorted(items)


def test_no_depth_is_a_deadlock(client: flm.Client) -> None:
    assert client.submit(chain, 1000).result(WAIT_SECONDS) == 1000


def test_what_recurses_without_end_fails_and_its_executor_lives(pair: flm.Client) -> None:
    def for_ever() -> Any:
        return flm.current().client.submit(for_ever).result()

    def limited() -> Any:
        from flamezmq.client import nested

        nested.MOST_DEPTH = 300
        return for_ever()

    alone = flm.Client(executors=1)
    try:
        before = alone.submit(os.getpid).result(WAIT_SECONDS)
        with pytest.raises(RecursionError, match="more than 300 nested tasks"):
            alone.submit(limited).result(WAIT_SECONDS)
        assert alone.submit(os.getpid).result(WAIT_SECONDS) == before
    finally:
        alone.close()


def test_all_ways_to_wait_work_in_a_task(client: flm.Client) -> None:
    def inside() -> list[Any]:
        mine = flm.current().client
        futures = [mine.submit(pow, i, 2) for i in range(100)]
        found: list[Any] = [sum(future.result() for future in flm.as_completed(futures))]
        found.append(len(flm.wait([mine.submit(abs, -i) for i in range(100)]).done))
        found.append(list(mine.map(lambda x: x + 1, range(1000))) == list(range(1, 1001)))
        with mine.session("inner") as session:
            future = session.submit(abs, -9)
        found.append(future.result())
        called = threading.Event()
        last = mine.submit(abs, -1)
        last.add_done_callback(lambda _: called.set())
        last.result()
        found.append(called.wait(10))
        return found

    assert client.submit(inside).result(WAIT_SECONDS) == [328350, 100, True, 9, True]


def test_the_threads_of_a_task_may_submit_and_wait_too(client: flm.Client) -> None:
    def inside() -> list[int]:
        found: list[int] = []

        def ask() -> None:
            found.append(flm.current().client.submit(fib, 7).result())

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    assert client.submit(inside).result(WAIT_SECONDS) == [13] * 8


def test_errors_of_nested_tasks_arrive_as_themselves(client: flm.Client) -> None:
    def inside(where: str) -> str:
        bad = flm.current().client.submit(int, "no number")
        if where == "caught":
            return type(bad.exception()).__name__
        return str(bad.result())

    assert client.submit(inside, "caught").result(WAIT_SECONDS) == "ValueError"
    with pytest.raises(ValueError, match="no number"):
        client.submit(inside, "uncaught").result(WAIT_SECONDS)


def nap() -> int:
    time.sleep(0.02)
    return os.getpid()


def test_independent_nested_tasks_use_the_other_executors(pair: flm.Client) -> None:
    def inside() -> set[int]:
        mine = flm.current().client
        futures = [mine.submit(nap) for _ in range(40)]
        return {future.result() for future in futures}

    assert len(pair.submit(inside).result(WAIT_SECONDS)) == 2


def test_a_task_knows_who_it_is(pair: flm.Client) -> None:
    with pair.session("known") as session:
        future = session.submit(lambda: (flm.current().task_id, flm.current().session_id))
        assert future.result(WAIT_SECONDS) == (future.task_id, session.id)
        assert session.submit(lambda: flm.current().attempt).result(WAIT_SECONDS) == 1
        where = session.submit(lambda: (flm.current().executor_id, flm.current().node, os.getpid()))
        executor_id, node, pid = where.result(WAIT_SECONDS)
        assert executor_id.rpartition("/")[0] == node
        with Controller(pair.address) as controller:
            rows, _ = controller.executors()
        assert (executor_id, node, pid) in [(row.name, row.node, row.pid) for row in rows]

    with pytest.raises(flm.NoTask, match="none runs"):
        flm.current()


def test_a_task_that_is_started_again_knows_its_attempt(pair: flm.Client, tmp_path: Path) -> None:
    def dies_once(path: Path) -> int:
        if not path.exists():
            path.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return flm.current().attempt

    assert pair.submit(dies_once, tmp_path / "died").result(WAIT_SECONDS) == 2


def test_a_task_in_place_has_a_name_of_its_own() -> None:
    def name() -> str:
        return flm.current().task_id

    def inside() -> tuple[str, str, str]:
        futures = [flm.current().client.submit(name) for _ in range(2)]
        return futures[1].result(), futures[1].task_id, flm.current().task_id

    with flm.Client(executors=1) as alone:
        child, outside, parent = alone.submit(inside).result(WAIT_SECONDS)
    assert child == outside
    assert child.startswith("nested-")
    assert "/~" in child
    assert parent.startswith("client-")


def test_nested_tasks_that_were_never_sent_are_named_by_their_functions() -> None:
    def bad() -> None:
        raise ValueError("no")

    def needs(value: object) -> None:
        pass

    def parent() -> str:
        mine = flm.current().client
        return str(mine.submit(needs, mine.submit(bad)).exception())

    with flm.Client(executors=1) as alone:
        said = alone.submit(parent).result(WAIT_SECONDS)
    assert re.fullmatch(
        r"task \S+needs \(nested\) did not run: task \S+bad \(nested\), whose value it was to get, "
        r"failed with ValueError: no; .*",
        said,
    )


def test_when_a_task_is_killed_its_own_tasks_end(pair: flm.Client, tmp_path: Path) -> None:
    def child(pid: Path) -> None:
        pid.touch()
        try:
            time.sleep(1000)
        finally:
            pid.write_text("was interrupted")

    def parent(pid: Path) -> None:
        if pid.exists():
            return
        future = flm.current().client.submit(child, pid)
        while not pid.exists():
            time.sleep(0.005)
        assert future.running() or not future.done()
        os.kill(os.getpid(), signal.SIGKILL)

    path = tmp_path / "pid"
    future = pair.submit(parent, path)
    assert future.result(WAIT_SECONDS) is None
    until(lambda: path.read_text() == "was interrupted")


def test_when_a_task_fails_its_own_tasks_are_cancelled(pair: flm.Client, tmp_path: Path) -> None:
    def child(path: Path) -> None:
        time.sleep(0.02)
        path.touch()

    def parent(folder: Path) -> None:
        for i in range(200):
            flm.current().client.submit(child, folder / str(i))
        raise LookupError("enough")

    with pytest.raises(LookupError):
        pair.submit(parent, tmp_path).result(WAIT_SECONDS)
    pair.submit(time.sleep, 0.1).result(WAIT_SECONDS)
    assert len(list(tmp_path.iterdir())) < 100


def test_when_a_task_returns_its_own_tasks_go_on(pair: flm.Client, tmp_path: Path) -> None:
    def parent(folder: Path) -> int:
        mine = flm.current().client
        for i in range(50):
            mine.submit((folder / str(i)).touch)
        return 7

    assert pair.submit(parent, tmp_path).result(WAIT_SECONDS) == 7
    until(lambda: len(list(tmp_path.iterdir())) == 50)


def test_what_nested_tasks_print_reaches_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    def parent() -> None:
        mine = flm.current().client
        for future in [mine.submit(print, "from within", i) for i in range(10)]:
            future.result()

    with flm.Client(executors=2) as client:
        client.submit(parent).result(WAIT_SECONDS)
    out = capfd.readouterr().out
    assert sorted(line.split("from within ")[1] for line in out.splitlines()) == list("0123456789")


def test_while_a_task_waits_a_spare_executor_serves_its_neighbours(pair: flm.Client, tmp_path: Path) -> None:
    def child(folder: Path) -> str:
        (folder / "began").touch()
        while not (folder / "go").exists():
            time.sleep(0.005)
        return "done"

    def parent(folder: Path) -> str:
        future = flm.current().client.submit(child, folder)
        while not (folder / "began").exists():
            time.sleep(0.005)
        return str(future.result())

    waits = pair.submit(parent, tmp_path)
    until((tmp_path / "began").exists)  # now one executor waits and the other one is busy
    assert pair.submit(abs, -3).result(WAIT_SECONDS) == 3
    assert len(pair.processes()["executors"]) == 3
    (tmp_path / "go").touch()
    assert waits.result(WAIT_SECONDS) == "done"
    until(lambda: len(pair.processes()["executors"]) == 2)


def test_functions_that_tasks_make_anew_do_not_pile_up_in_an_executor() -> None:
    def task(number: int) -> tuple[int, int]:
        data = bytes([number]) * 400_000
        client = flm.current().client
        assert client.submit(lambda: len(data)).result() == 400_000
        assert isinstance(client, NestedClient)
        return len(client._loaded), client._loaded_bytes

    with flm.Client(executors=1) as client:
        kept = [client.submit(task, number).result(WAIT_SECONDS) for number in range(12)]
    assert max(functions for functions, _ in kept) <= 4
    assert max(size for _, size in kept) < 2 << 20
