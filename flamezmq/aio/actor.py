"""Actors for event loops: the handle, whose methods return Answers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from flamezmq.aio.hub import Answer, answer_of
from flamezmq.aio.stream import Stream
from flamezmq.aio.threads import in_thread
from flamezmq.client import actor as sync
from flamezmq.serialize.pickler import add_reducer

if TYPE_CHECKING:
    from flamezmq.aio.behind import ClientBehind


class ActorMethod:
    """A method of an actor; calling it submits a call and returns its Answer at once."""

    __slots__ = ("_behind", "_method")

    def __init__(self, behind: ClientBehind, method: sync.ActorMethod) -> None:
        self._behind, self._method = behind, method

    def __call__(self, /, *args: Any, **kwargs: Any) -> Answer:
        """Have the instance's method called, after all calls that were submitted before; returns an Answer.

        Raises what a method of `flm.Actor` raises; RuntimeError where no event loop runs.
        """
        return answer_of(self._behind, partial(self._method, *args, **kwargs))

    def stream(self, /, *args: Any, replay: bool = False, **kwargs: Any) -> Stream:
        """The values that the instance's method, a generator, yields, as they come; asynchronously.

        As `stream` of a method of `flm.Actor`, which explains `replay`.
        """
        return Stream(self._behind, self._method.stream(*args, replay=replay, **kwargs))

    def options(self, **options: Any) -> ActorMethod:
        """The same method, whose calls have these options: those of `flm.Actor`'s methods."""
        return ActorMethod(self._behind, self._method.options(**options))

    def __repr__(self) -> str:
        return repr(self._method)


class Actor:
    """The handle of one instance in a process of its own; made by `await client.actor(...)`.

    `await a.method(x)` is the value of a call.  Everything else is as `flm.Actor` explains.  With
    `async with` its calls are awaited at the end of the block; they are cancelled when the block is
    left by an exception, or when the waiting is cancelled.
    """

    __slots__ = ("_actor", "_behind")

    def __init__(self, behind: ClientBehind, actor: sync.Actor) -> None:
        self._behind, self._actor = behind, actor

    @property
    def actor_id(self) -> str:
        """Its name in errors and in flmctl."""
        return self._actor.actor_id

    async def aclose(self, cancel: bool = False) -> None:
        """Wait for the calls, have the instance's own `close` called, and end the actor.  Idempotent.

        Args:
            cancel: do not wait; cancel what has not ended.

        When this waiting is cancelled, the calls are.
        """
        self._actor._finalizer.detach()
        hurry = threading.Event()
        if cancel:
            hurry.set()
        await in_thread(
            partial(close_actor, hurry, self._actor._session), hurry=partial(_hasten, hurry, self._behind)
        )

    def __getattr__(self, name: str) -> ActorMethod:
        if name == "close":
            raise AttributeError("an actor of flm.aio is closed by `await a.aclose()`", name=name, obj=self)
        return ActorMethod(self._behind, self._actor.__getattr__(name))

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *dir(self._actor)} - {"close"})

    async def __aenter__(self) -> Actor:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose(cancel=kind is not None)

    def __reduce__(self) -> NoReturn:
        self._actor.__reduce__()

    def __repr__(self) -> str:
        return repr(self._actor)


async def make_actor(behind: ClientBehind, make: Callable[[], sync.Actor]) -> Actor:
    """Have it made on a thread; it is ended again if nobody waits for it any more."""
    return Actor(behind, await in_thread(make, undo=partial(sync.Actor.close, cancel=True)))


def close_actor(hurry: threading.Event, session: sync.ActorSession) -> None:
    """End an actor when its calls have ended, or when there is a hurry; on a thread."""
    if not hurry.is_set():
        session.call_hook()
    session._drive(lambda: not session._calls.unfinished or hurry.is_set(), None)
    session.close(cancel=True)


for _kind in (Actor, ActorMethod):
    add_reducer(_kind, sync.reduce_actor)


def _hasten(hurry: threading.Event, client: ClientBehind) -> None:
    hurry.set()
    client._pump.line.wake()
