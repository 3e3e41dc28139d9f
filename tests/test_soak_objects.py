"""Objects of all sizes from several clients, while who reads, writes and keeps them is killed.

Every value is what it was put as, or its loss is an error that says so; at the end memory, open files and
shared memory are as at the start.  `make soak` runs it for half an hour.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import flamezmq as flm
from flamezmq.client.controller import Controller
from flamezmq.errors import FlameError
from tests.daemons import ROOT, Daemon, Daemons, daemons_in, environment
from tests.soak_objects import Load
from tests.waiting import LIMIT_SECONDS, until

pytestmark = [pytest.mark.slow, pytest.mark.processes]

SECONDS = float(os.environ.get("FLAMEZMQ_TEST_SOAK_SECONDS", "60"))
SEED = int(os.environ.get("FLAMEZMQ_TEST_SOAK_SEED", "1"))
CLIENTS = 2
EXECUTORS = 2
LIMIT_BYTES = 64 << 20
#: Between two disturbances, on average.
PAUSE_SECONDS = 0.6
#: Of memory of its own that a worker may have at the end, beside what it had at the start.
GROWTH_BYTES = 40 << 20


class Stage:
    """The cluster, a client in a process of its own, and what happens to them."""

    def __init__(self, daemons: Daemons, address: str, seed: int) -> None:
        self.daemons, self.address = daemons, address
        self.dice = random.Random(seed)
        self.router = daemons.router(address)
        self.worker = self._start_worker()
        self.visitor = self._start_visitor()
        self.done: dict[str, int] = {}

    def disturb(self, what: str) -> None:
        getattr(self, what)()
        self.done[what] = self.done.get(what, 0) + 1

    def kill_an_executor(self) -> None:
        with contextlib.suppress(FlameError, ProcessLookupError), Controller(self.address) as controller:
            alive = controller.executors()[0]
            if alive:
                os.kill(self.dice.choice(alive).pid, signal.SIGKILL)

    def kill_the_visitor(self) -> None:
        assert self.visitor.poll() is None, "the client in a process of its own has failed"
        self.visitor.kill()
        self.visitor.wait(LIMIT_SECONDS)
        self.visitor = self._start_visitor()

    def kill_the_worker(self) -> None:
        _kill(self.worker)
        self.worker = self._start_worker()

    def kill_the_router(self) -> None:
        _kill(self.router)
        self.router = self.daemons.router(self.address)

    def end(self) -> None:
        """The visitor is killed, too: nobody is there any more to give back what it holds."""
        self.visitor.kill()
        self.visitor.wait(LIMIT_SECONDS)

    def _start_worker(self) -> Daemon:
        return self.daemons.worker(self.address, "--store-limit", str(LIMIT_BYTES), executors=EXECUTORS)

    def _start_visitor(self) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "tests.soak_objects", self.address, str(self.dice.randrange(1 << 30))]
        return subprocess.Popen(words, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL)


def _kill(daemon: Daemon) -> None:
    daemon.signal(signal.SIGKILL)
    daemon.wait()


#: What happens, and how often in a hundred times.
DISTURBANCES = {"kill_an_executor": 80, "kill_the_visitor": 12, "kill_the_worker": 5, "kill_the_router": 3}


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
            thread.join(180)
        assert not any(thread.is_alive() for thread in threads)
        for error in errors:
            raise error


def held_by(worker: psutil.Process) -> tuple[int, int]:
    """Bytes of segments that it has open; other open files."""
    segments, others = 0, 0
    for entry in Path(f"/proc/{worker.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(entry).startswith("/memfd:flamezmq-object"):
                segments += entry.stat().st_blocks * 512
            else:
                others += 1
    return segments, others


@pytest.mark.timeout(SECONDS + 300)
def test_every_value_is_what_it_was_and_nothing_stays_behind(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/router"
    in_shm = set(os.listdir("/dev/shm"))
    with daemons_in(tmp_path) as daemons:
        stage = Stage(daemons, address, SEED)
        begin = time.monotonic()
        certain = {begin + SECONDS * 0.4: "kill_the_worker", begin + SECONDS * 0.7: "kill_the_router"}
        with loads(address, begin + SECONDS) as running:
            while (now := time.monotonic()) < begin + SECONDS:
                due = [when for when in certain if when < now]
                drawn = stage.dice.choices(list(DISTURBANCES), list(DISTURBANCES.values()))[0]
                stage.disturb(certain.pop(due[0]) if due else drawn)
                time.sleep(stage.dice.random() * 2 * PAUSE_SECONDS)
        stage.end()
        print(stage.done, [(load.checked, dict(load.lost)) for load in running])
        assert all(load.checked > 50 for load in running), [(load.checked, load.lost) for load in running]

        stage.kill_the_worker()  # one whose start is known
        worker = psutil.Process(stage.worker.pid)
        with flm.Client(address) as client:
            assert client.submit(len, bytes(100_000)).result(LIMIT_SECONDS) == 100_000
            with Controller(address) as controller:
                until(lambda: len(controller.executors()[0]) == EXECUTORS, "all executors are there")
            start = worker.memory_full_info().uss, held_by(worker)[1]
        with loads(address, time.monotonic() + SECONDS / 6) as calm:
            pass
        assert not any(load.lost for load in calm), [load.lost for load in calm]
        with flm.Client(address) as client:
            until(lambda: not client.objects(), "no object is left")
        until(lambda: held_by(worker)[0] <= LIMIT_BYTES // 4, "memory is given back, but for the reserve")
        with Controller(address) as controller:
            until(lambda: len(controller.executors()[0]) == EXECUTORS, "the spare ones are gone")
            assert controller.sessions()[0] == []
        most = start[1] + 2 * EXECUTORS  # each has a connection, and is watched
        until(lambda: held_by(worker)[1] <= most, f"at most {most} open files")
        assert worker.memory_full_info().uss < start[0] + GROWTH_BYTES
    assert set(os.listdir("/dev/shm")) == in_shm
