"""BrokenSession: the one error that is not in errors.py.

Its base makes it an error of concurrent.futures, too.  To import that takes
milliseconds, which router and worker, who import errors.py, start sooner without.
"""

from __future__ import annotations

import logging
from concurrent.futures import BrokenExecutor

from flamezmq.errors import FlameError


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


def log(error: BrokenSession) -> None:
    """Where and as the standard library does it for its own executors."""
    logging.getLogger("concurrent.futures").critical("Exception in initializer:\n%s", error)
    error.logged = True
