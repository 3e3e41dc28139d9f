"""The client behind event loops: no thread of the user's drives it, and nothing of it blocks.

A thread that waits in `result()` drives the socket itself; an event loop never
waits, so here the keeper drives, at once and not after a grace, and whoever has
something to send only wakes it: no lock of the line is taken on a loop's thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flamezmq.aio.hub import Hub
from flamezmq.client.api import Client
from flamezmq.client.future import Future
from flamezmq.client.pump import Done, Pump
from flamezmq.net.line import Line
from flamezmq.tenant import Tenant


class HandedPump(Pump):
    """A pump that is driven by its keeper, and by the threads that open and close."""

    grace_seconds = 0.0

    def __init__(
        self,
        line: Line,
        flush: Callable[[], None],
        unsent: Callable[[], bool],
        fail: Callable[[Exception], None],
    ) -> None:
        def flush_what_was_nudged() -> None:
            self._nudged = False  # first: what is appended from here on nudges again
            flush()

        super().__init__(line, flush_what_was_nudged, unsent, fail)
        self._nudged = False  # the driver has been woken, and has not flushed yet

    def push(self, look: bool = True) -> None:
        """Have the driver send what the outboxes hold; one wake-up until it has looked."""
        if not self._nudged:
            self._nudged = True
            self.line.wake()
            self._ring()

    def arm(self, linger: float = 0.0) -> None:
        self.push()

    def drive(self, done: Done, deadline: float | None) -> bool:
        try:
            return super().drive(done, deadline)
        finally:
            self._ring()  # the keeper takes over again


class ClientBehind(Client):
    """What `aio.Client` hides: a Client whose results go to event loops."""

    _Pump = HandedPump

    def __init__(
        self,
        address: str | None,
        executors: int | None,
        forward_output: bool,
        connect_timeout: float | None = None,
        tenants: Mapping[str, Tenant] | None = None,
    ) -> None:
        self._hubs: dict[asyncio.AbstractEventLoop, Hub] = {}
        self._unwanted: deque[Future] = deque()
        self._unwanted_are_seen = False
        self._close_lock = threading.RLock()
        super().__init__(
            address,
            executors=executors,
            forward_output=forward_output,
            connect_timeout=connect_timeout,
            tenants=tenants,
        )

    def close(self) -> None:
        with self._close_lock:  # several asyncio tasks may close it at a time, each on a thread
            super().close()

    def hub(self) -> Hub:
        """That of the running event loop.

        Raises:
            RuntimeError: no event loop is running in this thread.
        """
        loop = asyncio.get_running_loop()
        hub = self._hubs.get(loop)
        if hub is None:
            self._hubs = {other: its for other, its in self._hubs.items() if not other.is_closed()}
            hub = self._hubs[loop] = Hub(loop)
        return hub

    def wake_ups(self) -> int:
        """How often event loops were woken so far."""
        return sum(hub.wake_ups for hub in list(self._hubs.values()))

    def cancel_soon(self, futures: Iterable[Future]) -> None:
        """Cancel tasks without waiting for anything: those of one moment go in one message."""
        self._unwanted.extend(futures)
        if not self._unwanted_are_seen:
            self._unwanted_are_seen = True
            self._errands.add(self._cancel_unwanted)

    def _cancel_unwanted(self) -> None:
        self._unwanted_are_seen = False
        by_session: dict[Any, list[Future]] = {}
        while self._unwanted:
            future = self._unwanted.popleft()
            by_session.setdefault(future._session, []).append(future)
        for session, futures in by_session.items():
            session._abandon(futures, running=True)

    def _may_wait(self) -> bool:
        return False
