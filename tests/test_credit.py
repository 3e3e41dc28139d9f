"""Credit from end to end: what a client may have in the system is bounded, and so is the router's memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import flamezmq as flm
from flamezmq.client.session import FULL_TASKS, MOST_TASKS
from tests.waiting import until

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[1]
#: The machine may be busy.
WAIT_SECONDS = 30.0
MIB = 1 << 20


@pytest.fixture
def client() -> Iterator[flm.Client]:
    with flm.Client(executors=2) as one:
        yield one


def router_of(client: flm.Client) -> psutil.Process:
    return psutil.Process(client.processes()["router"][0])


def memory(process: psutil.Process) -> int:
    return int(process.memory_info().rss)


class Gate:
    """Both executors are busy until it opens."""

    def __init__(self, client: flm.Client, folder: Path) -> None:
        self.path = folder / "open"

        def wait(path: str) -> None:
            while not os.path.exists(path):
                time.sleep(0.01)

        with_them = client.session("gate")
        self.keepers = [with_them.submit(wait, str(self.path)) for _ in range(2)]
        until(lambda: all(keeper.running() for keeper in self.keepers), "the executors are not busy")

    def open(self) -> None:
        self.path.touch()


class Submitter(threading.Thread):
    """Submits until it is stopped; whoever looks sees whether it is blocked."""

    def __init__(self, client: flm.Client, count: int, *args: Any) -> None:
        super().__init__(daemon=True)
        self.session = client.session("many")
        self.count, self.args = count, args
        self.futures: list[Any] = []

    def run(self) -> None:
        for _ in range(self.count):
            self.futures.append(self.session.submit(*self.args))

    def is_blocked(self) -> bool:
        before = len(self.futures)
        self.join(0.3)
        return self.is_alive() and len(self.futures) == before


def test_a_submit_blocks_while_too_many_tasks_are_unfinished(
    client: flm.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flamezmq.client.session.MOST_TASKS", 5000)
    gate = Gate(client, tmp_path)
    submitter = Submitter(client, 20_000, abs, -1)
    submitter.start()

    until(submitter.is_blocked, "submit does not block")
    assert 4500 < len(submitter.futures) <= 5500
    other = client.session("other")
    unfinished = [other.submit(abs, -1) for _ in range(100)]
    assert len(unfinished) == 100, "less than an outbox is always taken"

    gate.open()
    submitter.join(WAIT_SECONDS)
    assert {future.result(WAIT_SECONDS) for future in submitter.futures + unfinished} == {1}
    assert len(submitter.futures) == 20_000


def test_a_submit_blocks_while_too_many_bytes_wait(
    client: flm.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flamezmq.client.session.MOST_BYTES", 20 * MIB)
    monkeypatch.setattr(client._objects, "find", lambda: "")  # without a store they wait in the client
    client._line.limits = (client._line.limits[0], 4 * MIB)
    gate = Gate(client, tmp_path)
    submitter = Submitter(client, 1000, len, bytes(100_000))
    submitter.start()

    until(submitter.is_blocked, "submit does not block")
    assert 200 < len(submitter.futures) < 300

    gate.open()
    submitter.join(WAIT_SECONDS)
    assert {future.result(WAIT_SECONDS) for future in submitter.futures} == {100_000}
    assert len(submitter.futures) == 1000


def test_without_credit_sessions_still_open_and_tasks_can_be_cancelled(
    client: flm.Client, tmp_path: Path
) -> None:
    client._line.limits = (100, client._line.limits[1])
    gate = Gate(client, tmp_path)
    with client.session("full") as session:
        futures = [session.submit(abs, -i) for i in range(1000)]
        with client.session("late") as late:
            assert futures[50].cancel()
            assert futures[900].cancel()
            status = session.status()
            assert (status.pending, status.cancelled) == (998, 2)
            last = late.submit(abs, -5)
            gate.open()
            assert last.result(WAIT_SECONDS) == 5
        futures.pop(900)
        futures.pop(50)
        assert all(future.result(WAIT_SECONDS) >= 0 for future in futures)


def test_a_client_without_credit_does_not_spin(client: flm.Client, tmp_path: Path) -> None:
    client._line.limits = (100, client._line.limits[1])
    gate = Gate(client, tmp_path)
    session = client.session("full")
    futures = [session.submit(abs, -1) for _ in range(1000)]
    before = time.process_time()

    time.sleep(1.0)  # what is measured: a second without anything to do

    used = time.process_time() - before
    assert used < 0.02
    gate.open()
    assert {future.result(WAIT_SECONDS) for future in futures} == {1}


@pytest.mark.parametrize("count", [400_000, pytest.param(3_000_000, marks=pytest.mark.slow)])
def test_a_flood_of_tasks_is_bounded_in_router_and_client(client: flm.Client, count: int) -> None:
    router, me = router_of(client), psutil.Process()
    before = memory(router), memory(me)
    peak = most = mine = 0
    session = client.session("flood")
    for i in range(count):
        last = session.submit(abs, -i)
        if not i % 20_000:
            peak = max(peak, memory(router) - before[0])
            mine = max(mine, memory(me) - before[1])
            most = max(most, client.statistics()["unfinished"])

    assert last.result(WAIT_SECONDS) == count - 1
    assert peak < 150 * MIB
    assert mine < 1500 * MIB
    assert most <= MOST_TASKS + FULL_TASKS


def test_a_queue_that_nobody_works_on_stays_with_its_client(client: flm.Client, tmp_path: Path) -> None:
    gate = Gate(client, tmp_path)
    router = router_of(client)
    before = memory(router)
    session = client.session("queue")
    futures = [session.submit(bytes.__len__, b"x" * 500) for _ in range(300_000)]

    until(lambda: session._calls.committed == client._line.limits[0] - 2, "the credit is not used up")
    assert memory(router) - before < 200 * MIB

    gate.open()
    assert all(future.result(WAIT_SECONDS) == 500 for future in futures)


@pytest.mark.slow
def test_results_that_are_never_taken_stay_with_their_client(client: flm.Client) -> None:
    """In the futures that hold them: who drops a future drops its result."""
    router = router_of(client)
    before, peak = memory(router), 0
    futures = [client.submit(os.urandom, 100_000) for _ in range(5000)]

    def all_done() -> bool:
        nonlocal peak
        peak = max(peak, memory(router) - before)
        return client.statistics()["unfinished"] == 0

    until(all_done, "it does not end by itself")
    assert peak < 450 * MIB
    assert len({future.result() for future in futures}) == 5000
    full = memory(psutil.Process())
    del futures
    until(lambda: not client.objects(), "what lies in the store goes with the futures")
    again = [client.submit(os.urandom, 100_000) for _ in range(5000)]
    assert len({future.result(WAIT_SECONDS) for future in again}) == 5000
    assert memory(psutil.Process()) < full + 250 * MIB, "the memory of the first ones is there for the others"


STOPPED = """
import os, signal, sys
import flamezmq as flm
from flamezmq.client.session import FULL_TASKS, MOST_TASKS
with flm.Client(sys.argv[1]) as client:
    futures = [client.submit(os.urandom, 100_000) for _ in range(10_000)]
    futures[0].result()
    print("sent", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    print(len({future.result() for future in futures}), flush=True)
"""


@pytest.mark.slow
def test_nothing_more_is_run_for_a_client_that_has_stopped_to_listen(client: flm.Client) -> None:
    router = router_of(client)
    before = memory(router)
    program = subprocess.Popen(
        [sys.executable, "-c", STOPPED, client.address],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "sent\n"
            until(lambda: psutil.Process(program.pid).status() == psutil.STATUS_STOPPED, "it runs")
            seen = [0]

            def stands_still() -> bool:
                seen.append(memory(router) - before)
                return len(seen) > 50 and max(seen[-50:]) - min(seen[-50:]) < MIB

            until(stands_still, "the router's memory goes on growing")
            assert max(seen) < 500 * MIB, "a gigabyte was asked for"
            assert client.submit(abs, -1).result(WAIT_SECONDS) == 1, "the others are served on"

            program.send_signal(signal.SIGCONT)
            assert program.stdout.readline() == "10000\n"
        finally:
            program.kill()
