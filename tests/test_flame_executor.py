"""FlameExecutor on real processes: what the standard promises, and what only a cluster can do.

CPython's own tests of executors run in tests/cpython; here stands what they don't ask.
"""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flamezmq as flm
from tests.waiting import until

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parent.parent
#: Generous: the machine may be busy.
LIMIT_SECONDS = 30.0


@pytest.fixture(scope="module")
def executor() -> Iterator[flm.FlameExecutor]:
    with flm.FlameExecutor(2) as executor:
        yield executor


def run(program: str, *, code: int = 0) -> subprocess.CompletedProcess[str]:
    """A program of its own, as a user would run it."""
    env = {name: value for name, value in os.environ.items() if name != "FLAMEZMQ_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


def closers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "flm-closer"}


def has_ended(executor: flm.FlameExecutor) -> bool:
    return not executor._closer.thread.is_alive()


# --- the contract


def test_it_is_an_executor_of_the_standard_library(executor: flm.FlameExecutor) -> None:
    assert isinstance(executor, cf.Executor)
    assert executor.submit(pow, 2, 5).result() == 32


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({"max_workers": 0}, ValueError, "max_workers must be greater than 0"),
        ({"max_workers": "2"}, TypeError, "max_workers must be an integer"),
        ({"initializer": 5}, TypeError, "initializer must be a callable"),
        ({"max_tasks_per_child": 1.5}, TypeError, "max_tasks_per_child must be an integer"),
        ({"max_tasks_per_child": 0}, ValueError, "max_tasks_per_child must be >= 1"),
        (
            {"max_workers": 1, "initializer": print, "initargs": (threading.Lock(),)},
            flm.Unpicklable,
            "initializer",
        ),
    ],
)
def test_what_it_can_not_be_made_of_is_refused_in_the_words_of_the_standard(
    arguments: dict, kind: type[Exception], words: str
) -> None:
    before = closers()
    with pytest.raises(kind, match=words):
        flm.FlameExecutor(**arguments)
    assert closers() == before


def test_map_takes_its_inputs_at_once_and_stops_at_the_first_error(executor: flm.FlameExecutor) -> None:
    taken: list[int] = []
    inputs = (taken.append(n) or n for n in (4, 2, 0, 1))  # type: ignore[func-returns-value]

    results = executor.map(partial(int.__floordiv__, 4), inputs)

    assert taken == [4, 2, 0, 1]
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []


@pytest.mark.parametrize("chunksize", [1, 3, 40])
def test_chunks_change_nothing_about_the_results(executor: flm.FlameExecutor, chunksize: int) -> None:
    assert list(executor.map(pow, range(7), range(9), chunksize=chunksize)) == [n**n for n in range(7)]
    results = executor.map(lambda n: 12 // n, [4, 3, 0, 1], chunksize=chunksize)
    assert [next(results), next(results)] == [3, 4]
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize("chunksize", [1, 2])
def test_a_map_with_a_buffer_takes_from_an_endless_input_what_it_needs(
    executor: flm.FlameExecutor, chunksize: int
) -> None:
    taken: list[int] = []
    inputs = (taken.append(n) or n for n in count())  # type: ignore[func-returns-value]
    results = executor.map(abs, inputs, chunksize=chunksize, buffersize=3)
    assert len(taken) == 3 * chunksize

    assert [next(results) for _ in range(10)] == list(range(10))

    assert len(taken) <= 10 + 4 * chunksize


@pytest.mark.parametrize(("size", "kind"), [(0, ValueError), (-1, ValueError), ("5", TypeError)])
def test_a_buffer_has_a_size(executor: flm.FlameExecutor, size: object, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="buffersize must be"):
        executor.map(abs, [1], buffersize=size)  # type: ignore[arg-type]


def test_a_map_that_is_late_says_so_and_cancels_what_has_not_begun(executor: flm.FlameExecutor) -> None:
    before = executor._session.status().cancelled
    results = executor.map(time.sleep, [0.3] * 20, timeout=0.01)
    with pytest.raises(TimeoutError):
        next(results)
    until(lambda: executor._session.status().cancelled >= before + 15, "the rest was not cancelled")


def test_it_works_with_an_event_loop(executor: flm.FlameExecutor) -> None:
    async def both() -> list[int]:
        loop = asyncio.get_running_loop()
        first = loop.run_in_executor(executor, pow, 2, 3)
        second = asyncio.wrap_future(executor.submit(pow, 2, 4))
        return list(await asyncio.gather(first, second))

    assert asyncio.run(both()) == [8, 16]


# --- the end


def test_shut_down_it_takes_nothing_more_and_has_done_what_was_pending() -> None:
    executor = flm.FlameExecutor(2)
    futures = [executor.submit(pow, n, 2) for n in range(50)]

    executor.shutdown()

    assert [future.result(timeout=0) for future in futures] == [n * n for n in range(50)]
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(pow, 1, 1)
    assert has_ended(executor)
    executor.shutdown()


def test_shutdown_without_wait_lets_the_tasks_end_and_then_frees_everything() -> None:
    executor = flm.FlameExecutor(1)
    future = executor.submit(pow, 2, 3)

    executor.shutdown(wait=False)

    assert future.result(timeout=LIMIT_SECONDS) == 8
    until(lambda: has_ended(executor), "its thread goes on")


def test_what_has_not_begun_can_be_cancelled_at_shutdown() -> None:
    executor = flm.FlameExecutor(1)
    executor.submit(pow, 1, 1).result()
    futures = [executor.submit(time.sleep, 0.2) for _ in range(20)]
    until(futures[0].running, "the first one does not begin")

    executor.shutdown(cancel_futures=True)

    assert not futures[0].cancelled()
    assert futures[0].result(timeout=0) is None
    assert all(future.cancelled() for future in futures[2:])
    assert all(future.done() for future in futures)


def test_an_executor_that_nobody_has_any_more_ends_when_its_tasks_have() -> None:
    executor = flm.FlameExecutor(1)
    future, thread = executor.submit(pow, 2, 3), executor._closer.thread
    del executor
    gc.collect()

    assert future.result(timeout=LIMIT_SECONDS) == 8
    until(lambda: not thread.is_alive(), "its thread goes on")


def test_the_end_of_the_interpreter_waits_for_what_is_pending() -> None:
    program = """
import time, flamezmq as flm
def late(word):
    time.sleep(0.3)
    print(word)
executor = flm.FlameExecutor(1)
executor.submit(late, "apple").add_done_callback(lambda future: print("called"))
left = flm.FlameExecutor(1)
left.submit(late, "pear")
left.shutdown(wait=False)
"""
    done = run(program)

    assert sorted(done.stdout.split()) == ["apple", "called", "pear"]
    assert done.stderr == ""


def test_the_end_of_the_interpreter_is_waited_for_where_threading_has_no_hook(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = """
import threading
del threading._register_atexit
import flamezmq as flm
flm.FlameExecutor(1).submit(print, "apple")
"""
    assert run(program).stdout == "apple\n"


@pytest.mark.parametrize(
    "wait", ["executor.submit(time.sleep, 600).result()", "list(executor.map(time.sleep, [600] * 5))"]
)
def test_one_interrupt_ends_a_program_that_waits_for_its_executor(wait: str) -> None:
    program = f"""
import os, signal, threading, time, flamezmq as flm
executor = flm.FlameExecutor(1)
started = executor.submit(print, "started")
started.result()
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
{wait}
"""
    done = run(program, code=-signal.SIGINT)
    assert done.stdout == "started\n"
    assert done.stderr.endswith("KeyboardInterrupt\n")


def test_a_program_that_ends_takes_no_more_tasks() -> None:
    program = """
import atexit, flamezmq as flm
@atexit.register
def late():
    try:
        executor.submit(print, "no")
    except RuntimeError as error:
        print(error)
executor = flm.FlameExecutor(1)
"""
    assert run(program).stdout == "cannot schedule new futures after interpreter shutdown\n"


def test_in_a_signal_handler_shutdown_says_that_it_can_not_wait() -> None:
    program = """
import signal, time, flamezmq as flm
executor = flm.FlameExecutor(1)
def on_alarm(*_):
    try:
        executor.shutdown()
    except flm.FlameError as error:
        print(error)
signal.signal(signal.SIGALRM, on_alarm)
signal.setitimer(signal.ITIMER_REAL, 0.3)
print(executor.submit(time.sleep, 1).result())
"""
    assert (
        run(program).stdout == "a signal handler can't wait for an executor that it has interrupted\nNone\n"
    )


def test_a_lost_cluster_ends_it_and_its_futures() -> None:
    executor = flm.FlameExecutor(1)
    future = executor.submit(time.sleep, 60)
    [router] = executor._session._client.processes()["router"]

    os.kill(router, 9)

    with pytest.raises(flm.RouterLost):
        future.result(timeout=LIMIT_SECONDS)
    with pytest.raises(flm.RouterLost):
        executor.submit(pow, 1, 1)
    executor.shutdown()
    assert has_ended(executor)


# --- initializers

STATUS = "not prepared"


def prepare(status: str) -> None:
    global STATUS
    STATUS = status


def status(_: int = 0) -> str:
    return STATUS


def fail() -> None:
    raise LookupError("no such model")


def test_an_initializer_prepares_each_process_once() -> None:
    def note() -> None:
        path = f"/proc/self/fd/{1}"
        assert os.path.exists(path)
        os.environ["PREPARED"] = os.environ.get("PREPARED", "") + "x"

    with flm.FlameExecutor(2, initializer=note) as executor:
        seen = set(executor.map(lambda _: os.environ["PREPARED"], range(50)))

    assert seen == {"x"}


def test_functions_of_main_see_the_globals_that_an_initializer_has_assigned() -> None:
    """Each travels by value, with globals of its own; defined before, used in every way."""
    program = """
import functools, flamezmq as flm
model = None
def prepare(value):
    global model, table
    model, table = value, {"k": value}
def use(x, y=0):
    return (model, table["k"], x + y)
def early(x):
    return model
class Caller:
    def __call__(self, x):
        return model
    def method(self, x):
        return model
if __name__ == "__main__":
    with flm.Client(executors=1) as client:
        print(client.submit(early, 1).result())
        with client.session(initializer=prepare, initargs=(7,)) as session:
            print(session.submit(use, 1).result())
            print(session.submit(functools.partial(use, y=4), 1).result())
            print(list(session.map(early, range(3))))
            print(session.submit(Caller(), 1).result(), session.submit(Caller().method, 1).result())
            print(session.submit(functools.lru_cache(early), 1).result())
            print(session.submit(lambda: model).result())
"""
    said = ["None", "(7, 7, 1)", "(7, 7, 5)", "[7, 7, 7]", "7 7", "7", "7"]
    assert run(program).stdout.splitlines() == said


def test_a_module_that_executors_import_is_prepared_as_it_is() -> None:
    with flm.FlameExecutor(2, initializer=prepare, initargs=("prepared",)) as executor:
        assert set(executor.map(status, range(20))) == {"prepared"}
    assert STATUS == "not prepared"


def test_a_failed_initializer_breaks_the_executor(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.CRITICAL, "concurrent.futures"),
        flm.FlameExecutor(2, initializer=fail) as executor,
    ):
        futures = [executor.submit(status) for _ in range(10)]
        for future in futures:
            with pytest.raises(cf.BrokenExecutor) as caught:
                future.result(timeout=LIMIT_SECONDS)
        error = caught.value
        assert isinstance(error, flm.BrokenSession)
        assert error.text == "LookupError: no such model"
        assert "in fail" in error.traceback
        assert error.session_id in str(error)
        with pytest.raises(cf.BrokenExecutor):
            executor.submit(status)
        until(lambda: executor._broken, "it is not said")
    assert "no such model" in caplog.text


def test_a_broken_session_leaves_the_others_and_the_client_alone() -> None:
    with flm.Client(executors=1) as client:
        with client.session(initializer=fail) as session:
            assert isinstance(session.submit(status).exception(), flm.BrokenSession)
            with pytest.raises(flm.BrokenSession):
                list(session.map(status, range(3)))
        assert client.submit(status).result() == "not prepared"


def test_tasks_that_are_submitted_while_a_session_breaks_fail_too() -> None:
    """A submit may have looked before it was known, and append after."""
    with flm.Client(executors=1) as client:
        session = client.session(initializer=fail)
        first = session.submit(status)
        futures = []
        try:
            while True:
                futures.append(session.submit(status))
        except flm.BrokenSession:
            pass
        for future in [first, *futures]:
            assert isinstance(future.exception(timeout=LIMIT_SECONDS), flm.BrokenSession)


def test_an_initializer_that_kills_its_process_fails_the_tasks_in_the_end() -> None:
    def kill() -> None:
        os.kill(os.getpid(), 9)

    with flm.Client(executors=1) as client:
        with client.session(initializer=kill, max_retries=1) as session:
            error = session.submit(status).exception(timeout=LIMIT_SECONDS)
    assert isinstance(error, flm.TaskLost)
    assert error.certificate.signal == "SIGKILL"


def test_a_long_initializer_keeps_nobody_from_cancelling() -> None:
    with flm.Client(executors=1) as client:
        with client.session(initializer=time.sleep, initargs=(0.5,)) as session:
            first, second = session.submit(status), session.submit(status)
            assert second.cancel()
            assert first.result(timeout=LIMIT_SECONDS) == "not prepared"


# --- tasks for each process


def test_a_process_runs_so_many_tasks_and_then_another_one_comes() -> None:
    with flm.FlameExecutor(1, max_tasks_per_child=3) as executor:
        pids = [executor.submit(os.getpid).result() for _ in range(7)]
        pids += [future.result() for future in [executor.submit(os.getpid) for _ in range(5)]]

    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 3, 3]


def test_the_chunks_of_a_map_are_tasks() -> None:
    with flm.FlameExecutor(1, max_tasks_per_child=1) as executor:
        pids = list(executor.map(lambda _: os.getpid(), range(6), chunksize=3))
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3]


def test_shutdown_waits_for_the_tasks_of_processes_that_are_yet_to_come() -> None:
    executor = flm.FlameExecutor(2, max_tasks_per_child=1)
    futures = [executor.submit(pow, n, 2) for n in range(8)]
    executor.shutdown()
    assert [future.result(timeout=0) for future in futures] == [n * n for n in range(8)]


# --- a cluster that others use, too


def slowly(_: int) -> int:
    time.sleep(0.01)
    return os.getpid()


def test_with_an_address_it_takes_no_more_executors_than_it_may() -> None:
    with flm.Client(executors=3) as first:
        with flm.FlameExecutor(1, first.address) as executor:
            pids = list(executor.map(slowly, range(20)))
            assert len(set(pids)) == 1
            with flm.FlameExecutor(address=first.address) as other:
                barrier = [other.submit(time.sleep, 0.3) for _ in range(3)]
                until(lambda: all(f.running() for f in barrier), "without a limit it has all of them")
                for future in barrier:
                    future.result(timeout=LIMIT_SECONDS)
        assert first.submit(pow, 2, 2).result() == 4, "the cluster is not the executor's"


def test_what_a_limited_session_leaves_idle_serves_the_other_client() -> None:
    with flm.Client(executors=2) as first, flm.Client(first.address) as second:
        with first.session(max_executors=1) as session:
            held = [session.submit(time.sleep, 0.5) for _ in range(3)]
            until(held[0].running, "it does not begin")
            assert second.submit(os.getpid).result(timeout=0.4)
            assert not held[0].done()


@pytest.mark.parametrize("argument", ["max_executors", "max_tasks_per_child"])
def test_a_limit_is_an_integer_from_1(argument: str) -> None:
    with flm.Client(executors=1) as client:
        with pytest.raises(ValueError, match=argument):
            client.session(**{argument: 0})  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="initializer must be a callable"):
            client.session(initializer="prepare")  # type: ignore[call-overload]
        with pytest.raises(TypeError, match=r"initargs is 5; .* like \(5,\)"):
            client.session(initializer=abs, initargs=5)  # type: ignore[call-overload]


def test_a_chunksize_is_an_integer_of_any_kind(executor: flm.FlameExecutor) -> None:
    client = executor._session._client
    for wrong in ("a", 2.5):
        with pytest.raises(TypeError, match=f"chunksize is {wrong!r}; it must be an integer from 1, or None"):
            client.map(abs, [1], chunksize=wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"it must be an integer from 1$"):
            executor.map(abs, [1], chunksize=wrong)  # type: ignore[arg-type]
    two: Any = np.int64(2)
    assert list(client.map(abs, range(-3, 0), chunksize=two)) == [3, 2, 1]
    assert list(executor.map(abs, range(-3, 0), chunksize=two)) == [3, 2, 1]


def test_a_client_says_where_it_is_and_that_it_is_closed() -> None:
    with flm.Client(executors=1) as client, client.session():
        assert repr(client) == f"<flamezmq.Client of {client.address}: 1 session>"
    assert repr(client) == "<flamezmq.Client: this client was closed>"
