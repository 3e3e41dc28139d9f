"""Sessions that several clients share, awaited: client/joining.py for loops."""

from __future__ import annotations

import threading
from functools import partial

from flamezmq.aio.behind import ClientBehind
from flamezmq.aio.hub import Answer, answer_of
from flamezmq.aio.threads import in_thread
from flamezmq.client import session as sync
from flamezmq.client.future import Future
from flamezmq.client.joining import Membership
from flamezmq.errors import Refused


class Joining:
    """The part of `Session` that is about other clients, and about results that are fetched later."""

    _behind: ClientBehind | None

    def _opened(self) -> sync.Session:
        raise NotImplementedError

    @property
    def detached(self) -> bool:
        """Whether it stays when all its clients have gone."""
        return is_detached(self._opened())

    async def futures(self) -> list[Answer]:
        """Of what others have submitted to this detached session: Answers, in the order of the submission.

        As `flm.client.joining.JoinedSession.futures`, which says what is left out and what is raised.
        """
        session = self._opened()
        if not isinstance(session, Membership):
            raise Refused(f"session {session.id} has one client; open it with id=..., detached=True")
        behind = self._behind
        assert behind is not None
        found: list[Future] = await in_thread(session.futures)
        return [answer_of(behind, partial(_itself, future)) for future in found]

    async def leave(self) -> None:
        """Part from the session, which goes on: as `flm.client.joining.JoinedSession.leave`.

        Of a session that is not detached, and when `async with` is left, this client's tasks are awaited.
        """
        session = self._opened()
        if isinstance(session, Membership):
            await in_thread(session.leave)
        else:
            raise Refused(f"session {session.id} has one client; close it")


def is_detached(session: sync.Session) -> bool:
    """Whether it is not to be waited for, nor closed, when its client goes."""
    return isinstance(session, Membership) and session.detached


def part(hurry: threading.Event, session: sync.Session) -> bool:
    """Leave a detached session, on a thread; False: it is none."""
    if not isinstance(session, Membership) or not session.detached:
        return False
    if not hurry.is_set():
        session._drive(lambda: session._is_sent() or hurry.is_set(), None)
    session._leave_at_once()
    return True


def _itself(future: Future) -> Future:
    return future
