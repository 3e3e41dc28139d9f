"""Streams, as their reader sees them: values in order, each once, and then the end.

What came and was not read lies in an `Inflow`; its size is bounded by the credit
that the executor has (`shims/streaming.py`), which the reader renews by `m.Pull`
when it has taken half of it.

Restartable, as `core/caller.py` is: a Part that is applied twice leaves values
behind that were taken already, and the reader passes over them by their numbers.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any

from flamezmq.client import published
from flamezmq.core.caller import PENDING, RUNNING, Calls
from flamezmq.errors import FlameError, ProtocolError
from flamezmq.serialize.values import load_value
from flamezmq.shims.streaming import LEAST_VALUES, WINDOW_BYTES, weight
from flamezmq.wire import messages as m
from flamezmq.wire.codec import split_payloads
from flamezmq.wire.streams import PUBLISHED

if TYPE_CHECKING:
    from flamezmq.client.api import Client
    from flamezmq.client.future import Future

#: How long `close` waits for the generator's own cleaning up.
CLOSE_SECONDS = 1.0


class Inflow:
    """What has come of a stream.

    buffer    (number, payload), numbers rising from 0
    attempt   that they are of
    received  how many of it have come, or were not needed because they had been taken before
    taken     how many values the reader has taken; with a replay, of all attempts
    told      how many of them the executor knows of
    window    how far the executor may be ahead, in values
    closed    nobody reads any more
    """

    def __init__(self) -> None:
        self.buffer: deque[tuple[int, Any]] = deque()
        self.attempt = 1
        self.received = self.taken = self.told = self.untold_bytes = 0
        self.window = LEAST_VALUES
        self.closed = False
        self.on_news: Callable[[], None] | None = None  # of an event loop that waits

    def add(self, attempt: int, first: int, payloads: list[Any]) -> None:
        """These came (perhaps once more)."""
        if attempt != self.attempt:
            self.buffer = deque()
            self.attempt, self.received, self.told = attempt, 0, 0
        if first + len(payloads) > self.received:
            self.buffer.extend(enumerate(payloads, first))
            self.received = first + len(payloads)
        if self.on_news is not None:
            self.on_news()

    def take(self) -> Any:
        """The next payload; raises IndexError if there is none."""
        buffer = self.buffer
        while True:
            number, payload = buffer[0]
            if number < self.taken:
                buffer.popleft()
                continue
            self.untold_bytes += weight(payload)
            self.taken = number + 1  # from here on it has been taken
            buffer.popleft()
            return payload

    def owes(self) -> bool:
        """Whether the executor is to be told what was taken."""
        return self.taken - self.told >= self.window // 2 or self.untold_bytes >= WINDOW_BYTES // 2


def on_part(client: Client, calls: Calls, message: m.Part, frames: list[Any]) -> None:
    """Values of a task that runs; under the lock of what is applied."""
    future: Future | None = calls.pending.get(message.index)
    payloads = split_payloads(message.values, message.parts, frames)
    if len(payloads) != message.count:
        raise ProtocolError("a part with another number of values than it says")
    if future is None:
        return
    if future._state is PENDING:
        future._state = RUNNING
    if message.kind == PUBLISHED:
        published.shown(future).add(message.attempt, message.first, payloads, client._errands.add)
        return
    inflow = future._inflow
    if inflow is None or inflow.closed:  # perhaps another run of it, that knows of no end
        _order(client, m.Pull(calls.alias, message.index, message.attempt, 0, True))
        return
    again = message.attempt != inflow.attempt
    inflow.window = max(message.window, LEAST_VALUES)
    inflow.add(message.attempt, message.first, payloads)
    if again and inflow.taken:  # it gives these once more, for nobody
        _order(client, m.Pull(calls.alias, message.index, message.attempt, inflow.taken))
        inflow.told = inflow.taken


def _order(client: Client, message: Any) -> None:
    """Send it soon; here somebody drives the line."""
    client._orders.append(message)
    client._pump.arm()


class Stream:
    """The values of a task that streams; an iterator, made by `Session.stream`.

    `next(stream)` waits for a value and drives the client's I/O meanwhile.  Where the generator has
    raised an error it is raised here, behind the values that came before.  What the generator
    returns is the `value` of the StopIteration that ends it, and the result of `future`.  Leaving
    the loop early, `close`, or the end of a `with` block close the generator on its executor.
    Several threads may read one stream: each value goes to one of them.
    """

    def __init__(self, future: Future) -> None:
        self._future = future
        self._session = future._session
        self._inflow = future._inflow = Inflow()
        self._reading = threading.Lock()
        self._over = False

    @property
    def future(self) -> Future:
        """The task's Future: its id, its state, what it publishes, and in the end what it has returned."""
        return self._future

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        inflow, future = self._inflow, self._future
        with self._reading:
            while True:
                ended = future.done()  # first: all values have come before
                try:
                    payload = inflow.take()
                except IndexError:
                    if ended or inflow.closed:
                        self._end()
                    self._session._wait(lambda: bool(inflow.buffer) or future.done() or inflow.closed, None)
                    continue
                if inflow.owes() and not ended:
                    self._tell_taken()
                return load_value(payload)

    def _end(self) -> None:
        """Raise what ends the loop: the task's error, but only once."""
        if self._over:
            raise StopIteration
        self._over = True
        if self._inflow.closed:  # not by the reader
            raise CancelledError(f"session {self._session.id} was closed, and its streams with it")
        raise StopIteration(self._future.result())

    def _tell_taken(self) -> None:
        inflow = self._inflow
        taken, attempt = inflow.taken, inflow.attempt
        pull = m.Pull(self._session._calls.alias, self._future._index, attempt, taken)
        try:
            self._session._client._tell(pull)
        except FlameError:
            return  # the router is gone; that is said when what came has been read
        inflow.told, inflow.untold_bytes = taken, 0

    def close(self) -> None:
        """Close the generator, and wait until it has cleaned up, for a second at most.  Idempotent.

        GeneratorExit is raised at its `yield`: when it comes to the next one, if it computes now.  What
        has come and was not read is dropped.  If the task has not begun it never will.
        """
        self._over = True
        if not self._inflow.closed:
            stop(self._future)
            if not self._session._client._errands.is_here():
                self._session._drive(self._future.done, monotonic() + CLOSE_SECONDS)

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        inflow: Inflow | None = getattr(self, "_inflow", None)
        if inflow is not None and not inflow.closed and not self._future.done():
            client = self._session._client
            if not client._closed:
                client._errands.add(stop, self._future)  # without a lock: the garbage collector is everywhere

    def __repr__(self) -> str:
        return f"<flamezmq.Stream {self._future._name}: {self._inflow.taken} taken>"


def stop(future: Future) -> None:
    """Cancel the task, and close its generator if it has begun; does not wait."""
    inflow, session = future._inflow, future._session
    if inflow is None or inflow.closed:
        return
    inflow.closed = True
    inflow.buffer = deque()
    if inflow.on_news is not None:
        inflow.on_news()
    if future.done():
        return
    session._abandon([future])  # first: what it does not find has begun
    if not future.done():
        try:
            session._client._tell(m.Pull(session._calls.alias, future._index, 0, 0, True))
        except FlameError:
            pass  # the router is gone, and the task with it
