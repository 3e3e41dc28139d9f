"""The meter of a session whose tenant has a quota on what is queued.

Of tasks the session has a count anyway; of the bytes of their arguments it has
none, because nobody else needs it.  So the meter follows what comes into the
queue and what leaves it for executors; where something else has taken tasks away
its own count of them differs, and it looks through the queue.

What is queued is the session's.  What may be submitted yet is that of who submits: the
session's client, or each of its members.

Data only; core/quotas.py decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from flamezmq.core.caller import weight
from flamezmq.core.tasks import Run

if TYPE_CHECKING:
    from flamezmq.core.members import Session
    from flamezmq.core.quotas import Account


@dataclass(slots=True, eq=False)
class Leeway:
    """So far one client may submit to a session.

    peer, alias  who that is, and its number of the session
    next_index   of its next task
    until        tasks with indices below it may be submitted
    until_bytes  and so many bytes of arguments in all
    came         bytes that have been
    """

    peer: int
    alias: int
    next_index: int = 0
    until: int = 0
    until_bytes: int = 0
    came: int = 0

    @property
    def left(self) -> int:
        """Tasks that may still be submitted."""
        return max(self.until - self.next_index, 0)

    @property
    def left_bytes(self) -> int:
        return max(self.until_bytes - self.came, 0)


class Meter:
    """account: its tenant's.  weighs: bytes count.

    leeways  of those who submit, by the number of the member; of a session without members it has number 0
    """

    __slots__ = ("_bytes", "_composed", "_tasks", "account", "leeways", "weighs")

    def __init__(self, account: Account, weighs: bool) -> None:
        self.account, self.weighs = account, weighs
        self.leeways: dict[int, Leeway] = {}
        self._tasks = self._bytes = 0
        self._composed = False

    def on_submit(self, leeway: Leeway, payloads: list[Any]) -> None:
        """These tasks have come in."""
        leeway.next_index += len(payloads)
        if self.weighs:
            size = sum(map(weight, payloads))
            leeway.came += size
            self._bytes += size
            self._tasks += len(payloads)

    def count_bytes(self, weighs: bool) -> None:
        """Bytes count from now on, or do not any more: what is queued is counted anew when it matters."""
        self.weighs, self._tasks = weighs, -1

    def on_leave(self, runs: list[Run]) -> None:
        """An executor has got these."""
        if self.weighs:
            self._tasks -= sum(map(len, runs))
            self._bytes -= _bytes_of(runs)

    def on_return(self, runs: list[Run]) -> None:
        """These are queued again."""
        if self.weighs:
            self._tasks += sum(map(len, runs))
            self._bytes += _bytes_of(runs)

    def waiting_bytes(self, session: Session) -> int:
        """Of the arguments of all that waits; values of others that have come to them are among them."""
        composed = bool(session.composed)
        if self._tasks != session.waiting or composed or self._composed:
            delayed = (run for _, _, run in session.delayed)
            self._tasks, self._bytes = session.waiting, _bytes_of(chain(session.queue, delayed))
            self._bytes += sum(weight(blocked.payload) for blocked in session.blocked.values())
        self._composed = composed
        return self._bytes


def _bytes_of(runs: Iterable[Run]) -> int:
    return sum(weight(payload) for run in runs for payload in run.inputs[run.done :])
