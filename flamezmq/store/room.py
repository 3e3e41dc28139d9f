"""Who waits for memory in a store, and how it is made: objects go to the disk, and come back.

Nobody waits for ever, and nobody fails because of it who could do without: a
payload that finds no room travels, and who reads an object for which there is no
room in memory any more gets its part of the file.  Only a `put` waits longer.

Those who wait are served in their order.  While room is being made for one,
nobody overtakes it; when nothing more can be done for it, others may.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic
from typing import Any, Protocol

from flamezmq.core.space import COMES, GOES, LOOK, STAYS, Space
from flamezmq.store.disk import Disk, Piece, on_disk
from flamezmq.store.layout import extent
from flamezmq.store.pool import Pool, Segment
from flamezmq.store.terms import Terms

#: A disk that could not be written to is tried again after so long.
DISK_AGAIN_SECONDS = 5.0
#: Who waits for a disk waits so long at most.
DISK_SECONDS = 60.0


class Stored(Protocol):
    """An object.  segment: in memory.  piece: on the disk.  lost: neither, and why."""

    sizes: list[int]
    segment: Segment | None
    piece: Piece | None
    lost: str


class Want:
    """Somebody who waits.

    take   gives what is wanted, or None; `size` bytes of memory are missing for it
    then   is called with what was wanted; None: it can't be had
    until  is it waited for where nothing can be done
    over   it has gone
    """

    __slots__ = ("began", "looked", "over", "owner", "size", "take", "then", "until")

    def __init__(
        self,
        owner: object,
        size: int,
        take: Callable[[], Any],
        then: Callable[[Any], None],
        now: float,
        patience: float,
    ) -> None:
        self.owner, self.size, self.take, self.then = owner, size, take, then
        self.began, self.until, self.looked = now, now + patience, 0
        self.over = False


class Room:
    """The part of a store that is about having enough of it.

    take        gives a segment without waiting, or None
    objects     all of them, by id; those that may leave memory are in `space`
    on_brought  called with an object's id when it came from the disk, or never will; and whether it did
    on_left     called with the ids of those that are on the disk only
    more        there is something to do at once
    trouble     what is wrong with the disk, for people
    """

    def __init__(
        self,
        pool: Pool,
        terms: Terms,
        tell: Callable[[Callable[[Any], None], Any], object],
        take: Callable[[int], Segment | None],
        objects: dict[bytes, Any],
        on_brought: Callable[[bytes, bool], None],
        on_left: Callable[[list[bytes]], None],
    ) -> None:
        self.pool, self.terms = pool, terms
        self.disk = Disk(terms.spill_folder, tell)
        self.space = Space(terms.spill_limit_now())
        self.trouble = ""
        self.more = False
        self._take, self._objects = take, objects
        self._on_brought, self._on_left = on_brought, on_left
        self._queue: deque[Want] = deque()
        self._disk_again = 0.0
        self._closed = False
        self._borrowed: dict[
            int, Segment
        ] = {}  # segments of no object, which the disk's thread writes or reads
        self._writing = 0  # objects that are; when one is done, there may be room

    # --- objects

    def add(self, name: bytes, one: Stored, pinned: bool = False) -> None:
        """One that is in memory and may leave it, unless it is pinned."""
        if one.segment is not None:
            self.space.add(name, one.segment.size, on_disk(extent(one.sizes)), pinned)

    def share(self, name: bytes, one: Stored) -> bool:
        """Have another object have its memory, too; whether it may.  From then on it stays in memory."""
        if one.segment is None or name not in self.space or self.space.moves(name):
            return False
        self.space.pin(name, True)
        one.segment.sharers += 1
        return True

    def use(self, name: bytes) -> None:
        """Somebody reads it."""
        if name in self.space:
            self.space.use(name)

    def is_moving(self, name: bytes) -> bool:
        """Whether it is being written to the disk, or read from there."""
        return name in self.space and self.space.moves(name) != STAYS

    def rename(self, name: bytes, new: bytes) -> None:
        """It has another id from now on; not while it is moving."""
        if name in self.space:
            self.space.rename(name, new)

    def gone(self, name: bytes, one: Stored) -> None:
        """It is no more: what it has comes free, as soon as nobody writes or reads it."""
        moves = self.space.moves(name) if name in self.space else None
        if moves is not None:
            self.space.remove(name)
        if one.piece is not None:
            self.disk.free(one.piece)  # behind a read of it that is on its way
        if one.segment is not None and moves == GOES and not self._closed:
            self._borrowed[one.segment.number] = one.segment
        elif one.segment is not None:
            self.pool.give(one.segment)

    def bring(self, name: bytes) -> None:
        """Have an object that is on the disk come back, unless it does already."""
        if self.space.moves(name) != COMES:
            self.space.come(name)
            one = self._objects[name]
            self.wait(None, extent(one.sizes), partial(self._bring, name, one))

    def read_chunk(self, name: bytes, offset: int, length: int, then: Callable[[bytes | None], None]) -> None:
        """Of an object that is only on the disk: `then` gets these bytes, or None: it is lost, or gone."""
        one: Stored = self._objects[name]
        if one.piece is None:
            then(None)
            return

        def on_read(found: bytes | str) -> None:
            if isinstance(found, str) and self._objects.get(name) is one:
                self._lose(name, one, found)
            then(found if isinstance(found, bytes) else None)

        self.disk.read_chunk(one.piece, offset, length, on_read)

    # --- who waits

    @property
    def waits(self) -> bool:
        """Whether somebody does."""
        return bool(self._queue)

    def wait(
        self, owner: object, size: int, then: Callable[[Segment | None], None], patience: float = 0.0
    ) -> None:
        """Call `then` with a segment of this size as soon as there is one, and with None if there won't be.

        patience: how long to wait, in seconds, where memory and disk are full.
        """
        take = partial(self._take, size)
        self._queue.append(Want(owner, size, take, then, monotonic(), patience))

    def wait_beside(
        self, owner: object, size: int, then: Callable[[bool | None], None], patience: float
    ) -> None:
        """The same for so many bytes that lie in no segment."""

        def take() -> bool | None:
            return self.pool.make_beside(size) or None

        self._queue.append(Want(owner, size, take, then, monotonic(), patience))

    def part(self, owner: object) -> None:
        """Whoever this was waits no more."""
        for want in self._queue:
            want.over = want.over or want.owner is owner

    def turn(self, now: float) -> None:
        """Serve those who wait, as far as that is possible; have objects go for those who come next."""
        self.more = False
        for want in list(self._queue):
            found = None
            if not want.over:
                found = want.take()
                if found is None and self._make_room(want, now):
                    found = want.take()
                if found is None and now < want.began + DISK_SECONDS:
                    if self._writing or self.more:
                        return
                    if now < want.until:
                        continue
            self._queue.remove(want)
            if not want.over:
                want.then(found)

    def close(self) -> None:
        """Nobody is served any more."""
        self._queue.clear()
        self.disk.close()
        self._closed = True
        for segment in self._borrowed.values():
            self.pool.give(segment)
        self._borrowed.clear()

    def holders(self, sessions: Iterable[tuple[str, int]]) -> str:
        """What the room is used for, in words: the bytes of the sessions that have most, and the disk."""
        most = sorted(sessions, key=lambda item: -item[1])[:3]
        said = [
            f"session {session} has {size:,} bytes" if session else f"copies of what lies elsewhere {size:,}"
            for session, size in most
        ]
        if self.space.disk_limit:
            used, limit = self.space.disk_used, self.space.disk_limit
            said.append(f"its disk, in {self.disk.folder}, has {used:,} bytes of {limit:,} that it may have")
        if self.trouble:
            said.append(self.trouble)
        return ", ".join(said)

    # --- inside

    def _make_room(self, want: Want, now: float) -> bool:
        """Begin to; whether some came free at once."""
        need = self.pool.lacks(want.size) or want.size
        leaving = self.space.make_room(need, self._is_mapped, now >= self._disk_again)
        for name in leaving.forget:
            self._free(self._objects[name])
        for name in leaving.go:
            self._give_up(name, self._objects[name])
        for name in leaving.write:
            one = self._objects[name]
            self._writing += 1
            self.disk.write(one.segment.fd, extent(one.sizes), partial(self._on_written, name, one))
        want.looked += LOOK
        self.more = not any(leaving) and want.looked < self.space.idle
        return bool(leaving.go)

    def _is_mapped(self, name: bytes) -> bool:
        return not self.pool.files.is_unused(self._objects[name].segment.fd)

    def _on_written(self, name: bytes, one: Stored, result: Piece | str) -> None:
        self._writing -= 1
        if self._objects.get(name) is not one:  # dropped meanwhile: what it had was left for us
            if isinstance(result, Piece):
                self.disk.free(result)
            if one.segment is not None:
                self.pool.give(self._borrowed.pop(one.segment.number))
        elif isinstance(result, str):
            self.trouble, self._disk_again = result, monotonic() + DISK_AGAIN_SECONDS
            self.space.written(name, False)
        else:
            self.trouble, one.piece = "", result
            if self.space.written(name, True):
                self._give_up(name, one)

    def _bring(self, name: bytes, one: Stored, segment: Segment | None) -> None:
        if self._objects.get(name) is not one or one.piece is None:
            if segment is not None:
                self.pool.give(segment)
        elif segment is None:
            self.space.came(name, False)
            self._on_brought(name, False)
        else:
            self._borrowed[segment.number] = segment
            self.disk.read(one.piece, segment.fd, partial(self._on_read, name, one, segment))

    def _on_read(self, name: bytes, one: Stored, segment: Segment, why: str) -> None:
        del self._borrowed[segment.number]
        if self._objects.get(name) is not one or one.lost:
            self.pool.give(segment)
        elif why:
            self.pool.give(segment)
            self._lose(name, one, why)
        else:
            one.segment = segment
            self.space.came(name, True)
        self._on_brought(name, True)

    def _lose(self, name: bytes, one: Stored, why: str) -> None:
        """It is damaged; who asks for it is told."""
        if name in self.space:
            self.space.remove(name)
        self._free(one)
        if one.segment is None:
            one.lost = why

    def _give_up(self, name: bytes, one: Stored) -> None:
        if one.segment is not None:
            self.pool.give(one.segment)
            one.segment = None
            self._on_left([name])

    def _free(self, one: Stored) -> None:
        if one.piece is not None:
            self.disk.free(one.piece)
            one.piece = None
