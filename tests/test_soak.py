"""Work of all kinds from several clients, while executors are killed: all ends, nothing grows."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import psutil
import pytest

import flamezmq as flm
from flamezmq.client.controller import Controller
from tests.daemons import daemons_in, environment
from tests.soak_tasks import add, fail, fib, flaky, leave_some, line, nap
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.processes]

SECONDS = float(os.environ.get("FLAMEZMQ_TEST_SOAK_SECONDS", "60"))
CLIENTS = 3
EXECUTORS_THERE = 2
WAIT_SECONDS = 60.0
#: What a process may grow by in the second half; a leak of one small object per task is more.
GROWTH_BYTES = 40 << 20


class Load:
    """What one client does; each kind of work checks how its futures have ended."""

    def __init__(self, address: str, seed: int) -> None:
        self.client = flm.Client(address, forward_output=False)
        self.random = random.Random(seed)
        self.rounds: dict[str, int] = {}

    def run(self, until_when: float) -> None:
        kinds: list[Callable[[], None]] = [
            self.many, self.nested, self.needs, self.again, self.overdue, self.mapped, self.cancelled,
            self.interrupted, self.closed, self.limited, self.initialized, self.broken,
        ]  # fmt: skip
        with self.client:
            while time.monotonic() < until_when:
                kind = self.random.choice(kinds)
                kind()
                self.rounds[kind.__name__] = self.rounds.get(kind.__name__, 0) + 1

    def session(self, **words: Any) -> flm.Session:
        return self.client.session("soak", max_retries=100, **words)

    def many(self) -> None:
        urgent = flm.options(priority=5)(add)
        with self.session() as session:
            futures = [session.submit(self.random.choice((add, urgent)), n, 1) for n in range(500)]
            assert [future.result(WAIT_SECONDS) for future in futures] == list(range(1, 501))

    def nested(self) -> None:
        with self.session() as session:
            calls = [(fib, 9, 34), (line, 50, 50), (leave_some, 8, 0)] * 2
            futures = [(session.submit(fn, n), value) for fn, n, value in calls]
            for future, value in futures:
                with contextlib.suppress(flm.TaskLost):  # of nested tasks, whose sessions retry three times
                    assert future.result(WAIT_SECONDS) == value

    def needs(self) -> None:
        sometimes = flm.options(retries=30, retry_on=OSError)(flaky)
        with self.session() as session:
            values = [session.submit(sometimes, n) for n in range(20)]
            sums = values
            while len(sums) > 1:
                sums = [session.submit(add, a, b) for a, b in zip(sums[::2], sums[1::2], strict=False)]
            unmet = session.submit(add, session.submit(fail), 1)
            assert sums[0].result(WAIT_SECONDS) == sum(range(16))
            with pytest.raises(flm.DependencyFailed):
                unmet.result(WAIT_SECONDS)

    def again(self) -> None:
        # Pauses double: with the odds of `flaky`, one of half a minute comes once in many million rounds.
        sometimes = flm.options(retries=30, backoff=0.002, retry_on=OSError)(flaky)
        with self.session() as session:
            futures = [session.submit(sometimes, n) for n in range(10)]
            assert [future.result(WAIT_SECONDS) for future in futures] == list(range(10))

    def overdue(self) -> None:
        short = flm.options(timeout=0.05)(nap)
        with self.session() as session:
            futures = [session.submit(short, seconds, 1) for seconds in (0.0, 5.0)]
            with pytest.raises(flm.TaskTimeout):
                futures[1].result(WAIT_SECONDS)

    def mapped(self) -> None:
        with self.session() as session:
            found = session.map(add, range(300), range(300), ordered=self.random.random() < 0.5)
            for _ in range(self.random.choice((0, 5, 300))):
                next(found)
            found.close()

    def cancelled(self) -> None:
        with self.session() as session:
            futures = [session.submit(nap, 0.005, n) for n in range(30)]
            gone = [future.cancel() for future in futures[self.random.randrange(30) :: 2]]
            assert len(gone) <= 15
            for number, future in enumerate(futures):
                with contextlib.suppress(CancelledError):
                    assert future.result(WAIT_SECONDS) == number

    def interrupted(self) -> None:
        """Of tasks that run, and those that wait behind them, each is cancelled or has its own value."""
        with self.session() as session:
            futures = [session.submit(nap, 0.05, n) for n in range(6)]
            unwanted = futures[self.random.randrange(6) :: 2]
            assert session.cancel(unwanted, running=True) == sum(one.cancelled() for one in unwanted)
            for number, future in enumerate(futures):
                with contextlib.suppress(CancelledError):
                    assert future.result(WAIT_SECONDS) == number
                assert future in unwanted or not future.cancelled()

    def closed(self) -> None:
        session = self.session()
        first = session.submit(nap, 0.01, 1)
        futures = [session.submit(add, first, n) for n in range(20)]
        session.close(cancel=True)
        assert all(future.done() for future in [first, *futures])

    def limited(self) -> None:
        with self.session(max_executors=1, max_tasks_per_child=7) as session:
            futures = [session.submit(nap, 0.001, n) for n in range(20)]
            assert [future.result(WAIT_SECONDS) for future in futures] == list(range(20))

    def initialized(self) -> None:
        with self.session(initializer=nap, initargs=(0.001, 1)) as session:
            futures = [session.submit(fib, 5) for _ in range(5)]
            for future in futures:
                with contextlib.suppress(flm.TaskLost):
                    assert future.result(WAIT_SECONDS) == 5

    def broken(self) -> None:
        session = self.session(initializer=fail)
        futures: list[flm.Future] = []
        with contextlib.suppress(flm.BrokenSession):
            for n in range(5):
                futures.append(session.submit(add, futures[-1] if futures else n, 1))
        for future in futures:
            with pytest.raises((flm.BrokenSession, flm.DependencyFailed)):
                future.result(WAIT_SECONDS)
        session.close(cancel=True)


def resident(processes: list[psutil.Process]) -> list[int]:
    return [process.memory_info().rss for process in processes]


@contextlib.contextmanager
def loads(address: str, until_when: float) -> Iterator[list[Load]]:
    """Run them on threads; what fails in one fails the test."""
    errors: list[BaseException] = []
    running = [Load(address, number) for number in range(CLIENTS)]

    def run(load: Load) -> None:
        try:
            load.run(until_when)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(load,)) for load in running]
    for thread in threads:
        thread.start()
    try:
        yield running
    finally:
        for thread in threads:
            thread.join(3 * WAIT_SECONDS)
        assert not any(thread.is_alive() for thread in threads)
        for error in errors:
            raise error


@pytest.mark.timeout(600)
def test_all_that_is_submitted_ends_and_nothing_grows(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/router"
    dice = random.Random(1)
    with daemons_in(tmp_path) as daemons:
        router = psutil.Process(daemons.router(address).pid)
        worker = psutil.Process(daemons.worker(address, executors=EXECUTORS_THERE).pid)
        begin = time.monotonic()
        half: list[int] = []
        with loads(address, begin + SECONDS) as running, Controller(address) as controller:
            while (now := time.monotonic()) < begin + SECONDS:
                if not half and now > begin + SECONDS / 2:
                    half = resident([router, worker])
                alive = controller.executors()[0]
                if alive:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(dice.choice(alive).pid, signal.SIGKILL)
                time.sleep(dice.random() * 1.5)
        grown = [after - before for before, after in zip(half, resident([router, worker]), strict=True)]
        assert max(grown) < GROWTH_BYTES, (half, grown)
        assert sum(len(load.rounds) for load in running) > 11, [load.rounds for load in running]

        with Controller(address) as controller:
            until(lambda: len(controller.executors()[0]) == EXECUTORS_THERE, "the spare ones are gone")
            assert all(not row.session and not row.tasks for row in controller.executors()[0])
            assert controller.sessions()[0] == []
        command = [sys.executable, "-P", "-m", "flamezmq.cli.ctl", "list", "-o", "json", "-a", address]
        listed = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=30)
        assert listed.returncode == 0, listed.stderr
