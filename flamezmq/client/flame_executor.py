"""FlameExecutor: the contract of `concurrent.futures.Executor` over a session of its own.

`submit` is that of the session, with the standard's words for what it refuses.
Who ends an executor, and when: `shutdown`, the garbage collector, or the end of
the interpreter rings the bell of its closer, a thread that then waits for the
tasks and closes session and client.  The thread is there from the beginning,
because neither a finalizer nor an interpreter that ends may start one.

It stands among the parts of the client, not among the adapters: it needs the
session's own count of tasks, which no user sees.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from itertools import islice
from time import monotonic
from typing import Any

from flamezmq import capacity, config
from flamezmq.client import surroundings
from flamezmq.client.api import Client
from flamezmq.client.broken import BrokenSession
from flamezmq.client.errands import start
from flamezmq.client.future import Future
from flamezmq.client.session import Session
from flamezmq.errors import FlameError
from flamezmq.serialize.failures import load_error
from flamezmq.shims.slices import Slicer


class FlameExecutor(Executor):
    """A `concurrent.futures.Executor` whose tasks run on a cluster.

    Args:
        max_workers: executors that work for it at a time; None means the usable cores (by
            affinity and cgroup), or, with an address, as many as the cluster gives it.
        address: "tcp://host:port" or "ipc://path" of a router; None takes $FLAMEZMQ_ADDRESS, or the
            one in the file of settings, and without these starts an embedded cluster of its own,
            which ends with it; "" always starts one.
        initializer: called as `initializer(*initargs)` once in each executor process before its
            first task.  If it raises, the executor is broken: pending futures and later submits
            fail with BrokenSession, a `concurrent.futures.BrokenExecutor`.
        initargs: pickled here and now.
        max_tasks_per_child: after so many tasks an executor process is replaced by a fresh one.

    Raises:
        StartFailed, RouterLost, Refused: there is no cluster; see `Client`.
        ValueError, TypeError: an argument is none that it can be.
        Unpicklable: the initializer, or what it is to be called with.

    What differs from ProcessPoolExecutor: any callable will do (lambdas, closures, functions of a
    notebook); a process that dies costs its task alone, which is started again up to three times
    and then fails with TaskLost; the results' order and everything else is the same.  What tasks
    print appears as if this process had printed it.

    Usable by many threads at a time, not across a fork.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        address: str | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        max_tasks_per_child: int | None = None,
    ) -> None:
        _check_arguments(max_workers, initializer, max_tasks_per_child)
        address = config.settings("client", {"address": address})["address"] or None
        if max_workers is None and address is None:
            max_workers = max(1, int(capacity.usable_cores()))
        self._max_workers = max_workers  # people look at it in the standard's executors
        self._lock = threading.RLock()  # a finalizer or a signal handler may come in between
        self._shut = False
        client = Client(address) if address else Client("", executors=max_workers)
        client._show = surroundings.show_plainly
        try:
            self._session = client.session(
                "executor",
                max_executors=max_workers if address else None,
                initializer=initializer,
                initargs=initargs,
                max_tasks_per_child=max_tasks_per_child,
            )
        except BaseException:
            client.close()
            raise
        self._closer = _Closer(client, self._session)
        weakref.finalize(self, self._closer.ring).atexit = False  # the exit has a hook of its own, below

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Run `fn(*args, **kwargs)` on an executor; returns its Future at once.

        As `Session.submit`, which says when it blocks and what can't be pickled.

        Raises:
            RuntimeError: it was shut down, or the interpreter ends.
            BrokenSession: the initializer has failed.
            RouterLost: there is nobody to run it.
        """
        with self._lock:
            if self._shut or _closers.interpreter_ends:
                self._refuse()
            return self._session.submit(fn, *args, **kwargs)

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """`fn(*items)` for the items of the `iterables`, in parallel; returns an iterator of results.

        The contract of `concurrent.futures.Executor.map`: the inputs are taken and submitted at
        once, results come in the order of the inputs, and the first error ends it and cancels the
        rest.  `Client.map` streams its inputs, sizes its slices by itself, and goes on after errors.

        Args:
            timeout: seconds from now until the last result; then it raises TimeoutError.
            chunksize: items that travel and run together, as one task; from 1.
            buffersize: chunks whose results nobody has taken yet; more inputs are taken only as
                results are (as in Python 3.14).  None means no limit.
        """
        _check_map(chunksize, buffersize)
        end = None if timeout is None else monotonic() + timeout
        items = zip(*iterables, strict=False)
        if chunksize == 1:
            inputs: Iterator[tuple[Any, ...]] = items
        else:
            fn = Slicer(fn, spread=True)
            inputs = iter(lambda: (list(islice(items, chunksize)),), ([],))
        futures = deque(self.submit(fn, *args) for args in islice(inputs, buffersize))
        more = None if buffersize is None else (weakref.ref(self), fn, inputs)
        results = _results(self._session, futures, end, more)
        return results if chunksize == 1 else _unpacked(results)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept nothing more, and free all that it has when the pending tasks are done.  Idempotent.

        Args:
            wait: until that is so; False returns at once.  The interpreter's end waits for it in
                any case.
            cancel_futures: cancel what has not begun.  As in the standard's executors, which count as
                begun what a process was given, as many of the oldest as there are executors for go on.

        Raises:
            FlameError: this is a signal handler, and what it has interrupted is doing I/O for the
                same executor; use `wait=False` there.
        """
        with self._lock:
            self._shut = True
        if cancel_futures:
            self._session._cancel_pending(keep=self._max_workers or 1)
        self._closer.ring()
        if wait:
            if self._session._client._pump.is_interrupted():
                raise FlameError("a signal handler can't wait for an executor that it has interrupted")
            self._closer.thread.join()

    # --- how

    @property
    def _broken(self) -> str | bool:
        """As in the standard's executors: why it is broken, as soon as that was logged."""
        error = self._session._calls.broken
        return str(error) if isinstance(error, BrokenSession) and error.logged else False

    def _refuse(self) -> None:
        if self._session._calls.broken is not None:
            raise self._session._calls.broken
        when = "shutdown" if self._shut else "interpreter shutdown"
        raise RuntimeError(f"cannot schedule new futures after {when}")

    def __repr__(self) -> str:
        return f"<flamezmq.FlameExecutor {self._session.id}{' shut down' if self._shut else ''}>"


class _Closer:
    """The thread that ends an executor; it holds no reference to it."""

    def __init__(self, client: Client, session: Session) -> None:
        self._client, self._session = client, session
        self.cancels = False  # what is pending, instead of waiting for it
        self._bell = threading.Lock()
        self._bell.acquire()
        self.thread = threading.Thread(target=self._run, name="flm-closer", daemon=True)
        try:
            start(self.thread)
        except BaseException:
            client.close()
            self.ring()
            raise
        _closers.add(self)

    def ring(self) -> None:
        """It is time; from any thread, at any moment, more than once."""
        try:
            self._bell.release()
        except RuntimeError:
            pass  # it rings already

    def _run(self) -> None:
        self._bell.acquire()
        try:
            self._session.close(cancel=self.cancels)
        except FlameError:
            pass  # the router is lost; the futures say so
        finally:
            self._client.close()
            _closers.remove(self)


class _Closers:
    """All of this process, for the end of the interpreter, which waits for what is pending."""

    def __init__(self) -> None:
        self.interpreter_ends = False
        self._all: dict[_Closer, None] = {}
        try:
            # At the beginning of the end, while threads run: as concurrent.futures does it.
            threading._register_atexit(self._wait)  # type: ignore[attr-defined]
        except (AttributeError, RuntimeError):  # another Python; or the end has begun
            atexit.register(self._wait)
        os.register_at_fork(after_in_child=self._all.clear)

    def add(self, closer: _Closer) -> None:
        self._all[closer] = None

    def remove(self, closer: _Closer) -> None:
        self._all.pop(closer, None)

    def _wait(self) -> None:
        self.interpreter_ends = True
        closers = list(self._all)
        for closer in closers:
            closer.cancels = _was_interrupted()
            closer.ring()
        for closer in closers:
            closer.thread.join()


def _was_interrupted() -> bool:
    """Whether Ctrl-C has ended the program: in the standard's pools it ends the processes, too.

    In a shell for people the last error may be an old one, of a line that was given up.
    """
    if hasattr(sys, "ps1") or sys.flags.interactive:
        return False
    return getattr(sys, "last_type", None) is KeyboardInterrupt


_closers = _Closers()


def _results(
    session: Session,
    futures: deque[Future],
    end: float | None,
    more: tuple[weakref.ref[FlameExecutor], Callable[..., Any], Iterator[tuple[Any, ...]]] | None,
) -> Iterator[Any]:
    """The results in their order, each let go as it is taken; `more`: what is submitted meanwhile."""
    try:
        while futures:
            if more is not None:
                _submit_next(futures, *more)
            yield _take_first(futures, end)
    finally:
        if futures:  # as an errand: the garbage collector may end us, wherever it runs
            session._client._errands.add(session._abandon, list(futures))


def _submit_next(
    futures: deque[Future],
    executor: weakref.ref[FlameExecutor],
    fn: Callable[..., Any],
    inputs: Iterator[tuple[Any, ...]],
) -> None:
    alive = executor()
    args = next(inputs, None) if alive is not None else None
    if alive is not None and args is not None:
        futures.append(alive.submit(fn, *args))


def _take_first(futures: deque[Future], end: float | None) -> Any:
    """The first one's result; until then it is one of those that are cancelled if the time is over."""
    value = futures[0].result(None if end is None else end - monotonic())
    futures.popleft()
    return value


def _unpacked(results: Iterator[Any]) -> Iterator[Any]:
    """The items of chunks, up to the first error."""
    for result in results:
        values = result.values
        values.reverse()
        position = 0
        while values:
            error = result.errors.get(position)
            if error is not None:
                raise load_error(error)
            position += 1
            yield values.pop()


def _check_arguments(max_workers: Any, initializer: Any, max_tasks_per_child: Any) -> None:
    """In the standard's words."""
    if max_workers is not None:
        if not isinstance(max_workers, int) or max_workers is True:
            raise TypeError("max_workers must be an integer")
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
    if initializer is not None and not callable(initializer):
        raise TypeError("initializer must be a callable")
    if max_tasks_per_child is not None:
        if not isinstance(max_tasks_per_child, int):
            raise TypeError("max_tasks_per_child must be an integer")
        if max_tasks_per_child <= 0:
            raise ValueError("max_tasks_per_child must be >= 1")


def _check_map(chunksize: Any, buffersize: Any) -> None:
    if not hasattr(chunksize, "__index__"):
        raise TypeError(f"chunksize is {chunksize!r}; it must be an integer from 1")
    if chunksize < 1:
        raise ValueError("chunksize must be >= 1.")
    if buffersize is not None and not isinstance(buffersize, int):
        raise TypeError("buffersize must be an integer or None")
    if buffersize is not None and buffersize < 1:
        raise ValueError("buffersize must be None or > 0")
