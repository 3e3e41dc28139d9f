"""Who needs which object: it goes when nobody does any more.

An object is needed by its owner, who is known by his handle on it and not by his
process (the client whose result it is may be on another machine); by processes
that hold it; by objects that are here and contain a reference to it; and it may be
pinned, or stay until its session ends because somebody has pickled a reference
to it for nobody knows whom.

A process may be heard of before the object is: both have been told, but on
different connections.  What a process has held is let go of when it ends.

Pure bookkeeping: no clock, no file.  Every method that lets go returns the
objects that nobody needs any more; that they are gone is to be said by `gone`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


class Claims:
    """On one object.

    here       it is in the store; else it has been spoken of only
    processes  pid -> how often it holds the object
    inside     how many objects that are here contain it
    contains   those that it contains
    """

    __slots__ = ("contains", "here", "inside", "owned", "pinned", "processes", "stays")

    def __init__(self) -> None:
        self.here = self.owned = self.pinned = self.stays = False
        self.processes: dict[int, int] = {}
        self.inside = 0
        self.contains: Collection[bytes] = ()

    @property
    def are_none(self) -> bool:
        """Nobody needs it."""
        return not (self.owned or self.pinned or self.stays or self.processes or self.inside)


class Holders:
    """Of all objects of a store."""

    def __init__(self) -> None:
        self._claims: dict[bytes, Claims] = {}
        self._held: dict[int, dict[bytes, None]] = {}  # pid -> what it holds

    def put(self, name: bytes, contains: Sequence[bytes] = (), pinned: bool = False, by: int = 0) -> None:
        """It is here, and needed by its owner; or, if that is to go with a process, by that one."""
        claims = self._of(name)
        claims.here, claims.pinned, claims.contains = True, pinned, contains
        if by:
            self.hold(by, (name,))
        else:
            claims.owned = True
        for other in contains:
            self._of(other).inside += 1

    def here(self, name: bytes, contains: Collection[bytes]) -> None:
        """It is here; who needs it is said next."""
        claims = self._of(name)
        claims.here, claims.contains = True, contains
        for other in contains:
            self._of(other).inside += 1

    def enclose(self, name: bytes, inner: bytes) -> None:
        """What object `name`, which is here, was until now is `inner`, which `name` contains."""
        claims, its = self._of(name), self._of(inner)
        its.here, its.contains = True, claims.contains
        claims.contains = {}
        self.embrace(name, inner)

    def embrace(self, name: bytes, part: bytes) -> None:
        """An object that encloses others contains this one, too, which nobody else needs."""
        claims, its = self._of(name), self._of(part)
        assert isinstance(claims.contains, dict)
        claims.contains[part] = None
        its.owned, its.pinned = False, claims.pinned
        its.inside += 1

    def release(self, name: bytes, part: bytes) -> list[bytes]:
        """It does not contain it any more."""
        claims = self._claims.get(name)
        if claims is None or not isinstance(claims.contains, dict) or part not in claims.contains:
            return []  # it has gone, and its parts with it
        del claims.contains[part]
        its = self._claims[part]
        its.inside -= 1
        its.pinned = False
        return self._look(part, its)

    def is_inside(self, name: bytes) -> bool:
        """Whether some object contains it."""
        claims = self._claims.get(name)
        return claims is not None and claims.inside > 0

    def hold(self, process: int, names: Iterable[bytes]) -> None:
        """A process holds these, once more."""
        held = self._held.setdefault(process, {})
        for name in names:
            held[name] = None
            counts = self._of(name).processes
            counts[process] = counts.get(process, 0) + 1

    def stay(self, names: Iterable[bytes]) -> None:
        """These are needed until their session ends, as far as they are here."""
        for name in names:
            claims = self._claims.get(name)
            if claims is not None and claims.here:
                claims.stays = True

    def let_go(self, process: int, names: Iterable[bytes]) -> list[bytes]:
        """A process needs these no more: as one that holds them, else as their owner."""
        free = []
        for name in names:
            claims = self._claims.get(name)
            if claims is None:
                continue
            count = claims.processes.get(process, 0)
            if count > 1:
                claims.processes[process] = count - 1
            elif count:
                del claims.processes[process]
                self._release(process, name)
            else:
                claims.owned = False
            free += self._look(name, claims)
        return free

    def end(self, process: int) -> list[bytes]:
        """It has ended."""
        free = []
        for name in self._held.pop(process, ()):
            claims = self._claims[name]
            del claims.processes[process]
            free += self._look(name, claims)
        return free

    def gone(self, name: bytes) -> list[bytes]:
        """This object is in the store no more; what it has contained may go, too."""
        claims = self._claims.get(name)
        if claims is None or not claims.here:
            return []
        free = []
        encloses = isinstance(claims.contains, dict)
        for other in claims.contains:
            its = self._claims[other]
            its.inside -= 1
            its.pinned = its.pinned and not encloses
            free += self._look(other, its)
        claims.here = claims.owned = claims.pinned = claims.stays = False
        claims.contains = ()
        self._look(name, claims)
        return free

    def is_pinned(self, name: bytes) -> bool:
        """Whether it stays when its session ends."""
        claims = self._claims.get(name)
        return claims is not None and claims.pinned

    def holds(self, process: int) -> bool:
        """Whether this process holds anything."""
        return process in self._held

    def readers(self, name: bytes) -> int:
        """How many processes hold it, beside its owner."""
        claims = self._claims.get(name)
        return len(claims.processes) if claims is not None else 0

    def _of(self, name: bytes) -> Claims:
        claims = self._claims.get(name)
        if claims is None:
            claims = self._claims[name] = Claims()
        return claims

    def _release(self, process: int, name: bytes) -> None:
        held = self._held[process]
        del held[name]
        if not held:
            del self._held[process]

    def _look(self, name: bytes, claims: Claims) -> list[bytes]:
        """The object, if it is to go; what was only spoken of is forgotten."""
        if not claims.are_none:
            return []
        if claims.here:
            return [name]
        self._claims.pop(name, None)
        return []

    def check(self) -> None:
        """Compare every index with every other."""
        inside: dict[bytes, int] = {}
        for claims in self._claims.values():
            for other in claims.contains:
                inside[other] = inside.get(other, 0) + 1
        for name, claims in self._claims.items():
            assert claims.inside == inside.pop(name, 0)
            assert claims.here or not claims.are_none
            assert not (claims.contains and not claims.here)
            assert all(count > 0 and name in self._held[pid] for pid, count in claims.processes.items())
        assert not inside
        for process, names in self._held.items():
            assert names
            assert all(process in self._claims[name].processes for name in names)
