"""The store of a node: who connects gets segments to fill, and objects to read.

A thread of the worker, started by the first process that connects, so that a
cluster without objects pays nothing for it.  Its socket has an abstract name: no
file to leave behind; and whoever can connect to it and map what comes is on this
node, which no host name proves.  Only processes of the same user may.

What a process holds here ends with its connection, however it died: segments
that it had leased are free again.  The objects that it made live on.
"""

from __future__ import annotations

import os
import select
import socket
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from time import monotonic
from typing import Any

import msgspec

from flamezmq.store import messages as s
from flamezmq.store.census import Census, describe
from flamezmq.store.doors import Doors
from flamezmq.store.layout import extent
from flamezmq.store.leases import Leases
from flamezmq.store.lifetimes import Lifetimes
from flamezmq.store.opening import Opening
from flamezmq.store.parts import PartsOf
from flamezmq.store.peers import Gone, Object, Peer, Waiting, whose
from flamezmq.store.pool import Pool, Segment
from flamezmq.store.room import Room
from flamezmq.store.terms import Terms
from flamezmq.store.transit import Transit
from flamezmq.wire import transfer as t
from flamezmq.wire.objects import Holders, News, Stocks, WhoHas

#: Packets taken from one connection before the others have their turn.
TURN_PACKETS = 32
#: More than the kernel lets wait in one: so many are read where all is to be read.
MOST_PACKETS = 4096
#: How often to look at segments whose object is gone, but not its readers, and at sessions that have ended.
LOOK_SECONDS = 0.5
#: Objects of a session that has ended stay for so long, if nobody needs their room: who hears of its end
#: may still take home what is a result.
FAREWELL_SECONDS = 2.0
#: What is brought by processes on no node may have this part of the limit before it is complete.
UPLOADS_PART = 2
#: A copy of an object of another node stays for so long after its last use, if nobody needs its room.
COPY_SECONDS = 30.0


class Server:
    """All that the thread does; `serve` is its loop.

    tell         called with what the router is to hear: of a session of which there was no object yet, at
                 once; of what has come and gone, now and then (`census`); False: there is no router
    small_bytes  what small objects have together; it counts into the limit
    copies       of objects whose home is elsewhere: when each was used last, oldest first
    """

    def __init__(
        self,
        doors: Doors,
        pool: Pool,
        tell: Callable[[News], object] = lambda message: False,
        terms: Terms | None = None,
    ) -> None:
        self.doors, self.listener = doors, doors.inner
        self.pool, self._tell = pool, tell
        self.census = Census(partial(describe, self))
        self.copies: OrderedDict[bytes, float] = OrderedDict()
        self._transit: Transit | None = None
        self._coming: dict[bytes, tuple[Segment, list[int]]] = {}
        self._awaited: set[bytes] = set()  # will be fetched when there is room
        self.objects: dict[bytes, Object] = {}
        moved = self._on_brought, self._changed
        self.room = Room(pool, terms or Terms(), self._order, self._take, self.objects, *moved)
        self.leases = Leases(self.room, self._take, self._answer, self._part, self._holders)
        self.by_session: dict[str, set[bytes]] = {}
        self._ended: dict[str, float] = {}  # session -> when, oldest first
        self._known_sessions: set[str] = set()  # that have had objects here, and have not ended
        self.small_bytes = 0
        self.lifetimes = Lifetimes(self._drain, self._drop, self._try_to_answer, self._changed)
        self.parts = PartsOf(self)
        self.ask = self.parts.ask
        self._peers: dict[int, Peer] = {}
        self._orders: deque[tuple[Callable[..., None], Any]] = deque()
        self._waiting: list[Waiting] = []
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = self._again = False
        self._deeds: dict[type, Callable[[Peer, Any], None]] = {
            **self.leases.deeds(),
            s.Put: self._on_put,
            s.PutSmall: self._on_put_small,
            s.Share: self._on_share,
            s.Open: self._on_open,
            s.Ask: self.parts.on_ask,
            **self.lifetimes.deeds(),
        }

    # --- other threads

    def end_session(self, session: str) -> None:
        """All objects of this session go."""
        self._order(self._end_session, session)

    def drop(self, ids: Iterable[bytes]) -> None:
        """The owner of these objects needs them no more."""
        self._order(self.lifetimes.disown, list(ids))

    def lose(self, executor: tuple[int, bytes]) -> None:
        """The executor of this pid has ended; of its results those after this object have reached nobody."""
        self._order(lambda lost: self.lifetimes.on_lost(*lost), executor)

    def on_holders(self, answer: Holders) -> None:
        """The router's answer to `WhoHas`."""
        self._order(self._on_holders, answer)

    def stop(self) -> None:
        """End the loop; its thread has given everything back when it ends."""
        self._stopping = True
        self._rouse()

    def _order(self, deed: Callable[..., None], what: Any) -> None:
        self._orders.append((deed, what))
        self._rouse()

    def _rouse(self) -> None:
        with suppress(OSError):  # it has ended
            os.eventfd_write(self._wake, 1)

    # --- the loop

    def serve(self) -> None:
        """Until `stop`."""
        self._poll = select.epoll()
        self.lifetimes.serve(self._poll)
        self.listener.setblocking(False)
        for fd in (self.listener.fileno(), self._wake):
            self._poll.register(fd, select.EPOLLIN)
        if self.doors.outer is not None:
            self._open_transit().serve(self.doors.outer.detach())
        try:
            while not self._stopping:
                ready = self._poll.poll(self._patience())
                self._again = False
                for fd, _ in ready:
                    self._on_ready(fd)
                if self._transit is not None:
                    self._transit.turn(any(fd in self._peers for fd, _ in ready))
                    self._transit.watch(self._watch)
                if self._waiting:
                    self._look_again(bool(ready))
                self.parts.turn(bool(ready))
                if self.lifetimes.is_due or self.room.waits:
                    self.lifetimes.settle()  # what goes may be there to be read
                if self.room.waits and not self.lifetimes.is_due:
                    self.room.turn(monotonic())
                self._tidy(monotonic())
        finally:
            self._end()

    def _patience(self) -> float | None:
        """How long to wait for the next packet."""
        if self._again or self.room.more or self.lifetimes.is_due or self.parts.is_early:
            return 0
        if any(waiting.fresh for waiting in self._waiting):
            return 0
        looks = self._ended or self._waiting or self.room.waits or self.copies or self.pool.lingers
        looks = looks or self.parts.is_busy
        if self._transit is not None:
            self._transit.watch(self._watch)
            if self._transit.more:
                return 0
            looks = looks or self._transit.is_busy
        patience = LOOK_SECONDS if looks else None
        if self.census.due is None:
            return patience
        until_due = max(self.census.due - monotonic(), 0.0)
        return until_due if patience is None else min(until_due, patience)

    def _tidy(self, now: float) -> None:
        """Drop what has had its time."""
        if self._ended:
            self._drop_ended(now - FAREWELL_SECONDS)
        while self.copies and next(iter(self.copies.values())) < now - COPY_SECONDS:
            self._drop([next(iter(self.copies))])
        if self.pool.lingers:
            self.pool.sweep()
            self.census.touch(now)
        report = self.census.take(now, self.used)
        if report is not None:
            self._tell(report)

    @property
    def used(self) -> int:
        """Bytes of memory that objects have, or that readers keep of what is gone."""
        return self.pool.total - self.pool.free_bytes + self.small_bytes

    def _drain(self) -> None:
        """Read all that peers have said by now, those, too, that are only about to be let in."""
        for _ in range(2):
            for fd, _ in self._poll.poll(0):
                self._on_ready(fd, MOST_PACKETS)
        if self._transit is not None:
            self._transit.more = True  # what has come for it may have been among these

    def _on_ready(self, fd: int, most: int = TURN_PACKETS) -> None:
        peer = self._peers.get(fd)
        if peer is not None:
            self._on_packets(peer, most)
        elif fd == self._wake:
            os.eventfd_read(fd)
            while self._orders:
                deed, what = self._orders.popleft()
                deed(what)
        elif fd == self.listener.fileno():
            while self._accept():
                pass
        else:
            self.lifetimes.on_end(fd)  # or one of ZeroMQ's, whose turn comes

    def _open_transit(self) -> Transit:
        if self._transit is None:
            self._transit = Transit(self, self.doors.at, self.pool.limit // UPLOADS_PART)
        return self._transit

    def _watch(self, fd: int) -> None:
        """ZeroMQ's descriptors tell of changes only."""
        self._poll.register(fd, select.EPOLLIN | select.EPOLLET)

    def _accept(self) -> bool:
        """Let the next one in; whether there was one."""
        try:
            connection, _ = self.listener.accept()
        except OSError:
            return False  # nobody is there, it has gone again, or there is no descriptor left: it sees that
        pid = whose(connection)
        if pid < 0:
            connection.close()
            return True
        connection.setblocking(False)
        peer = self._peers[connection.fileno()] = Peer(connection, pid)
        self._poll.register(connection.fileno(), select.EPOLLIN)
        try:
            self._answer(peer, s.Hello(self.doors.at, self.doors.node))
        except OSError:
            self._part(peer)
        return True

    def _on_packets(self, peer: Peer, most: int) -> None:
        for _ in range(most):
            try:
                packet = peer.socket.recv(s.PACKET_BYTES)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            try:
                if not packet:
                    raise Gone
                question = s.decode_question(packet)
                self._deeds[type(question)](peer, question)
            except (Gone, msgspec.DecodeError, OSError):
                self._part(peer)
                return

    def _part(self, peer: Peer) -> None:
        """It has gone, or says what makes no sense; what it had leased is free."""
        self._poll.unregister(peer.socket.fileno())
        del self._peers[peer.socket.fileno()]
        peer.socket.close()
        for segment in peer.leased.values():
            self.pool.give(segment)
        self.room.part(peer)

    def _end(self) -> None:
        for peer in list(self._peers.values()):
            self._part(peer)
        self.room.close()
        self._drop(list(self.objects))
        self.lifetimes.close()
        for segment, _ in self._coming.values():
            self.pool.give(segment)
        if self._transit is not None:
            self._transit.close()
        self.pool.close()
        self._poll.close()
        self.listener.close()
        os.close(self._wake)

    # --- what peers say

    def _on_put(self, peer: Peer, question: s.Put) -> None:
        segment = peer.leased.pop(question.segment, None)
        if segment is None:
            raise Gone
        if question.id in self.objects or extent(question.sizes) > segment.size:
            self.pool.give(segment)
            raise Gone
        one = Object(question.session, question.sizes, segment, b"", question.name)
        self._keep(question.id, one, bool(question.terms & s.PINNED))
        self.lifetimes.on_put(peer.pid, question)

    def _on_put_small(self, peer: Peer, question: s.PutSmall) -> None:
        if question.id in self.objects or sum(question.sizes) != len(question.data):
            raise Gone
        one = Object(question.session, question.sizes, None, question.data, question.name)
        self._keep(question.id, one)
        self.lifetimes.on_put(peer.pid, question)

    def _on_share(self, peer: Peer, question: s.Share) -> None:
        like = self.objects.get(question.like)
        done = like is not None and question.id not in self.objects and self.room.share(question.like, like)
        if like is not None and done:
            one = Object(question.session, like.sizes, like.segment, b"", question.name)
            self._keep(question.id, one, pinned=True)
            self.lifetimes.on_put(peer.pid, question)
        self._answer(peer, s.Shared(done))

    def _on_open(self, peer: Peer, question: s.Open) -> None:
        if not len(question.ids) == len(question.at) == len(question.sizes):
            raise Gone
        names, asked = question.ids[: s.MOST_FDS], Waiting(peer, question)
        if all(name in self.objects and not self.objects[name].is_away for name in names):
            self._open(asked)
        else:
            self._waiting.append(asked)

    def _look_again(self, busy: bool) -> None:
        """Answer who has asked for what was missing, if it is here now; fetch what is elsewhere.

        Who names an object may have heard of it sooner than its Put, which was sent before, was read here:
        nothing is given up, or fetched, while there is something to read.
        """
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if one.peer.socket.fileno() < 0:
                continue  # it has gone
            one.fresh = one.fresh and busy
            if not one.fresh:
                self._fetch(one)
            if self._lacks(one):
                self._waiting.append(one)
                continue
            try:
                self._open(one)
            except OSError:
                self._part(one.peer)

    def _lacks(self, one: Waiting) -> bool:
        """Of those on the disk it waits for the first alone: they may not have room together."""
        for number, name in enumerate(one.question.ids[: s.MOST_FDS]):
            here = self.objects.get(name)
            if here is None and name not in one.gone:
                return True
            if here is not None and not number and here.is_away and name not in one.away:
                return True
        return False

    def _fetch(self, one: Waiting) -> None:
        """Have what it lacks brought here, as far as it is anywhere."""
        if one.question.ids:
            self._bring(one, one.question.ids[0])
        for name, at, sizes in zip(one.question.ids, one.question.at, one.question.sizes, strict=True):
            if name in self.objects or name in one.gone or name in self._coming:
                continue
            if not at or at == self.doors.at:
                one.gone[name] = s.Found([])
                continue
            if name not in self._awaited:
                self._awaited.add(name)
                then = partial(self._fetch_into, name, at, sizes)
                self.room.wait(None, extent(sizes), then)

    def _bring(self, one: Waiting, name: bytes) -> None:
        """Have it come from the disk, if it is there."""
        away = self.objects.get(name)
        if away is None or not away.is_away or name in one.away:
            return
        if one.question.modest and self.pool.lacks(extent(away.sizes)) > self.pool.free_bytes:
            one.away.add(name)
        else:
            self.room.bring(name)

    def _fetch_into(self, name: bytes, at: str, sizes: Sequence[int], segment: Segment | None) -> None:
        """Have it brought there; None: there is no room for it."""
        self._awaited.discard(name)
        self._again = True
        if segment is None:
            for waiting in self._waiting:
                if name in waiting.question.ids:
                    waiting.gone[name] = s.Found([], why=s.NO_ROOM)
        elif name in self.objects or name in self._coming:
            self.pool.give(segment)
        else:
            self._coming[name] = segment, list(sizes)
            self._open_transit().fetch(name, at, segment, extent(sizes))

    def _on_brought(self, name: bytes, here: bool) -> None:
        """An object that was on the disk is in memory, or stays where it is: who asked is answered next."""
        self._again = True
        self._changed([name])
        for waiting in () if here else self._waiting:
            if name in waiting.question.ids:
                waiting.away.add(name)

    # --- for the transit

    def find(self, name: bytes) -> Object | None:
        """The object of this id, if it is here."""
        return self.objects.get(name)

    def take(self, size: int) -> Segment | None:
        """A segment for what comes; None: there is no room, but the next one may find some."""
        segment = self._take(size)
        if segment is None:
            self.room.wait(None, size, lambda made: None if made is None else self.pool.give(made))
        return segment

    def read_chunk(self, name: bytes, offset: int, length: int, then: Callable[[bytes | None], None]) -> None:
        """Of an object that is only on the disk: `then` gets these bytes, or None, and it is lost."""
        self.room.read_chunk(name, offset, length, then)

    def give(self, segment: Segment) -> None:
        """What was to come into it does not."""
        self.pool.give(segment)

    def keep(self, offer: t.Offer, segment: Segment) -> None:
        """What was brought from elsewhere is an object from now on."""
        one = Object(offer.session, offer.sizes, segment, b"", offer.name)
        self._keep(offer.id, one, bool(offer.terms & s.PINNED))
        self.lifetimes.on_brought(offer.id, offer.terms)

    def ask_holders(self, name: bytes) -> bool:
        """Ask the router which stores have it."""
        return self._tell(WhoHas([name])) is not False

    def _on_holders(self, answer: Holders) -> None:
        if self._transit is not None:
            self._transit.on_holders(answer.ids, answer.at)

    def drop_copies(self, names: Iterable[bytes]) -> None:
        """Their homes have dropped these."""
        self._drop([name for name in names if name in self.copies])

    def on_fetched(self, name: bytes, why_not: str, lost: bool) -> None:
        """It has come, into its segment; or not, and why; lost: its node can't be reached."""
        segment, sizes = self._coming.pop(name)
        if why_not:
            self.pool.give(segment)
            for waiting in self._waiting:
                if name in waiting.question.ids:
                    waiting.gone[name] = s.Found([], why=why_not, lost=lost)
        else:
            self.objects[name] = Object("", sizes, segment, b"")
            self.by_session.setdefault("", set()).add(name)
            self.copies[name] = monotonic()
            self.census.changed(name, self.copies[name])

    def _take(self, size: int) -> Segment | None:
        """A segment, if need be in the room of what nobody will miss."""
        segment = self.pool.take(size)
        if segment is None and (self._ended or self.parts.is_busy):
            self._drop_ended(inf)
            self.parts.amending.tidy(inf)
            segment = self.pool.take(size)
        while segment is None and self.copies:
            self._drop([next(iter(self.copies))])
            segment = self.pool.take(size)
        return segment

    def _open(self, asked: Waiting) -> None:
        for name in asked.question.ids[: s.MOST_FDS]:
            if name in self.copies:
                self.copies[name] = monotonic()
                self.copies.move_to_end(name)
            self.room.use(name)
        opening = Opening(asked, self.objects)
        try:
            self._answer(asked.peer, s.Opened(opening.found), opening.fds)
        finally:
            opening.close()

    @staticmethod
    def _answer(peer: Peer, answer: s.Answer, fds: list[int] | None = None) -> None:
        """It asks one thing at a time, so there is always room in its socket."""
        socket.send_fds(peer.socket, [s.encode(answer)], fds or [])

    def _try_to_answer(self, peer: Peer, answer: s.Answer) -> None:
        with suppress(OSError):  # it has gone; its socket says so, too
            self._answer(peer, answer)

    # --- objects

    def _keep(self, name: bytes, one: Object, pinned: bool = False) -> None:
        self.objects[name] = one
        if one.session not in self.by_session:
            self.by_session[one.session] = set()
            if one.session not in self._known_sessions:
                self._known_sessions.add(one.session)
                self._tell(Stocks(one.session))
        self.by_session[one.session].add(name)
        if one.segment is None:
            self._count_small(len(one.data))
        else:
            self.room.add(name, one, pinned)
        self.census.changed(name, monotonic())

    def _drop(self, names: Iterable[bytes]) -> None:
        """Have these go, and what only they have needed."""
        going = list(names)
        while going:
            going = self._drop_some([name for name in dict.fromkeys(going) if name in self.objects])

    def _drop_some(self, names: list[bytes]) -> list[bytes]:
        """Have these go; returns what nobody needs then."""
        self.census.gone(names, monotonic())
        if self._transit is not None and names:
            self._transit.on_dropped(names)
        free: list[bytes] = []
        for name in names:
            one = self.objects.pop(name)
            self.copies.pop(name, None)
            others = self.by_session[one.session]
            others.discard(name)
            if not others:
                del self.by_session[one.session]
            self._count_small(-len(one.data))
            self.room.gone(name, one)
            self.parts.on_gone(name)
            free += self.lifetimes.on_gone(name)
        return free

    def _count_small(self, more: int) -> None:
        self.small_bytes += more
        self.pool.set_beside(self.small_bytes)

    def _changed(self, names: Iterable[bytes]) -> None:
        """Others hold these than before, or they have come from the disk, or are on it only."""
        now = monotonic()
        for name in names:
            if name in self.objects:
                self.census.changed(name, now)

    def _end_session(self, session: str) -> None:
        self._known_sessions.discard(session)
        self._ended[session] = monotonic()

    def _drop_ended(self, before: float) -> None:
        """Drop the objects of those sessions that had ended by then."""
        while self._ended:
            session, at = next(iter(self._ended.items()))
            if at > before:
                return
            del self._ended[session]
            names = self.by_session.get(session, ())
            self._drop([name for name in names if not self.lifetimes.holders.is_pinned(name)])

    def _holders(self) -> str:
        """What holds the room, for people."""
        return self.room.holders(
            (session, sum(extent(self.objects[name].sizes) for name in names))
            for session, names in self.by_session.items()
        )
