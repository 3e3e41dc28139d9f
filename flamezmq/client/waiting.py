"""`wait` and `as_completed`: the standard library's contract, driving the I/O themselves.

No condition is made per future: the calling thread drives the client until
what it waits for has come.  Futures of other makers, and of several clients at
once, are handed to the standard library.
"""

from __future__ import annotations

import concurrent.futures as cf
from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import Any, NamedTuple

from flamezmq.client.future import FAILED, Future
from flamezmq.core.caller import FINISHED

FIRST_COMPLETED, FIRST_EXCEPTION, ALL_COMPLETED = cf.FIRST_COMPLETED, cf.FIRST_EXCEPTION, cf.ALL_COMPLETED


class DoneAndNotDone(NamedTuple):
    """What `wait` found: two sets of futures."""

    done: set[Any]
    not_done: set[Any]


def wait(fs: Iterable[Any], timeout: float | None = None, return_when: str = ALL_COMPLETED) -> DoneAndNotDone:
    """Wait for futures, as `concurrent.futures.wait` does; returns the sets (done, not_done).

    Args:
        fs: futures, of any maker; those of one client are waited for without a condition each.
        timeout: seconds; None waits as long as it takes.  No error when it is over: what is left
            stands in `not_done`.
        return_when: "ALL_COMPLETED", "FIRST_COMPLETED" or "FIRST_EXCEPTION", the constants of
            `concurrent.futures`.

    Raises:
        ValueError: `return_when` is none of these.
        RouterLost: the router is gone; the futures have failed with the same error.

    The calling thread drives the client's I/O.  For "all" the cost is one look per future; a
    look at thousands of futures for each one that ends (`ray.wait` in a loop) is what
    `as_completed` avoids.
    """
    futures = list(dict.fromkeys(fs))
    if return_when not in (ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION):
        raise ValueError(f"Invalid return condition: {return_when!r}")
    client = _common_client(futures)
    if client is None:
        done, not_done = cf.wait(futures, timeout, return_when)
        return DoneAndNotDone(done, not_done)
    deadline = None if timeout is None else monotonic() + timeout
    if return_when == ALL_COMPLETED:
        for future in futures:
            if not future.done() and not client._wait(future.done, deadline):
                break
    else:
        watch = _Watch(futures)
        enough = watch.any_done if return_when == FIRST_COMPLETED else watch.any_failed
        client._wait(enough, deadline)
    done = {future for future in futures if future.done()}
    return DoneAndNotDone(done, set(futures) - done)


def as_completed(fs: Iterable[Any], timeout: float | None = None) -> Iterator[Any]:
    """Yield futures as they end, as `concurrent.futures.as_completed` does; first those that have ended.

    Args:
        fs: futures, of any maker; a future that is given twice comes once.
        timeout: seconds from the first `next()` until the last future.

    Raises:
        TimeoutError: the time is over, and says how many have not ended.

    The calling thread drives the client's I/O; the cost per future is about that of a `result()`.
    """
    return ticking(fs, timeout, None)


Tick = tuple[float, Callable[[], None]]  # seconds, and what is called whenever so many pass


def ticking(fs: Iterable[Any], timeout: float | None, tick: Tick | None) -> Iterator[Any]:
    """`as_completed` with a clock: it ticks while we wait, for futures of one client only."""
    futures = list(dict.fromkeys(fs))
    client = _common_client(futures)
    if client is None:
        return cf.as_completed(futures, timeout)
    return _as_completed(client, futures, timeout, tick)


def _as_completed(
    client: Any, futures: list[Future], timeout: float | None, tick: Tick | None
) -> Iterator[Future]:
    deadline = None if timeout is None else monotonic() + timeout
    total = len(futures)
    watch = _Watch(futures)
    while watch.left:
        ended = watch.take()
        if not ended:
            if not wait_until(client, watch.any_done, deadline, tick):
                raise cf.TimeoutError(f"{len(watch.left)} (of {total}) futures unfinished")
            continue
        yield from ended


def wait_until(owner: Any, done: Callable[[], bool], deadline: float | None, tick: Tick | None) -> bool:
    """Wait, as a client or a session does, until `done()`; False when the deadline passes first."""
    if tick is None:
        return bool(owner._wait(done, deadline))
    seconds, call = tick
    while True:
        next_tick = monotonic() + seconds
        if deadline is not None and deadline <= next_tick:
            return bool(owner._wait(done, deadline))
        if owner._wait(done, next_tick):
            return True
        call()


class _Watch:
    """Which futures of a crowd have ended?

    Tasks end nearly in the order of submission, so it looks at a window at the
    front, and at everything only when the window is quiet.
    """

    WINDOW = 64

    def __init__(self, futures: list[Future]) -> None:
        self.left = dict.fromkeys(futures)
        self._futures = futures
        self._first = 0  # those before it have ended, and did not fail
        self._calls = list(dict.fromkeys(future._session._calls for future in futures))
        self._faults = -1  # of all these sessions, when we looked last

    def any_done(self) -> bool:
        return any(future.done() for future in self.left)

    def any_failed(self) -> bool:
        """One has failed, or all have ended.  Looks at all of them only when a task has failed somewhere."""
        faults = sum(calls.faults for calls in self._calls)
        if faults != self._faults:
            if any(f._state is FINISHED and f._form in FAILED for f in self._futures):
                return True
            self._faults = faults
        for position in range(self._first, len(self._futures)):
            future = self._futures[position]
            if not future.done():
                return False
            if not future.cancelled() and future.exception() is not None:
                return True  # it came, but can't be unpickled
            self._first = position + 1
        return True

    def take(self) -> list[Future]:
        ended: list[Future] = []
        quiet = 0
        for future in self.left:
            if future.done():
                ended.append(future)
                quiet = 0
            else:
                quiet += 1
                if quiet > self.WINDOW and ended:
                    break
        for future in ended:
            del self.left[future]
        return ended


def _common_client(futures: list[Any]) -> Any:
    """The one client of all these futures, or None."""
    client = None
    for future in futures:
        if type(future) is not Future:
            return None
        mine = future._session._client
        if client is not None and mine is not client:
            return None
        client = mine
    return client
