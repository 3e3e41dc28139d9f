"""What a session's own program may have the router do with it, awaited: client/steering.py for loops."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from flamezmq.aio.hub import Answer
from flamezmq.aio.threads import in_thread
from flamezmq.client import session as sync
from flamezmq.client.future import Future
from flamezmq.client.happened import Event
from flamezmq.client.status import Status


def light_of(answer: object) -> Future:
    """What stands behind an Answer; raises TypeError for what is none."""
    if not isinstance(answer, Answer):
        raise TypeError(f"{answer!r} is no Answer; pass what `submit` has given")
    return answer._light


class Steering:
    """The part of `Session` that asks about it, and changes it while it runs.

    Each is a round trip, on a thread: the event loop goes on meanwhile.
    """

    def _opened(self) -> sync.Session:
        raise NotImplementedError

    async def status(self) -> Status:
        """How many of its tasks are pending, running, succeed, failed, cancelled.  One round trip.

        Raises:
            ClientClosed: the session is closed.
            RouterLost: there is nobody to ask.
        """
        status: Status = await in_thread(self._opened().status)
        return status

    async def suspend(self) -> bool:
        """Have nothing more of it run, until `resume`; as `flm.Session.suspend`."""
        return bool(await in_thread(self._opened().suspend))

    async def resume(self) -> bool:
        """Have its tasks run again; as `flm.Session.resume`."""
        return bool(await in_thread(self._opened().resume))

    async def set(
        self,
        *,
        weight: float | None = None,
        priority: int | None = None,
        min_executors: int | None = None,
        max_executors: int | None = None,
    ) -> None:
        """Change its share of the executors while it runs.

        Args:
            weight, priority, min_executors, max_executors: as `flm.Session.set` explains.

        Raises what that raises.
        """
        set_it = self._opened().set
        shares = partial(set_it, weight=weight, priority=priority)
        await in_thread(partial(shares, min_executors=min_executors, max_executors=max_executors))

    async def events(self) -> list[Event]:
        """What has happened to it, oldest first; as `flm.Session.events`, with what that raises."""
        found: list[Event] = await in_thread(self._opened().events)
        return found

    async def explain(self, answer: Answer | None = None) -> str:
        """Why a task waits, and since when, in a sentence or two; of one that runs or has ended, that.

        Args:
            answer: one of this session's; None asks about the session as a whole.

        Raises what `flm.Session.explain` raises.
        """
        future = None if answer is None else light_of(answer)
        return str(await in_thread(partial(self._opened().explain, future)))

    async def cancel(self, answers: Iterable[Answer] | None = None, *, running: bool = False) -> int:
        """Cancel many tasks at once; returns how many of them are cancelled.

        Args:
            answers: of this session; None takes all that have not ended.
            running: interrupt those that run; `Answer.cancel` always does.

        Waits for the router's word, a second at most, or five for tasks that run; those that await
        the answers get CancelledError.  Raises TypeError, ValueError: one of them is no
        Answer, or is of another session.
        """
        if isinstance(answers, Answer):
            raise TypeError(f"answers is one Answer; put it into a list: cancel([{answers!r}])")
        futures = None if answers is None else [light_of(answer) for answer in answers]
        return int(await in_thread(partial(self._opened().cancel, futures, running=running)))
