"""A cluster over a network: router, workers and clients in network namespaces of their own.

The test makes the namespaces and the cables between them, and takes them away
again whatever happens; it needs root and `ip`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemons import LIMIT_SECONDS, Daemons, daemons_in, environment
from tests.waiting import until

pytestmark = [pytest.mark.processes, pytest.mark.slow]

#: Heartbeats and a probe that fails, and the router's patience; and as much again for a busy machine.
LOST_SECONDS = 25.0


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=LIMIT_SECONDS)


class Net:
    """A bridge in a namespace of its own ("hub"), and namespaces that hang on it by a cable each."""

    def __init__(self) -> None:
        self.name = f"flm{uuid.uuid4().hex[:6]}"
        self.spaces: list[str] = []
        self.hub = ""

    def open(self) -> None:
        """May fail half-way: `close` takes away what there is."""
        self.hub = self._space("hub")
        ip("-n", self.hub, "link", "add", "name", "bridge0", "type", "bridge")
        ip("-n", self.hub, "addr", "add", "10.77.0.1/24", "dev", "bridge0")
        ip("-n", self.hub, "link", "set", "bridge0", "up")

    def _space(self, name: str) -> str:
        space = f"{self.name}-{name}"
        ip("netns", "add", space)
        self.spaces.append(space)
        ip("-n", space, "link", "set", "lo", "up")
        return space

    def host(self, number: int) -> str:
        """A namespace with the address 10.77.0.<number>."""
        space = self._space(str(number))
        veth = ("type", "veth", "peer", "name", "eth", "netns", space)
        ip("-n", self.hub, "link", "add", "name", f"to{number}", *veth)
        ip("-n", self.hub, "link", "set", f"to{number}", "master", "bridge0", "up")
        ip("-n", space, "addr", "add", f"10.77.0.{number}/24", "dev", "eth")
        ip("-n", space, "link", "set", "eth", "up")
        return space

    def cable(self, number: int, state: str) -> None:
        ip("-n", self.hub, "link", "set", f"to{number}", state)

    @staticmethod
    def inside(space: str) -> list[str]:
        return ["ip", "netns", "exec", space]

    def close(self) -> None:
        for space in self.spaces:
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "delete", space)


@pytest.fixture
def net() -> Iterator[Net]:
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("making network namespaces needs root and ip (iproute2)")
    net = Net()
    try:
        try:
            net.open()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
        yield net
    finally:
        net.close()


@pytest.fixture
def daemons(tmp_path: Path, net: Net) -> Iterator[Daemons]:
    """Ended before the namespaces are taken away."""
    with daemons_in(tmp_path) as daemons:
        yield daemons


CLIENT = """
import os, sys, time
from pathlib import Path
import flamezmq as flm

address, folder, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])

def task(number):
    Path(folder, f"{number}.{flm.current().attempt}.{os.getpid()}").touch()
    time.sleep(seconds)
    return number

with flm.Client(address) as client:
    futures = [client.submit(task, number) for number in range(8)]
    assert sorted(f.result(50) for f in futures) == list(range(8))
print("all there")
"""

ADDRESS = "tcp://10.77.0.1:7601"


def start_client(net: Net, space: str, folder: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*net.inside(space), sys.executable, "-P", "-c", CLIENT, ADDRESS, str(folder), str(seconds)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip


@contextlib.contextmanager
def a_client(net: Net, space: str, folder: Path, seconds: float) -> Iterator[subprocess.Popen[str]]:
    folder.mkdir()
    program = start_client(net, space, folder, seconds)
    try:
        yield program
    finally:
        program.kill()
        program.communicate()


def test_router_workers_and_client_on_hosts_of_their_own(net: Net, daemons: Daemons, tmp_path: Path) -> None:
    workers = [
        daemons.worker(ADDRESS, "--node", f"n{number}", before=net.inside(net.host(number)))
        for number in (2, 3)
    ]
    workers[0].wait_for("waiting-for-router")
    router = daemons.router("tcp://10.77.0.1:7601", "--insecure", before=net.inside(net.hub))
    for worker in workers:
        worker.wait_for("registered")

    with a_client(net, net.host(4), tmp_path / "begun", 0.05) as client:
        out, err = client.communicate(timeout=LIMIT_SECONDS)

    assert (client.returncode, out, err) == (0, "all there\n", "")
    pids = {path.name.split(".")[2] for path in (tmp_path / "begun").iterdir()}
    assert len(pids) == 2, "both nodes have worked"
    assert [worker.stop() for worker in workers] == [0, 0]
    assert router.stop() == 0


@pytest.mark.timeout(150)
def test_a_node_whose_cable_is_cut_is_lost_within_the_bound_and_its_tasks_run_elsewhere(
    net: Net, daemons: Daemons, tmp_path: Path
) -> None:
    router = daemons.router("tcp://10.77.0.1:7601", "--insecure", before=net.inside(net.hub))
    cut = daemons.worker(ADDRESS, "--node", "cut", before=net.inside(net.host(2)))
    cut.wait_for("registered")
    folder = tmp_path / "begun"
    with a_client(net, net.host(4), folder, 0.5) as client:
        until(lambda: list(folder.iterdir()), "the first task runs on the node that will be cut off")
        net.cable(2, "down")
        daemons.worker(ADDRESS, "--node", "whole", before=net.inside(net.host(3))).wait_for("registered")

        line = router.wait_for("node-lost", seconds=LOST_SECONDS)
        assert line["node"] == "cut"
        out, err = client.communicate(timeout=LIMIT_SECONDS)
    assert (client.returncode, out, err) == (0, "all there\n", "")

    cut.wait_for("router-lost", seconds=LOST_SECONDS)
    net.cable(2, "up")
    cut.wait_for("registered", 2, seconds=LOST_SECONDS)
    assert len(router.seen("node-joined")) == 3


@pytest.mark.timeout(150)
def test_a_short_cut_of_the_cable_loses_nothing_and_nobody(
    net: Net, daemons: Daemons, tmp_path: Path
) -> None:
    router = daemons.router("tcp://10.77.0.1:7601", "--insecure", before=net.inside(net.hub))
    worker = daemons.worker(ADDRESS, "--node", "n", before=net.inside(net.host(2)))
    worker.wait_for("registered")
    folder = tmp_path / "begun"
    with a_client(net, net.host(4), folder, 0.3) as client:
        until(lambda: list(folder.iterdir()), "the first task runs")
        net.cable(2, "down")
        time.sleep(1.5)  # so long is the cut
        net.cable(2, "up")
        out, err = client.communicate(timeout=LIMIT_SECONDS)

    assert (client.returncode, out, err) == (0, "all there\n", "")
    assert len(list(folder.iterdir())) == 8, "each task has run once"
    assert not router.seen("node-lost")
    assert not worker.seen("router-lost")


@pytest.mark.timeout(150)
def test_a_host_that_is_frozen_is_lost_like_one_that_is_dead(
    net: Net, daemons: Daemons, tmp_path: Path
) -> None:
    """Its kernel still answers, but nobody in it does."""
    router = daemons.router("tcp://10.77.0.1:7601", "--insecure", before=net.inside(net.hub))
    frozen = daemons.worker(ADDRESS, "--node", "frozen", before=net.inside(net.host(2)))
    frozen.wait_for("registered")
    folder = tmp_path / "begun"
    with a_client(net, net.host(4), folder, 0.5) as client:
        until(lambda: list(folder.iterdir()), "the first task runs")
        stopped = pids_of(net, "2")
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            daemons.worker(ADDRESS, "--node", "well", before=net.inside(net.host(3))).wait_for("registered")
            assert router.wait_for("node-lost", seconds=LOST_SECONDS)["node"] == "frozen"
            out, err = client.communicate(timeout=LIMIT_SECONDS)
            assert (client.returncode, out, err) == (0, "all there\n", "")
        finally:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)


def pids_of(net: Net, host: str) -> list[int]:
    """The processes in one of our namespaces."""
    done = subprocess.run(
        ["ip", "netns", "pids", f"{net.name}-{host}"], capture_output=True, text=True, check=True,
        timeout=LIMIT_SECONDS,
    )  # fmt: skip
    return [int(pid) for pid in done.stdout.split()]
