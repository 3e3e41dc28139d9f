"""Space: which objects of a store are in memory, which on its disk, and which have to go when room is needed.

What was used least recently goes first.  What is pinned stays; so does what
somebody has mapped, for its memory would not come free.  An object never
changes: one that was brought back keeps its copy on the disk for as long as the
disk's room is not needed, so that the next time it goes at once.

Objects are named by their ids.  Decisions are made here, and carried out by
somebody who tells what became of them: `written`, `came`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

#: Objects that are looked at for one decision; those that are mapped go behind the others meanwhile.
LOOK = 500
STAYS, GOES, COMES = range(3)


class Item:
    """size: bytes in memory.  disk: bytes that it takes there.

    here    in memory
    kept    a good copy is on the disk
    moving  STAYS; GOES: is being written; COMES: is being read
    wanted  was used while it was being written: stays in memory
    """

    __slots__ = ("disk", "here", "kept", "moving", "pinned", "size", "wanted")

    def __init__(self, size: int, disk: int, pinned: bool) -> None:
        self.size, self.disk, self.pinned = size, disk, pinned
        self.here, self.kept, self.wanted = True, False, False
        self.moving = STAYS


class Leaving(NamedTuple):
    """What is to be done so that memory comes free.

    write   to the disk; then say `written`
    go      from memory at once: they are on the disk already
    forget  on the disk, where their room is needed: they are in memory
    """

    write: list[bytes]
    go: list[bytes]
    forget: list[bytes]


class Space:
    """The objects of one store.

    disk_limit  bytes that they may have on the disk
    disk_used   that they have there, or will have when what is being written is
    leaving     bytes of memory that come free when what is being written is
    """

    def __init__(self, disk_limit: int) -> None:
        self.disk_limit = disk_limit
        self.disk_used = self.leaving = self._copies_bytes = 0
        self._items: dict[bytes, Item] = {}
        self._idle: OrderedDict[bytes, None] = OrderedDict()  # may go; least recently used first
        self._copies: OrderedDict[bytes, None] = OrderedDict()  # in memory and on the disk

    def __contains__(self, name: bytes) -> bool:
        return name in self._items

    def add(self, name: bytes, size: int, disk: int, pinned: bool = False) -> None:
        """It is in memory, and was used just now."""
        item = self._items[name] = Item(size, disk, pinned)
        self._set_idle(name, item)

    def remove(self, name: bytes) -> None:
        """It is no more; whoever writes or reads it may drop that."""
        item = self._items.pop(name)
        self._idle.pop(name, None)
        self._forget(name, item)
        if item.moving == GOES:
            self._stop_leaving(item)
            self.disk_used -= item.disk
        elif not item.here:
            self.disk_used -= item.disk

    def rename(self, name: bytes, new: bytes) -> None:
        """It has another id from now on.  Not while it moves: who moves it knows it by the old one."""
        item = self._items[new] = self._items.pop(name)
        assert item.moving == STAYS
        for some in (self._idle, self._copies):
            if name in some:
                del some[name]
                some[new] = None

    def use(self, name: bytes) -> None:
        """Somebody reads it."""
        item = self._items[name]
        if item.moving == GOES:
            self._stop_leaving(item)
        elif name in self._idle:
            self._idle.move_to_end(name)

    def pin(self, name: bytes, pinned: bool) -> None:
        """Pinned: it stays in memory, or does once it is there again."""
        item = self._items[name]
        item.pinned = pinned
        if pinned:
            self._idle.pop(name, None)
            if item.moving == GOES:
                self._stop_leaving(item)
        else:
            self._set_idle(name, item)

    @property
    def idle(self) -> int:
        """How many are in memory and may leave it, as far as is known here."""
        return len(self._idle)

    def is_here(self, name: bytes) -> bool:
        """Whether it is in memory."""
        return self._items[name].here

    def moves(self, name: bytes) -> int:
        """STAYS, GOES or COMES."""
        return self._items[name].moving

    def make_room(self, need: int, is_busy: Callable[[bytes], bool], disk_works: bool = True) -> Leaving:
        """Have objects go that have at least `need` bytes with what is leaving already, if there are such.

        is_busy: whether somebody has it mapped
        disk_works: whether anything may be written
        """
        leaving = Leaving([], [], [])
        need -= self.leaving
        for name in list(islice(self._idle, LOOK)) if need > 0 else ():
            item = self._items[name]
            if is_busy(name):
                self._idle.move_to_end(name)
                continue
            if item.kept:
                self._take_copy(name, item)
                item.here = False
                leaving.go.append(name)
            elif disk_works and self._find_disk(item.disk, leaving.forget):
                item.moving = GOES
                self.leaving += item.size
                leaving.write.append(name)
            else:
                continue
            del self._idle[name]
            need -= item.size
            if need <= 0:
                break
        return leaving

    def written(self, name: bytes, done: bool) -> bool:
        """It has been written, or could not be; returns whether its memory is to be given up."""
        item = self._items[name]
        item.moving = STAYS
        stays = item.wanted or item.pinned or not done
        if not item.wanted:
            self.leaving -= item.size
        item.wanted = False
        if done and not stays:
            item.here, item.kept = False, True
            return True
        if done:
            self._put_copy(name, item)
        else:
            self.disk_used -= item.disk
        self._set_idle(name, item)
        return False

    def come(self, name: bytes) -> None:
        """It is being read from the disk."""
        self._items[name].moving = COMES

    def came(self, name: bytes, done: bool) -> None:
        """It is in memory again; or there was no room, and it is on the disk as before."""
        item = self._items[name]
        item.moving = STAYS
        if done:
            item.here = True
            self._put_copy(name, item)
            self._set_idle(name, item)

    def check(self) -> None:
        """Every figure against what it stands for."""
        items = self._items
        assert set(self._idle) == {
            name for name, one in items.items() if one.here and not one.pinned and one.moving == STAYS
        }
        assert set(self._copies) == {name for name, one in items.items() if one.here and one.kept}
        assert self._copies_bytes == sum(items[name].disk for name in self._copies)
        assert self.leaving == sum(
            one.size for one in items.values() if one.moving == GOES and not one.wanted
        )
        there = sum(one.disk for one in items.values() if one.kept or one.moving == GOES)
        assert self.disk_used == there <= self.disk_limit
        assert all(one.here or one.kept for one in items.values()), "an object is nowhere"

    # --- inside

    def _set_idle(self, name: bytes, item: Item) -> None:
        if item.here and not item.pinned and item.moving == STAYS:
            self._idle[name] = None

    def _stop_leaving(self, item: Item) -> None:
        if not item.wanted:
            item.wanted = True
            self.leaving -= item.size

    def _put_copy(self, name: bytes, item: Item) -> None:
        item.kept = True
        self._copies[name] = None
        self._copies_bytes += item.disk

    def _take_copy(self, name: bytes, item: Item) -> None:
        del self._copies[name]
        self._copies_bytes -= item.disk

    def _forget(self, name: bytes, item: Item) -> None:
        """Its copy on the disk counts no more, if it is in memory, too."""
        if name in self._copies:
            self._take_copy(name, item)
            item.kept = False
            self.disk_used -= item.disk

    def _find_disk(self, size: int, forget: list[bytes]) -> bool:
        """Reserve so many bytes there, if need be in the place of copies, oldest first."""
        if self.disk_used - self._copies_bytes + size > self.disk_limit:
            return False
        while self.disk_used + size > self.disk_limit:
            name = next(iter(self._copies))
            self._forget(name, self._items[name])
            forget.append(name)
        self.disk_used += size
        return True
