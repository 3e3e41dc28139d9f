"""The Session: the unit of work.

`submit` is the client's hot path and stands here whole: name the function,
pickle the arguments, append to the outbox.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakSet

from flamezmq.client.future import Future
from flamezmq.client.mapping import Mapped
from flamezmq.client.objects import SessionKeeper
from flamezmq.client.pump import LARGE_LINGER_SECONDS
from flamezmq.client.reading import Reading
from flamezmq.client.references import References
from flamezmq.client.status import Status
from flamezmq.client.steering import Steering, check_member
from flamezmq.client.stream import Stream, stop
from flamezmq.core.caller import CANCELLED, ERROR, FINISHED, HEAVY_BYTES, Calls, Dependent, weight
from flamezmq.errors import ClientClosed, FlameError, Unpicklable
from flamezmq.serialize.functions import label
from flamezmq.serialize.values import dump_call
from flamezmq.shims.streaming import Streamed
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.client.actor import Actor, ActorSession
    from flamezmq.client.api import Client

#: An outbox of so many tasks is sent without waiting for more.
FULL_TASKS = 256
#: So are so many bytes of large payloads.
FULL_BYTES = 1 << 18
#: And so many bytes of those that lie in a store.
FULL_STORED_BYTES = 1 << 23
#: Tasks that a client may have unfinished before `submit` blocks.
MOST_TASKS = 1 << 20
#: Bytes of arguments that may wait in the client, beside those that the router has, before `submit` blocks.
MOST_BYTES = 1 << 30
#: How long `cancel` waits for the router's word.
CANCEL_SECONDS = 1.0
#: And how long for the end of tasks that are interrupted: their grace time, and the death of their executors.
INTERRUPT_SECONDS = 5.0
#: How long closing may take.
CLOSE_SECONDS = 1.5
#: How long a client that is closed waits for what its tasks have printed.
LAST_WORDS_SECONDS = 0.3


class Session(Steering, References):
    """Tasks that belong together, with their own share of the executors; made by `Client.session`.

    As a context manager it waits for its tasks at the end of the block, and cancels them when
    the block is left by an exception.  Usable by many threads at a time.
    """

    #: Whether its tasks run in the order in which they were submitted, in one process.
    ordered = False
    #: Whether other clients may be members of it, or its tasks are theirs.
    _shared = False
    #: How long its services may take to go.
    _leave_seconds = 0.0

    def __init__(self, client: Client, calls: Calls) -> None:
        self._client = client
        self._calls = calls
        self._outbox = calls.outbox
        self._apply_lock = client._apply_lock
        self._name = client._functions.name
        self._keeper = SessionKeeper(client._objects, client._session_of_objects(calls.id))
        self._kept: WeakSet[Future] = WeakSet()  # whose values lie in a store
        self._reading = Reading()
        calls.take_over = client._objects.own
        if not self._shared:  # else others may fetch them
            calls.disown = client._objects.disown
        self._drive = client._drive
        self._wait = client._wait
        self._actors: dict[int, ActorSession] = {}  # that end with it
        self._large_at = 0.0  # when a task with large arguments was the first in the outbox
        self._streams: WeakSet[Future] | None = None  # of tasks that stream, once there was one

    @property
    def id(self) -> str:
        """Its name in logs and errors: the name that was asked for, and six random letters."""
        return self._calls.id

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Run `fn(*args, **kwargs)` on an executor; returns its Future at once.

        The contract of `concurrent.futures.Executor.submit`.  The function and the arguments are
        pickled here and now: what happens to them afterwards does not reach the task.  The
        function may be anything callable: a lambda, a closure, a bound method, one of
        `__main__` or of a notebook; it travels once, and again when something that it refers to
        has changed.  Buffers of 16 KiB and more (numpy arrays, bytes) are copied once.

        Raises:
            ClientClosed, RouterLost: there is nobody to run it.
            BrokenSession: the session's initializer has failed.

        A Future of this client among the arguments, or anywhere inside them, stands for its value:
        the task begins when that is there; if there will be none, it fails with DependencyFailed.

        What can't be pickled raises nothing here; the Future fails with Unpicklable, so that one
        bad task fails alone.  A few microseconds; it blocks while the client has 1,048,576
        unfinished tasks, or about a gigabyte of the session's arguments waits to be sent.
        """
        client, calls = self._client, self._calls
        if client._closed or calls.closed or calls.draining or client._line.lost is not None:
            self._refuse()
        future = Future(self)
        try:
            function = self._name(fn)
            payload = dump_call(args, kwargs, fn, client, self._keeper)
        except Unpicklable as error:
            return self._stillborn(future, error, fn)
        if function.options is not None and function.options.deadline:
            future.submitted = monotonic()
        if type(payload) is Dependent and not client._take_needs(future, function, payload):
            return future
        outbox = self._outbox
        outbox.append((future, function, payload))
        waiting = len(outbox)
        if waiting == 1 or calls.alias not in client._dirty:
            client._dirty[calls.alias] = calls
            if type(payload) is Dependent and self._has_company(calls):
                client._pump.arm(LARGE_LINGER_SECONDS)
            elif calls.pending or not client._eager:
                client._pump.arm()
            else:
                client._pump.push(look=False)  # nothing is on its way: company may never come
        elif not waiting % FULL_TASKS:
            self._full(payload)
        elif type(payload) is list or len(payload) > HEAVY_BYTES:
            self._heavy(payload)
        return future

    def _has_company(self, calls: Calls) -> bool:
        """Whether a task whose arguments lie in a store is one of several: some shall share a message."""
        now, last = monotonic(), self._large_at
        self._large_at = now
        return bool(calls.pending) or now - last < 2 * LARGE_LINGER_SECONDS

    _submit = submit  # also where `submit` takes no function

    def map(
        self,
        fn: Callable[..., Any],
        /,
        *iterables: Iterable[Any],
        ordered: bool = True,
        chunksize: int | None = None,
        timeout: float | None = None,
        progress: str | None = None,
    ) -> Mapped:
        """`fn(*items)` for the items of the `iterables`, in parallel; returns an iterator of results.

        Items travel in slices of a few milliseconds of work, one slice a task; inputs are pulled
        as results are taken, so endless iterables are fine.  It ends with the shortest of several
        iterables, as the built-in `map` does.

        Args:
            ordered: results in the order of the inputs; False gives them as their slices end.
            chunksize: items per slice, from 1; None takes what fits the measured run time.
            timeout: seconds from now until the last result.
            progress: draw a bar with this label while results are taken, as `flm.progress` does.

        Errors are raised where the result would have come; going on gives the results behind it.

        Raises:
            Exception: an item's own.
            TimeoutError: the time is over.
            Unpicklable: the item, or its result, can't travel; the others of its slice can.
            TaskLost: one of the slice took its executors down; raised for each item of it.

        Closing the iterator cancels what is left.  Under a microsecond per empty item.
        """
        check_map(iterables, chunksize)
        return Mapped(self, fn, iterables, ordered, chunksize, timeout, progress)

    def actor(
        self,
        cls: type,
        /,
        *args: Any,
        max_restarts: int = 0,
        max_retries: int = 0,
        resources: str | None = None,
        **kwargs: Any,
    ) -> Actor:
        """Make one instance `cls(*args, **kwargs)` in a process of its own; returns its handle.

        The handle's methods are those of the class: `a.method(x)` returns a Future.  Calls run one
        after the other, in the order in which they were submitted.  The actor ends with this session,
        when it is closed, or when the last reference to the handle is gone.

        Args:
            max_restarts: how often a fresh instance is made after the process has died; calls that
                had not begun then run there.
            max_retries: how often the call that ran when the process died is started again on the
                next instance, before it fails with ActorDied.
            resources: what its process needs of its node and keeps as long as it lives, as "gpu=1,mem=2g"
                (those of `flm.Client.session`); it sees the GPUs that are its own, and no others. None:
                nothing, so that it lives beside the executors without taking anything from them.

        Raises:
            TypeError, ValueError: `cls` is no class, or a number is none that it can be.
            Unpicklable: the class, or an argument of its constructor, can't travel.
            ClientClosed, RouterLost, Refused: there is nobody to make it.

        An exception in a call fails that call only.  One in the constructor fails all calls with
        BrokenActor.  One round trip; the instance is made meanwhile.
        """
        client = self._client
        if client._closed or self._calls.closed:
            self._refuse()
        from flamezmq.client.actor import make

        return make(client, self, cls, args, kwargs, max_restarts, max_retries, resources)

    def stream(self, fn: Callable[..., Any], /, *args: Any, replay: bool = False, **kwargs: Any) -> Stream:
        """The values of the generator `fn(*args, **kwargs)`, which runs on an executor, as they come.

        Returns an iterator of them, in their order, each once.  The task is ahead of whoever reads by
        50 ms of its work, from 4 to 1,024 values and up to 4 MiB; then it waits, and a spare executor
        takes its place if there is other work.  Its error is raised where the next value would have come.

        Args:
            replay: `fn` gives the same values when it runs again, so it may when its executor dies, or
                its options say so after an error: what was read before is passed over.  False: it runs
                again only as long as no value has come, and fails after that.

        Raises:
            ClientClosed, RouterLost: there is nobody to run it.
            RuntimeError: this is a session of nested tasks.

        From the iterator, beside errors of the task:
            TaskLost: its executor has died after values had come (`values` says how many).
            CancelledError: the session was closed.
            TypeError: `fn` gave nothing that can be iterated over.

        Closing the iterator, or leaving its loop, closes the generator at its `yield`, as it does a
        generator of this process; so does the end of the session.  A `timeout` of its options is for the
        whole run, waiting for the reader included.  A microsecond or two per small value.
        """
        if not self._client._may_stream:
            raise RuntimeError(
                "a task can't read another task's stream, for it may have to run that itself, in place; "
                "iterate over the generator itself, or stream from the main program"
            )
        future = self._submit(Streamed(fn, replay), *args, **kwargs)
        if self._streams is None:
            self._streams = WeakSet()
        self._streams.add(future)
        return Stream(future)

    def status(self) -> Status:
        """How many of the session's tasks are pending, running, succeed, failed, cancelled: a `Status`.

        Tasks as the router counts them: a slice of a `map` is one.  One round trip.

        Raises:
            ClientClosed: the session is closed.
            RouterLost: there is nobody to ask.
        """
        calls = self._calls
        calls.counts = None
        self._client._check_open()
        self._client._tell(m.Query(calls.alias, 0))
        self._drive(lambda: calls.counts is not None or calls.closed, monotonic() + CANCEL_SECONDS * 5)
        counts = calls.counts
        if counts is None:
            raise ClientClosed(f"session {self.id} is closed; its tasks are not counted any more")
        waiting = len(calls.outbox)
        ended = counts.failed + calls.failed, counts.cancelled + calls.cancelled
        return Status(counts.pending + waiting, counts.running, counts.succeed, *ended, counts.suspended)

    def cancel(self, futures: Iterable[Future] | None = None, *, running: bool = False) -> int:
        """Cancel many tasks at once, as `Future.cancel` does one; returns how many of them are cancelled.

        Args:
            futures: of this session, those of `futures()` among them; None takes all of its own that
                have not ended.
            running: interrupt those that run.

        Raises:
            TypeError, ValueError: one of them is no future, or is of another session.

        One message, and one wait for the answers, as long as that of `Future.cancel`.
        """
        calls, client = self._calls, self._client
        if isinstance(futures, Future):
            raise TypeError(f"futures is one Future; put it into a list: cancel([{futures!r}])")
        with client._apply_lock:
            wanted = dict.fromkeys(calls.unended() if futures is None else futures)
        others: dict[Session, list[Future]] = {}
        for future in wanted:
            if check_member(future, self, "cancel it in its own"):
                others.setdefault(future._session, []).append(future)
        with client._apply_lock:
            calls.cancel_unsent(wanted, client._on_end)
        asked = [future for future in wanted if not future.done() and future._session is self]
        if asked and not calls.closed:
            self._cancel_sent(asked, running)
        for session, theirs in others.items():
            session.cancel(theirs, running=running)
        return sum(future.cancelled() for future in wanted)

    def close(self, cancel: bool = False) -> None:
        """Wait for the tasks and close the session; streams are closed.  Idempotent.

        Args:
            cancel: do not wait; cancel what has not ended.  In tasks that run TaskCancelled is
                raised, as by `Future.cancel(running=True)`; their futures are cancelled at once.
        """
        calls, client = self._calls, self._client
        if not calls.closed:
            self._stop_streams()
        if not (calls.closed or cancel):
            self._wait(lambda: not calls.unfinished, None)
        if self._actors:
            self._close_actors(cancel)
        if calls.closed:
            return
        self._cancel_rest()
        if self._kept:
            client._objects.take_home(self)
        try:
            client._tell(self._farewell())
            self._drive(lambda: calls.closed, monotonic() + CLOSE_SECONDS + self._leave_seconds)
        except FlameError:
            pass  # nobody is left to close it
        finally:
            calls.closed = True
            client._forget(calls.alias)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close(cancel=kind is not None)
        except BaseException:  # Ctrl-C while it waits for its tasks
            self.close(cancel=True)
            raise

    def __repr__(self) -> str:
        return f"<flamezmq.Session {self.id}: {self._calls.unfinished} unfinished>"

    # --- how

    def _refuses(self, others: Iterable[Session]) -> str:
        """Why a task can't wait for futures of these sessions; empty if it can."""
        stranger = next((one for one in others if one is not self and (one._shared or self._shared)), None)
        if stranger is None:
            return ""
        return (
            f"a task of session {self.id} can't wait for one of session {stranger.id}, for one of them has "
            "an id and may be shared; pass its result()"
        )

    def _farewell(self) -> Any:
        """What the router is told in the end; it answers `Closed`."""
        return m.Close(self._calls.alias)

    def _close_actors(self, cancel: bool) -> None:
        """All of them, also when one of them fails."""
        with ExitStack() as stack:
            for actor in list(self._actors.values()):
                stack.callback(actor.close_with, self, cancel)

    def _stop_streams(self) -> None:
        """Nobody shall be waited for who does not read on."""
        for future in list(self._streams or ()):
            stop(future)

    def _check_usable(self) -> None:
        calls = self._calls
        if self._client._closed or calls.closed or calls.draining or self._client._line.lost is not None:
            self._refuse()

    def _refuse(self) -> None:
        self._client._check_open()
        if self._calls.broken is not None:
            raise self._calls.broken
        raise ClientClosed(
            f"{self._calls.error or self._calls.draining or f'session {self.id} is closed'}; open a new one"
        )

    def _stillborn(self, future: Future, error: Unpicklable, fn: object) -> Future:
        future._label = f"{label(fn)} (not sent)"
        error.what += f" (a task of session {self.id})"
        error.args = (error.what, *error.args[1:])
        future._form, future._value, future._state = ERROR, error, FINISHED
        self._calls.failed += 1
        return future

    def _flush(self) -> None:
        self._client._pump.push()

    def _full(self, payload: Any) -> None:
        """The outbox is due; and if the client has all that it may have, wait for room."""
        client = self._client
        if type(payload) is list or len(payload) > HEAVY_BYTES:
            self._heavy(payload)
        client._pump.push()
        if client._unfinished() >= MOST_TASKS:
            client._wait_for_room(lambda: client._unfinished() < MOST_TASKS - 4 * FULL_TASKS)

    def _heavy(self, payload: Any) -> None:
        """Large arguments count, and make an outbox due sooner."""
        client, calls = self._client, self._calls
        calls.outbox_bytes += weight(payload)
        stored = type(payload) is Dependent and type(payload.payload) is bytes
        if calls.outbox_bytes >= (FULL_STORED_BYTES if stored else FULL_BYTES):
            client._pump.push()
        if calls.outbox_bytes > MOST_BYTES:
            client._wait_for_room(lambda: not calls.outbox or calls.outbox_bytes < MOST_BYTES * 7 // 8)

    def _cancel(self, future: Future, running: bool) -> bool:
        """Cancel one task; True when it is certain that it has no result, ever."""
        client, calls = self._client, self._calls
        with client._apply_lock:
            if calls.take_from_outbox(future):
                calls.cancelled += 1
                future._end_quietly(CANCELLED, client._errands.add)
                return True
        self._cancel_sent([future], running)
        return future.cancelled()

    def _cancel_sent(self, futures: list[Future], running: bool) -> None:
        """Ask the router, and wait until each has ended, or was refused."""
        client, alias, cancels = self._client, self._calls.alias, self._client._cancels
        left = {(alias, future._index): future for future in futures}
        asked = list(left)

        def answered() -> bool:
            while left:  # each is looked at once that is answered
                key, future = next(reversed(left.items()))
                if not (future.done() or cancels.get(key, True)):
                    return False
                del left[key]
            return True

        cancels.update(dict.fromkeys(asked, False))
        try:
            client._tell(m.Cancel(alias, [index for _, index in asked], running))
            self._drive(answered, monotonic() + (INTERRUPT_SECONDS if running else CANCEL_SECONDS))
        finally:
            for key in asked:
                cancels.pop(key, None)

    def _abandon(self, futures: Iterable[Future], running: bool = False) -> None:
        """Cancel tasks without waiting for an answer, by one message."""
        client, calls = self._client, self._calls
        if client._closed or calls.closed:
            return
        wanted = {future: None for future in futures if not future.done()}
        with client._apply_lock:
            calls.cancel_unsent(wanted, client._on_end)
        self._ask_to_cancel([future._index for future in wanted if not future.done()], running)

    def _cancel_pending(self, keep: int) -> None:
        """Cancel what has not begun, but for the `keep` oldest that were sent; does not wait for answers."""
        client, calls = self._client, self._calls
        with client._apply_lock:
            calls.cancel_unsent(None, client._on_end)
        self._ask_to_cancel(list(calls.pending)[keep:])

    def _ask_to_cancel(self, indices: list[int], running: bool = False) -> None:
        try:
            if indices:
                self._client._tell(m.Cancel(self._calls.alias, indices, running))
        except FlameError:
            pass  # the router is gone, and the tasks with it

    def _cancel_rest(self) -> None:
        with self._apply_lock:
            self._calls.cancel_all(self._client._on_end)


def hear_last_words(client: Client) -> None:
    """Close what is open: the router answers when services have gone, and all is here that was printed."""
    sessions = [session for session in client._sessions.values() if session._calls.opened]
    if not sessions:
        return
    patience = max(session._leave_seconds for session in sessions) or LAST_WORDS_SECONDS
    try:
        for session in sessions:
            client._orders.append(session._farewell())
        client._drive(lambda: all(one._calls.closed for one in sessions), monotonic() + patience)
    except FlameError:
        pass  # the router is gone, and they with it


def check_map(iterables: tuple[Iterable[Any], ...], chunksize: int | None) -> None:
    """Raises TypeError or ValueError, in the standard library's words where it has some."""
    if not iterables:
        raise TypeError("map needs at least one iterable")
    if chunksize is not None and not hasattr(chunksize, "__index__"):
        raise TypeError(f"chunksize is {chunksize!r}; it must be an integer from 1, or None")
    if chunksize is not None and chunksize < 1:
        raise ValueError("chunksize must be >= 1.")
