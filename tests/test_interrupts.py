"""Interrupts, callbacks and threads: nothing is lost, nothing hangs, the client stays usable."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

import flamezmq as flm
from flamezmq.core.caller import FINISHED

pytestmark = pytest.mark.processes

HERE = Path(__file__).parent
WAIT_SECONDS = 20.0


@pytest.fixture(scope="module")
def client() -> Iterator[flm.Client]:
    with flm.Client(executors=2) as one:
        yield one


MORE = [pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 24)]


@pytest.mark.parametrize("seed", [*range(2), *MORE])
def test_an_interrupt_anywhere_loses_no_future(seed: int) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "interrupts.py", str(seed)],
        cwd=HERE,
        env={**os.environ, "PYTHONPATH": str(HERE.parent)},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.stdout.strip().endswith("nothing lost"), done.stderr[:6000]


# --- callbacks


def test_a_callback_may_submit_and_wait_for_what_it_submitted(client: flm.Client) -> None:
    seen: list[Any] = []
    over = threading.Event()

    def ask_again(future: Any) -> None:
        inner = [client.submit(abs, -i) for i in range(2000)]
        seen.append([one.result(WAIT_SECONDS) for one in inner] == list(range(2000)))
        seen.append(len(flm.wait(inner, WAIT_SECONDS).done))
        over.set()

    client.submit(abs, -1).add_done_callback(ask_again)
    assert over.wait(WAIT_SECONDS)
    assert seen == [True, 2000]


def test_a_callback_may_raise_anything(client: flm.Client) -> None:
    called: list[int] = []

    def fail(kind: type[BaseException], _: Any) -> None:
        called.append(1)
        raise kind("from a callback")

    future = client.submit(sleep, 0.5)  # not done yet: they are called on the client's own thread
    for kind in (ValueError, OSError, SystemExit, KeyboardInterrupt):
        future.add_done_callback(partial(fail, kind))
    over = threading.Event()
    future.add_done_callback(lambda _: over.set())
    assert over.wait(WAIT_SECONDS)
    assert len(called) == 4
    assert client.submit(abs, -3).result(WAIT_SECONDS) == 3


def test_a_callback_may_close_the_client() -> None:
    client = flm.Client(executors=1)
    over = threading.Event()

    def close(_: Any) -> None:
        client.close()
        over.set()

    waiting = client.submit(os.getpid)
    waiting.add_done_callback(close)
    assert over.wait(WAIT_SECONDS)
    assert waiting.done()
    with pytest.raises(flm.ClientClosed):
        client.submit(abs, 1)
    client._pump.keeper.join(WAIT_SECONDS)
    assert not client._pump.keeper.is_alive()


def test_a_callback_that_takes_long_keeps_no_task_waiting(client: flm.Client, tmp_path: Path) -> None:
    over = threading.Event()
    began = threading.Event()

    def linger(_: Any) -> None:
        began.set()
        assert over.wait(WAIT_SECONDS)

    client.submit(abs, -1).add_done_callback(linger)
    assert began.wait(WAIT_SECONDS)
    busy = client.submit(sleep, 0.2)  # so that the next one goes to the outbox
    client.submit(Path.touch, tmp_path / "ran")  # and nobody waits for it
    deadline = monotonic() + WAIT_SECONDS
    while not (tmp_path / "ran").exists() and monotonic() < deadline:
        sleep(0.005)
    over.set()
    assert (tmp_path / "ran").exists()
    assert busy.result(WAIT_SECONDS) is None


def test_callbacks_that_an_interrupt_has_left_are_called_once_each(client: flm.Client) -> None:
    called: list[str] = []
    future = flm.Future(client._own())
    future.add_done_callback(lambda _: called.append("first"))
    future.add_done_callback(lambda _: called.append("second"))

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        future._end(FINISHED, interrupted)
    assert future.done()
    for _ in range(2):
        future._end(FINISHED, lambda call: call())
    future._call_back()
    assert called == ["first", "second"]


def test_an_interrupted_wait_at_the_end_of_a_session_cancels_it(client: flm.Client) -> None:
    main = threading.get_ident()
    session = client.session()
    with pytest.raises(KeyboardInterrupt), session:
        late = [session.submit(sleep, 0.5) for _ in range(100)]
        late[0].add_done_callback(lambda _: signal.pthread_kill(main, signal.SIGINT))
    assert late[-1].cancelled()
    assert session not in client._sessions.values()
    assert client.submit(abs, -1).result(WAIT_SECONDS) == 1


def test_a_handler_may_submit_a_new_function_while_the_table_is_being_changed(client: flm.Client) -> None:
    table = client._functions
    with table._lock:
        table._changing = threading.get_ident()
        future = client.submit(lambda: 7)
        table._changing = 0
    assert future.result(WAIT_SECONDS) == 7


def test_a_callback_of_a_future_that_is_done_is_called_at_once(client: flm.Client) -> None:
    future = client.submit(abs, -1)
    future.result(WAIT_SECONDS)
    called: list[Any] = []
    future.add_done_callback(called.append)
    assert called == [future]


# --- threads


def test_sixteen_threads_share_a_client(client: flm.Client) -> None:
    wrong: list[Any] = []

    def work(seed: int) -> None:
        for i in range(60):
            way = (seed + i) % 4
            if way == 0:
                found = client.submit(pow, i, 2).result(WAIT_SECONDS)
            elif way == 1:
                found = next(flm.as_completed([client.submit(pow, i, 2)], WAIT_SECONDS)).result()
            elif way == 2:
                found = flm.wait([client.submit(pow, i, 2)], WAIT_SECONDS).done.pop().result()
            else:
                found = list(client.map(pow, [i] * 5, [2] * 5))[4]
            if found != i * i:
                wrong.append((seed, i, found))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_SECONDS)
    assert not any(thread.is_alive() for thread in threads)
    assert not wrong


def test_a_close_wakes_the_threads_that_wait() -> None:
    client = flm.Client(executors=1)
    futures = [client.submit(sleep, 100) for _ in range(8)]
    ended: list[str] = []

    def wait(future: Any) -> None:
        try:
            future.result()
        except BaseException as error:
            ended.append(type(error).__name__)

    threads = [threading.Thread(target=wait, args=(future,)) for future in futures]
    for thread in threads:
        thread.start()
    began = monotonic()
    client.close()
    for thread in threads:
        thread.join(5)
    assert not any(thread.is_alive() for thread in threads)
    assert monotonic() - began < 3
    assert ended == ["CancelledError"] * 8
