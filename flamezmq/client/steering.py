"""What a session's own program may have the router do with it while it runs."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from flamezmq.client.future import Future
from flamezmq.client.happened import Event, event_of
from flamezmq.client.inquiry import exchange
from flamezmq.client.reasons import sentences, unsent
from flamezmq.client.terms import check_share
from flamezmq.errors import Refused
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.client.api import Client
    from flamezmq.client.session import Session
    from flamezmq.core.caller import Calls

#: The kinds of question.
EVENTS, WHY = 6, 7
#: Who does it, as others read it.
BY = "its client"
#: So long a task may take to leave the outbox before it is said that it waits there.
UNSENT_SECONDS = 0.25


def check_member(future: object, session: Session, advice: str) -> bool:
    """Whether it is a future of another member of this session, not its own.

    Raises TypeError, ValueError: it is no future, or that of another session.
    """
    if not isinstance(future, Future):
        raise TypeError(f"{future!r} is no future of session {session.id}; pass what `submit` has given")
    if future._session.id != session.id:
        raise ValueError(f"{future!r} is not of session {session.id}; {advice}")
    return future._session is not session


def on_closed_by(client: Client, calls: Calls, message: m.ClosedBy) -> None:
    """Somebody else closes the session; if it is to drain, the router is told when all is there."""
    calls.on_closed_by(message, client._on_end)
    calls.ended_at = monotonic()
    if message.draining:
        client._dirty[calls.alias] = calls
        client._pump.arm()
    else:
        _take_home(client, calls)


def on_closed(client: Client, calls: Calls) -> None:
    """The router has closed the session, whoever wanted it: all that its tasks have printed is here."""
    if calls.draining and not calls.closed:
        calls.on_drained(client._on_end)
    elif calls.unfinished and calls.broken is not None:  # submitted while it broke
        calls.fail_all(calls.broken, client._on_end)
    elif calls.unfinished:  # submitted while somebody closed it; or nobody has: an odd router
        calls.cancel_all(client._on_end, calls.error or f"{calls.named} was closed by the router")
    _take_home(client, calls)
    if calls.closed:  # not by us
        client._forget(calls.alias)
    calls.closed = True


def _take_home(client: Client, calls: Calls) -> None:
    """What of it lies in a store goes in a moment: have it here."""
    session = client._sessions.get(calls.alias)
    if session is not None and session._kept:
        client._objects.take_home(session)


def say_drained(client: Client, calls: Calls) -> None:
    """The outbox is empty, and nothing more comes into it."""
    if not calls.said_drained:
        calls.said_drained = True
        client._orders.append(m.Close(calls.alias, True))


class Steering:
    """The part of `Session` that changes it while it runs."""

    _client: Client
    _calls: Calls

    def suspend(self) -> bool:
        """Have nothing more of it run, until `resume`; returns whether it was not suspended already.

        What runs ends.  What executors hold and have not begun waits again, and they serve others.
        `submit` goes on, waits go on waiting, and what is cancelled is cancelled.  Tasks of tasks
        that run go on.  `flmctl suspend` does the same.  One round trip.

        Raises:
            ClientClosed, RouterLost: there is nobody to tell.
        """
        return self._change(suspended=True)

    def resume(self) -> bool:
        """Have its tasks run again, whoever has suspended it; returns whether it was suspended.

        Raises as `suspend` does.
        """
        return self._change(suspended=False)

    def set(
        self,
        *,
        weight: float | None = None,
        priority: int | None = None,
        min_executors: int | None = None,
        max_executors: int | None = None,
    ) -> None:
        """Change its share of the executors while it runs, as `flmctl set` does.  One round trip.

        Args:
            weight, priority, min_executors: as `Client.session` explains; None leaves them as they are.
            max_executors: the same, and 0 takes the limit away.

        What it has above a lower share or limit it gives back as its tasks end.

        Raises:
            ValueError: an argument is none that it can be, or there is none.
            Refused: the router does not do it: the minimum would be above the limit, say.
            ClientClosed, RouterLost: there is nobody to tell.
        """
        check_share(None, 0 if priority is None else priority, 1.0 if weight is None else weight)
        for what, number in (("min_executors", min_executors), ("max_executors", max_executors)):
            if number is not None and (type(number) is not int or number < 0):
                raise ValueError(f"{what} is {number!r}; it must be an integer from 0")
        asked: dict[str, Any] = {
            "weight": None if weight is None else float(weight),
            "priority": priority,
            "min_executors": min_executors,
            "max_executors": max_executors,
        }
        if all(value is None for value in asked.values()):
            raise ValueError("nothing was to be set; give a weight, priority, min_executors or max_executors")
        id = self._calls.id
        done = exchange(self._client, lambda request: m.ChangeSession(request, id, BY, **asked))
        if done.outcome:
            raise Refused(done.text)

    def events(self) -> list[Event]:
        """What has happened to it, oldest first, also when it is closed: the last 64 `Event`s.

        As `flmctl events` shows it.  One round trip.

        Raises:
            NotFound: the router has forgotten the session.
            ClientClosed, RouterLost: there is nobody to ask.
        """
        answer = exchange(self._client, lambda request: m.Ask(request, EVENTS, self._calls.id))
        return [event_of(row) for row in answer.events]

    def explain(self, future: Future | None = None) -> str:
        """Why a task waits, and since when, in a sentence or two; of one that runs or has ended, that.

        Args:
            future: one of this session's; None asks about the session as a whole.

        As `flmctl explain` says it.  One round trip.

        Raises:
            TypeError, ValueError: it is no future, or that of another session.
            NotFound: the router has forgotten the session.
            ClientClosed, RouterLost: there is nobody to ask.
        """
        index = -1
        if future is not None:
            check_member(future, self, "ask its own")  # type: ignore[arg-type]
            self._client._pump.push()
            if future._index < 0:  # another thread has the line, and sends it
                self._client._drive(lambda: future._index >= 0 or future.done(), monotonic() + UNSENT_SECONDS)
            index = future._index
            if index < 0:
                return self._of_unsent(future)
        answer = exchange(self._client, lambda request: m.Ask(request, WHY, self._calls.id, index))
        return sentences(answer.why[0])

    def _of_unsent(self, future: Future) -> str:
        if future.done():
            return "the task has ended, and was never sent to the router."
        allowance = self._calls.allowance
        if allowance is not None and allowance.asked:
            answer = exchange(self._client, lambda request: m.Ask(request, WHY, self._calls.id))
            if quota := unsent(answer.why[0]):
                return f"the task was not sent yet. {quota}"
        most_tasks, most_bytes = self._client._line.limits
        if self._client._no_credit:
            return (
                "the task was not sent yet, for want of credit: the router has as many tasks of this client "
                f"as it may have ({most_tasks:,}), or as many bytes ({most_bytes >> 20:,} MiB); it goes out "
                "when results of others have come."
            )
        return (
            "the task was not sent yet: it, or one that was submitted before it, takes the value of a task "
            "that was not sent either."
        )

    def _change(self, **what: Any) -> bool:
        id = self._calls.id
        done = exchange(self._client, lambda request: m.ChangeSession(request, id, BY, **what))
        return bool(done.outcome == 0)
