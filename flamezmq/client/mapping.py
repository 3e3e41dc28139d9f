"""map: slices out, results in, streamed.

The iterator pulls its inputs with a bounded look-ahead, cuts them into slices
of a few milliseconds at the run time that came back with earlier slices, and
never so large that executors would idle at the end of a sized input.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import chain, islice
from operator import length_hint
from time import monotonic
from typing import TYPE_CHECKING, Any

from flamezmq.client.progress import DRAW_SECONDS, Bar, is_watched
from flamezmq.client.published import check_callback
from flamezmq.client.waiting import wait_until
from flamezmq.errors import DependencyFailed, Unpicklable
from flamezmq.serialize.failures import load_error
from flamezmq.shims.slices import Slicer

if TYPE_CHECKING:
    from flamezmq.client.future import Future
    from flamezmq.client.session import Session

#: A slice is so much work.
SLICE_SECONDS = 0.005
#: From one slice to the next, sizes grow at most so fast.
GROWTH = 16
#: Slices on their way at a time; grows with the executors that are known.
AHEAD = 8
#: The largest slice.
MOST_ITEMS = 1 << 17


class Mapped:
    """The results of a `map`: an iterator that can be closed.

    `iter(mapped)` gives results from slice to slice in C, so a `for` loop, `list` and `sum` are
    faster than calls of `next(mapped)`.  Where an item has failed its error is raised; the
    results behind it are had by going on.
    """

    def __init__(
        self,
        session: Session,
        fn: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        ordered: bool,
        chunksize: int | None,
        timeout: float | None,
        progress: str | None = None,
    ) -> None:
        self._slices = Slices(session, fn, iterables, ordered, chunksize, timeout)
        self._slices.label = progress
        self._slices.fill()
        self._stream = self._slices.run()
        next(self._stream)  # so that it has begun: what was never begun has no end, and cancels nothing
        self._items = chain.from_iterable(self._stream)

    def __iter__(self) -> Iterator[Any]:
        return self._items  # runs in C, from slice to slice

    def __next__(self) -> Any:
        return next(self._items)

    def on_publish(self, fn: Callable[[Any], object]) -> None:
        """Call `fn(value)` for each value that an item publishes, as `Future.on_publish` does.

        The newest 64 of each slice are kept for it, should it be slow.
        """
        self._slices.on_publish(fn)

    def close(self) -> None:
        """Stop: what has not ended is cancelled, nothing more is pulled from the inputs.

        A slice that runs is interrupted, as by `Future.cancel(running=True)`, unless it ends within
        some hundredths of a second.
        """
        self._slices.cancel()
        self._stream.close()


class Slices:
    """The slices of one map: cut, sent, and opened when they have come.

    on_way: the futures of those that were sent, in the order of the inputs.
    """

    def __init__(
        self,
        session: Session,
        fn: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        ordered: bool,
        chunksize: int | None,
        timeout: float | None,
    ) -> None:
        self._session, self._ordered, self._chunksize = session, ordered, chunksize
        self._deadline = None if timeout is None else monotonic() + timeout
        spread = len(iterables) > 1
        self._slicer = Slicer(fn, spread)
        self._left = min(length_hint(it, 1 << 62) for it in iterables)
        self._total = self._left if self._left < 1 << 62 else None
        self._inputs: Iterator[Any] = zip(*iterables, strict=False) if spread else iter(iterables[0])
        self.on_way: deque[Future] = deque()
        self._sizes: dict[Future, int] = {}  # their items
        self._needy: dict[Future, list[Any]] = {}  # the items of those that hold futures
        self._dry = False
        self._size = 1
        self._seconds = -1.0  # per item
        self._workers = max(session._client._executors, 1)
        self.label: str | None = None  # of the bar that is drawn while results are taken
        self._listeners: list[Callable[[Any], object]] = []  # for what the items publish

    def fill(self) -> None:
        """Keep enough slices on their way."""
        ahead = AHEAD if self._chunksize is None else max(AHEAD, 64)
        ahead = max(ahead, 3 * self._workers)
        while not self._dry and len(self.on_way) < ahead:
            items = list(islice(self._inputs, self._next_size()))
            if not items:
                self._dry = True
                break
            self._left -= len(items)
            self._submit(items)

    def _submit(self, items: list[Any]) -> None:
        """Send a slice; what can't travel spoils no other item, so it is looked for by halves."""
        future = self._session._submit(self._slicer, items)
        if (
            len(items) > 1
            and future.done()
            and isinstance(future.exception(), Unpicklable | DependencyFailed)
        ):
            self._submit_halves(items)
            return
        if future.needy:
            self._needy[future] = items
        self._sent(future, len(items))

    def _submit_halves(self, items: list[Any]) -> None:
        self._submit(items[: len(items) // 2])
        self._submit(items[len(items) // 2 :])

    def _sent(self, future: Future, count: int) -> None:
        self.on_way.append(future)
        self._sizes[future] = count
        for fn in self._listeners:
            future.on_publish(fn)

    def on_publish(self, fn: Callable[[Any], object]) -> None:
        """Call it for what is published by those that are on their way, and by those that follow."""
        check_callback(fn)
        self._listeners.append(fn)
        for future in list(self.on_way):
            future.on_publish(fn)

    def _next_size(self) -> int:
        if self._chunksize is not None:
            return self._chunksize
        if self._seconds < 0:
            return 1
        fair = max(self._left // (2 * self._workers), 1)  # the end is for all executors
        return max(1, min(self._size, fair, MOST_ITEMS))

    def _learn(self, seconds: float, count: int) -> None:
        per_item = max(seconds / count, 2e-8)
        self._seconds = per_item if self._seconds < 0 else 0.5 * (self._seconds + per_item)
        self._size = max(1, min(int(SLICE_SECONDS / self._seconds), self._size * GROWTH))

    def run(self) -> Generator[Iterable[Any], None, None]:
        """One iterable of results after the other."""
        bar, tick = None, None
        try:
            yield ()
            if self.label is not None and is_watched():
                bar = Bar(self.label, self._total)
                tick = (DRAW_SECONDS, bar.tick)
            while waiting := self.on_way:
                done = waiting[0].done if self._ordered else (lambda: any(f.done() for f in self.on_way))
                if not wait_until(self._session, done, self._deadline, tick):
                    raise TimeoutError("the map was not done in time")
                future = self.ready()
                if future is not None:
                    results = self.open(future)
                    if bar is not None:
                        bar.advance(length_hint(results), getattr(results, "failed", 0))
                    yield results
        finally:
            if bar is not None:
                bar.close()
            self._let_go()

    def ready(self) -> Future | None:
        """Take the next slice that is done, the oldest or any; None if it is not done yet."""
        for future in self.on_way:
            if future.done():
                self.on_way.remove(future)
                return future
            if self._ordered:
                break
        return None

    def open(self, future: Future) -> Iterable[Any]:
        """The results in a slice that is done; another one is sent in its place."""
        size = self._sizes.pop(future)
        items = self._needy.pop(future, None)
        try:
            result = future.result()
        except DependencyFailed as error:
            if items is None or size == 1:
                return _Faulty([None] * size, dict.fromkeys(range(size), error))
            return self._again(items)
        except Exception as error:  # the slice as a whole is lost: so is each of its items
            self.fill()
            return _Faulty([None] * size, dict.fromkeys(range(size), error))
        self._learn(result.seconds, max(len(result.values), 1))
        self.fill()
        return _Faulty(result.values, result.errors) if result.errors else result.values

    def _again(self, items: list[Any]) -> Iterable[Any]:
        """Send the halves of a slice in its place; it has no results of its own."""
        before = len(self.on_way)
        self._submit_halves(items)
        self.on_way.rotate(len(self.on_way) - before)
        return ()

    def _let_go(self) -> None:
        """Cancel what is left, without a lock: the garbage collector may end us, wherever it runs."""
        client = self._session._client
        if self.on_way and not client._closed:
            client._errands.add(self.cancel)

    def cancel(self) -> None:
        """Send nothing more, and cancel what is on its way."""
        self._session._abandon(self.drop(), running=True)

    def drop(self) -> deque[Future]:
        """Send nothing more; returns the futures that are on their way, which are nobody's now."""
        self._dry = True
        on_way, self.on_way = self.on_way, deque()
        return on_way


class _Faulty:
    """Results of a slice with errors in it: raises each in its place, and goes on when asked again."""

    def __init__(self, values: list[Any], errors: dict[int, Any]) -> None:
        self._values, self._errors, self._position = values, errors, 0
        self.failed = len(errors)

    def __length_hint__(self) -> int:
        return len(self._values) - self._position

    def __iter__(self) -> _Faulty:
        return self

    def __next__(self) -> Any:
        position = self._position
        if position >= len(self._values):
            raise StopIteration
        self._position = position + 1
        error = self._errors.get(position)
        if error is None:
            return self._values[position]
        raise error if isinstance(error, BaseException) else load_error(error)
