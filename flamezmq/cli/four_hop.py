"""The four-hop floor: client, ROUTER, worker, ROUTER, client, in bare pyzmq.

What a round trip through any ROUTER broker costs at least on this machine, now.
Three processes, one message of 32 bytes outstanding at a time, blocking calls
only.  `python -m flamezmq.cli.four_hop ROUNDS` prints the percentiles as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from time import perf_counter
from typing import Any

#: Every process of the floor ends itself after so long.
LIMIT_SECONDS = 20


def measure(rounds: int = 2000) -> dict[str, float]:
    """p50_us, p90_us, p99_us of a round trip, measured in processes of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "flamezmq.cli.four_hop", str(rounds)],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS + 5,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _broker(address: str) -> None:
    import zmq

    socket = zmq.Context().socket(zmq.ROUTER)
    socket.bind(address)
    while True:
        name = socket.recv()
        body = socket.recv()
        socket.send(b"w" if name == b"c" else b"c", zmq.SNDMORE)
        socket.send(body)


def _dealer(address: str, name: bytes) -> Any:
    import zmq

    socket = zmq.Context().socket(zmq.DEALER)
    socket.setsockopt(zmq.IDENTITY, name)
    socket.setsockopt(zmq.RECONNECT_IVL, 1)
    socket.connect(address)
    return socket


def _worker(address: str) -> None:
    socket = _dealer(address, b"w")
    while True:
        socket.send(socket.recv())


def _child(body: Any, *args: Any) -> int:
    pid = os.fork()
    if not pid:
        try:
            signal.alarm(LIMIT_SECONDS)
            body(*args)
        finally:
            os._exit(1)
    return pid


def main() -> None:
    rounds = int(sys.argv[1])
    folder = tempfile.mkdtemp(prefix="flamezmq-floor-")
    address = f"ipc://{folder}/s"
    children = [_child(_broker, address), _child(_worker, address)]
    signal.alarm(LIMIT_SECONDS)
    try:
        socket = _dealer(address, b"c")
        socket.setsockopt(27, 50)  # RCVTIMEO: until the worker has dialled, messages to it are dropped
        while True:
            socket.send(b"x" * 32)
            try:
                socket.recv()
                break
            except Exception:  # zmq.Again
                continue
        socket.setsockopt(27, 5000)
        times = []
        for turn in range(rounds + 200):
            start = perf_counter()
            socket.send(b"x" * 32)
            socket.recv()
            if turn >= 200:
                times.append(perf_counter() - start)
        times.sort()
        names = {"p50_us": 0.5, "p90_us": 0.9, "p99_us": 0.99}
        print(json.dumps({name: round(times[int(rounds * q)] * 1e6, 1) for name, q in names.items()}))
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
