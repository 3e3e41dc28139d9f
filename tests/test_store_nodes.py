"""Objects between nodes: workers in network namespaces of their own, and a client on neither."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemons import LIMIT_SECONDS, Daemons, daemons_in, environment
from tests.test_namespaces import ADDRESS, Net
from tests.test_namespaces import net as net

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
print("all there")
"""


@pytest.fixture
def daemons(tmp_path: Path, net: Net) -> Iterator[Daemons]:
    with daemons_in(tmp_path) as daemons:
        yield daemons


@pytest.mark.parametrize("where", ["of its own", "of a worker"])
def test_values_go_from_node_to_node_and_to_a_client_anywhere(net: Net, daemons: Daemons, where: str) -> None:
    daemons.router("tcp://10.77.0.1:7601", "--insecure", before=net.inside(net.hub))
    hosts = [net.host(2), net.host(3)]
    for name, host in zip("ab", hosts, strict=True):
        worker = daemons.worker(ADDRESS, "--node", name, "--resources", f"{name}=1", before=net.inside(host))
        worker.wait_for("registered")
    space = net.host(4) if where == "of its own" else hosts[0]

    done = subprocess.run(
        [*net.inside(space), sys.executable, "-P", "-c", CLIENT, ADDRESS],
        capture_output=True, text=True, timeout=LIMIT_SECONDS, env=environment(), check=False,
    )  # fmt: skip

    assert (done.returncode, done.stdout, done.stderr) == (0, "all there\n", "")
