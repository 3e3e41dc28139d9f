"""Who fetches which object from whom, so that many who want one at once don't all ask its home.

The home of an object says where to fetch it.  As one that has a part serves that
part, the next is best sent to the last that has nobody yet: in a chain each cable
carries the object once, and the last one ends a few chunks after the first.  As a
chain gets long another begins: where so many hops count as one more to serve.

Pure: no clock, no socket.  A peer is whatever names a connection; addresses are
what peers say of themselves ("": nobody can be sent there).
"""

from __future__ import annotations

from collections.abc import Hashable

from flamezmq.wire.transfer import MOST_ADDRESSES

#: Hops from the home that count as one more to serve.
HOPS = 16
#: Of one object, who is kept in mind; who comes later is sent to the home.
MOST_PEERS = 4096


class Part:
    """A peer that fetches an object, or has fetched it.

    source  where it was sent; None: to the home.  has_all: it is done
    serves  how many were sent to it and are not done
    """

    __slots__ = ("at", "has_all", "hops", "serves", "source")

    def __init__(self, at: str) -> None:
        self.at = at
        self.source: Part | None = None
        self.has_all = False
        self.hops = self.serves = 0


class Spread:
    """What a home knows of the copies of its objects, also of those that are on their way."""

    def __init__(self) -> None:
        self._parts: dict[bytes, dict[Hashable, Part]] = {}
        self._busy: dict[bytes, int] = {}  # how many fetch from the home itself

    def seek(
        self,
        name: bytes,
        peer: Hashable,
        at: str,
        failed: str = "",
        near: bool = False,
        keeps: bool = True,
    ) -> tuple[str, list[str]]:
        """Where this peer is to fetch it ("": from us), and who else has it.

        near: from us, whoever else has it
        keeps: it will have it; who does not, and says nothing of how that ended, is not kept in mind
        """
        if not keeps:
            return self._seek_alone(name, failed, near)
        parts = self._parts.setdefault(name, {})
        if failed:
            self._strike(name, failed)
        mine = parts.get(peer)
        if mine is None:
            if len(parts) >= MOST_PEERS:
                return "", self._others(parts, at)
            mine = parts[peer] = Part(at)
        else:
            self._leave_source(name, mine)
        mine.at, mine.has_all = at, False
        source = None if near else self._least_busy(name, mine)
        mine.source = source
        if source is None:
            self._busy[name] = self._busy.get(name, 0) + 1
            mine.hops = 1
            return "", self._others(parts, at)
        source.serves += 1
        mine.hops = source.hops + 1
        return source.at, self._others(parts, at)

    def _seek_alone(self, name: bytes, failed: str, near: bool) -> tuple[str, list[str]]:
        if name not in self._parts:
            return "", []
        if failed:
            self._strike(name, failed)
        source = None if near else self._least_busy(name, None)
        return source.at if source is not None else "", self._others(self._parts[name], "")

    def has(self, name: bytes, peer: Hashable) -> None:
        """It has all of it now."""
        mine = self._parts.get(name, {}).get(peer)
        if mine is not None and not mine.has_all:
            self._leave_source(name, mine)
            mine.has_all = True
            mine.hops = 1  # it does not wait for anybody any more

    def lacks(self, name: bytes, peer: Hashable) -> None:
        """It has nothing of it any more."""
        parts = self._parts.get(name, {})
        mine = parts.pop(peer, None)
        if mine is not None:
            self._leave_source(name, mine)
            mine.at = ""
        if not parts:
            self.forget(name)

    def forget(self, name: bytes) -> list[Hashable]:
        """The object is gone; returns who is to hear of it."""
        self._busy.pop(name, None)
        return list(self._parts.pop(name, ()))

    def holders(self, name: bytes) -> list[str]:
        """Where it is as a whole, besides here."""
        return [part.at for part in self._parts.get(name, {}).values() if part.has_all and part.at]

    def _least_busy(self, name: bytes, mine: Part | None) -> Part | None:
        """None: the home itself."""
        best, least = None, HOPS * self._busy.get(name, 0)
        for part in self._parts[name].values():
            load = HOPS * part.serves + part.hops
            if load < least and part.at and (mine is None or not _hangs_on(part, mine)):
                best, least = part, load
        return best

    def _leave_source(self, name: bytes, mine: Part) -> None:
        if mine.has_all:
            return
        if mine.source is not None:
            mine.source.serves -= 1
        elif mine.hops:
            self._busy[name] -= 1
        mine.source, mine.hops = None, 0

    def _strike(self, name: bytes, address: str) -> None:
        """Somebody was sent there, and got nothing: nobody else is; it still hears of the object's end."""
        for part in self._parts[name].values():
            if part.at == address:
                part.at = ""

    @staticmethod
    def _others(parts: dict[Hashable, Part], at: str) -> list[str]:
        """Those that have all of it first."""
        found = sorted(
            (part for part in parts.values() if part.at not in ("", at)), key=lambda p: not p.has_all
        )
        return [part.at for part in found[:MOST_ADDRESSES]]


def _hangs_on(part: Part, mine: Part) -> bool:
    """Whether `part` gets the object by way of `mine`, or is it."""
    one: Part | None = part
    while one is not None and one is not mine:
        one = one.source if not one.has_all else None
    return one is mine
