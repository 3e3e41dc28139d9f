"""The hub: what has ended goes to one event loop, by one wake-up for a batch.

There is one for each event loop that uses a client.  It is a *waiter* in the
sense of `concurrent.futures`: each light future that the loop waits for has it
in its `waiters` and tells it when it ends, on the thread that does the I/O.  The
first one that ends wakes the loop (`call_soon_threadsafe`); those that end
before the loop has looked go along.  So 10,000 results cost a few wake-ups.

A loop that is closed is told nothing more: what ends for it is dropped.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from flamezmq.client.future import DONE, Future, More

if TYPE_CHECKING:
    from flamezmq.aio.behind import ClientBehind

#: Futures that one turn of the loop may be given: unpickling and setting them takes a millisecond or two.
TURN_FUTURES = 512


class Target(Protocol):
    """Whom the hub tells, on the loop's thread."""

    def _on_end(self, future: Future) -> None:
        """The light future has ended."""


class Watched(More):
    """The `More` of a future that an event loop waits for; all those of one hub share its lock."""

    __slots__ = ("target",)

    target: Target | None

    def __init__(self, hub: Hub, target: Target) -> None:
        self.condition = hub.condition
        self.waiters = hub.waiters
        self.callbacks = []
        self.told = False
        self.target = target


class Hub:
    """Collects the futures that have ended, and gives them to the targets on the loop's thread.

    `watch` is called there, too; `add_*` and `finished_futures` are what futures know of a waiter.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.wake_ups = 0
        self.condition = threading.Condition()
        self.waiters: list[Any] = [self]
        self.finished_futures: dict[Future, None] = {}  # told, and not taken by the loop yet
        self.loop = loop
        self._woken = False  # it has been woken, and has not looked yet
        self._ready: deque[Future] = deque()  # taken by the loop

    def watch(self, future: Future, target: Target) -> None:
        """Tell `target`, in some later turn, that the future has ended; nobody else may have seen it yet."""
        more = future._more = Watched(self, target)
        if future._state in DONE:
            with self.condition:
                if not more.told:  # it had ended before it was watched
                    more.told = True
                    self.add_result(future)

    # --- on the thread that drives, under the lock

    def add_result(self, future: Future) -> None:
        """It has ended, in whatever way."""
        if self.loop.is_closed():
            return
        self.finished_futures[future] = None
        if self._woken:
            return
        try:
            self.loop.call_soon_threadsafe(self._look)
        except RuntimeError:  # it was closed just now
            self.finished_futures.clear()
        else:
            self._woken = True
            self.wake_ups += 1

    add_exception = add_cancelled = add_result

    # --- on the loop's thread

    def _look(self) -> None:
        with self.condition:
            self._woken = False
            ended, self.finished_futures = self.finished_futures, {}
        self._ready.extend(ended)
        self._pass_on()

    def _pass_on(self) -> None:
        ready = self._ready
        try:
            for _ in range(min(len(ready), TURN_FUTURES)):
                future = ready.popleft()
                more = future._more
                assert type(more) is Watched
                target, more.target = more.target, None  # or the two would hold each other
                if target is not None:  # else it was told twice: an interrupt came in between
                    target._on_end(future)
        finally:
            if ready:
                self.loop.call_soon(self._pass_on)


class Answer(asyncio.Future):  # type: ignore[type-arg]
    """The result of one task, now or later: an `asyncio.Future`, made by `submit` of `flm.aio`.

    To be awaited in the event loop in which it was made, as often as you like.  Cancelling it, or
    the asyncio task that awaits it, cancels the task; if that runs, `flm.TaskCancelled` is raised in
    it, as CancelledError would be in a task of asyncio's.  A task's own exception comes with its
    remote traceback as `__cause__`.
    """

    __slots__ = ("_light",)

    _light: Future

    def cancel(self, msg: Any = None) -> bool:
        """Give the task up; False if it has ended.

        Args:
            msg: what the CancelledError is to say.

        Does not wait: what has not begun by the time the router hears of it never will; a task that
        runs is interrupted, and killed with its executor if it goes on for another second.
        """
        if not super().cancel(msg):
            return False
        light = self._light
        client: ClientBehind = light._session._client  # type: ignore[assignment]
        client.cancel_soon((light,))
        return True

    @property
    def task_id(self) -> str:
        """`<session id>/<index>`, as of `flm.Future`; the index is -1 while the task has not been sent."""
        return self._light.task_id

    def running(self) -> bool:
        """Whether the task is known to have begun (short tasks are not announced)."""
        return self._light.running()

    def on_publish(self, fn: Callable[[Any], object]) -> None:
        """Have the event loop call `fn(value)` for each value that the task publishes.

        As `flm.Future.on_publish`; if `fn` is slower than the task, values wait in the loop.
        """
        self._light.on_publish(partial(in_loop, self.get_loop(), fn))

    def published(self) -> AsyncIterator[Any]:
        """Iterate over what the task publishes (`flm.current().publish`), until the task has ended.

        As `flm.Future.published`: a slow reader misses older values.  The task's error is not raised here.
        """
        from flamezmq.aio.stream import read

        return read(self)

    @property
    def last_published(self) -> Any:
        """The newest value that the task has published, as far as it has come; None if there is none."""
        return self._light.last_published

    def _on_end(self, light: Future) -> None:
        if self.done():
            return
        error = light._settle()
        if light.cancelled():
            super().cancel(*(error.args if error is not None else ()))  # who has cancelled it, if not we
            return
        if error is None:
            self.set_result(light._value)
        elif isinstance(error, StopIteration):  # a future can't raise it: `await` would take it for a return
            wrapped = RuntimeError("the task raised StopIteration")
            wrapped.__cause__ = error
            self.set_exception(wrapped)
        else:
            self._fail(light, error)

    def _fail(self, light: Future, error: BaseException | None) -> None:
        """Unless it is that the value is lost, and it can be made again."""
        if light._recipe is not None and error is not None:
            later = partial(in_loop, self.get_loop(), self._on_made_again, light)
            error = light._session._client._lineage.made_later(light, error, later)
        if error is not None:
            self.set_exception(error)

    def _on_made_again(self, light: Future) -> None:
        if self.done():
            return
        error = light._session._client._lineage.adopt(light)
        if error is None:
            self.set_result(light._value)
        else:
            self._fail(light, error)


def in_loop(loop: asyncio.AbstractEventLoop, fn: Callable[[Any], object], value: Any) -> None:
    """Have the loop call it, if it runs still; from another thread."""
    try:
        loop.call_soon_threadsafe(fn, value)
    except RuntimeError:
        pass  # the loop is closed, and nobody listens


def answer_of(behind: ClientBehind, submit: Callable[[], Future]) -> Answer:
    """Submit something, and have the loop that runs here told of its end.

    Raises:
        RuntimeError: none runs in this thread; nothing was submitted.
    """
    hub = behind.hub()
    light = submit()
    answer = Answer(loop=hub.loop)
    answer._light = light
    hub.watch(light, answer)
    return answer
