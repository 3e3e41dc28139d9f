"""Sessions with an id: opened by one client, joined by others, left, and attached to later.

The router knows members, each with a range of indices (`wire/joining.py`); here a member's session is
an ordinary one whose tasks begin there.  What others have submitted to a detached session comes as
futures of a session of its own kind, `Earlier`, which takes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any

from flamezmq.client import quota, surroundings
from flamezmq.client.defaults import Defaults
from flamezmq.client.future import Future
from flamezmq.client.opening import OPEN_SECONDS
from flamezmq.client.service_session import ServiceSession
from flamezmq.client.session import Session
from flamezmq.core.caller import Calls, Tell
from flamezmq.core.keeping import size_of
from flamezmq.errors import ClientClosed, NotFound, Refused, SessionClosed, SessionMismatch
from flamezmq.wire import joining as j
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.client.actor import Actor
    from flamezmq.client.api import Client
    from flamezmq.client.stream import Stream
    from flamezmq.optioned import Options

#: Characters of an id.
MOST_CHARACTERS = 200
#: Messages that come here.
KINDS = (j.Joined, j.Past)


class MemberCalls(Calls):
    """A member's tasks; of a detached session it tells the router which ends have come.

    answer   what became of the joining
    confirm  that is due after so many bytes; 0: never
    """

    def __init__(self, client: Client, alias: int, id: str) -> None:
        super().__init__(alias, id, client._needed)
        self._client = client
        self.answer: j.Joined | None = None
        self.confirm = 0
        self._messages = self._bytes = 0

    def begin(self, answer: j.Joined) -> None:
        """It is a member: its first task gets this index."""
        self.committed = answer.member * j.STRIDE
        self.confirm = answer.confirm
        self.opened = True

    def on_results(self, message: m.Results, frames: list[Any], tell: Tell) -> int:
        ended = super().on_results(message, frames, tell)
        if self.confirm:
            self._count(size_of(message, frames))
        return ended

    def on_lost(self, message: m.Lost, tell: Tell) -> None:
        super().on_lost(message, tell)
        self._count()

    def on_expired(self, message: m.Expired, tell: Tell) -> None:
        super().on_expired(message, tell)
        self._count()

    def on_cancelled(self, message: m.Cancelled, tell: Tell) -> None:
        super().on_cancelled(message, tell)
        if message.indices:
            self._count()

    def on_unmet(self, index: int, needed: tuple[int, int], tell: Tell) -> None:
        super().on_unmet(index, needed, tell)
        self._count()

    def _count(self, size: int = 0) -> None:
        """A message that the router keeps has come."""
        if not self.confirm:
            return
        self._messages += 1
        self._bytes += size
        if self._messages >= j.CONFIRM_MESSAGES or self._bytes >= self.confirm:
            self.say_fetched()

    def say_fetched(self) -> None:
        """The router may let go of what has come, when it needs the room."""
        if self._messages:
            self._client._orders.append(j.Fetched(self.alias, self._messages))
            self._client._pump.arm()
            self._messages = self._bytes = 0


class EarlierCalls(MemberCalls):
    """Tasks that others have submitted; `session` has their futures, once `Past` has come."""

    foreign = True

    def __init__(self, client: Client, alias: int, id: str, confirm: int) -> None:
        super().__init__(client, alias, id)
        self.confirm = confirm
        self.opened = True
        self.futures: list[Future] | None = None
        self.session = Earlier(client, self)

    def on_past(self, message: j.Past) -> None:
        """These tasks it is about; what has become of them follows."""
        futures = []
        for first, count in zip(message.tasks[::2], message.tasks[1::2], strict=True):
            for index in range(first, first + count):
                future = Future(self.session)
                future._index = index
                self.pending[index] = future
                futures.append(future)
        self.committed = max(self.pending, default=-1) + 1
        self.futures = futures
        self._leave_if_over()

    def _count(self, size: int = 0) -> None:
        super()._count(size)
        self._leave_if_over()

    def _leave_if_over(self) -> None:
        if not self.pending and not self.closed:
            self.closed = True
            self.say_fetched()
            self._client._orders.append(j.LeaveSession(self.alias))
            self._client._pump.arm()


class Earlier(Session):
    """What others have submitted to a detached session; it takes no tasks itself."""

    _shared = True

    def _refuse(self) -> None:
        raise Refused(
            f"these are tasks that others have submitted to session {self.id}; submit to the session"
        )


class Membership(Session):
    """The part of a session with an id that others have not."""

    _shared = True
    _detached = False
    _for_good = False

    @property
    def detached(self) -> bool:
        """Whether it stays when all its clients have gone."""
        return self._detached

    def futures(self) -> list[Future]:
        """Of what others have submitted to this detached session, in the order of their submission.

        Futures like those of `submit`: of tasks that have ended, that run and that wait.  Left out is what
        somebody has fetched before and the router had no more room for.  One round trip; the values come
        behind it, also when this session is left meanwhile.

        Raises:
            Refused: the session is not detached, so nothing is kept.
            ClientClosed, RouterLost: there is nobody to ask.
        """
        client, calls = self._client, self._calls
        assert isinstance(calls, MemberCalls)
        if not self._detached:
            raise Refused(
                f"session {self.id} is not detached: each of its clients has its own results, and no "
                "others are kept; open it with detached=True"
            )
        if client._closed or calls.closed or client._line.lost is not None:
            self._refuse()
        earlier = EarlierCalls(client, client._next_alias(), calls.id, calls.confirm)
        client._calls[earlier.alias] = earlier
        client._tell(j.Fetch(calls.alias, earlier.alias))
        client._drive(
            lambda: earlier.futures is not None or earlier.closed or client._line.lost is not None,
            monotonic() + OPEN_SECONDS,
        )
        if earlier.futures is None:
            client._forget(earlier.alias)
            client._check_open()
            self._refuse()
        return earlier.futures or []

    def leave(self) -> None:
        """Part from the session, which goes on for its other members, or without any if it is detached.

        Detached: waits only until the router has all that was submitted.  Futures that have not ended are
        cancelled here, and their tasks go on; `client.attach(id).futures()` has them again.
        Else: waits for the tasks of this client; the last client that leaves closes the session.
        """
        if not self._detached or self._calls.closed:
            super().close()
            return
        self._wait(self._is_sent, None)
        self._leave_at_once()

    def _is_sent(self) -> bool:
        """Whether the router has all that was submitted, or will never have it."""
        calls = self._calls
        return calls.closed or not (calls.outbox or calls.staged)

    def _leave_at_once(self) -> None:
        """`leave`; what was not sent is not."""
        self._stop_all()
        super().close(cancel=True)

    def close(self, cancel: bool = False) -> None:
        """Wait for the tasks of this client, and close the session if it is detached; else leave it.

        A detached session is closed for all, for good, and what was kept is let go.

        Args:
            cancel: do not wait; cancel what has not ended.
        """
        self._for_good = self._detached
        super().close(cancel)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._detached:
            self.leave()
        else:
            super().__exit__(kind, error, trace)

    def stream(self, fn: Any, /, *args: Any, replay: bool = False, **kwargs: Any) -> Stream:
        """As `Session.stream`; a detached session has none, for nobody would read on."""
        self._needs_a_client("a stream ends with who reads it")
        return super().stream(fn, *args, replay=replay, **kwargs)

    def actor(
        self, cls: type, /, *args: Any, max_restarts: int = 0, max_retries: int = 0, **kwargs: Any
    ) -> Actor:
        """As `Session.actor`, for this client alone; a detached session has none."""
        self._needs_a_client("an actor ends with its client")
        return super().actor(cls, *args, max_restarts=max_restarts, max_retries=max_retries, **kwargs)

    def _refuses(self, others: Iterable[Session]) -> str:
        if self._detached:
            return (
                f"a task of session {self.id} can't wait for futures that have not ended: the session is "
                "detached, and this client may be gone when they have; pass their result()"
            )
        return super()._refuses(others)

    def _refuse(self) -> None:
        calls = self._calls
        ended = calls.error or calls.draining or calls.broken is not None or self._for_good
        if calls.closed and not ended and not self._client._closed and self._client._line.lost is None:
            raise ClientClosed(
                f"this client has left session {self.id}; client.attach({self.id!r}) joins it again"
            )
        super()._refuse()

    def _needs_a_client(self, why: str) -> None:
        if self._detached:
            raise Refused(f"session {self.id} is detached, and {why}; take a session that is not")

    def _stop_all(self) -> None:
        """What has not ended goes on without us."""
        reason = f"this client has left session {self.id}, where it goes on; attach to it for its result"
        with self._apply_lock:
            self._calls.cancel_all(self._client._on_end, reason)

    def _farewell(self) -> Any:
        calls = self._calls
        assert isinstance(calls, MemberCalls)
        calls.say_fetched()
        return m.Close(calls.alias) if self._for_good else j.LeaveSession(calls.alias)


class JoinedSession(Membership, Session):
    """A session with an id, of which this client is a member; made by `Client.session(id=...)`."""


class JoinedServiceSession(Membership, ServiceSession):
    """The same with an application."""

    def stream(self, /, *args: Any, replay: bool = False, **kwargs: Any) -> Stream:
        """As `ServiceSession.stream`; a detached session has none."""
        self._needs_a_client("a stream ends with who reads it")
        return ServiceSession.stream(self, *args, replay=replay, **kwargs)


def check(client: Client, id: str | None, detached: bool) -> None:
    """Raises ValueError, or TypeError, for what can't be."""
    if not isinstance(detached, bool):
        raise TypeError(f"detached is {detached!r}; it must be True or False")
    if id is not None and (
        not isinstance(id, str) or not 0 < len(id) <= MOST_CHARACTERS or not id.isprintable() or "/" in id
    ):
        raise ValueError(
            f"an id is a text of 1 to {MOST_CHARACTERS} printable characters without '/', not {id!r}"
        )
    if detached and client._cluster is not None:
        raise ValueError(
            "a detached session outlives its client, and this client's cluster ends with it; start "
            "flmrouter and flmworker, and give their address"
        )


def join(
    client: Client, id: str, defaults: Options | None, spec: m.SessionSpec | None, waits_for_room: bool
) -> JoinedSession | JoinedServiceSession:
    """Open the session, or become a member of it; spec: None joins it whatever that is."""
    calls = MemberCalls(client, client._next_alias(), id)
    calls.waits_for_room = waits_for_room
    client._calls[calls.alias] = calls
    who = surroundings.who()
    try:
        client._tell(j.Join(calls.alias, id, who) if spec is None else m.Open(calls.alias, id, spec, who))
        client._drive(
            lambda: calls.answer is not None or client._line.lost is not None, monotonic() + OPEN_SECONDS
        )
        client._check_open()
        answer = calls.answer
        if answer is None:
            raise Refused(f"the router did not open session {id} in time")
        _check_answer(id, answer)
    except BaseException:  # nobody will have it, so nobody can leave it
        client._orders.append(j.LeaveSession(calls.alias))
        client._pump.arm()
        client._forget(calls.alias)
        raise
    session: JoinedSession | JoinedServiceSession
    if answer.application:
        session = JoinedServiceSession(client, calls)
        session.serve(answer.application)
    else:
        session = JoinedSession(client, calls)
    session._detached = answer.detached
    if defaults is not None:
        session._name = Defaults(client._functions, defaults).name
    client._sessions[calls.alias] = session
    with client._apply_lock:  # its first Room has come before the answer; one that comes now finds it
        quota.attend(session)
    return session


def _check_answer(id: str, answer: j.Joined) -> None:
    if answer.outcome == j.UNKNOWN:
        raise NotFound(answer.text)
    if answer.outcome == j.CLOSED:
        raise SessionClosed(id, answer.text, answer.ago)
    if answer.outcome == j.DIFFERS:
        flat = answer.differs
        raise SessionMismatch(id, tuple(zip(flat[::3], flat[1::3], flat[2::3], strict=True)))
    if answer.outcome != j.JOINED:
        raise Refused(answer.text)


def on_message(client: Client, calls: Calls, message: Any) -> None:
    """The router has answered; under the line's lock."""
    if isinstance(message, j.Past):
        if isinstance(calls, EarlierCalls) and calls.futures is None:
            calls.on_past(message)
    elif isinstance(calls, MemberCalls):
        if message.outcome == j.JOINED:
            calls.begin(message)
        calls.answer = message
