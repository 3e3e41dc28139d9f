"""Client, router and executor in one thread: the real code and real sockets, taken step by step by hand.

Nothing runs at the same time but ZeroMQ's I/O threads, and a step is only taken
when what it waits for has arrived.  So the same messages are exchanged each
time, a profile counts the same calls, and a clock sees work and no waiting.

What is missing: sleeping and waking up, and the client's and the executor's
side threads, which have no part in the hot path.
"""

from __future__ import annotations

import cProfile
import os
import pstats
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from unittest.mock import patch

import zmq

import flamezmq as flm
from flamezmq import page
from flamezmq.client.pump import Pump
from flamezmq.executor import Executor
from flamezmq.executor_config import ExecutorConfig
from flamezmq.router import Router
from flamezmq.wire import messages as m

#: What has not arrived after so long will not come.
LIMIT_MS = 2_000

WHO = ("client", "router", "executor")

#: Called with one of WHO; what is done in its block, that one does.
Watch = Callable[[str], AbstractContextManager[object]]


def unwatched(_: str) -> AbstractContextManager[object]:
    """Nobody looks."""
    return nullcontext()


class Loopback:
    """One client with one session, one executor."""

    def __init__(self, folder: str) -> None:
        address = f"ipc://{Path(folder, 'router')}"
        self.router = Router()
        self._ended = 0  # tasks, so far
        self.router.board.bind(address)
        self.executor = Executor(ExecutorConfig(address, "loopback", "loopback", 1, page.create()))
        self.executor.line.open()
        self.executor.line.enqueue(m.Ready("loopback", "loopback", 1, os.getpid()))
        with self._router_serves(), patch.object(Pump, "start"):  # without a keeper
            self.client = flm.Client(address)
            self.session = self.client.session("loopback")
            self._until(lambda: self.executor.line.turn(10) or self.router.broker.executors)

    def trip(self, function: Callable[[], object], watch: Watch = unwatched) -> None:
        """One task, there and back."""
        with watch("client"):
            future = self.session.submit(function)
        self._serve(1, watch)
        with watch("client"):
            future.result(LIMIT_MS / 1000)

    def bulk(self, function: Callable[[], object], tasks: int, watch: Watch = unwatched) -> None:
        """Submit so many, then take all results."""
        submit = self.session.submit
        with watch("client"):
            futures = [submit(function) for _ in range(tasks)]
            self.session._flush()
        self._serve(tasks, watch)
        with watch("client"):
            for future in futures:
                future.result(LIMIT_MS / 1000)

    def close(self) -> None:
        with self._router_serves():
            self.client.close()
        self.executor.line.close()
        self.router.close()

    # --- steps

    def _serve(self, tasks: int, watch: Watch) -> None:
        """Let router and executor take turns, until so many more tasks have ended and lie with the client."""
        (session,) = self.router.broker.sessions.values()
        executor, client = self.executor, self.client._line._socket
        poll = [(self.router.board._socket, zmq.POLLIN), (executor.line._socket, zmq.POLLIN)]
        end = self._ended + tasks
        while session.succeed < end:
            ready = [socket for socket, _ in zmq.zmq_poll(poll, LIMIT_MS)]
            if not ready:
                raise TimeoutError("what must have been sent has not arrived")
            if poll[0][0] in ready:
                with watch("router"):
                    self.router.turn()
            else:
                with watch("executor"):
                    executor._flush(wait=True)
                    if executor.tasks:
                        executor._work()
                        executor._flush()
        self._ended = end
        if not client.poll(LIMIT_MS, zmq.POLLIN):
            raise TimeoutError("the results have not arrived")

    @staticmethod
    def _until(done: Callable[[], object]) -> None:
        for _ in range(100):
            if done():
                return
        raise TimeoutError("the router does not know its executor")

    @contextmanager
    def _router_serves(self) -> Iterator[None]:
        """By itself, in a thread, for what can't be cut into steps."""
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                self.router.turn()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()  # its wait ends within a second


@contextmanager
def loopback() -> Iterator[Loopback]:
    """One that is ready, in a folder of its own."""
    with TemporaryDirectory(prefix="flm-perf-") as folder:
        found = Loopback(folder)
        try:
            yield found
        finally:
            found.close()


def counted(once: Callable[[Watch], None]) -> dict[str, int]:
    """Function calls, Python's and C's, by who, of one `trip` or `bulk`: counts that noise hardly moves."""
    profiles = {who: cProfile.Profile() for who in WHO}

    @contextmanager
    def watch(who: str) -> Iterator[None]:
        profiles[who].enable()
        try:
            yield
        finally:
            profiles[who].disable()

    once(watch)
    return {who: pstats.Stats(profile).total_calls for who, profile in profiles.items()}  # type: ignore[attr-defined]


def calls_per_task(function: Callable[[], object], tasks: int) -> dict[str, float]:
    """Of one task there and back, or of one among many, warm; the median of three."""
    with loopback() as loop:
        for _ in range(50):
            loop.trip(function)
        loop.bulk(function, 2 * tasks)

        def once(watch: Watch) -> None:
            if tasks == 1:
                loop.trip(function, watch)
            else:
                loop.bulk(function, tasks, watch)

        counts = [counted(once) for _ in range(3)]
        return {who: median(count[who] for count in counts) / tasks for who in WHO}
