"""Versions between nodes: workers in network namespaces of their own, and a client on one, or on none."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.daemons import LIMIT_SECONDS, Daemons, environment
from tests.test_namespaces import ADDRESS, Net
from tests.test_namespaces import net as net
from tests.test_store_nodes import daemons as daemons

pytestmark = [pytest.mark.processes, pytest.mark.slow]

CLIENT = """
import functools
import sys
import flamezmq as flm

def write(ref, writer, count, size):
    for k in range(count):
        ref.append((writer, k, bytes([k]) * size))
    return ref.version

def follow(ref, count):
    version, found, increments = 0, [], 0
    while len(found) < count:
        items, version, whole = ref.since(version)
        found += items
        increments += bool(items)
    assert all(data == bytes([k]) * len(data) for _, k, data in found)
    return [item[:2] for item in found]

with flm.Client(sys.argv[1]) as client:
    with client.session("a", resources="a=1") as a, client.session("b", resources="b=1") as b:
        assert [a.submit(abs, -1).result(30), b.submit(abs, -1).result(30)] == [1, 1]
        for size in (10, 200_000):
            ref = client.put([], name="buffer")
            reading = [session.submit(functools.partial(follow, ref, 41)) for session in (a, b)]
            ref.append((2, 0, b""))
            writing = [session.submit(functools.partial(write, ref, writer, 20, size))
                       for writer, session in enumerate((b, b))]
            assert max(future.result(30) for future in writing) == 42
            first, second = (future.result(30) for future in reading)
            assert first == second == [item[:2] for item in ref.get()], "one order, for everybody"
            for session in (a, b):
                assert session.submit(len, ref).result(30) == 41
        ref.update(bytes(3_000_000))
        for session in (a, b):
            assert session.submit(len, ref).result(30) == 3_000_000
        for session in (a, b):
            assert session.submit(functools.partial(ref.update, [session.id])).result(30) > 42
            assert ref.get() == [session.id]
print("all there")
"""


@pytest.mark.parametrize("where", ["on a node of its own", "on the node of a worker"])
def test_all_nodes_write_and_read_one_history(net: Net, daemons: Daemons, where: str) -> None:
    daemons.router("tcp://10.77.0.1:7601", "--insecure", before=net.inside(net.hub))
    hosts = [net.host(2), net.host(3)]
    for name, host in zip("ab", hosts, strict=True):
        words = ("--node", name, "--resources", f"{name}=3", "--executors", "3")
        daemons.worker(ADDRESS, *words, before=net.inside(host)).wait_for("registered")
    space = net.host(4) if "its own" in where else hosts[0]

    done = subprocess.run(
        [*net.inside(space), sys.executable, "-P", "-c", CLIENT, ADDRESS],
        capture_output=True, text=True, timeout=LIMIT_SECONDS, env=environment(), check=False,
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (0, "all there\n"), done.stderr
