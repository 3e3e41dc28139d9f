"""What a session's own program may have the router do with it while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flamezmq.client.happened import Event, event_of
from flamezmq.client.inquiry import exchange
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.client.api import Client
    from flamezmq.core.caller import Calls

#: The kind of question.
EVENTS = 6
#: Who does it, as others read it.
BY = "its client"


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

    def events(self) -> list[Event]:
        """What has happened to it, oldest first, also when it is closed: the last 64 `Event`s.

        As `flmctl events` shows it.  One round trip.

        Raises:
            NotFound: the router has forgotten the session.
            ClientClosed, RouterLost: there is nobody to ask.
        """
        answer = exchange(self._client, lambda request: m.Ask(request, EVENTS, self._calls.id))
        return [event_of(row) for row in answer.events]

    def _change(self, **what: Any) -> bool:
        id = self._calls.id
        done = exchange(self._client, lambda request: m.ChangeSession(request, id, BY, **what))
        return bool(done.outcome == 0)
