"""Futures as arguments: their values are there when the task begins, or it fails and says why."""

from __future__ import annotations

import concurrent.futures as cf
import operator
import os
import pickle
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flamezmq as flm

pytestmark = pytest.mark.processes

WAIT_SECONDS = 20.0


@pytest.fixture(scope="module")
def client() -> Iterator[flm.Client]:
    with flm.Client(executors=2) as one:
        yield one


@pytest.fixture(scope="module", params=[1, 2], ids=["one executor", "two executors"])
def either(request: pytest.FixtureRequest) -> Iterator[flm.Client]:
    with flm.Client(executors=request.param) as one:
        yield one


def add(*values: int) -> int:
    return sum(values)


def late(value: Any, seconds: float = 0.05) -> Any:
    """So that what needs it is submitted before it is there."""
    time.sleep(seconds)
    return value


def fail(value: Any = None) -> Any:
    raise ValueError(f"no {value}")


def look(*args: Any, **kwargs: Any) -> str:
    return repr((args, kwargs))


# --- values


def test_a_future_stands_for_its_value_wherever_it_stands(client: flm.Client) -> None:
    one, two = client.submit(late, 1), client.submit(late, "two")
    future = client.submit(look, one, [two, (one, {"k": two})], {one: 3}, key={"a": [one]}, other=two)
    assert future.result(WAIT_SECONDS) == look(
        1, ["two", (1, {"k": "two"})], {1: 3}, key={"a": [1]}, other="two"
    )


def test_what_the_user_passes_is_left_as_it_is(client: flm.Client) -> None:
    one = client.submit(late, 1)
    shared = {"list": [one, 2]}
    assert client.submit(look, shared).result(WAIT_SECONDS) == look({"list": [1, 2]})
    assert shared == {"list": [one, 2]}
    assert client.submit(look, shared).result(WAIT_SECONDS) == look({"list": [1, 2]})


@pytest.mark.parametrize("seconds", [0.0, 0.05])
def test_at_two_places_of_a_call_it_is_one_object(client: flm.Client, seconds: float) -> None:
    made = client.submit(late, [1], seconds)
    if not seconds:
        made.result(WAIT_SECONDS)
    assert client.submit(operator.is_, made, made).result(WAIT_SECONDS)


@pytest.mark.parametrize("looked_at", [True, False])
def test_one_that_is_done_is_used_at_once(client: flm.Client, looked_at: bool) -> None:
    done = client.submit(dict, a=np.arange(10_000))
    flm.wait([done], WAIT_SECONDS)
    if looked_at:
        assert done.result()["a"][3] == 3
    before = client.statistics()["received"]
    assert client.submit(lambda d: int(d["a"].sum()), done).result(WAIT_SECONDS) == 49_995_000
    assert client.statistics()["received"] == before + 1, "nobody had to ask for it"


@pytest.mark.parametrize("size", [10, 5_000, 100_000, 1_000_000])
def test_arrays_come_as_they_are(client: flm.Client, size: int) -> None:
    first = client.submit(lambda n: late(np.arange(n)), size)
    both = client.submit(lambda a, b, c: (a is b, int(a.sum()), c.shape), first, first, np.ones((size, 2)))
    assert both.result(WAIT_SECONDS) == (True, size * (size - 1) // 2, (size, 2))
    doubled = client.submit(np.multiply, first, 2)
    assert client.submit(np.sum, doubled).result(WAIT_SECONDS) == size * (size - 1)


def test_large_strings_and_bytes_too(client: flm.Client) -> None:
    text = client.submit(operator.mul, "ab", 100_000)
    data = client.submit(operator.mul, b"ab", 100_000)
    assert client.submit(lambda s, d, n: len(s) + len(d) + n, text, data, 1).result(WAIT_SECONDS) == 400_001


def test_what_was_dropped_by_the_user_is_there_all_the_same(client: flm.Client) -> None:
    futures = [client.submit(add, client.submit(add, i), client.submit(late, i, 0.0)) for i in range(300)]
    assert [future.result(WAIT_SECONDS) for future in futures] == [2 * i for i in range(300)]


def test_map_takes_futures_as_items_and_in_items(client: flm.Client) -> None:
    futures = [client.submit(late, -i, 0.001) for i in range(100)]
    assert list(client.map(abs, futures)) == list(range(100))
    pairs = [(1, future) for future in futures]
    assert list(client.map(sum, pairs)) == [1 - i for i in range(100)]
    assert list(client.map(add, futures, range(100), chunksize=7)) == [0] * 100


def test_a_future_may_come_from_another_session_and_another_thread(client: flm.Client) -> None:
    with client.session("one") as one, client.session("two") as two:
        first = one.submit(late, 1)
        second = two.submit(add, first, 1)
        third = one.submit(add, second, first)
        seen: list[int] = []
        thread = threading.Thread(target=lambda: seen.append(client.submit(add, third).result(WAIT_SECONDS)))
        thread.start()
        thread.join(WAIT_SECONDS)
        assert seen == [3]


def test_a_session_that_is_closed_does_not_take_its_values_along(client: flm.Client) -> None:
    with client.session("source") as source:
        futures = [source.submit(add, i) for i in range(50)]
        waiting = [client.submit(add, future, 1) for future in futures]
    later = [client.submit(add, future, 2) for future in futures]
    assert [future.result(WAIT_SECONDS) for future in waiting] == list(range(1, 51))
    assert [future.result(WAIT_SECONDS) for future in later] == list(range(2, 52))


# --- shapes


def test_a_chain_of_ten_thousand_in_one_burst(either: flm.Client) -> None:
    future = either.submit(add, 0)
    for _ in range(10_000):
        future = either.submit(add, future, 1)
    assert future.result(50) == 10_000


def test_a_thousand_into_one_and_one_into_a_thousand(either: flm.Client) -> None:
    parts = [either.submit(add, i) for i in range(1000)]
    total = either.submit(sum, parts)
    fan_out = [either.submit(add, total, i) for i in range(1000)]
    assert either.submit(sum, fan_out).result(WAIT_SECONDS) == 1000 * 499_500 + 499_500


def test_a_diamond_and_a_sum_by_pairs(either: flm.Client) -> None:

    top = either.submit(late, 1)
    left, right = either.submit(add, top, 10), either.submit(add, top, 100)
    assert either.submit(add, left, right, top).result(WAIT_SECONDS) == 113
    level = [either.submit(add, i) for i in range(256)]
    while len(level) > 1:
        level = [either.submit(add, a, b) for a, b in zip(level[::2], level[1::2], strict=True)]
    assert level[0].result(WAIT_SECONDS) == 255 * 128


def test_any_graph_gives_what_it_gives_without_futures(client: flm.Client) -> None:
    rng = random.Random(7)
    sessions = [client.session(f"s{i}") for i in range(3)]
    futures: list[Any] = []
    expected: list[int] = []
    for i in range(3000):
        picked = rng.sample(range(i), min(i, rng.randrange(4)))
        arguments = [futures[j] for j in picked]
        futures.append(rng.choice(sessions).submit(add, i, *arguments))
        expected.append((i + sum(expected[j] for j in picked)) % (1 << 200))
        if rng.random() < 0.01:
            futures[rng.randrange(i + 1)].result(WAIT_SECONDS)
    assert [future.result(WAIT_SECONDS) % (1 << 200) for future in futures] == expected
    for session in sessions:
        assert session.status().pending == 0
        session.close()


# --- needs that come to nothing


def test_a_failed_one_fails_what_needs_it_and_each_names_its_own(client: flm.Client) -> None:
    bad = client.submit(lambda: (late(0), fail("luck")))
    second = client.submit(add, bad)
    third = client.submit(add, 1, [second])
    error = third.exception(WAIT_SECONDS)
    assert isinstance(error, flm.DependencyFailed)
    assert (error.task_id, error.dependency) == (third.task_id, second.task_id)
    cause = error.__cause__
    assert isinstance(cause, flm.DependencyFailed)
    assert cause is second.exception()
    assert (cause.task_id, cause.dependency) == (second.task_id, bad.task_id)
    assert cause.reason == "failed with ValueError: no luck"
    assert cause.__cause__ is bad.exception()
    with pytest.raises(
        flm.DependencyFailed, match=r"task \S+ did not run: task \S+, whose value it was to get"
    ):
        third.result()


def test_what_needs_one_that_has_failed_fails_at_once(client: flm.Client) -> None:
    bad = client.submit(fail)
    bad.exception(WAIT_SECONDS)
    future = client.submit(add, bad)
    assert future.done()
    error = future.exception()
    assert isinstance(error, flm.DependencyFailed)
    assert error.dependency == bad.task_id
    assert error.__cause__ is bad.exception()
    assert client.submit(add, future).done()
    unpicklable = client.submit(add, threading.Lock())
    error = client.submit(fail, unpicklable).exception()
    assert isinstance(error, flm.DependencyFailed)
    assert (error.task_id, error.dependency) == (f"{__name__}.fail (not sent)", f"{__name__}.add (not sent)")


def test_a_cancelled_one_fails_what_needs_it(client: flm.Client) -> None:
    with client.session("busy") as session:
        blockers = [session.submit(time.sleep, 0.3) for _ in range(4)]
        waiting = session.submit(add, 1)
        needs_it = session.submit(add, waiting)
        needs_that = session.submit(add, needs_it)
        assert waiting.cancel()
        error = needs_it.exception(WAIT_SECONDS)
        assert isinstance(error, flm.DependencyFailed)
        assert error.reason == "was cancelled"
        assert isinstance(error.__cause__, cf.CancelledError)
        assert isinstance(needs_that.exception(WAIT_SECONDS), flm.DependencyFailed)
        assert isinstance(session.submit(add, waiting).exception(), flm.DependencyFailed)
        blocked = session.submit(add, blockers[-1])
        assert blocked.cancel(), "one that waits for others can be cancelled"
        assert blockers[-1].result(WAIT_SECONDS) is None
        assert session.status().pending == 0


def test_a_lost_one_fails_what_needs_it(client: flm.Client) -> None:
    with client.session("bad", max_retries=0) as session:
        doomed = session.submit(os.kill, session.submit(os.getpid), signal.SIGKILL)
        killer = session.submit(lambda: os.kill(late(os.getpid()), signal.SIGKILL))
        error = session.submit(add, killer).exception(WAIT_SECONDS)
        assert isinstance(error, flm.DependencyFailed)
        assert isinstance(error.__cause__, flm.TaskLost)
        doomed.exception(WAIT_SECONDS)


def test_one_bad_future_of_a_map_spoils_its_own_item_only(client: flm.Client) -> None:
    futures = [client.submit(late, i, 0.001) if i % 10 else client.submit(fail, i) for i in range(50)]
    results = client.map(abs, futures, chunksize=25)
    seen: list[Any] = []
    for _ in range(50):
        try:
            seen.append(next(results))
        except flm.DependencyFailed as error:
            seen.append(str(error.__cause__))
    assert seen == [i if i % 10 else f"no {i}" for i in range(50)]


def test_ten_thousand_that_follow_from_a_failed_one_fail(client: flm.Client) -> None:
    future = bad = client.submit(lambda: (late(0), fail("start")))
    for _ in range(10_000):
        future = client.submit(add, future)
    error = future.exception(WAIT_SECONDS)
    for _ in range(10_000):
        assert isinstance(error, flm.DependencyFailed)
        error = error.__cause__
    assert error is bad.exception()


def test_the_error_can_be_pickled() -> None:
    error = flm.DependencyFailed("s/2", "s/1", "was cancelled")
    again = pickle.loads(pickle.dumps(error))
    assert (again.task_id, again.dependency, again.reason, str(again)) == (
        "s/2",
        "s/1",
        "was cancelled",
        str(error),
    )


def test_closing_a_session_fails_what_needs_it_elsewhere(client: flm.Client) -> None:
    session = client.session("brief")
    slow = [session.submit(time.sleep, 0.2) for _ in range(6)]
    waiting = client.submit(add, slow[-1])
    session.close(cancel=True)
    error = waiting.exception(WAIT_SECONDS)
    assert isinstance(error, flm.DependencyFailed)
    assert error.reason == "was cancelled"


# --- where none may stand


def test_a_future_that_no_task_can_wait_for_is_an_error_that_says_what_to_do(client: flm.Client) -> None:
    mine = client.submit(add, 1)
    with flm.Client(client.address) as other:
        theirs = other.submit(add, 1)
        foreign: cf.Future[int] = cf.Future()
        for stray in (theirs, foreign):
            error = client.submit(look, 1, {"a": [mine, stray]}).exception()
            assert isinstance(error, flm.StrayFuture)
            assert error.path == "['a'][1]"
            assert "pass its result()" in str(error)
    assert client.submit(add, mine).result(WAIT_SECONDS) == 1


def test_a_function_may_not_bring_one_along(client: flm.Client) -> None:
    future = client.submit(add, 1)
    error = client.submit(lambda: future).exception()
    assert isinstance(error, flm.StrayFuture)
    assert "captured variable `future`" in str(error)
    assert "pass it as one" in str(error)
    with pytest.raises(TypeError, match="pass it as an argument of submit or map"):
        pickle.dumps(future)


def test_a_client_stays_where_it_is_and_the_error_says_what_tasks_take(client: flm.Client) -> None:
    with client.session("mine") as session:
        for stray, where in ((client, "argument 1"), (session, "argument 1")):
            error = client.submit(look, stray, 1).exception()
            assert isinstance(error, flm.StrayClient)
            assert where in str(error)
            assert "flm.current().client" in str(error)
    error = client.submit(lambda: client.submit(add, 1)).exception()
    assert isinstance(error, flm.StrayClient)
    assert "captured variable `client`" in str(error)


# --- deaths and cuts


def test_executors_may_die_in_the_middle_of_a_graph() -> None:
    with flm.Client(executors=2) as client:
        chains = [client.submit(late, i, 0.001) for i in range(8)]
        for step in range(60):
            chains = [client.submit(lambda x: late(x + 1, 0.001), future) for future in chains]
            if step % 20 == 10:
                chains[0].result(WAIT_SECONDS)
                os.kill(client.processes()["executors"][0], signal.SIGKILL)
        total = client.submit(sum, chains)
        assert total.result(WAIT_SECONDS) == sum(range(60, 68))


def test_values_are_let_go_when_nobody_needs_them_any_more(client: flm.Client) -> None:
    with client.session("heavy") as session:
        parts = [session.submit(np.ones, 1_000_000) for _ in range(60)]  # 480 MB: more than the router keeps
        sums = [session.submit(lambda a, b: float(a[0] + b[-1]), a, b) for a, b in zip(parts, parts[1:])]  # noqa: B905, RUF007
        last = session.submit(lambda *all: len(all), *parts[:40])
        assert [future.result(50) for future in sums] == [2.0] * 59
        assert last.result(50) == 40


# --- inside a task


def nested_graph(width: int) -> int:
    client = flm.current().client
    parts = [client.submit(add, i) for i in range(width)]
    pairs = [client.submit(add, a, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    total = client.submit(sum, pairs)
    bad = client.submit(add, client.submit(fail, "nested"), total)
    assert isinstance(bad.exception(), flm.DependencyFailed)
    return int(total.result())


def test_tasks_of_a_task_may_need_each_other(either: flm.Client) -> None:
    futures = [either.submit(nested_graph, 40) for _ in range(5)]
    assert [future.result(WAIT_SECONDS) for future in futures] == [780] * 5


def fib(n: int) -> int:
    if n < 2:
        return n
    client = flm.current().client
    return int(client.submit(add, client.submit(fib, n - 1), client.submit(fib, n - 2)).result())


def test_fibonacci_by_futures_as_arguments(either: flm.Client) -> None:
    assert either.submit(fib, 12).result(WAIT_SECONDS) == 144


def leave_work(folder: Path, width: int) -> int:
    """What it returns does not wait for what it has submitted."""
    client = flm.current().client
    total = client.submit(sum, [client.submit(late, i, 0.01) for i in range(width)])
    client.submit(Path.write_text, folder / "unfinished", client.submit(str, total)).add_done_callback(
        lambda _: (folder / "unfinished").rename(folder / "total")
    )
    return width


def test_what_a_task_leaves_behind_goes_on(client: flm.Client, tmp_path: Path) -> None:
    assert client.submit(leave_work, tmp_path, 5).result(WAIT_SECONDS) == 5
    deadline = time.monotonic() + WAIT_SECONDS
    while not (tmp_path / "total").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (tmp_path / "total").read_text() == "10"
