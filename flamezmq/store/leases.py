"""Segments that processes are lent to fill, and those that wait for one.

Part of the store's thread.  A segment that is not filled is free again when its
borrower says so, or hangs up.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from flamezmq.store import messages as s
from flamezmq.store.peers import Gone, Peer
from flamezmq.store.pool import Segment
from flamezmq.store.room import Room

#: What a peer may be lent beside the segment that it needs, to fill it later without a question: this part
#: of the limit at most.
AHEAD_PART = 64


class Leases:
    """Who asks for room, and gets it.

    take     gives a segment at once, or None
    answer   sends an answer, with descriptors
    part     hangs up
    holders  says what holds the room
    """

    def __init__(
        self,
        room: Room,
        take: Callable[[int], Segment | None],
        answer: Callable[..., None],
        part: Callable[[Peer], None],
        holders: Callable[[], str],
    ) -> None:
        self._room, self._take, self._answer, self._part = room, take, answer, part
        self._holders = holders

    def deeds(self) -> dict[type, Callable[[Peer, Any], None]]:
        """What this does with which message."""
        return {
            s.Lease: self._on_lease,
            s.Small: self._on_small,
            s.Return: self._on_return,
            s.Forget: self._on_forget,
        }

    def _on_lease(self, peer: Peer, question: s.Lease) -> None:
        segment = None if self._room.waits else self._take(question.size)
        if segment is not None:
            self._lend(peer, question, segment)
        else:
            then = partial(self._end_of_wait, peer, question, self._lend)
            self._room.wait(peer, question.size, then, self._patience(question))

    def _on_small(self, peer: Peer, question: s.Small) -> None:
        then = partial(self._end_of_wait, peer, question, self._grant)
        self._room.wait_beside(peer, question.size, then, self._patience(question))

    def _on_return(self, peer: Peer, question: s.Return) -> None:
        segment = peer.leased.pop(question.segment, None)
        if segment is None:
            raise Gone
        self._room.pool.give(segment)

    @staticmethod
    def _on_forget(peer: Peer, question: s.Forget) -> None:
        peer.known.discard(question.segment)

    def _patience(self, question: s.Lease | s.Small) -> float:
        return self._room.terms.wait_seconds if question.patient else 0.0

    def _end_of_wait(
        self, peer: Peer, question: s.Lease | s.Small, serve: Callable[..., None], found: Any
    ) -> None:
        """There is room; or None: there won't be."""
        try:
            if found is None:
                self._answer(peer, s.Full(question.size, self._room.pool.limit, self._holders()))
            else:
                serve(peer, question, found)
        except OSError:
            self._part(peer)

    def _grant(self, peer: Peer, _question: s.Small, _found: bool) -> None:
        self._answer(peer, s.Granted())

    def _lend(self, peer: Peer, question: s.Lease, segment: Segment) -> None:
        pool = self._room.pool
        more = min(question.more, pool.limit // AHEAD_PART // segment.size, s.MOST_FDS - 1)
        lent = [segment, *pool.take_some(segment.size, more)]
        fds = [one.fd for one in lent if one.number not in peer.known]
        answer = s.Leased(segment.size, [])
        for one in lent:
            fresh = one.fresh and one is segment
            answer.lent.append(s.Lent(one.number, one.number in peer.known, fresh))
            peer.leased[one.number] = one
            if not fresh:
                peer.known.add(one.number)
        self._answer(peer, answer, fds)
