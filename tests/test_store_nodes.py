"""Objects between nodes: workers in network namespaces of their own, and a client on neither."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemons import LIMIT_SECONDS, Daemons, daemons_in, environment
from tests.test_namespaces import ADDRESS, Net
from tests.test_namespaces import net as net
from tests.waiting import until

pytestmark = [pytest.mark.processes, pytest.mark.slow]

CLIENT = """
import sys
import flamezmq as flm

def make(byte, size):
    return bytes([byte]) * size

def join(first, second, third):
    return len(first) + len(second), first[:1] + second[-1:] + third[:1], first

with flm.Client(sys.argv[1]) as client:
    with client.session("a", resources="a=1") as a, client.session("b", resources="b=1") as b:
        for size in (70_000, 5_000_017):
            first, second = a.submit(make, 65, size), b.submit(make, 66, size)
            large = b"C" * size
            for session in (a, b):
                total, ends, back = session.submit(join, first, second, large).result(30)
                assert (total, ends, back) == (2 * size, b"ABC", first.result(30)), (total, ends)
        late = b.submit(make, 68, 200_000)
        late.exception(30)
    assert late.result() == b"D" * 200_000
    print("put through another node" if client._objects.gateways._answered else "put here")
print("all there")
"""


@pytest.fixture
def daemons(tmp_path: Path, net: Net) -> Iterator[Daemons]:
    with daemons_in(tmp_path) as daemons:
        yield daemons


@pytest.mark.parametrize(
    ("where", "how"),
    [
        ("of its own", "put through another node\n"),
        ("of a worker", "put here\n"),
        ("not reached", "put here\n"),
    ],
)
def test_values_go_from_node_to_node_and_to_a_client_anywhere(
    net: Net, daemons: Daemons, where: str, how: str
) -> None:
    door = ("--store-address", "none") if where == "not reached" else ()
    daemons.router("tcp://10.77.0.1:7601", "--insecure", before=net.inside(net.hub))
    hosts = [net.host(2), net.host(3)]
    for name, host in zip("ab", hosts, strict=True):
        words = ("--node", name, "--resources", f"{name}=1", *door)
        worker = daemons.worker(ADDRESS, *words, before=net.inside(host))
        worker.wait_for("registered")
    space = hosts[0] if where == "of a worker" else net.host(4)

    done = subprocess.run(
        [*net.inside(space), sys.executable, "-P", "-c", CLIENT, ADDRESS],
        capture_output=True, text=True, timeout=LIMIT_SECONDS, env=environment(), check=False,
    )  # fmt: skip

    assert (done.returncode, done.stdout, done.stderr) == (0, how + "all there\n", "")


LOSER = """
import sys
import flamezmq as flm
from flamezmq.errors import ObjectLost

def make(size):
    return bytes(size)

with flm.Client(sys.argv[1]) as client:
    a, b, c = (client.session(name, resources=f"{name}=1") for name in "abc")
    with a, b, c:
        first, small = a.submit(make, 32 << 20), a.submit(make, 100_000)
        first.exception(30), small.exception(30)
        assert b.submit(len, small).result(30) == 100_000
        reader = b.submit(len, first)
        print("reading", flush=True)
        lost = reader.exception(60)
        assert isinstance(lost, ObjectLost), lost
        assert "node a, which kept it, is lost" in str(lost), lost
        assert first._hold.handle.id.hex()[:12] in str(lost), lost
        print("said", flush=True)
        assert b.submit(len, small).result(30) == 100_000  # a copy is there
        assert c.submit(len, small).result(30) == 100_000  # and who has none finds it by the router
        print("copied", flush=True)
"""


@pytest.mark.parametrize("how", ["killed", "cut off"])
def test_what_a_lost_node_had_is_an_error_that_names_both_and_copies_stay(
    net: Net, daemons: Daemons, how: str
) -> None:
    daemons.router("tcp://10.77.0.1:7601", "--insecure", before=net.inside(net.hub))
    hosts = [net.host(2), net.host(3), net.host(4)]
    slow = [*net.inside(hosts[0]), "tc", "qdisc", "add", "dev", "eth", "root", "tbf"]
    subprocess.run([*slow, "rate", "40mbit", "burst", "64k", "latency", "200ms"], check=True)
    workers = []
    for name, host in zip("abc", hosts, strict=True):
        words = ("--node", name, "--resources", f"{name}=1")
        workers.append(daemons.worker(ADDRESS, *words, before=net.inside(host)))
        workers[-1].wait_for("registered")

    with subprocess.Popen(
        [*net.inside(hosts[1]), sys.executable, "-P", "-c", LOSER, ADDRESS],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    ) as client:  # fmt: skip
        try:
            assert client.stdout is not None
            assert client.stdout.readline() == "reading\n"
            before = received(net, hosts[1])
            until(lambda: received(net, hosts[1]) > before + (2 << 20), "the transfer has begun")
            if how == "killed":
                workers[0].signal(signal.SIGKILL)
            else:
                net.cable(2, "down")
            assert client.communicate(timeout=LIMIT_SECONDS) == ("said\ncopied\n", "")
        finally:
            client.kill()


def received(net: Net, space: str) -> int:
    path = "/sys/class/net/eth/statistics/rx_bytes"
    found = subprocess.run([*net.inside(space), "cat", path], check=True, capture_output=True, text=True)
    return int(found.stdout)
