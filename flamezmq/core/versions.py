"""Versions of objects, as the home of an object keeps them.

An object has versions, numbered from 1, as it was put.  Each is the *base*, which
the last `update` made, or the put, and the *deltas* that were appended to it
since; base and deltas, the *parts*, are objects of their own, and never change.
So a new version costs what came, and whoever has version n needs only the parts
behind it, unless the base is newer than n.

Pure bookkeeping: parts are named by ids, and lie elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

#: The first word of the kind of what can be appended to.
LIST = "list"


class Amendment(NamedTuple):
    """What is to make a new version.

    part      id of the object that is the new base, or the new delta
    appends   it is a delta
    kind      of a base: its value's type, in words; one that begins with `LIST` can be appended to
    expected  the version that it is made for; 0: whichever is the newest
    """

    part: bytes
    appends: bool
    kind: str = ""
    expected: int = 0


class Outcome(NamedTuple):
    """What became of an amendment.

    version   the newest one now
    refusal   why that is none of this amendment's; "": it is
    replaced  parts that belong to no version any more
    """

    version: int
    refusal: str = ""
    replaced: Sequence[bytes] = ()


class Increment(NamedTuple):
    """What came after a version.

    newest  the newest version
    first   version that the first of these parts made; a base if `whole`
    whole   nothing older is needed with these
    kind    of the value
    parts   in their order
    """

    newest: int
    first: int
    whole: bool
    kind: str
    parts: Sequence[bytes]


class _Line:
    """The versions of one object: `parts[k]` made version `base + k`."""

    __slots__ = ("base", "kind", "parts")

    def __init__(self, base: int, kind: str, part: bytes) -> None:
        self.base, self.kind = base, kind
        self.parts = [part]

    @property
    def newest(self) -> int:
        return self.base + len(self.parts) - 1


#: Refusals of an amendment.
STALE, NO_LIST = "stale", "no list"


class Versions:
    """Of all objects of a store that have, or had, more than one."""

    def __init__(self) -> None:
        self._lines: dict[bytes, _Line] = {}

    def __contains__(self, name: bytes) -> bool:
        return name in self._lines

    def __len__(self) -> int:
        return len(self._lines)

    def begin(self, name: bytes, part: bytes, kind: str) -> None:
        """This object is going to have versions; the first one is `part`, of this kind."""
        assert name not in self._lines
        self._lines[name] = _Line(1, kind, part)

    def amend(self, name: bytes, amendment: Amendment) -> Outcome:
        """Make the next version of an object that has begun."""
        line = self._lines[name]
        if amendment.expected and amendment.expected != line.newest:
            return Outcome(line.newest, STALE)
        if amendment.appends:
            if line.kind.partition(" ")[0] != LIST:
                return Outcome(line.newest, NO_LIST)
            line.parts.append(amendment.part)
            line.kind = LIST  # without the number of its items, which is another one now
            return Outcome(line.newest)
        replaced = line.parts
        line.base, line.kind, line.parts = line.newest + 1, amendment.kind, [amendment.part]
        return Outcome(line.newest, "", replaced)

    def after(self, name: bytes, version: int, most: int) -> Increment:
        """What came after this version, 0 for all; `most` parts of it at most, the first ones."""
        line = self._lines[name]
        start = version + 1 - line.base
        whole = start <= 0
        start = max(start, 0)
        return Increment(line.newest, line.base + start, whole, line.kind, line.parts[start : start + most])

    def newest(self, name: bytes) -> int:
        """The newest version of an object that has begun."""
        return self._lines[name].newest

    def kind(self, name: bytes) -> str:
        """Of the value of an object that has begun."""
        return self._lines[name].kind

    def end(self, name: bytes) -> list[bytes]:
        """The object is gone; its parts, which nobody needs any more.  None if it never began."""
        line = self._lines.pop(name, None)
        return line.parts if line is not None else []

    def check(self) -> None:
        """Nothing is in two lines, and no line is empty."""
        parts = [part for line in self._lines.values() for part in line.parts]
        assert len(parts) == len(set(parts))
        assert all(line.parts and line.base >= 1 for line in self._lines.values())
