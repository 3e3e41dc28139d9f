"""What a task gives before its result: the values of a stream, and what it publishes.

A *stream* is a task whose function is a generator.  It is advanced in the main
thread, as far as its credit goes.  That is time, here too: it may be ahead of its
reader by `AHEAD_SECONDS` of its own work (`m.Pull` tells what the reader has
taken).  When that is used up the main thread waits
and the attendant serves the line, as for any long task; after a while the router
is told, so that a spare executor can take this one's place.

What is *published* is never waited for: of each task the newest `KEPT_VALUES` are
kept until the next message leaves, older ones are lost.

Values leave in batches, but the first one of a batch waits for a few milliseconds
at most: the main thread sends when it is at it, the attendant does when the main
thread is busy for longer.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic
from types import GeneratorType
from typing import Any, ClassVar, Protocol

from flamezmq import page
from flamezmq.net.line import Line
from flamezmq.optioned import Configured, Optioned, Options
from flamezmq.serialize.values import dump_value
from flamezmq.shims.interrupts import unbroken
from flamezmq.wire import messages as m
from flamezmq.wire.codec import join_payloads
from flamezmq.wire.streams import PUBLISHED, REPLAYED, STREAMED

#: A stream is ahead of its reader by so much of its work, and by these numbers of values at least and at
#: most; and by so many bytes, and the rest of the value that passes them.
AHEAD_SECONDS = 0.05
LEAST_VALUES, MOST_VALUES = 4, 1024
WINDOW_BYTES = 4 << 20
#: Weight of a new value in the average time that one takes.
EWMA_NEW = 0.1
#: A batch of a stream leaves when it is a quarter of what may be ahead, has so many bytes, or so long after
#: the one before.
BATCH_BYTES = 1 << 16
BATCH_SECONDS = 0.002
#: While a task streams the attendant looks so often whether something waits to be sent.
TICK_SECONDS = 0.003
#: At other times, how often it looks whether the same task still runs.
ATTEND_SECONDS = 0.02
#: A wait for the reader that lasts longer is told to the router.
PAUSE_SECONDS = 0.05
#: What is published leaves at most so often, unless a result leaves anyhow.
PUBLISH_SECONDS = 0.01
#: Of what a task has published, so many values or bytes are kept at a time, but always the newest value.
KEPT_VALUES = 64
KEPT_BYTES = 1 << 20
#: And of so many tasks that have ended since a message left.
MOST_TASKS = 64
#: So many tasks whose streams were stopped before they began are remembered.
MOST_STOPPED = 1000

Key = tuple[int, int, int]  # session, index, attempt


def weight(payload: Any) -> int:
    """Bytes of a payload with all its buffers."""
    return sum(map(len, payload)) if type(payload) is list else len(payload)


class Streamed(Configured):
    """A generator function as `Session.stream` submits it; its options are those of the task."""

    def __init__(self, fn: Callable[..., Any], replay: bool) -> None:
        self.fn, self.replay = fn, replay

    def label(self, inner: str) -> str:
        return f"stream({inner})"

    def terms(self) -> m.Options | None:
        return self.fn.terms() if isinstance(self.fn, Configured) else None

    def under(self, defaults: Options) -> Streamed:
        fn = self.fn.under(defaults) if isinstance(self.fn, Optioned) else defaults(self.fn)
        return Streamed(fn, self.replay)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        fn = self.fn.innermost if isinstance(self.fn, Optioned) else self.fn
        values = fn(*args, **kwargs)
        try:
            iterator = iter(values)
        except TypeError:
            name = getattr(fn, "__qualname__", repr(fn))
            if isinstance(self.fn, Optioned):
                name = self.fn.label(name)  # of a service: its application
            raise TypeError(
                "a stream needs a generator function, or one whose value can be iterated over, as an "
                f"on_task_invoke that yields; {self.label(name)} gave {type(values).__qualname__}"
            ) from None
        assert Outlet.of_process is not None
        return Outlet.of_process.stream(iterator, self.replay)


class Outgoing:
    """A stream, as its executor sees it.

    values   produced and not yet in a message
    sent     how many are in messages
    taken    how many the reader has taken, as far as is known
    sizes    bytes of each of those that it has not, and `bytes` their sum
    unsent   bytes of `values`
    window   so many values it may be ahead of the reader
    """

    __slots__ = (
        "_seconds",
        "bytes",
        "key",
        "over",
        "produced",
        "replay",
        "sent",
        "sizes",
        "stopped",
        "taken",
        "unsent",
        "values",
        "window",
    )

    def __init__(self, key: Key, replay: bool) -> None:
        self.key, self.replay = key, replay
        self.values: list[Any] = []
        self.produced = self.sent = self.taken = self.bytes = self.unsent = 0
        self.window = 4 * LEAST_VALUES  # until it is known how long one takes
        self._seconds = AHEAD_SECONDS / self.window
        self.sizes: deque[int] = deque()
        self.stopped = self.over = False

    def may_go_on(self) -> bool:
        """Whether it has credit for another value."""
        while self.sizes and self.produced - len(self.sizes) < self.taken:
            self.bytes -= self.sizes.popleft()
        return len(self.sizes) < self.window and self.bytes < WINDOW_BYTES

    def append(self, payload: Any, seconds: float) -> None:
        """Another one, which has taken so long."""
        size = weight(payload)
        self.sizes.append(size)
        self.bytes += size
        self.unsent += size
        self.produced += 1
        self.values.append(payload)
        self._seconds += EWMA_NEW * (seconds - self._seconds)

    def learn(self) -> None:
        """How far it may be ahead, at the time that values have taken of late."""
        fitting = int(AHEAD_SECONDS / max(self._seconds, 1e-7))
        self.window = min(max(fitting, LEAST_VALUES), MOST_VALUES)


class Published:
    """What a task has published and no message has yet."""

    __slots__ = ("bytes", "number", "values")

    def __init__(self) -> None:
        self.values: deque[Any] = deque()
        self.number = self.bytes = 0  # of all that it has published; of those that are kept

    def append(self, payload: Any) -> None:
        self.values.append(payload)
        self.number += 1
        self.bytes += weight(payload)
        while len(self.values) > KEPT_VALUES or (self.bytes > KEPT_BYTES and len(self.values) > 1):
            self.bytes -= weight(self.values.popleft())


class Attending(Protocol):
    """The executor's attendant, as its main thread sees it: it serves the line while `attending`.

    claims  the main thread is about to take the line
    """

    attending: bool
    claims: bool

    def claim(self) -> threading.Lock:
        """The line's lock, for the main thread."""

    def rouse(self) -> None:
        """Have it look now."""


class Host(Protocol):
    """The executor, as far as it concerns an outlet."""

    session: int
    words: memoryview
    line: Line

    @property
    def attendant(self) -> Attending:
        """Its second thread."""

    def running(self) -> tuple[str, int, int] | None:
        """Session id, index and attempt of the task that runs now."""

    def pause(self, waits: bool, reader: bool = False) -> None:
        """Tell the router that the task waits (for its reader), or goes on."""

    def _flush(self) -> None:
        """Send what there is, and take in what came."""


class Outlet:
    """All that leaves an executor before the results of its tasks.

    moves         rises whenever the main thread has something for the line, or the line for it
    wants         the main thread waits: the attendant shall serve the line at once
    tick_seconds  how often the attendant is to look
    """

    of_process: ClassVar[Outlet | None] = None

    def __init__(self, executor: Host) -> None:
        self.executor = executor
        self.moves = 0
        self.wants = False
        self.tick_seconds = ATTEND_SECONDS
        self.streams: list[Outgoing] = []  # that have something to send, or run
        self.published: dict[Key, Published] = {}  # of the task that runs, and what is not sent
        self._running: Outgoing | None = None
        self._last: Outgoing | None = None
        self._stopped: dict[tuple[int, int], None] = {}  # (session, index), before it began
        self._news = threading.Lock()
        self._news.acquire()
        self._lock = threading.Lock()  # of `published`: any thread of a task may publish
        self._sent_at = 0.0  # when something has left
        self._published_at = 0.0

    # --- streams: the main thread

    def stream(self, values: Iterator[Any], replay: bool) -> Any:
        """Send the values as far as the credit goes; what the generator has returned is the task's value."""
        stream = self._begin(replay)
        try:
            while stream.may_go_on() or self._wait_for_credit(stream):
                if stream.stopped:
                    break
                began = monotonic()
                try:
                    value = next(values)
                except StopIteration as end:
                    return end.value
                try:
                    payload = dump_value(value, "a value of the stream")
                finally:
                    value = None  # the user's memory is the user's
                self._send(stream, payload, began)
            return None
        finally:
            if isinstance(values, GeneratorType):
                values.close()
            stream.over = True
            self._running = None
            self.tick_seconds = ATTEND_SECONDS

    def _begin(self, replay: bool) -> Outgoing:
        key = self._key()
        stream = Outgoing(key, replay)
        stream.stopped = key[:2] in self._stopped
        self._stopped.clear()  # those that have not begun are given back
        self.streams.append(stream)
        self._running = self._last = stream
        self.tick_seconds = TICK_SECONDS
        self._sent_at = 0.0  # the first value leaves at once
        self.executor.attendant.rouse()
        return stream

    def _wait_for_credit(self, stream: Outgoing) -> bool:
        """Wait until the reader has taken some, or wants no more."""
        self._flush()
        if not (stream.may_go_on() or stream.stopped):
            self._wait(stream)
        return True

    def _wait(self, stream: Outgoing) -> None:
        paused = False
        pause_at = monotonic() + PAUSE_SECONDS
        try:
            while not (stream.may_go_on() or stream.stopped):
                self.wants = True
                self.executor.attendant.rouse()
                self._news.acquire(timeout=1.0 if paused else PAUSE_SECONDS)
                if not paused and monotonic() >= pause_at and not stream.may_go_on():
                    paused = True
                    self._pause(True)
        finally:
            self.wants = False
            if paused:
                self._pause(False)

    @unbroken
    def _pause(self, waits: bool) -> None:
        self.moves += 1
        self.executor.pause(waits, reader=True)

    def _send(self, stream: Outgoing, payload: Any, began: float) -> None:
        now = monotonic()
        stream.append(payload, now - began)
        self.moves += 1
        if (
            now - self._sent_at >= BATCH_SECONDS
            or len(stream.values) >= stream.window >> 2
            or stream.unsent >= BATCH_BYTES
            or self.executor.attendant.attending
        ):
            self._flush()

    @unbroken
    def _flush(self) -> None:
        """Send what there is and take in what came; nothing interrupts the task meanwhile."""
        self.moves += 1
        self.executor._flush()
        self._sent_at = monotonic()

    def _key(self) -> Key:
        task = self.executor.running()
        assert task is not None
        return self.executor.session, task[1], task[2]

    def may_run_again(self, index: int, attempt: int) -> bool:
        """A stream has failed: whether its reader would not notice that it ran before.

        If so, what it has not sent yet is dropped.  Of other tasks, True.
        """
        stream = self._last
        if stream is None or stream.key != (self.executor.session, index, attempt):
            return True
        attendant = self.executor.attendant
        with attendant.claim():
            attendant.claims = False
            if stream.sent and not stream.replay:
                return False
            stream.values.clear()
            return True

    # --- publishing: any thread of the task

    def publish(self, index: int, attempt: int, value: Any) -> None:
        """Note it for the next message; sends it at once if nothing was published just now."""
        key = self.executor.session, index, attempt
        payload = dump_value(value, "what is published")
        self._note(key, payload)
        self.moves += 1
        mine = threading.current_thread() is threading.main_thread()
        due = len(self.published) > MOST_TASKS or monotonic() - self._published_at >= PUBLISH_SECONDS
        if mine and due:
            self._flush()
        elif self.executor.attendant.attending:
            self.executor.line.wake()  # it comes back, and sends it when it looks again

    @unbroken
    def _note(self, key: Key, payload: Any) -> None:
        with self._lock:
            published = self.published.get(key)
            if published is None:
                published = self.published[key] = Published()
            published.append(payload)

    # --- both threads, under the line's lock

    def commit(self) -> None:
        """Move what there is into the link, ahead of the results of the same tasks."""
        for stream in self.streams:
            count = len(stream.values)
            if count:
                payloads = stream.values[:count]
                stream.learn()  # here alone: the reader has to know of it
                kind = REPLAYED if stream.replay else STREAMED
                self._enqueue(stream.key, kind, stream.sent, payloads, stream.window)
                stream.sent += count
                stream.unsent = 0  # what is added at this moment is not counted: a batch may be larger
                del stream.values[:count]
        self.streams = [stream for stream in self.streams if not stream.over]
        if self.published:
            self._commit_published()

    def _commit_published(self) -> None:
        now = self.executor.words[page.RUNNING] - 1  # the task that runs
        with self._lock:
            for key, published in list(self.published.items()):
                count = len(published.values)
                if count:
                    self._enqueue(key, PUBLISHED, published.number - count, list(published.values))
                    published.values.clear()
                    published.bytes = 0
                if key[1] != now:
                    del self.published[key]
        self._published_at = monotonic()

    def _enqueue(self, key: Key, kind: int, first: int, payloads: list[Any], window: int = 1) -> None:
        column, parts, frames = join_payloads(payloads)
        part = m.Part(*key, kind, first, len(payloads), window, parts, column)
        self.executor.line.enqueue(part, frames)

    def on_pull(self, message: m.Pull) -> None:
        """The reader has taken some, or wants no more."""
        stream = self._running
        if stream is None or stream.key[:2] != (message.session, message.index):
            if message.stop and len(self._stopped) < MOST_STOPPED:
                self._stopped[message.session, message.index] = None
            return
        if message.attempt not in (0, stream.key[2]):
            return
        stream.taken = max(stream.taken, message.taken)
        stream.stopped = stream.stopped or message.stop
        self.moves += 1
        if self._news.locked():
            self._news.release()
