"""A router serves more peers than a shell's limit of descriptors would let it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import zmq

from flamezmq.version import __version__
from flamezmq.wire import codec
from flamezmq.wire import messages as m

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[1]
LOW_LIMIT, PEERS = 64, 100
ROUTER = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({LOW_LIMIT}, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
from flamezmq.router import main
main(sys.argv[1], lambda: print("up", flush=True))
"""


def test_a_router_started_under_a_low_limit_welcomes_more_peers_than_that(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/router"
    command = [sys.executable, "-c", ROUTER, address]
    with zmq.Context() as context, subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as router:
        try:
            assert router.stdout is not None
            assert router.stdout.readline() == b"up\n"
            peers = [_hello(context, address) for _ in range(PEERS)]
            for number, peer in enumerate(peers):
                assert peer.poll(10_000), f"peer {number} of {PEERS} was not answered"
                assert codec.open_envelope(peer.recv())[0] == codec.WELCOME
            for peer in peers:
                peer.close(0)
        finally:
            router.kill()


def _hello(context: zmq.Context, address: str) -> zmq.Socket:
    socket = context.socket(zmq.DEALER)
    socket.connect(address)
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    hello = codec.encode(m.Hello(m.PROTOCOL, __version__, python, "executor", b"", 0))
    codec.seal(hello, codec.HELLO, 1, 0, 0)
    socket.send(hello)
    return socket
