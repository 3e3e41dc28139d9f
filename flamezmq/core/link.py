"""A link: one reliable, ordered stream of messages in each direction, over many connections.

ZeroMQ loses what is in flight when a connection is cut, and tells nobody.  So
each side numbers its messages, keeps them until the other has acknowledged
them, and when a connection comes anew (an *epoch*, opened by HELLO and WELCOME
that quote the last number received) it sends again what the other lacks.
Duplicates are dropped by number; a gap asks for a new epoch.

Pure: no socket here.  `enqueue` commits a message, `outgoing` hands out what
may be sent now.  Each step commits by one assignment, so that an exception
that lands in the middle leaves a link that the next epoch repairs.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import Any

Frames = list[Any]

#: An acknowledgement of its own goes out after so many messages or bytes without one riding along.
ACK_AFTER_MESSAGES = 64
ACK_AFTER_BYTES = 1 << 20


class Verdict(IntEnum):
    """What to do with a message that came in."""

    APPLY = 0
    DUPLICATE = 1
    GAP = 2


class Link:
    """One side of a link.

    epoch     number of the connection in use
    up        False between a cut and the WELCOME of the next epoch
    received  the last message applied
    ack_due   the peer has waited long enough for an acknowledgement of its own
    """

    __slots__ = (
        "_ack_after_bytes",
        "_ack_told",
        "_bytes_since_ack",
        "_forgotten",
        "_kept",
        "_unsent",
        "ack_due",
        "bytes_kept",
        "epoch",
        "received",
        "up",
    )

    def __init__(self, ack_after_bytes: int = ACK_AFTER_BYTES) -> None:
        self._ack_after_bytes = ack_after_bytes
        self.epoch = 0
        self.up = False
        self.received = 0
        self.ack_due = False
        self.bytes_kept = 0
        self._kept: deque[tuple[int, Frames, int]] = deque()  # unacknowledged: number, frames, bytes
        self._forgotten = 0  # the last number that was acknowledged
        self._unsent = 0  # numbers above this one were not handed out in this epoch
        self._ack_told = 0
        self._bytes_since_ack = 0

    # --- sending

    @property
    def sent(self) -> int:
        """The last number given out.  Read off what is kept, so that it can't disagree with it."""
        return self._kept[-1][0] if self._kept else self._forgotten

    def enqueue(self, frames: Frames, size: int) -> None:
        """Take a message over: it will arrive, once and in order, or the link is lost."""
        self._kept.append((self.sent + 1, frames, size))
        self.bytes_kept += size

    def commit(self, frames: Frames, size: int) -> int:
        """`enqueue`, and hand it out if nothing is before it: its number, or 0 if it can't go now."""
        kept = self._kept
        last: int = kept[-1][0] if kept else self._forgotten
        number = last + 1
        kept.append((number, frames, size))
        self.bytes_kept += size
        if self.up and self._unsent == last:
            self._unsent = number
            return number
        return 0

    def outgoing(self) -> list[tuple[int, Frames]]:
        """What is to be transmitted now, as (number, frames); each is handed out once per epoch."""
        kept, first = self._kept, self._unsent
        if not kept or not self.up:
            return []
        sent, frames, _ = kept[-1]
        if sent == first:
            return []
        if sent - first == 1:
            self._unsent = sent
            return [(sent, frames)]
        out = [(number, frames) for number, frames, _ in kept if number > first]
        self._unsent = sent
        return out

    def ack_riding(self) -> int:
        """The acknowledgement to write into an outgoing envelope."""
        self._ack_told = received = self.received
        self._bytes_since_ack = 0
        self.ack_due = False
        return received

    # --- receiving

    def judge(self, epoch: int, seq: int) -> Verdict:
        """What to do with message `seq` of `epoch`; the caller calls `applied` once it is."""
        if epoch != self.epoch or seq <= self.received:
            return Verdict.DUPLICATE
        return Verdict.APPLY if seq == self.received + 1 else Verdict.GAP

    def applied(self, seq: int, size: int) -> None:
        self.received = seq
        self._bytes_since_ack = waiting = self._bytes_since_ack + size
        if seq - self._ack_told >= ACK_AFTER_MESSAGES or waiting >= self._ack_after_bytes:
            self.ack_due = True

    def accept(self, epoch: int, seq: int, ack: int, size: int) -> Verdict:
        """`judge`, `acknowledged` and `applied` in one, for a side that nothing can interrupt."""
        received = self.received + 1
        if epoch != self.epoch or seq < received:
            return Verdict.DUPLICATE
        if seq != received:
            return Verdict.GAP
        kept = self._kept
        if kept and kept[0][0] <= ack:
            self.acknowledged(ack)
        self.applied(seq, size)
        return Verdict.APPLY

    def acknowledged(self, ack: int) -> None:
        """The peer has applied everything up to `ack`; what it was never sent it can't have applied."""
        if ack > self._unsent:
            ack = self._unsent
        kept = self._kept
        while kept and kept[0][0] <= ack:
            self._forgotten = kept[0][0]
            self.bytes_kept -= kept.popleft()[2]

    # --- epochs

    def cut(self) -> None:
        """The connection is gone, or doubtful: send nothing until `begin`."""
        self.up = False

    def begin(self, epoch: int, peer_received: int) -> bool:
        """A new connection stands, and the peer has everything up to `peer_received`.

        Returns False when the peer claims what was never sent, or lacks what is
        not kept any more: it is not the peer of this link.
        """
        oldest = self._kept[0][0] - 1 if self._kept else self._forgotten
        if not oldest <= peer_received <= self.sent:
            return False
        self._unsent = peer_received
        self.acknowledged(peer_received)
        self.bytes_kept = sum(size for _, _, size in self._kept)
        self.epoch = epoch
        self._ack_told = self.received
        self._bytes_since_ack = 0
        self.ack_due = False
        self.up = True
        return True

    def statistics(self) -> dict[str, int]:
        return {
            "epoch": self.epoch,
            "sent": self.sent,
            "received": self.received,
            "kept": len(self._kept),
            "bytes_kept": self.bytes_kept,
        }

    def check(self) -> None:
        """Compare every index with every other."""
        numbers = [number for number, _, _ in self._kept]
        assert numbers == list(range(self.sent - len(numbers) + 1, self.sent + 1)), numbers
        assert self.bytes_kept == sum(size for _, _, size in self._kept)
        assert self._unsent <= self.sent
