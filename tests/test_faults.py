"""Deaths, cuts and interrupts in the middle of work: nothing is lost, nothing is left behind."""

from __future__ import annotations

import os
import random
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import thread_time
from typing import Any

import psutil
import pytest

import flamezmq as flm

pytestmark = pytest.mark.processes


def burn(i: int, seconds: float = 0.002) -> int:
    end = thread_time() + seconds
    while thread_time() < end:
        pass
    return i


@pytest.fixture
def client() -> Iterator[Any]:
    with flm.Client(executors=2) as client:
        yield client


@pytest.mark.parametrize("victim", ["executors", "zygote", "worker"])
def test_a_killed_process_is_replaced_and_its_tasks_run_again(client: Any, victim: str) -> None:
    futures = [client.submit(burn, i) for i in range(600)]
    assert futures[20].result(10) == 20
    os.kill(client.processes()[victim][0], signal.SIGKILL)
    assert [future.result(20) for future in futures] == list(range(600))
    assert client.submit(abs, -1).result(10) == 1


def test_with_no_retries_nothing_is_started_twice(tmp_path: Path) -> None:
    def mark(i: int) -> int:
        with open(tmp_path / str(i), "a") as file:
            file.write("x")
        return burn(i, 0.001)

    with flm.Client(executors=2) as client, client.session("once", max_retries=0) as session:
        futures = [session.submit(mark, i) for i in range(500)]
        futures[50].result(10)
        os.kill(client.processes()["executors"][0], signal.SIGKILL)
        lost = sum(isinstance(future.exception(20), flm.TaskLost) for future in futures)
    assert all(len(file.read_text()) <= 1 for file in tmp_path.iterdir())  # 0: killed before it could write
    assert len(list(tmp_path.iterdir())) >= 500 - lost


@pytest.mark.parametrize("victim", ["launcher", "client"])
def test_when_the_owner_is_killed_nothing_is_left(victim: str) -> None:
    script = (
        "import flamezmq as flm, json, signal\n"
        "c = flm.Client(executors=2)\n"
        "f = c.submit(signal.pause)\n"
        "c.submit(abs, 1).result(10)\n"
        "print(json.dumps(c.processes()), flush=True)\n"
        "signal.pause()\n"
    )
    program = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert program.stdout is not None
        import json

        pids = [pid for pids in json.loads(program.stdout.readline()).values() for pid in pids]
        # a killed launcher stays a zombie of its client, which is as good as gone
        left = [psutil.Process(pid) for pid in pids[victim == "launcher" :]]
        os.kill(program.pid if victim == "client" else pids[0], signal.SIGKILL)
        _, alive = psutil.wait_procs(left, timeout=5)
        assert not alive
    finally:
        program.kill()
        program.communicate()
        flm.Client(executors=1).close()  # sweeps what a killed launcher could not remove


class CuttingProxy(threading.Thread):
    """Stands between a dialler and a router, and cuts every connection now and then.

    here: the path where it listens; "" for a port of the loopback
    """

    def __init__(self, here: str, there: str, seed: int) -> None:
        super().__init__(daemon=True, name="proxy")
        self._there, self._random = there, random.Random(seed)
        self._listener = socket.socket(socket.AF_UNIX if here else socket.AF_INET)
        self._listener.bind(here or ("127.0.0.1", 0))
        port = "" if here else self._listener.getsockname()[1]
        self.address = f"ipc://{here}" if here else f"tcp://127.0.0.1:{port}"
        self._listener.listen(16)
        self._ending = False
        self.cuts = 0

    def run(self) -> None:
        ways: dict[socket.socket, socket.socket] = {}
        left = self._random.randrange(150_000, 400_000)
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._ending:
                for key, _ in selector.select(0.05):
                    end: Any = key.fileobj
                    if end is self._listener:
                        near, _ = self._listener.accept()
                        far = socket.socket(socket.AF_UNIX)
                        far.connect(self._there)
                        for one, other in ((near, far), (far, near)):
                            ways[one] = other
                            selector.register(one, selectors.EVENT_READ)
                        continue
                    if end not in ways:
                        continue
                    try:
                        data = end.recv(16384)
                        left -= len(data)
                        if data and left > 0:
                            ways[end].sendall(data)
                            continue
                    except OSError:
                        pass
                    if left <= 0:
                        self.cuts += 1
                        left = self._random.randrange(150_000, 400_000)
                    for one in (end, ways[end]):
                        selector.unregister(one)
                        del ways[one]
                        one.close()
            for one in ways:
                one.close()

    def stop(self) -> None:
        self._ending = True
        self.join(5)
        self._listener.close()


@pytest.mark.parametrize(("seed", "here"), [(0, "p"), (1, ""), (2, "p"), (3, "")])
def test_a_connection_that_is_cut_again_and_again_loses_nothing(
    client: Any, tmp_path: Path, seed: int, here: str
) -> None:
    proxy = CuttingProxy(here and str(tmp_path / here), client.address.removeprefix("ipc://"), seed)
    proxy.start()
    try:
        with flm.Client(proxy.address) as other:
            futures = [other.submit(bytes, 100) for _ in range(20_000)]
            assert all(future.result(30) == bytes(100) for future in futures)
            assert list(other.map(abs, range(2000), chunksize=10)) == list(range(2000))
        assert proxy.cuts > 2
    finally:
        proxy.stop()


ROUTER = """
import sys
from flamezmq.router import main
main(sys.argv[1], lambda: print("up", flush=True))
"""
WORKER = """
import sys
from flamezmq.worker import WorkerConfig, main
sys.exit(main(WorkerConfig(sys.argv[1], "node", 2, 2.0, 1 << 30)))
"""


@contextmanager
def host(program: str, address: str) -> Iterator[subprocess.Popen[str]]:
    """A host of a cluster in a process of its own; it is terminated at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", program, address],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=10)


@pytest.mark.parametrize("seed", range(2))
def test_cuts_between_the_router_and_a_node_lose_nothing(tmp_path: Path, seed: int) -> None:
    """The worker and its executors dial through the proxy, the client does not; one executor dies, too."""
    with host(ROUTER, f"ipc://{tmp_path}/r") as router:
        assert router.stdout is not None
        assert router.stdout.readline() == "up\n"
        proxy = CuttingProxy(str(tmp_path / "p"), str(tmp_path / "r"), seed)
        proxy.start()
        try:
            with host(WORKER, f"ipc://{tmp_path}/p"), flm.Client(f"ipc://{tmp_path}/r") as client:
                futures = [client.submit(lambda i: (os.getpid(), i, bytes(200)), i) for i in range(10_000)]
                victim = futures[100].result(20)[0]
                os.kill(victim, signal.SIGKILL)
                found = [future.result(30) for future in futures]
                assert [i for _, i, _ in found] == list(range(10_000))
                assert proxy.cuts > 2
                assert list(client.map(abs, range(2000), chunksize=10)) == list(range(2000))
        finally:
            proxy.stop()


def test_cancel_is_certain(client: Any) -> None:
    running = [client.submit(burn, 0, 0.3) for _ in range(2)]
    waiting = [client.submit(burn, i) for i in range(50)]
    assert waiting[-1].cancel()
    assert waiting[-1].cancelled()
    assert all(future.result(10) == 0 for future in running)
    assert not waiting[0].cancel() or waiting[0].cancelled()
    assert waiting[5].result(10) == 5


def test_random_streams_differ_between_executors(client: Any) -> None:
    def draw(_: int) -> tuple[int, float, float]:
        import random

        import numpy as np

        burn(0, 0.02)
        return os.getpid(), random.random(), float(np.random.random())

    drawn = {pid: (a, b) for pid, a, b in client.map(draw, range(12), chunksize=1)}
    assert len(drawn) == 2
    assert len({a for a, _ in drawn.values()}) == len({b for _, b in drawn.values()}) == 2
