"""The light Future: a `concurrent.futures.Future` that costs a tenth of one.

A standard future makes a condition, two lists and a dict when it is born.  This
one has six slots; whoever needs more (a callback, the standard library's
`wait`) makes `_more` appear.  Results stay pickled until somebody looks.
"""

from __future__ import annotations

import concurrent.futures as cf
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any

from flamezmq.client import published
from flamezmq.core.caller import CANCELLED, ERROR, FINISHED, PENDING, RAW, RAW_ERROR, RUNNING, UNMET, VALUE
from flamezmq.errors import DependencyFailed, ObjectLost, Unpicklable
from flamezmq.serialize.failures import load_error
from flamezmq.serialize.values import load_value

if TYPE_CHECKING:
    from flamezmq.client.session import Session
    from flamezmq.client.stream import Inflow
    from flamezmq.core.lineage import Recipe
    from flamezmq.store.keeping import Hold

#: What a future's `_form` may be when its task has failed.
FAILED = (RAW_ERROR, ERROR, UNMET)
#: Of an exception's text, what the error of a dependent task quotes.
QUOTED_CHARS = 200
#: The states of a future that has ended.
DONE = frozenset((FINISHED, CANCELLED, "CANCELLED"))
#: Held while a future gets its `_more`, and while nothing else is waited for: the standard library's `wait`
#: asks for one future's condition with those of others in its hands.
_making = threading.Lock()


class More:
    """What a future has only when somebody waits for it in a standard way."""

    __slots__ = ("callbacks", "condition", "told", "waiters")

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.waiters: list[Any] = []
        self.callbacks: list[Callable[[Any], Any]] = []
        self.told = False  # all of them, that the future is done


class Future(cf.Future):  # type: ignore[type-arg]
    """The result of one task, now or later; made by `submit`.

    It is a `concurrent.futures.Future`, so the standard library's `wait`, `as_completed` and
    `asyncio.wrap_future` take it, with two differences: `result()` drives the client's I/O in
    the calling thread, so that no other thread hands the result over, and `cancel()` of a task
    that was sent asks the router.  The result stays pickled until somebody looks at it.
    Usable by many threads at a time.  As an argument of `submit` or `map` it stands for its value;
    elsewhere it can't be pickled.
    """

    __slots__ = ("_form", "_index", "_more", "_session", "_state", "_value")

    #: Whether it has waited for the values of others (an instance that has says so in its dict).
    needy = False
    #: What its task has published, if it has; what has come of its stream, if it streams.
    _shown: published.Shown | None = None
    _inflow: Inflow | None = None
    #: What keeps its value in a store, if it lies in one (in its dict, too).
    _hold: Hold | None = None
    #: In sessions with lineage: how its value was made; the one whose value is taken for it, when its own is
    #: lost; how many others are made again for it, one for the next; how old it is (in its dict, too).
    _recipe: Recipe | None = None
    _heir: Future | None = None
    _depth = _age = 0
    #: What it is called in messages if it has ended without a number: it was never sent (in its dict, too).
    _label = ""
    #: In the place of its index while it has none; "~" and a number if it ran in place (in its dict, too).
    _place = "unsent"
    #: When, if its function has a deadline (in its dict, too).
    submitted = 0.0

    _session: Session
    _index: int
    _form: int
    _value: Any
    _state: str
    _more: More | None

    def __init__(self, session: Session) -> None:
        self._session = session
        self._index = -1
        self._state = PENDING
        self._form = RAW
        self._value = None
        self._more = None

    # --- what the user calls

    @property
    def task_id(self) -> str:
        """`<session id>/<index>`, the task's name in logs and in flmctl.

        That of a nested task which its waiter has run in place is `<session id>/~<number>`, as in
        `flm.current()` there; of one that has no number, or none yet, `<session id>/unsent`.
        """
        if self._index < 0 and self._state is PENDING:
            self._session._flush()
        return f"{self._session.id}/{self._index if self._index >= 0 else self._place}"

    def result(self, timeout: float | None = None) -> Any:
        """The task's value.

        Args:
            timeout: seconds; None waits as long as it takes.  A value that has to be made again (a
                session with lineage) may take as long once more.

        Raises:
            TimeoutError: not done in time; the task goes on.
            CancelledError: it was cancelled; by somebody else (flmctl), the text says by whom.
            ObjectLost: it is large, and the node that kept it is lost.
            Exception: the task's own, its remote traceback as `__cause__`.
            FlameError: TaskLost, RouterLost, TaskError and others of `flamezmq.errors`.
        """
        if self._state not in DONE:
            self._await(timeout)
        if self._form == VALUE:
            return self._value
        error = self._settle()
        if error is not None and self._recipe is not None:
            error = self._session._client._lineage.made_again(self, error, timeout)
        if error is not None:
            try:
                raise error
            finally:
                self = error = None  # type: ignore[assignment]  # break the cycle through the traceback
        return self._value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The task's exception; None if it returned a value.

        Args:
            timeout: seconds; None waits as long as it takes.

        Raises:
            TimeoutError: not done in time; the task goes on.
            CancelledError: it was cancelled.
        """
        if self._state not in DONE:
            self._await(timeout)
        if self._state is not FINISHED:
            raise self._settle() or cf.CancelledError()
        error = self._settle()
        if error is not None and self._recipe is not None:
            error = self._session._client._lineage.made_again(self, error, timeout)
        return error

    def done(self) -> bool:
        """Whether it has ended: with a value, with an error, or cancelled.  Does no I/O."""
        return self._state in DONE

    def cancelled(self) -> bool:
        """Whether it was cancelled: it has never run, or was interrupted, and never will."""
        return self._state in (CANCELLED, "CANCELLED")

    def running(self) -> bool:
        """Whether the task is known to have begun (short tasks are not announced)."""
        return self._state is RUNNING

    def cancel(self, *, running: bool = False) -> bool:
        """Cancel the task; True when it is certain that it has no result and never will.

        Args:
            running: interrupt it if it runs.  `flm.TaskCancelled` is raised in it, wherever it
                stands, so that it may clean up; if it goes on for another second its executor is
                killed and replaced.  False, as in the standard library, leaves what runs alone.

        What has not left this process is cancelled at once.  For a task that was sent this asks
        the router, which takes it out of its queue or back from its executor, and waits for the
        answer (at most a second; a round trip, mostly), or for the end of a task that runs (five
        seconds at most; some hundredths of one, mostly).
        """
        if self._state in DONE:
            return self._state is not FINISHED
        return self._session._cancel(self, running)

    def add_done_callback(self, fn: Callable[[Any], Any]) -> None:
        """Call `fn(future)` when it is done; at once, in this thread, if it is done already.

        Otherwise it is called on the client's background thread, with no lock held: it may submit
        (that never blocks there), wait for others, and close the client; while it takes its time
        no other callback runs.  What it raises is logged (`concurrent.futures`), not propagated.
        """
        more = self._ensure_more()
        with more.condition:
            if self._state not in DONE:
                more.callbacks.append(fn)
                return
        self._call(fn)

    # --- what the task publishes

    def on_publish(self, fn: Callable[[Any], object]) -> None:
        """Call `fn(value)` for each value that the task publishes (`flm.current().publish`).

        Those that are kept already come first.  It is called on the client's background thread, as
        done-callbacks are; if it is slower than the task, older values pass it by and the newest 64
        stay.  What it raises is logged.
        """
        published.shown(self).on_publish(fn, self._session._client._errands.add)

    def published(self) -> Iterator[Any]:
        """Iterate over what the task publishes, until the task has ended; then over what is kept of it.

        Waits for each next value and drives the client's I/O meanwhile.  A slow reader misses older
        values: the newest 64, or a megabyte, are kept.  If the task runs again, those of the new run
        follow.  The task's error is not raised here: `result()` does that.
        """
        return published.read(self)

    @property
    def last_published(self) -> Any:
        """The newest value that the task has published, as far as it has come; None if there is none."""
        kept = self._shown.kept if self._shown is not None else None
        return load_value(kept[-1][1]) if kept else None

    # --- how

    def _await(self, timeout: float | None) -> None:
        deadline = None if timeout is None else monotonic() + timeout
        if not self._session._wait(self.done, deadline):
            raise cf.TimeoutError

    def _settle(self) -> BaseException | None:
        """Unpickle what came, once; returns the error if it is one."""
        form, value = self._form, self._value
        if form == RAW:
            try:
                self._value = load_value(value)
                self._form = VALUE
                return None
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                return error
        if form == RAW_ERROR:
            failure = load_error(value if type(value) is bytes else value[0])
            if isinstance(failure, Unpicklable) and failure.what == "the result":
                failure.what = f"the result of task {self._name}"  # the executor knows no session's name
                failure.args = (failure.what, *failure.args[1:])
            self._value, self._form = failure, ERROR
            return failure
        if form == ERROR:
            if value is None or type(value) is str:
                return cf.CancelledError(*filter(None, [value]))
            return value  # type: ignore[no-any-return]
        if form == UNMET:
            self._settle_unmet()
            return self._settle()
        return None

    def _settle_unmet(self) -> None:
        """Make the error of a task that did not run, and first those of what it needs: chains can be long."""
        chain = [self]
        while chain[-1]._form == UNMET:
            chain.append(chain[-1]._value)
        need = chain.pop()
        while chain:
            future = chain.pop()
            error = DependencyFailed(future._name, need._name, need._what_became_of_it())
            error.__cause__ = need._settle() if need._state in DONE else None
            future._value, future._form = error, ERROR
            need = future

    def _what_became_of_it(self) -> str:
        if self._state not in DONE:
            return "runs again, for an argument of it was lost, and only sessions with lineage wait for that"
        error = self._settle()
        if self.cancelled():
            return "was cancelled"
        if isinstance(error, DependencyFailed):
            return "did not run either"
        if error is None:
            return "has a value that can't be pickled again"
        if self._form == RAW and isinstance(error, ObjectLost):
            return f"has lost its value: {_shortened(error)}"
        return f"failed with {type(error).__name__}: {_shortened(error)}"

    def _ensure_more(self) -> More:
        more = self._more
        if more is None:
            more = More()
            with _making:
                if self._more is None:
                    self._more = more
                more = self._more
        return more

    def _end(self, state: str, add: Callable[..., None]) -> None:
        """Become done, and tell those who wait; `add` has a function called on the errands' thread.

        Restartable: the next call finishes what an interrupt has left half done.
        """
        more = self._more
        assert more is not None
        with more.condition:
            if more.told:
                return
            if self._state not in DONE:
                self._state = state
            for waiter in more.waiters:
                if self not in waiter.finished_futures:  # else it was told, before the interrupt
                    self._tell(waiter)
            more.condition.notify_all()
            for _ in more.callbacks:
                add(self._call_back)
            more.told = True

    def _tell(self, waiter: Any) -> None:
        if self._state is CANCELLED:
            waiter.add_cancelled(self)
        elif self._form in FAILED:
            waiter.add_exception(self)
        else:
            waiter.add_result(self)

    def _end_quietly(self, state: str, add: Callable[..., None]) -> None:
        """Become done without the router's help."""
        self._form, self._value = ERROR, None
        if self._more is not None:
            self._end(state, add)
        else:
            self._state = state

    def _call_back(self) -> None:
        """Call the next of the callbacks; each is called once, however often this is called."""
        callbacks = self._ensure_more().callbacks
        if callbacks:
            self._call(callbacks.pop(0))

    def _call(self, fn: Callable[[Any], Any]) -> None:
        try:
            fn(self)
        except Exception:
            cf._base.LOGGER.exception("exception calling callback for %r", self)

    # --- what the standard library's functions touch

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        return self._ensure_more().condition

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]
        return self._ensure_more().waiters

    @property
    def _result(self) -> Any:  # type: ignore[override]
        return self._value if self._settle() is None else None

    @property
    def _exception(self) -> BaseException | None:  # type: ignore[override]
        return self._settle() if self._state is FINISHED else None

    def set_running_or_notify_cancel(self) -> bool:
        """Of the standard contract, for makers of executors; raises RuntimeError."""
        raise RuntimeError("the state of a flamezmq Future is set by its client only")

    def set_result(self, result: Any) -> None:
        """Of the standard contract; raises RuntimeError: a `result` comes from its task only."""
        raise RuntimeError("the result of a flamezmq Future is set by its client only")

    def set_exception(self, exception: BaseException | None) -> None:
        """Of the standard contract; raises RuntimeError: an `exception` comes from its task only."""
        raise RuntimeError("the result of a flamezmq Future is set by its client only")

    def __reduce__(self) -> Any:
        raise TypeError(
            "a Future can't be pickled; pass it as an argument of submit or map, or take its result() first"
        )

    @property
    def _name(self) -> str:
        if self._index < 0 and self._label:
            return self._label
        return f"{self._session.id}/{self._index if self._index >= 0 else self._place}"

    def __repr__(self) -> str:
        state = "CANCELLED" if self.cancelled() else self._state
        return f"<flamezmq.Future {self._name} {state.lower()}>"


def _shortened(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # a user's __str__
        return "(its text can't be had)"
    return text if len(text) <= QUOTED_CHARS else f"{text[:QUOTED_CHARS]}..."
