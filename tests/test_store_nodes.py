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
    return counted(net, space, "rx_bytes")


def counted(net: Net, space: str, what: str) -> int:
    """What the kernel counts of its cable."""
    path = f"/sys/class/net/eth/statistics/{what}"
    found = subprocess.run([*net.inside(space), "cat", path], check=True, capture_output=True, text=True)
    return int(found.stdout)


GATEWAY = """
import sys, time
import flamezmq as flm

def length(value):
    return len(value)

with flm.Client(sys.argv[1]) as client:
    assert client.submit(length, b"x" * 200_000).result(30) == 200_000
    gateways = client._objects.gateways
    first, = gateways._answered
    print(dict(gateways.known)[first], flush=True)
    large = b"x" * (6 << 20)
    sys.stdin.readline()
    print("bringing", flush=True)
    assert client.submit(length, large).result(60) == 6 << 20  # by the other one
    assert len(gateways._answered) == 2 and first in gateways._shunned, gateways._answered
    print("brought", flush=True)
    sys.stdin.readline()
    client.submit(length, large)
    try:
        while True:
            client.submit(length, large)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    gateways.known = {}
    assert client.submit(length, large).result(60) == 6 << 20  # along with its task
print("closed", flush=True)
"""


def test_a_client_whose_gateway_dies_brings_its_arguments_to_another_and_hears_ctrl_c(
    net: Net, daemons: Daemons
) -> None:
    daemons.router("tcp://10.77.0.1:7601", "--insecure", before=net.inside(net.hub))
    workers = {}
    for number in (2, 3):
        host = net.inside(net.host(number))
        workers[f"10.77.0.{number}"] = daemons.worker(ADDRESS, "--node", f"n{number}", before=host)
        workers[f"10.77.0.{number}"].wait_for("registered")
    space = net.host(4)
    slow = [*net.inside(space), "tc", "qdisc", "add", "dev", "eth", "root", "tbf"]
    subprocess.run([*slow, "rate", "60mbit", "burst", "64k", "latency", "200ms"], check=True)

    with subprocess.Popen(
        [*net.inside(space), sys.executable, "-P", "-c", GATEWAY, ADDRESS],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    ) as client:  # fmt: skip
        try:
            assert client.stdout is not None
            assert client.stdin is not None
            gateway = client.stdout.readline().split("//")[1].split(":")[0]
            client.stdin.write("\n")
            client.stdin.flush()
            assert client.stdout.readline() == "bringing\n"
            before = sent(net, space)
            until(lambda: sent(net, space) > before + (1 << 20), "it is being brought")
            workers[gateway].signal(signal.SIGKILL)
            assert client.stdout.readline() == "brought\n"
            before = sent(net, space)
            client.stdin.write("\n")
            client.stdin.flush()
            until(lambda: sent(net, space) > before + (8 << 20), "another one is being brought")
            client.send_signal(signal.SIGINT)
            assert client.communicate(timeout=LIMIT_SECONDS) == ("interrupted\nclosed\n", "")
        finally:
            client.kill()


def sent(net: Net, space: str) -> int:
    return counted(net, space, "tx_bytes")
