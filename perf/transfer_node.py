"""A node for the scenario `transfer`: a store, and bare ZeroMQ, in a process that does what it is told.

Commands come as JSON lines on stdin, {"do": name, ...}; each is answered by a line on stdout.
`python -m perf.transfer_node HOST`
"""

from __future__ import annotations

import json
import mmap
import sys
import threading
from base64 import b64decode, b64encode
from time import perf_counter
from typing import Any

import zmq

from flamezmq.store import access
from flamezmq.store.doors import open_doors
from flamezmq.store.names import ids
from flamezmq.store.pool import Pool
from flamezmq.store.server import Server
from flamezmq.wire.handles import Handle, pack, unpack

LIMIT_BYTES = 1 << 30
CHUNK_BYTES = 1 << 20


class Node:
    """host: where others reach it."""

    def __init__(self, host: str) -> None:
        self.host, self.name = host, f"perf-{ids.next().hex()}"
        self.server = Server(open_doors(self.name, host), Pool(LIMIT_BYTES, LIMIT_BYTES))
        self.thread = threading.Thread(target=self.server.serve, name="flm-store")
        self.thread.start()
        self.access = access.Access(self.name)
        self.context: zmq.Context[Any] = zmq.Context()
        self.bare: Any = None

    def put(self, size: int) -> str:
        """An object of that size; its handle."""
        return b64encode(pack(self.access.put(ids.next(), "perf", [_touched(size)]))).decode()

    def fetch(self, handle: str) -> float:
        """Seconds until it is here, and mapped."""
        began = perf_counter()
        (found,) = self.access.open([_handle(handle)])
        seconds = perf_counter() - began
        assert found is not None
        return seconds

    def drop(self, handle: str) -> None:
        """It goes, and its copies with it."""
        self.access.drop([_handle(handle).id])

    def settled(self) -> bool:
        """Whether no object is here, and nobody uses memory of one that was."""
        self.access.open([Handle(b"0" * 16, self.name, (1,))])  # what was said before has been read
        return not self.server.objects and not self.server.pool.lingers

    def send(self, size: int, times: int) -> str:
        """Send so many bytes over a bare socket, so often, each time when asked; the address where."""
        socket = self.context.socket(zmq.DEALER)
        socket.sndhwm = 0
        socket.linger = 0
        port = socket.bind_to_random_port(f"tcp://{self.host}")

        view = _touched(size)

        def run() -> None:
            for _ in range(times):
                socket.recv()
                for offset in range(0, size, CHUNK_BYTES):
                    socket.send(view[offset : offset + CHUNK_BYTES], copy=False)
            socket.recv()
            socket.close(0)

        threading.Thread(target=run).start()
        return f"tcp://{self.host}:{port}"

    def receive(self, at: str, size: int, times: int, keeps: bool) -> list[float]:
        """Seconds for each; keeps: into memory of ours, otherwise each frame is let go of."""
        socket = self.context.socket(zmq.DEALER)
        socket.rcvhwm = 0
        socket.linger = 1000
        socket.connect(at)
        target = _touched(size)
        found = []
        for _ in range(times):
            began = perf_counter()
            socket.send(b"")
            for offset in range(0, size, CHUNK_BYTES):
                frame = socket.recv(copy=False)
                if keeps:
                    target[offset : offset + CHUNK_BYTES] = frame.buffer
            found.append(perf_counter() - began)
        socket.send(b"")
        socket.close()
        return found

    def close(self) -> None:
        self.access.close()
        self.server.stop()
        self.thread.join()
        self.context.term()


def _touched(size: int) -> memoryview:
    memory = memoryview(mmap.mmap(-1, size))
    for start in range(0, size, CHUNK_BYTES):
        memory[start : start + CHUNK_BYTES] = bytes(min(CHUNK_BYTES, size - start))
    return memory


def _handle(text: str) -> Handle:
    return unpack(b64decode(text))


def main() -> None:
    node = Node(sys.argv[1])
    try:
        for line in sys.stdin:
            words = json.loads(line)
            answer = getattr(node, words.pop("do"))(**words)
            print(json.dumps(answer), flush=True)
    finally:
        node.close()


if __name__ == "__main__":
    main()
