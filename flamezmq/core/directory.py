"""The directory: which object is on which nodes, as their stores have reported it.

Reports come in batches, some tens of milliseconds late: who acts on this must
be able to live with what has gone, and with what is not there yet.  Nodes are
named by the tokens of their workers, objects by the 16 bytes of their id.

Data and what keeps it consistent; nothing here knows of messages.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable
from typing import NamedTuple

from flamezmq.wire.objects import COPY


class Report(NamedTuple):
    """What a store says of one object.  session: ""; it does not know.  marks: see wire/objects.py."""

    id: bytes
    session: str
    size: int
    marks: int = 0
    name: str = ""
    readers: int = 0


class Entry:
    """An object.

    number   of those that came later it is greater; never used twice
    session  by its id; "": no store has said so yet
    holders  node -> its marks there
    readers  node -> so many processes there have it; only where there are any
    """

    __slots__ = ("holders", "id", "name", "number", "readers", "session", "size")

    def __init__(self, number: int, id: bytes, session: str, size: int) -> None:
        self.number, self.id, self.session, self.size = number, id, session, size
        self.name = ""
        self.holders: dict[str, int] = {}
        self.readers: dict[str, int] = {}

    @property
    def nodes(self) -> list[str]:
        """Those that have it, its home first."""
        return sorted(self.holders, key=lambda node: self.holders[node] & COPY)

    def is_marked(self, mark: int) -> bool:
        """Whether it is so on any node."""
        return any(marks & mark for marks in self.holders.values())


def _number(entry: Entry) -> int:
    return entry.number


class Directory:
    """All objects that the stores of a cluster have told of.

    used     node -> bytes of memory that its store has in use
    homes    name of a store -> its node
    version  another one after each change of what is where
    """

    def __init__(self) -> None:
        self.used: dict[str, int] = {}
        self.homes: dict[str, str] = {}
        self.version = 0
        self._last = 0
        self._objects: dict[bytes, Entry] = {}
        self._by_session: dict[str, dict[bytes, Entry]] = {}
        self._bytes: dict[str, int] = {}  # session -> of its objects, each once
        self._by_node: dict[str, dict[bytes, Entry]] = {}

    def __len__(self) -> int:
        return len(self._objects)

    def find(self, id: bytes) -> Entry | None:
        return self._objects.get(id)

    def count(self, node: str) -> int:
        """Objects that this node has."""
        return len(self._by_node.get(node, ()))

    def of_session(self, session: str) -> tuple[int, int]:
        """So many objects it has, and bytes of them, each counted once."""
        return len(self._by_session.get(session, ())), self._bytes.get(session, 0)

    # --- what is reported

    def has(self, node: str, report: Report) -> Entry:
        """The node has this object, or knows better now what it is."""
        self.version += 1
        entry = self._objects.get(report.id)
        if entry is None:
            self._last += 1
            entry = self._objects[report.id] = Entry(self._last, report.id, report.session, report.size)
            self._by_session.setdefault(entry.session, {})[report.id] = entry
            self._bytes[entry.session] = self._bytes.get(entry.session, 0) + entry.size
        elif report.session != entry.session and report.session:
            self._move(entry, report.session)
        entry.holders[node] = report.marks
        if not report.marks & COPY:
            entry.name = report.name
            self._bytes[entry.session] += report.size - entry.size  # its home says: it may have versions
            entry.size = report.size
        if report.readers:
            entry.readers[node] = report.readers
        else:
            entry.readers.pop(node, None)
        self._by_node.setdefault(node, {})[report.id] = entry
        return entry

    def _move(self, entry: Entry, session: str) -> None:
        """It is known now whose it is; its number stays, and the order of a session is that of numbers."""
        self._leave_session(entry)
        entry.session = session
        others = self._by_session.setdefault(session, {})
        self._bytes[session] = self._bytes.get(session, 0) + entry.size
        latest = next(reversed(others.values()), entry)
        others[entry.id] = entry
        if latest.number > entry.number:
            self._by_session[session] = {e.id: e for e in sorted(others.values(), key=_number)}

    def gone(self, node: str, ids: Iterable[bytes]) -> None:
        """The node has these no more."""
        self.version += 1
        here = self._by_node.get(node, {})
        for id in ids:
            entry = here.pop(id, None)
            if entry is not None:
                self._leave_node(entry, node)
        if not here:
            self._by_node.pop(node, None)

    def lose(self, node: str) -> list[Entry]:
        """The node is gone, with all that it had; returns what is nowhere now."""
        self.version += 1
        here = self._by_node.pop(node, {})
        self.used.pop(node, None)
        self.homes = {store: other for store, other in self.homes.items() if other != node}
        for entry in here.values():
            self._leave_node(entry, node)
        return [entry for entry in here.values() if not entry.holders]

    def end_session(self, session: str) -> None:
        """Its objects are nobody's any more, wherever they lie for a while yet."""
        self.version += 1
        self._bytes.pop(session, None)
        for entry in self._by_session.pop(session, {}).values():
            del self._objects[entry.id]
            for node in entry.holders:
                here = self._by_node[node]
                del here[entry.id]
                if not here:
                    del self._by_node[node]

    def _leave_node(self, entry: Entry, node: str) -> None:
        del entry.holders[node]
        entry.readers.pop(node, None)
        if not entry.holders:
            del self._objects[entry.id]
            self._leave_session(entry)

    def _leave_session(self, entry: Entry) -> None:
        others = self._by_session[entry.session]
        del others[entry.id]
        self._bytes[entry.session] -= entry.size
        if not others:
            del self._by_session[entry.session], self._bytes[entry.session]

    # --- for those who look on

    def page(self, after: int, limit: int, session: str | None = None) -> tuple[list[Entry], int]:
        """The first objects with greater numbers, of one session or of all, and how many more follow."""
        found: Collection[Entry] = self._objects.values()
        if session is not None:
            found = self._by_session.get(session, {}).values()
        entries = list(found)
        first = bisect_right(entries, after, key=_number)
        page = entries[first : first + limit]
        return page, len(entries) - first - len(page)

    def check(self) -> None:
        """Compare every index with every other."""
        numbers = [entry.number for entry in self._objects.values()]
        assert numbers == sorted(set(numbers)), "numbers"
        for id, entry in self._objects.items():
            assert entry.id == id and entry.holders, "an object that is nowhere"
            assert entry.readers.keys() <= entry.holders.keys(), "readers where it is not"
            assert self._by_session[entry.session][id] is entry
            assert all(self._by_node[node][id] is entry for node in entry.holders)
        for index in (self._by_session, self._by_node):
            assert all(index.values()), "an empty index"
        assert sum(map(len, self._by_session.values())) == len(self._objects)
        held = sum(len(entry.holders) for entry in self._objects.values())
        assert sum(map(len, self._by_node.values())) == held
        sizes = {key: sum(e.size for e in entries.values()) for key, entries in self._by_session.items()}
        assert sizes == self._bytes, "bytes of sessions"
        for entries in self._by_session.values():
            numbers = [entry.number for entry in entries.values()]
            assert numbers == sorted(numbers), "the order of a session"
