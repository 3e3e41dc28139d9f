"""The engine as a user meets it: real processes, real sockets, real deaths."""

from __future__ import annotations

import concurrent.futures as cf
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest

import flamezmq as flm
from tests.waiting import until

pytestmark = pytest.mark.processes


@pytest.fixture
def client() -> Iterator[Any]:
    with flm.Client(executors=2) as client:
        yield client


def test_a_task_runs_in_another_process_and_its_result_comes_back(client: Any) -> None:
    assert client.submit(os.getpid).result(10) != os.getpid()
    assert client.submit(lambda a, key: a + key, 1, key=2).result(10) == 3


def test_keywords_of_any_name_reach_the_function(client: Any) -> None:
    names = {"fn": 1, "self": 2, "args": 3, "kwargs": 4}
    assert client.submit(dict, **names).result(10) == names


def test_ten_thousand_results_are_the_right_ones(client: Any) -> None:
    futures = [client.submit(lambda i: i * i, i) for i in range(10_000)]
    assert [future.result(30) for future in futures] == [i * i for i in range(10_000)]


def test_map_streams_in_order_and_one_bad_item_spoils_no_other(client: Any) -> None:
    assert list(client.map(lambda x: x + 1, range(5000))) == list(range(1, 5001))
    results = client.map(lambda x: 10 // x, [1, 0, 5], chunksize=3)
    assert next(results) == 10
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert next(results) == 2


def test_a_map_that_is_dropped_before_its_first_result_is_cancelled(client: Any) -> None:
    with client.session("dropped") as session:
        mapped = session.map(time.sleep, [0.05] * 1000, chunksize=10)
        del mapped
        until(lambda: session.status().cancelled > 0)
        until(lambda: session.status().pending == 0)


def test_the_first_exception_among_many_ends_the_wait(client: Any) -> None:
    futures = [client.submit(abs, -i) for i in range(3000)]
    bad = client.submit(int, "x")
    late = client.submit(time.sleep, 20)
    done, not_done = flm.wait([late, *futures, bad], 15, flm.FIRST_EXCEPTION)
    assert bad in done
    assert late in not_done
    done, not_done = flm.wait(futures, 15, flm.FIRST_EXCEPTION)
    assert not not_done
    assert late.cancel() or late.running()
    client.close()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_piece_that_no_message_takes_fails_its_own_task(client: Any, monkeypatch: Any) -> None:
    size = (1 << 30) + 1
    assert len(client.submit(bytes, size).result(60)) == size, "the store takes it"
    client.submit(_keep_nothing).result(10)
    monkeypatch.setattr(client._objects, "find", lambda: "")

    future = client.submit(len, "x" * size)
    with pytest.raises(flm.TooLarge, match=r"the call of len .* is too large: 1,073,741,8\d\d bytes"):
        future.result(30)
    with client.session(max_executors=1) as session:
        session.submit(_keep_nothing).result(10)
        with pytest.raises(flm.TooLarge, match=r"the result of task .* is too large"):
            session.submit(bytes, size).result(60)
        assert session.submit(len, bytes(size - 1)).result(60) == size - 1


def _keep_nothing() -> None:
    """As where there is no store."""
    from flamezmq import running

    assert running.executor is not None
    running.executor.keeper.keep = lambda *_: None  # type: ignore[method-assign]


def test_a_large_pickle_travels_as_one_frame_each_way(client: Any) -> None:
    text = "flame" * 100_000
    assert client.submit(str.upper, text).result(20) == text.upper()
    assert client.submit(sorted, {"k": text}.items(), reverse=True).result(20) == [("k", text)]
    assert list(client.map(len, [text] * 40)) == [len(text)] * 40


@pytest.mark.parametrize("chunksize", [None, 100])
def test_what_can_not_travel_costs_a_map_no_other_item(client: Any, chunksize: int | None) -> None:
    def awkward(item: Any) -> Any:
        return (letter for letter in "ab") if item == 500 else item

    items = [threading.Lock() if i == 700 else i for i in range(1000)]
    mapped = client.map(awkward, items, chunksize=chunksize)

    found: list[Any] = []
    while True:
        try:
            found.append(next(mapped))
        except StopIteration:
            break
        except flm.Unpicklable as error:
            found.append(error)

    assert [i for i, value in enumerate(found) if isinstance(value, flm.Unpicklable)] == [500, 700]
    assert [value for value in found if not isinstance(value, flm.Unpicklable)] == [
        i for i in range(1000) if i not in (500, 700)
    ]


def test_a_slice_that_kills_executors_is_an_error_for_each_of_its_items() -> None:
    with flm.Client(executors=1) as client, client.session(max_retries=0) as session:
        found: list[Any] = []
        mapped = session.map(lambda i: os._exit(1) if i == 15 else i, range(30), chunksize=10)
        while True:
            try:
                found.append(next(mapped))
            except StopIteration:
                break
            except flm.TaskLost as error:
                found.append(type(error))
    assert found == [*range(10), *[flm.TaskLost] * 10, *range(20, 30)]


def test_the_standard_waits_work_on_its_futures(client: Any) -> None:
    futures = [client.submit(pow, i, 2) for i in range(50)]
    assert sorted(f.result() for f in cf.as_completed(futures, 20)) == [i * i for i in range(50)]
    assert sorted(f.result() for f in flm.as_completed(futures)) == [i * i for i in range(50)]
    assert len(cf.wait(futures, 20).done) == len(flm.wait(futures, 20).done) == 50


def test_a_remote_exception_arrives_as_itself_with_the_remote_traceback(client: Any) -> None:
    with pytest.raises(KeyError) as caught:
        client.submit({}.__getitem__, "k").result(10)
    assert "Traceback" in str(caught.value.__cause__)


def test_what_can_not_be_pickled_fails_alone_and_is_named(client: Any) -> None:
    with client.session("awkward") as session:
        bad = session.submit(id, threading.Lock())
        good = session.submit(abs, -1)
        with pytest.raises(flm.Unpicklable, match=f"task of session {session.id}.*lock"):
            bad.result(10)
        assert good.result(10) == 1
        assert (session.status().succeed, session.status().failed) == (1, 1)


def test_tasks_of_a_killed_executor_run_again(client: Any) -> None:
    def burn(i: int) -> int:
        import time

        end = time.thread_time() + 0.002
        while time.thread_time() < end:
            pass
        return i

    futures = [client.submit(burn, i) for i in range(400)]
    assert futures[0].result(10) == 0
    os.kill(client.processes()["executors"][0], signal.SIGKILL)
    assert [future.result(20) for future in futures] == list(range(400))


def test_a_task_that_kills_executors_fails_with_their_certificate() -> None:
    with flm.Client(executors=1) as client, client.session("deadly", max_retries=1) as session:
        future = session.submit(os._exit, 3)
        with pytest.raises(flm.TaskLost, match="exited with code 3"):
            future.result(20)
        assert session.submit(abs, -7).result(20) == 7


def test_when_the_router_dies_every_future_fails_soon() -> None:
    with flm.Client(executors=1) as client:
        future = client.submit(signal.pause)
        os.kill(client.processes()["router"][0], signal.SIGKILL)
        start = monotonic()
        with pytest.raises(flm.RouterLost):
            future.result(10)
        assert monotonic() - start < 10


@pytest.mark.parametrize("executors", [0, -1, True, "2", 1.5])
def test_a_number_of_executors_that_is_none_is_said_at_once(executors: Any) -> None:
    with pytest.raises(ValueError, match="an integer from 1"):
        flm.Client(executors=executors)


def test_a_name_that_no_session_can_have_is_refused_here_and_costs_nothing_else(client: Any) -> None:
    for name in (5, None, "", "two\nlines", "\udc80"):
        with pytest.raises(ValueError, match="a session's name is a text"):
            client.session(name)
    assert client.submit(abs, -1).result(10) == 1


def test_an_address_that_is_none_is_said_at_once() -> None:
    with pytest.raises(ValueError, match="tcp://HOST:PORT"):
        flm.Client("localhost:7601")


def test_a_closed_client_says_so() -> None:
    client = flm.Client(executors=1)
    client.close()
    client.close()
    with pytest.raises(flm.ClientClosed):
        client.submit(abs, 1)


def test_flmping_counts_its_tasks() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flamezmq.cli.ping", "-t", "1000", "-s", "100", "-e", "2"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert "1000/1000" in done.stdout
    assert "<1,000> tasks was completed in" in done.stdout


def test_tasks_with_some_kilobytes_of_arguments_share_messages(client: Any) -> None:
    client.submit(abs, -1).result(20)
    before = client.statistics()["sent"]
    futures = [client.submit(len, "x" * 2000) for _ in range(300)]
    assert [future.result(20) for future in futures] == [2000] * 300
    assert client.statistics()["sent"] - before < 150
