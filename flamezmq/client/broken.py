"""BrokenSession and BrokenActor: the errors that are not in errors.py.

Their base makes them errors of concurrent.futures, too.  To import that takes
milliseconds, which router and worker, who import errors.py, start sooner without.
"""

from __future__ import annotations

import logging
from concurrent.futures import BrokenExecutor

from flamezmq.core.caller import Calls, certificate_of
from flamezmq.errors import ActorDied, FlameError
from flamezmq.wire import messages as m


class BrokenSession(FlameError, BrokenExecutor):
    """The initializer of a session has failed: none of its tasks will run any more.

    Fields: `session_id`; `executor`, where it failed ("node/number"); `text`, type and text of
    the error; `traceback`, the remote traceback as text.
    """

    def __init__(self, session_id: str, executor: str, text: str, traceback: str = "") -> None:
        super().__init__(session_id, executor, text, traceback)
        self.session_id, self.executor, self.text, self.traceback = session_id, executor, text, traceback
        self.logged = False

    def __str__(self) -> str:
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
    return kind(calls.id, message.executor, message.text, message.traceback)


def log(error: BrokenSession) -> None:
    """Where and as the standard library does it for its own executors."""
    logging.getLogger("concurrent.futures").critical("Exception in initializer:\n%s", error)
    error.logged = True
