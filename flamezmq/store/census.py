"""The census: what the router has still to hear of what a store has.

Not object by object: what changes is gathered for `GATHER_SECONDS`, and what
came and went in the meantime is never told.  A report has a bound, and so has
the number of reports in a second; what is over it is told by the next one.

No clock and no thread: time comes in as `now`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from flamezmq.wire.objects import COPY, MOST_OBJECTS, PINNED, SPILLED, Stocked

if TYPE_CHECKING:
    from flamezmq.store.server import Server

#: For so long changes are gathered.
GATHER_SECONDS = 0.03


class Fact(NamedTuple):
    """What is told of one object; as in `Stocked`."""

    session: str
    size: int
    marks: int = 0
    name: str = ""
    readers: int = 0


def describe(store: Server, id: bytes) -> Fact | None:
    """What there is to tell of an object of this store; None: it has none, or that is a part of another."""
    one = store.objects.get(id)
    if one is None or one.is_part:
        return None
    holders = store.lifetimes.holders
    marks = (COPY if id in store.copies else 0) | (PINNED if holders.is_pinned(id) else 0)
    marks |= SPILLED if one.is_away else 0
    return Fact(one.session, store.parts.size_of(id, one), marks, one.name, holders.readers(id))


class Census:
    """describe: what there is to tell of an object now; None: it is not here.

    due  when the next report is; None: nothing has changed
    """

    def __init__(self, describe: Callable[[bytes], Fact | None]) -> None:
        self._describe = describe
        self.due: float | None = None
        self._changed: dict[bytes, None] = {}
        self._gone: dict[bytes, None] = {}
        self._told: set[bytes] = set()
        self._used = 0  # as it was told

    def changed(self, id: bytes, now: float) -> None:
        """This object has come, or is told of in other words from now on."""
        self._changed[id] = None
        self._gone.pop(id, None)
        self.touch(now)

    def gone(self, ids: Iterable[bytes], now: float) -> None:
        """These are not here any more."""
        for id in ids:
            self._changed.pop(id, None)
            if id in self._told:
                self._gone[id] = None
        self.touch(now)

    def touch(self, now: float) -> None:
        """It may be that less, or more, of the store is in use."""
        if self.due is None:
            self.due = now + GATHER_SECONDS

    def take(self, now: float, used: int) -> Stocked | None:
        """The report that is due, if there is anything to tell; used: bytes of memory that are in use."""
        if self.due is None or now < self.due:
            return None
        gone = list(islice(self._gone, MOST_OBJECTS))
        changed = list(islice(self._changed, MOST_OBJECTS - len(gone)))
        report = Stocked(used, [], [], [], [], [], gone=gone)
        for id in gone:
            del self._gone[id]
        self._told.difference_update(gone)
        sessions: dict[str, int] = {}
        for id in changed:
            del self._changed[id]
            fact = self._describe(id)
            if fact is not None:
                self._told.add(id)
                _add(report, id, fact, sessions)
        report.sessions = list(sessions)
        self.due = now + GATHER_SECONDS if self._changed or self._gone else None
        if not (report.ids or gone) and used == self._used:
            return None
        self._used = used
        return report


def _add(report: Stocked, id: bytes, fact: Fact, sessions: dict[str, int]) -> None:
    at = len(report.ids)
    report.ids.append(id)
    report.owners.append(sessions.setdefault(fact.session, len(sessions)) if fact.session else -1)
    report.sizes.append(fact.size)
    report.marks.append(fact.marks)
    if fact.name:
        report.names[at] = fact.name
    if fact.readers:
        report.readers[at] = fact.readers
