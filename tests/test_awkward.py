"""Tasks that nobody wants on a shared executor: each fails alone, and the next one is served."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import flamezmq as flm
from flamezmq.capacity import MATH_THREADS
from tests.waiting import until

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[1]
WAIT_SECONDS = 20.0
LOCK = threading.Lock()


@pytest.fixture(scope="module")
def client() -> Iterator[flm.Client]:
    with flm.Client(executors=2) as one:
        until(lambda: len(one.processes()["executors"]) == 2)  # it serves before all are there
        yield one


@pytest.fixture(autouse=True)
def executors_serve(client: flm.Client) -> Iterator[None]:
    """Whatever a test does to them."""
    yield
    futures = [client.submit(pow, i, 2) for i in range(20)]
    assert [future.result(WAIT_SECONDS) for future in futures] == [i * i for i in range(20)]


# --- values


@pytest.mark.parametrize(
    ("result", "culprit"),
    [
        (lambda: (i for i in "ab"), "generator"),
        (lambda: threading.Lock(), "lock"),
        (lambda: {"a": [1, threading.Lock()]}, r"\['a'\]\[1\]"),
    ],
)
def test_a_result_that_can_not_travel_names_its_task_and_the_culprit(
    client: flm.Client, result: Callable[[], Any], culprit: str
) -> None:
    future = client.submit(result)
    with pytest.raises(flm.Unpicklable, match=culprit) as caught:
        future.result(WAIT_SECONDS)
    assert future.task_id in str(caught.value)


def test_an_argument_that_can_not_travel_is_named(client: flm.Client) -> None:
    bad = client.submit(len, {"a": [1, LOCK]})
    assert client.submit(abs, -1).result(WAIT_SECONDS) == 1
    with pytest.raises(flm.Unpicklable, match=r"argument 1 .*of len .*\['a'\]\[1\].*lock"):
        bad.result(WAIT_SECONDS)


def test_a_function_that_can_not_travel_is_named(client: flm.Client) -> None:
    lock = threading.Lock()

    def locked() -> object:
        return lock

    with pytest.raises(flm.Unpicklable, match=r"locked.*`lock`.*lock"):
        client.submit(locked).result(WAIT_SECONDS)


def test_a_hundred_megabytes_go_there_and_back(client: flm.Client) -> None:
    data = os.urandom(1000) * 100_000
    assert client.submit(lambda x: x, data).result(WAIT_SECONDS) == data


# --- exceptions


class Odd(Exception):
    def __init__(self, what: str, *, level: int) -> None:
        super().__init__(f"{what} at level {level}")
        self.level = level


class Worded(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class Holding(Exception):
    def __init__(self) -> None:
        super().__init__("it holds a lock")
        self.lock = threading.Lock()


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


def fail(kind: type[BaseException], *args: Any, **kwargs: Any) -> None:
    raise kind(*args, **kwargs)


def test_an_exception_with_an_init_of_its_own_arrives_as_itself(client: flm.Client) -> None:
    with pytest.raises(Worded, match=r"^code 7$") as caught:
        client.submit(fail, Worded, 7).result(WAIT_SECONDS)
    assert "in fail" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("kind", "args", "kwargs", "text"),
    [(Odd, ("deep",), {"level": 3}, "deep at level 3"), (Holding, (), {}, "it holds a lock")],
)
def test_an_exception_that_can_not_be_made_here_arrives_as_its_words(
    client: flm.Client, kind: Any, args: tuple[Any, ...], kwargs: dict[str, Any], text: str
) -> None:
    with pytest.raises(flm.TaskError) as caught:
        client.submit(fail, kind, *args, **kwargs).result(WAIT_SECONDS)
    error = caught.value
    assert error.type_name.endswith(kind.__name__)
    assert error.text == text
    assert "in fail" in error.traceback


def test_an_exception_that_can_not_speak_is_an_error_like_others(client: flm.Client) -> None:
    error = client.submit(fail, Mute).exception(WAIT_SECONDS)
    assert isinstance(error, (Mute, flm.TaskError))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_would_end_a_program_ends_its_task_only(client: flm.Client, kind: type[BaseException]) -> None:
    before = sorted(client.processes()["executors"])
    future = client.submit(fail, kind, "from a task")
    assert type(future.exception(WAIT_SECONDS)) is kind
    assert sorted(client.processes()["executors"]) == before


def test_a_recursion_without_end_is_an_error(client: flm.Client) -> None:
    def deeper(n: int) -> int:
        return deeper(n + 1)

    assert isinstance(client.submit(deeper, 0).exception(WAIT_SECONDS), RecursionError)


# --- what tasks do to their process


@pytest.mark.parametrize(("code", "words"), [("os._exit(9)", "exited with code 9"), ("crash()", "SIGSEGV")])
def test_a_task_that_ends_its_process_fails_with_a_certificate(
    client: flm.Client, code: str, words: str
) -> None:
    def crash() -> None:
        import ctypes

        ctypes.string_at(0)

    with client.session(max_retries=0) as session:
        future = session.submit(lambda: eval(code, {"os": os, "crash": crash}))
        with pytest.raises(flm.TaskLost, match=words):
            future.result(WAIT_SECONDS)


@pytest.mark.parametrize("streams", ["stdin", "stdout stderr", "stdin stdout stderr"])
def test_a_task_may_close_its_streams(streams: str) -> None:
    def close() -> None:
        for name in streams.split():
            getattr(sys, name).close()

    with flm.Client(executors=1) as client:
        client.submit(close).exception(WAIT_SECONDS)
        assert client.submit(pow, 2, 5).result(WAIT_SECONDS) == 32
        killed = client.submit(os.kill, os.getppid(), 0).exception(WAIT_SECONDS)
        assert killed is None
        client.submit(print, "words").exception(WAIT_SECONDS)
        assert client.submit(pow, 2, 6).result(WAIT_SECONDS) == 64


def test_a_child_that_comes_back_from_a_fork_is_no_second_executor(client: flm.Client) -> None:
    def fork() -> int:
        pid = os.fork()
        if not pid:
            return 0
        os.waitpid(pid, 0)
        return 7

    assert [client.submit(fork).result(WAIT_SECONDS) for _ in range(5)] == [7] * 5


def test_a_task_may_use_processes_of_its_own(client: flm.Client) -> None:
    def pool() -> list[int]:
        import multiprocessing

        with multiprocessing.get_context("fork").Pool(2) as workers:
            return workers.map(abs, [-1, -2])

    def handler() -> bool:
        read, write = os.pipe()
        if not os.fork():
            os.write(write, bytes([signal.getsignal(signal.SIGTERM) is signal.SIG_DFL]))
            os._exit(0)
        os.wait()
        return os.read(read, 1) == b"\1"

    def shell() -> str:
        return subprocess.check_output(["echo", "hi"], text=True)

    assert client.submit(pool).result(WAIT_SECONDS) == [1, 2]
    assert client.submit(shell).result(WAIT_SECONDS) == "hi\n"
    assert client.submit(handler).result(WAIT_SECONDS), "a SIGTERM ends it, as it would anywhere"


def test_threads_that_a_task_leaves_do_not_hold_up_the_end() -> None:
    def leave() -> None:
        threading.Thread(target=time.sleep, args=(100,)).start()

    client = flm.Client(executors=1)
    client.submit(leave).result(WAIT_SECONDS)
    began = time.monotonic()
    client.close()
    assert time.monotonic() - began < 2.0


def test_a_task_may_change_directory(client: flm.Client, tmp_path: Path) -> None:
    def go() -> str:
        os.chdir(tmp_path)
        return os.getcwd()

    assert client.submit(go).result(WAIT_SECONDS) == str(tmp_path)
    assert client.submit(abs, -1).result(WAIT_SECONDS) == 1


def test_a_megabyte_on_one_line_is_no_harm(capfd: pytest.CaptureFixture[str]) -> None:
    with flm.Client(executors=1) as client:
        client.submit(print, "x" * (1 << 20)).result(WAIT_SECONDS)
        client.submit(print, "the end").result(WAIT_SECONDS)
    out = capfd.readouterr().out
    assert out.endswith(") the end\n")
    assert out.count("x") == 1 << 20


def test_with_forwarding_off_nothing_is_printed_here(capfd: pytest.CaptureFixture[str]) -> None:
    with flm.Client(executors=1, forward_output=False) as client:
        client.submit(print, "unheard").result(WAIT_SECONDS)
        client.submit(os.system, "echo unheard").result(WAIT_SECONDS)
    assert capfd.readouterr().out == ""


def test_numeric_libraries_get_as_many_threads_as_the_executor_has_cores() -> None:
    """They read it when they are loaded: it must be there before."""
    with flm.Client(executors=os.cpu_count() or 1) as client:
        limits = client.submit(lambda: {name: os.environ.get(name) for name in MATH_THREADS}).result(
            WAIT_SECONDS
        )
    assert set(limits.values()) == {"1"}


# --- the GIL


def spin(seconds: float) -> float:
    """Holds the GIL, but for the moments that Python lends it to others."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass
    return seconds


def test_what_a_busy_task_keeps_from_running_goes_to_an_idle_executor() -> None:
    client = flm.Client(executors=2)
    before = [client.submit(spin, 0) for _ in range(500)]
    busy = client.submit(spin, 100.0)
    after = [client.submit(spin, 0) for _ in range(300)]

    assert {future.result(WAIT_SECONDS) for future in before + after} == {0}
    assert not busy.done()
    client.close()


def test_finished_results_do_not_wait_for_a_task_that_never_lends_the_gil() -> None:
    client = flm.Client(executors=1)
    before = [client.submit(abs, -i) for i in range(500)]
    busy = client.submit(sum, range(10**11))

    assert [future.result(WAIT_SECONDS) for future in before] == list(range(500))
    assert not busy.done()
    began = time.monotonic()
    client.close()
    assert time.monotonic() - began < 2.0, "nor does the end"


def test_who_never_lends_the_gil_still_dies_with_its_client(tmp_path: Path) -> None:
    """Of a second client: the cluster lives on, and wants its executor back."""
    begun = tmp_path / "begun"

    def hold() -> int:
        begun.touch()
        return sum(range(10**11))

    with flm.Client(executors=1) as owner:
        victim = owner.submit(os.getpid).result(WAIT_SECONDS)
        other = flm.Client(owner.address)
        other.submit(hold)
        deadline = time.monotonic() + WAIT_SECONDS
        while not begun.exists():
            assert time.monotonic() < deadline
        other.close()
        assert owner.submit(os.getpid).result(WAIT_SECONDS) != victim


# --- where functions come from

PROGRAM = """
import flamezmq as flm
class Point:
    def __init__(self, x): self.x = x
    def __eq__(self, other): return self.x == other.x
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
def double(point): return Point(2 * point.x)
k = 3
with flm.Client(executors=1) as client:
    assert client.submit(fib, 10).result(20) == 55
    assert client.submit(double, Point(4)).result(20) == Point(8)
    assert client.submit(lambda x: x + k, 1).result(20) == 4
    k = 5
    assert list(client.map(lambda x: x + k, [1, 2])) == [6, 7]
print("all right")
"""


@pytest.mark.parametrize("how", ["script", "-c", "stdin", "-m"])
def test_no_guard_is_needed_wherever_the_program_stands(tmp_path: Path, how: str) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    words = {"script": ["program.py"], "-c": ["-c", PROGRAM], "stdin": ["-"], "-m": ["-m", "program"]}[how]
    done = subprocess.run(
        [sys.executable, *words],
        input=PROGRAM,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
    )
    assert done.stdout == "all right\n", done.stderr


def test_modules_of_the_users_own_are_found_and_a_missing_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ours_for_a_test.py").write_text("def triple(x):\n    return 3 * x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import ours_for_a_test  # type: ignore[import-not-found]

    with flm.Client(executors=1) as client:
        assert client.submit(ours_for_a_test.triple, 4).result(WAIT_SECONDS) == 12
    (tmp_path / "ours_for_a_test.py").unlink()
    with flm.Client(executors=1) as client:
        future = client.submit(ours_for_a_test.triple, 4)
        with pytest.raises(flm.MissingModule, match="ours_for_a_test"):
            future.result(WAIT_SECONDS)
    sys.modules.pop("ours_for_a_test")


def test_a_signal_for_the_terminal_does_not_reach_a_task(client: flm.Client) -> None:
    assert client.submit(signal.raise_signal, signal.SIGINT).exception(WAIT_SECONDS) is None
