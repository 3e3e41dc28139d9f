"""Parts of versioned objects as objects of the store, and its processes' questions about versions.

Part of the store's thread.  A part is an object like any other, of the session of
the one that it belongs to; as far as lifetimes go, that one contains it.
"""

from __future__ import annotations

from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from flamezmq.store import messages as s
from flamezmq.store.amending import Amending, Asked, Lying, Reply
from flamezmq.store.layout import extent
from flamezmq.store.peers import Gone, Object
from flamezmq.store.pool import Segment
from flamezmq.wire import amendments as a

if TYPE_CHECKING:
    from flamezmq.store.server import Server


class PartsOf:
    """What a store has to do with versions; `amending.Shelves` over its objects."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.amending = Amending(self)
        self._sizes: dict[bytes, int] = {}  # of objects that have parts: bytes of all of these

    @property
    def is_early(self) -> bool:
        """Whether `turn` has somebody to answer as soon as there is nothing more to read."""
        return self.amending.is_early

    @property
    def is_busy(self) -> bool:
        """Whether `turn` is to be called now and then, though nothing comes."""
        return self.amending.is_busy

    def on_ask(self, peer: Any, asked: s.Ask) -> None:
        """A process of this node asks about an object of ours."""
        segment = peer.leased.pop(asked.segment, None)
        if asked.segment and segment is None:
            raise Gone
        reply = partial(self._server._try_to_answer, peer)
        self.amending.ask(Asked(asked.question, reply, segment), monotonic())

    def ask(self, question: a.Question, reply: Reply) -> None:
        """Somebody elsewhere asks about versions of an object of ours; `reply` is called, maybe later."""
        self.amending.ask(Asked(question, reply), monotonic())

    def on_gone(self, name: bytes) -> None:
        """This object is here no more."""
        self.amending.on_gone(name)
        self._sizes.pop(name, None)

    def size_of(self, name: bytes, one: Object) -> int:
        """Bytes of an object, with all its parts."""
        size = self._sizes.get(name)
        return sum(one.sizes) if size is None else size

    def turn(self, busy: bool) -> None:
        """Do what is due.  busy: there may be more to read."""
        now = monotonic()
        if self.amending.is_early and not busy:
            self.amending.look(now)
        if self.amending.is_busy:
            self.amending.turn(now)

    # --- the objects

    def find(self, name: bytes) -> Lying | None:
        """As of `amending.Shelves`, like all below."""
        return self._server.objects.get(name)

    def is_moving(self, name: bytes) -> bool:
        return self._server.room.is_moving(name)

    def enclose(self, name: bytes, inner: bytes) -> None:
        server = self._server
        content = server.objects[name]
        server.objects[name] = Object(content.session, [], None, b"", content.name)
        server.objects[inner] = content
        server.room.rename(name, inner)
        content.is_part = True
        server.by_session[content.session].add(inner)
        server.lifetimes.holders.enclose(name, inner)
        self._sizes[name] = sum(content.sizes)

    def can_adopt(self, amend: a.Amend, segment: Segment | None) -> bool:
        here = amend.part in self._server.objects
        if segment is not None:
            return not here and extent(amend.sizes) <= segment.size
        if here:
            return not self._server.lifetimes.holders.is_inside(amend.part) and amend.part != amend.id
        return sum(amend.sizes) == len(amend.data)

    def adopt(self, amend: a.Amend, segment: Segment | None) -> None:
        server = self._server
        if amend.part not in server.objects:
            whole = server.objects[amend.id]
            part = Object(whole.session, amend.sizes, segment, amend.data, whole.name)
            server._keep(amend.part, part, server.lifetimes.holders.is_pinned(amend.id))
            server.lifetimes.holders.here(amend.part, amend.contains)
        server.objects[amend.part].is_part = True
        server.lifetimes.holders.embrace(amend.id, amend.part)
        self._resize(amend.id, sum(amend.sizes))

    def refuse(self, amend: a.Amend, segment: Segment | None) -> None:
        server = self._server
        if segment is not None:
            server.pool.give(segment)
        elif self.can_adopt(amend, None) and amend.part in server.objects:
            server._drop([amend.part])

    def release(self, name: bytes, part: bytes) -> None:
        one = self._server.objects.get(part)
        if one is not None and name in self._sizes:
            self._resize(name, -sum(one.sizes))
        self._server._drop(self._server.lifetimes.holders.release(name, part))

    def _resize(self, name: bytes, more: int) -> None:
        self._sizes[name] += more
        self._server._changed([name])
