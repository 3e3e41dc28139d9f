"""A cluster with two nodes on this machine, of which a test loses one."""

from __future__ import annotations

import os
from typing import Any

import flamezmq as flm
from tests.daemons import Daemon, Daemons, free_port
from tests.waiting import LIMIT_SECONDS, until

SIZE = 1 << 20


def make(size: int) -> bytes:
    """A value that lies in the store of the node where it was made; another one each time."""
    return os.urandom(size)


class TwoNodes:
    """A router and two nodes, "a" and "b", with an executor each; and a client on no node in particular."""

    def __init__(self, daemons: Daemons) -> None:
        self.daemons = daemons
        self.address = f"tcp://127.0.0.1:{free_port()}"
        daemons.router(self.address)
        self.workers: dict[str, Daemon] = {}
        for node in "ab":
            self.gain(node)
        self.client = flm.Client(self.address)

    def gain(self, node: str) -> None:
        worker = self.daemons.worker(self.address, "--node", node, executors=1)
        self.workers[node] = worker
        worker.wait_for("registered")

    def lose(self, node: str) -> None:
        worker = self.workers.pop(node)
        worker.process.kill()
        worker.process.wait(LIMIT_SECONDS)

    def made_on(self, session: Any, node: str, fn: Any = make, *args: Any) -> Any:
        """A future of `fn(*args)` whose value lies on this node, and that nobody has looked at."""

        def one() -> Any:
            futures = [session.submit(fn, *(args or (SIZE,))) for _ in range(4)]
            flm.wait(futures, LIMIT_SECONDS)
            return next((future for future in futures if future._hold.handle.node == node), None)

        return until(one, f"a task on node {node}")
