"""The end of a client, in every way that a program can end: in order, soon, and leaving nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

import flamezmq as flm

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[1]
WAIT_SECONDS = 20.0
#: After the end of its owner nothing may be left after so long.
GONE_SECONDS = 2.0

PROGRAM = """
import json, os, signal, sys, threading, time
import flamezmq as flm
client = flm.Client(executors=2)
assert client.submit(abs, -1).result(20) == 1
busy = [client.submit(time.sleep, 100) for _ in range(2)]
waiting = [client.submit(abs, -i) for i in range(1000)]
folder = os.path.dirname(client.address.removeprefix("ipc://"))
client.session().status()
print(json.dumps([client.processes(), folder]), flush=True)
sys.stdin.readline()
"""


@contextmanager
def program(end: str) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process], str]]:
    """A program with a cluster of its own, in a process group of its own; it goes on with `end`."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM + end],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    ) as child:
        try:
            assert child.stdout is not None
            line = child.stdout.readline()
            assert line, child.communicate()[1]
            pids, folder = json.loads(line)
            left = [psutil.Process(pid) for some in pids.values() for pid in some]
            assert child.stdin is not None
            child.stdin.write("go on\n")
            child.stdin.flush()
            yield child, left, folder
        finally:
            child.kill()


def nothing_is_left(left: list[psutil.Process], folder: str) -> None:
    """But a zombie, which only waits for the parent that it was left to."""

    def alive(process: psutil.Process) -> bool:
        try:
            return process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    deadline = time.monotonic() + GONE_SECONDS
    while found := [process for process in left if alive(process)]:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    assert not os.path.exists(folder)


@pytest.mark.parametrize(
    ("end", "code", "words"),
    [
        ("", 0, ""),
        ("sys.exit(5)", 5, ""),
        ("raise ValueError('of the user')", 1, "ValueError: of the user"),
        ("os.abort()", -signal.SIGABRT, ""),
        ("os._exit(4)", 4, ""),
        ("os.execv(sys.executable, [sys.executable, '-c', 'print(7)'])", 0, ""),
    ],
)
def test_a_program_that_ends_with_a_client_open_is_out_soon(end: str, code: int, words: str) -> None:
    with program(end) as (child, left, folder):
        began = time.monotonic()
        _, errors = child.communicate(timeout=WAIT_SECONDS)
        assert time.monotonic() - began < GONE_SECONDS
        assert child.returncode == code
        assert words in errors
        assert words or not errors, errors
        nothing_is_left(left, folder)


WAYS = {
    "result": "busy[0].result()",
    "wait": "flm.wait(busy)",
    "as_completed": "list(flm.as_completed(busy))",
    "map": "list(client.map(time.sleep, [100] * 4))",
    "with": "with client: busy[0].result()",
    "submit": "while True: client.submit(abs, -1)",
    "a thread": "threading.Thread(target=busy[0].result, daemon=True).start(); time.sleep(100)",
}


@pytest.mark.parametrize("way", list(WAYS))
def test_ctrl_c_ends_a_program_wherever_it_waits(way: str) -> None:
    with program("print('on', flush=True)\n" + WAYS[way]) as (child, left, folder):
        assert child.stdout is not None
        assert child.stdout.readline() == "on\n"
        os.killpg(child.pid, signal.SIGINT)  # as a terminal does
        began = time.monotonic()
        _, errors = child.communicate(timeout=WAIT_SECONDS)
        assert time.monotonic() - began < GONE_SECONDS
        assert child.returncode == -signal.SIGINT
        assert "KeyboardInterrupt" in errors
        nothing_is_left(left, folder)


def test_after_ctrl_c_the_client_is_usable() -> None:
    end = """
try:
    print("on", flush=True)
    busy[0].result()
except KeyboardInterrupt:
    pass
last = client.submit(abs, -3)
print(last.cancel() or last.result(20) == 3, client.session().status().pending, flush=True)
"""
    with program(end) as (child, left, folder):
        assert child.stdout is not None
        assert child.stdout.readline() == "on\n"
        os.killpg(child.pid, signal.SIGINT)
        answer = child.stdout.readline()
        assert answer == "True 0\n", answer or child.communicate()[1]
        child.communicate(timeout=WAIT_SECONDS)
        nothing_is_left(left, folder)


def test_a_parent_that_is_killed_takes_the_cluster_with_it() -> None:
    """The parent of the program, and with it its group, as a job scheduler does."""
    with program("signal.pause()") as (child, left, folder):
        os.killpg(child.pid, signal.SIGKILL)
        child.wait(WAIT_SECONDS)
        nothing_is_left(left, folder)


def test_when_the_router_dies_every_future_fails_soon_and_says_so() -> None:
    client = flm.Client(executors=2)
    called: list[Any] = []
    futures = [client.submit(time.sleep, 100) for _ in range(2)]
    futures += [client.submit(abs, -i) for i in range(3000)]
    futures[5].add_done_callback(called.append)
    os.kill(client.processes()["router"][0], signal.SIGKILL)
    began = time.monotonic()

    errors = [future.exception(WAIT_SECONDS) for future in futures if not future.done()]
    assert time.monotonic() - began < GONE_SECONDS
    assert errors
    assert all(isinstance(error, flm.RouterLost) and "SIGKILL" in str(error) for error in errors)
    with pytest.raises(flm.RouterLost, match="open a new Client"):
        client.submit(abs, 1)
    client.close()
    assert called == [futures[5]]


# --- misuse


def every_use(client: flm.Client, session: flm.Session, future: Any) -> list[Any]:
    return [
        lambda: client.submit(abs, 1),
        lambda: client.map(abs, [1]),
        lambda: client.session(),
        lambda: session.submit(abs, 1),
        lambda: session.status(),
        lambda: list(session.map(abs, [1])),
    ]


def test_after_a_close_each_use_says_so_and_nothing_hangs() -> None:
    client = flm.Client(executors=1)
    session = client.session()
    done = session.submit(abs, -1)
    assert done.result(WAIT_SECONDS) == 1
    pending = session.submit(time.sleep, 100)
    client.close()
    client.close()

    for use in every_use(client, session, pending):
        with pytest.raises(flm.ClientClosed, match="open a new one"):
            use()
    assert pending.cancelled()
    assert done.result() == 1, "what had come stays"
    session.close()
    assert client.statistics()["unfinished"] == 0


def test_a_closed_session_says_so_and_the_client_goes_on() -> None:
    with flm.Client(executors=1) as client:
        session = client.session("short")
        session.close()
        session.close()
        with pytest.raises(flm.ClientClosed, match="session short-"):
            session.submit(abs, 1)
        with pytest.raises(flm.ClientClosed, match="session short-"):
            session.status()
        assert client.submit(abs, -1).result(WAIT_SECONDS) == 1


def test_in_the_child_of_a_fork_each_use_says_so_and_the_parent_goes_on() -> None:
    with flm.Client(executors=1) as client:
        session = client.session()
        pending = session.submit(time.sleep, 0.5)
        pid = os.fork()
        if not pid:
            code = 1
            try:
                refused = 0
                for use in [*every_use(client, session, pending), lambda: pending.result(5)]:
                    try:
                        use()
                    except flm.FlameError as error:
                        refused += "fork" in str(error)
                client.close()
                code = 0 if refused == 7 else 100 + refused
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert pending.result(WAIT_SECONDS) is None
        assert client.submit(abs, -1).result(WAIT_SECONDS) == 1
