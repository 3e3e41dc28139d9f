"""Actors: one instance of a user's class, in a process of its own; each call of a method is a task.

An actor is a session of its own (core/actors.py says what the router makes of it),
and its handle is a light thing around that.  Whoever lets go of the handle ends
the actor, when its calls have ended.

The manners are those of Ray's actors and Dask's, without a decorator.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

from flamezmq.acting import MethodCall, construct, nothing
from flamezmq.client.arguments import reduce_client
from flamezmq.client.future import Future
from flamezmq.client.opening import open_session
from flamezmq.client.reasons import span
from flamezmq.client.session import Session
from flamezmq.client.terms import request_of
from flamezmq.core.caller import Calls
from flamezmq.errors import ClientClosed, FlameError, StrayClient
from flamezmq.optioned import options
from flamezmq.serialize.blobs import MAX_BLOB_BYTES
from flamezmq.serialize.culprit import unpicklable
from flamezmq.serialize.functions import FunctionName
from flamezmq.serialize.pickler import OutOfPlace, PastLimit, Pickler, add_reducer, dump_in_band
from flamezmq.serialize.values import dump_call
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.client.api import Client
    from flamezmq.client.stream import Stream


class ActorSession(Session):
    """The calls of one actor.

    hook  the instance's own `close`, its last call; None if its class has none, or it was called
    """

    ordered = True

    def __init__(self, client: Client, calls: Calls) -> None:
        super().__init__(client, calls)
        self._name = self._named  # type: ignore[assignment]
        self.hook: MethodCall | None = None
        self.owner: Session | None = None
        self._ended = ("", 0.0)  # what has closed it, in words, and when
        self._last: Future | None = None  # the hook's

    def _named(self, call: Any) -> FunctionName:
        """A call's name; it is pickled once, though it is no function."""
        name = getattr(call, "named", None)
        if name is None:
            name = self._client._functions.name(call)
            if isinstance(call, MethodCall):
                call.named = name
        return name

    def close(self, cancel: bool = False) -> None:
        """Wait for the calls, call the instance's `close`, and end the actor; see `Actor.close`."""
        self._note_end("by its own program (close(), or the end of its `with` block)")
        if not cancel:
            self.call_hook()
        try:
            super().close(cancel)
        finally:
            self._leave_owner()
        last, self._last = self._last, None
        if last is not None and not last.cancelled():
            error = last.exception()
            if error is not None and not isinstance(error, FlameError):
                raise error

    def close_with(self, owner: Session, cancel: bool) -> None:
        """The session that it belongs to is closed."""
        self._note_end(f"with session {owner.id}, which it belongs to")
        self.close(cancel)

    def _note_end(self, how: str) -> None:
        if not (self._calls.closed or self._ended[0]):
            self._ended = how, monotonic()

    def _refuse(self) -> None:
        """It takes no more calls: raise the error that says since when, and why."""
        calls = self._calls
        how, when = self._ended
        if calls.broken is None and (how or calls.error or calls.draining):
            self._client._check_open()
            if calls.error or calls.draining:
                said, when = calls.error or calls.draining, calls.ended_at
            else:
                said = f"{calls.named} was closed {how}"
            ago = span(monotonic() - when)
            raise ClientClosed(f"{said} ({ago} ago); make a new actor for further calls")
        super()._refuse()

    def end_soon(self) -> None:
        """Nobody has a handle any more: end it when its calls have ended.  Does not wait."""
        try:
            self.call_hook()
            self.submit(nothing).add_done_callback(self._hang_up)
        except FlameError:
            self._leave_owner()  # it has ended

    def call_hook(self) -> None:
        """Submit the last call, once."""
        hook, self.hook = self.hook, None
        if hook is not None and not self._calls.closed:
            try:
                self._last = self.submit(hook)
            except FlameError:
                pass  # its client is closed

    def _hang_up(self, _last: Future) -> None:
        calls, client = self._calls, self._client
        self._leave_owner()
        if not calls.closed:
            calls.closed = True  # what the router then answers makes the client forget it
            try:
                client._tell(m.Close(calls.alias))
            except FlameError:
                pass  # nobody is left to close it

    def _leave_owner(self) -> None:
        if self.owner is not None:
            self.owner._actors.pop(self._calls.alias, None)


class ActorMethod:
    """A method of an actor; calling it submits a call and returns its Future at once."""

    __slots__ = ("_actor", "_call")

    def __init__(self, actor: Actor, call: MethodCall) -> None:
        self._actor, self._call = actor, call

    def __call__(self, /, *args: Any, **kwargs: Any) -> Future:
        """Have the instance's method called, after all calls that were submitted before; returns a Future.

        As `Session.submit`: arguments are pickled here and now, and a Future among them stands for
        its value.  The calls behind one that waits for a value wait, too.

        Raises:
            ActorDied: the actor's process has died, and it may not be restarted.
            BrokenActor: its constructor has failed.
            ClientClosed: it was closed; says when and by whom.
        """
        return self._actor._session.submit(self._call, *args, **kwargs)

    def stream(self, /, *args: Any, replay: bool = False, **kwargs: Any) -> Stream:
        """The values that the instance's method, a generator, yields for these arguments, as they come.

        As `Session.stream`, which explains `replay` and the errors.  It is a call as any: those behind
        it wait until it has been read to its end, or closed.
        """
        return self._actor._session.stream(self._call, *args, replay=replay, **kwargs)

    def options(
        self,
        *,
        retries: int | None = None,
        retry_on: type[Exception] | tuple[type[Exception], ...] | None = None,
        backoff: float | None = None,
        timeout: float | None = None,
        name: str | None = None,
    ) -> ActorMethod:
        """The same method, whose calls have these options, as those of `flm.options`.

        A call that is retried runs again in place: the instance serves nobody meanwhile.  There is
        no `priority`: calls keep their order.
        """
        said = options(retries=retries, retry_on=retry_on, backoff=backoff, timeout=timeout, name=name)
        call = self._call
        whole = said.over(call.options) if call.options is not None else said
        return ActorMethod(self._actor, MethodCall(call.owner, call.name, whole, call.fn))

    def __reduce__(self) -> NoReturn:
        _refuse_to_travel(self._actor)

    def __repr__(self) -> str:
        return f"<method {self._call.name} of {self._actor!r}>"


class Actor:
    """The handle of one instance in a process of its own; made by `Client.actor` and `Session.actor`.

    `a.method(x)` calls the instance's method and returns a Future.  Calls run one after the other,
    in the order in which they were submitted; each thread's calls keep their order.  The public
    methods of the class can be reached, and nothing else.  It ends when it is closed, when its
    session or client is, or when the last reference to the handle is gone.

    As a context manager it waits for its calls at the end of the block, and cancels them when the
    block is left by an exception.  Usable by many threads at a time.  It can't be pickled.
    """

    __slots__ = ("__weakref__", "_class", "_finalizer", "_methods", "_session")

    def __init__(self, session: ActorSession, cls: type) -> None:
        self._session, self._class = session, cls
        self._methods: dict[str, MethodCall] = {}
        if _is_method(cls, "close"):
            session.hook = self._method("close")
        self._finalizer = weakref.finalize(self, session._client._errands.add, session.end_soon)
        self._finalizer.atexit = False

    @property
    def actor_id(self) -> str:
        """Its name in errors and in flmctl: that of its class, and six random letters."""
        return self._session.id

    def close(self, cancel: bool = False) -> None:
        """Wait for the calls and end the actor and its process.  Idempotent.

        If the class has a method `close` of its own, that is the instance's last call; what it
        raises is raised here.

        Args:
            cancel: do not wait; cancel what has not ended.  A call that runs is interrupted, and
                killed a second later; the instance's own `close` is not called.
        """
        self._finalizer.detach()
        self._session.close(cancel)

    def __getattr__(self, name: str) -> ActorMethod:
        call = self._methods.get(name)
        if call is None:
            if name.startswith("_") or not _is_method(self._class, name):
                raise AttributeError(
                    f"an actor of {self._class.__qualname__} has no public method {name!r}; "
                    "only what its class defines can be called",
                    name=name,
                    obj=self,
                )
            call = self._method(name)
        return ActorMethod(self, call)

    def _method(self, name: str) -> MethodCall:
        fn: Callable[..., Any] = getattr(self._class, name)
        call = self._methods[name] = MethodCall(self._class.__qualname__, name, fn=fn)
        return call

    def __dir__(self) -> list[str]:
        methods = [name for name in dir(self._class) if name[0] != "_" and _is_method(self._class, name)]
        return sorted({*object.__dir__(self), *methods})

    def __enter__(self) -> Actor:
        return self

    def __exit__(self, *raised: Any) -> None:
        self._finalizer.detach()
        self._session.__exit__(*raised)

    def __reduce__(self) -> NoReturn:
        _refuse_to_travel(self)

    def __repr__(self) -> str:
        return f"<flamezmq.Actor {self._session.id}: {self._session._calls.unfinished} unfinished>"


def make(
    client: Client,
    owner: Session | None,
    cls: type,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    max_restarts: int,
    max_retries: int,
    resources: str | None = None,
) -> Actor:
    """Open an actor's session, and have its instance made; what `Session.actor` does.

    owner: the session that it ends with; None: the client alone
    """
    if not isinstance(cls, type):
        raise TypeError(f"an actor is made of a class, not of {cls!r}; pass its arguments behind it")
    for what, number in (("max_restarts", max_restarts), ("max_retries", max_retries)):
        if type(number) is not int or number < 0:
            raise ValueError(f"{what} is {number!r}; it must be an integer from 0")
    request = request_of(resources)
    client._check_open()
    spec = client._spec(
        name=cls.__name__,
        max_retries=max_retries,
        max_executors=1,
        initializer=_dump_constructor(cls, args, kwargs),
        restarts=max_restarts,
        resources=request,
    )
    session = client._new_session(cls.__name__, ActorSession)
    assert isinstance(session, ActorSession)
    session._calls.actor = cls.__qualname__
    open_session(client, session, spec)
    actor = Actor(session, cls)
    session.submit(nothing)
    if owner is not None:
        session.owner = owner
        owner._actors[session._calls.alias] = session
    return actor


def _is_method(cls: type, name: str) -> bool:
    return callable(getattr(cls, name, None))


def _dump_constructor(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """The constructor's call, in one pickle.

    Raises:
        Unpicklable: names what can't travel.
        TooLarge: no message takes it.
    """
    try:
        return dump_in_band((construct, (cls, args, kwargs)), MAX_BLOB_BYTES)
    except PastLimit as past:
        raise past.error(f"class {cls.__qualname__} with its arguments") from None
    except Exception as error:
        dump_call(args, kwargs, cls)  # names the argument, if it is one
        raise unpicklable(f"class {cls.__qualname__}", cls, error) from error


#: What to do where a handle was to travel.
INSTEAD = "let tasks return what the actor is to get, and pass their futures to its methods"


def _refuse_to_travel(actor: Actor) -> NoReturn:
    raise TypeError(f"the handle of actor {actor.actor_id} stays in its program; {INSTEAD}")


def reduce_actor(_pickler: Pickler, actor: object) -> Any:
    """Refuse a handle, or a method of one, in a task's arguments or result."""
    raise OutOfPlace(INSTEAD, actor, StrayClient)


for _kind in (Actor, ActorMethod):
    add_reducer(_kind, reduce_actor)
add_reducer(ActorSession, reduce_client)
