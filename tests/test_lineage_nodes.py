"""Sessions with lineage over a network: a node is cut off, and what it had is made again on another one."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemons import Daemons, daemons_in, environment
from tests.test_namespaces import ADDRESS, LOST_SECONDS, Net
from tests.test_namespaces import net as net

pytestmark = [pytest.mark.processes, pytest.mark.slow]

#: The router has to notice, and each of a few readers that the store is silent.
PATIENCE_SECONDS = 4 * LOST_SECONDS

CLIENT = """
import sys
import flamezmq as flm

def make(letter):
    return letter * 1_000_000

def grow(value, letter):
    return value + letter * 1_000_000

def ends(*values):
    return b"".join(value[:1] + value[-1:] for value in values)

def on_a(session, fn, *args):
    while True:
        futures = [session.submit(fn, *args) for _ in range(4)]
        flm.wait(futures, 30)
        for future in futures:
            if future._hold.handle.node == "a":
                return future

with flm.Client(sys.argv[1]) as client, client.session("careful", lineage=True) as session:
    first = on_a(session, make, b"A")
    second = on_a(session, grow, first, b"B")
    third = on_a(session, grow, second, b"C")
    del second
    print("made", flush=True)
    sys.stdin.readline()
    joined = session.submit(ends, first, third)
    assert joined.result(float(sys.argv[2])) == b"AAAC", joined
    assert third.result(float(sys.argv[2])) == b"A" * 1_000_000 + b"B" * 1_000_000 + b"C" * 1_000_000
    assert session.status().failed == 0, session.status()
    print("made again", flush=True)
"""


@pytest.fixture
def daemons(tmp_path: Path, net: Net) -> Iterator[Daemons]:
    with daemons_in(tmp_path) as daemons:
        yield daemons


@pytest.mark.parametrize("how", ["killed", "cut off"])
def test_what_a_lost_node_had_is_made_again_on_another_one(net: Net, daemons: Daemons, how: str) -> None:
    daemons.router("tcp://10.77.0.1:7601", "--insecure", before=net.inside(net.hub))
    workers = []
    for number, node in ((2, "a"), (3, "b")):
        worker = daemons.worker(ADDRESS, "--node", node, before=net.inside(net.host(number)))
        worker.wait_for("registered")
        workers.append(worker)
    program = subprocess.Popen(
        [*net.inside(net.host(4)), sys.executable, "-P", "-c", CLIENT, ADDRESS, str(PATIENCE_SECONDS)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == "made\n", program.communicate(timeout=PATIENCE_SECONDS)
        if how == "killed":
            workers[0].signal(signal.SIGKILL)
        else:
            net.cable(2, "down")
        out, errors = program.communicate("\n", timeout=2 * PATIENCE_SECONDS)
        assert (out, errors, program.returncode) == ("made again\n", "", 0)
    finally:
        program.kill()
        program.communicate()
