"""BrokenSession and BrokenActor: the errors that are not in errors.py.

Their base makes them errors of concurrent.futures, too.  To import that takes
milliseconds, which router and worker, who import errors.py, start sooner without.
"""

from __future__ import annotations

import logging
from concurrent.futures import BrokenExecutor
from typing import TYPE_CHECKING

from flamezmq.core.caller import Calls
from flamezmq.core.certificates import certificate_of
from flamezmq.errors import ActorDied, FlameError
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.client.api import Client


class BrokenSession(FlameError, BrokenExecutor):
    """The initializer of a session has failed, or its service could not be bound: none of its tasks will run.

    Fields: `session_id`; `executor`, where it failed ("node/number"); `text`, type and text of
    the error; `traceback`, the remote traceback as text; `binds`, how often in a row its service
    could not be bound, 0 if it was the initializer.
    """

    def __init__(
        self, session_id: str, executor: str, text: str, traceback: str = "", binds: int = 0
    ) -> None:
        super().__init__(session_id, executor, text, traceback, binds)
        self.session_id, self.executor, self.text, self.traceback = session_id, executor, text, traceback
        self.binds = binds
        self.logged = False

    def __str__(self) -> str:
        if self.binds:
            words = (
                f"the service of session {self.session_id} could not be bound, {self.binds} times in a row, "
                f"the last time on {self.executor}: {self.text}; "
                "its tasks can't run: mend the service and open a new session"
            )
        else:
            words = (
                f"the initializer of session {self.session_id} failed on {self.executor}: {self.text}; "
                "its tasks can't run: mend the initializer and open a new session"
            )
        return words + (f"\n\n{self.traceback}" if self.traceback else "")


class BrokenActor(BrokenSession):
    """The constructor of an actor's class has failed: none of its calls will run.

    Fields as those of BrokenSession; `session_id` is the actor's id.
    """

    def __str__(self) -> str:
        words = (
            f"the constructor of actor {self.session_id} failed on {self.executor}: {self.text}; "
            "its calls can't run: mend the class, or its arguments, and make a new actor"
        )
        return words + (f"\n\n{self.traceback}" if self.traceback else "")


def error_of(calls: Calls, message: m.Broken) -> FlameError:
    """What all calls fail with."""
    if message.died is not None:
        certificate = certificate_of(message.died)
        return ActorDied("", message.instances, certificate, calls.actor, calls.id)
    kind = BrokenActor if calls.actor else BrokenSession
    return kind(calls.id, message.executor, message.text, message.traceback, message.binds)


def on_broken(client: Client, calls: Calls, message: m.Broken) -> None:
    """The router has closed the session: nothing of it will run."""
    if calls.broken is None:
        calls.broken = error_of(calls, message)
        if not calls.actor:
            client._errands.add(log, calls.broken)
    calls.closed = True
    calls.fail_all(calls.broken, client._on_end)


def log(error: BrokenSession) -> None:
    """Where and as the standard library does it for its own executors."""
    where = "binding a service" if error.binds else "initializer"
    logging.getLogger("concurrent.futures").critical("Exception in %s:\n%s", where, error)
    error.logged = True
