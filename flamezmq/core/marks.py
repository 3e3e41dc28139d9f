"""Marks: who printed what, said in the stream itself.

An executor's stdout and stderr are pipes of bytes; by the time that its worker
reads them another task may run.  So the executor writes a mark before the first
text of a task, and another one when that has ended; the worker takes the marks
out.  Nobody but a task that prints pays for it.

What comes without a mark (from C code, or from a program that a task has
started) is taken for a text of the task that the executor's page names when it
is read.  Pure: bytes come in, bytes go out.
"""

from __future__ import annotations

import re

#: (router's number of the session, index of the task)
Task = tuple[int, int]

#: Index of "nobody says": look at the page.
UNKNOWN = -1

_MARK = re.compile(rb"\x00\x1eflm ([0-9]{1,20}) (-1|[0-9]{1,20})\x1e")
#: What may be the beginning of a mark whose end has not been read yet.
_TORN = re.compile(rb"\x00(?:\x1e(?:f(?:l(?:m(?: (?:[0-9]{1,20}(?: (?:-1?|[0-9]{0,20}))?)?)?)?)?)?)?\Z")
_LONGEST = 64


def mark(session: int, index: int) -> str:
    """To be written before the texts of a task; an index of -1 ends them."""
    return f"\x00\x1eflm {session} {index}\x1e"


class Reader:
    """One stream, as its reader sees it: the marks are taken out, and remembered."""

    __slots__ = ("_rest", "_task")

    def __init__(self) -> None:
        self._rest = b""  # of a mark that was torn by the end of a read
        self._task: Task | None = None  # as the last mark said

    def split(self, data: bytes, running: Task) -> list[tuple[Task, bytes]]:
        """What was read, in pieces of one task each.

        running: whom the page names; for what no mark says anything about.
        """
        if b"\x00" not in data and not self._rest:
            return [(self._task or running, data)] if data else []
        data, self._rest = self._rest + data, b""
        torn = _TORN.search(data, max(0, len(data) - _LONGEST))
        if torn is not None:
            data, self._rest = data[: torn.start()], data[torn.start() :]
        pieces: list[tuple[Task, bytes]] = []
        used = 0
        for found in _MARK.finditer(data):
            if found.start() > used:
                pieces.append((self._task or running, data[used : found.start()]))
            index = int(found[2])
            self._task = (int(found[1]), index) if index != UNKNOWN else None
            used = found.end()
        if used < len(data):
            pieces.append((self._task or running, data[used:]))
        return pieces
