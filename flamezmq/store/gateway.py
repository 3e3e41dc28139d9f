"""Putting objects from a process that is on no node of its cluster: through the store of some node.

The bytes go there by ZeroMQ, chunk by chunk, of which `WINDOW` are not confirmed at
a time.  A gateway that can't be reached, or takes nothing, is left alone for a
while, and the next one is tried; where there is none payloads travel as ever.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

import zmq
from xxhash import xxh3_64_intdigest

from flamezmq.errors import ProtocolError
from flamezmq.store import outside
from flamezmq.store.courier import MOST_REPEATS, WINDOW, Line
from flamezmq.store.layout import chunks
from flamezmq.wire import transfer as t
from flamezmq.wire.handles import Handle

#: A gateway that says nothing for so long is given up; before it has ever answered, sooner.
SILENCE_SECONDS = 10.0
STRANGE_SECONDS = 3.0
#: One that failed is left alone for so long.
SHUN_SECONDS = 30.0
#: Gateways that are tried for one object.
MOST_TRIES = 2
#: Lines to one store that are kept for the next object.
MOST_IDLE = 4


class Gateways:
    """The stores that a process may put through.

    known  their names and addresses
    nodes  the names of their nodes, by their own
    """

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self.nodes: dict[str, str] = {}
        self._shunned: dict[str, float] = {}  # name -> until when
        self._answered: set[str] = set()
        self._current = ""

    def put(
        self, name: bytes, session: str, pieces: Sequence[Any], terms: int = 0, label: str = ""
    ) -> Handle | None:
        """Keep a copy of the pieces as object `name`, somewhere; None: nobody takes it.

        terms, label: as in `transfer.Offer`, where the latter is `name`
        """
        sizes = tuple(memoryview(piece).nbytes for piece in pieces)
        offer = t.Offer(name, session, list(sizes), terms, label)
        full: list[str] = []
        for _ in range(MOST_TRIES):
            home = self._choose(full)
            if not home:
                return None
            patience = SILENCE_SECONDS if home in self._answered else STRANGE_SECONDS
            try:
                if bring(self.known[home], offer, pieces, patience):
                    self._answered.add(home)
                    return Handle(name, home, sizes, self.known[home], self.nodes.get(home, ""))
                self._shunned[home] = monotonic() + SHUN_SECONDS
            except Refused:
                full.append(home)  # what is smaller it may take
        return None

    def _choose(self, full: list[str]) -> str:
        """The one that it was, while that works; else any: many clients are not to choose the same."""
        now = monotonic()
        able = [name for name in self.known if self._shunned.get(name, 0.0) <= now and name not in full]
        if self._current not in able:
            self._current = random.choice(able) if able else ""
        return self._current


def bring(address: str, offer: t.Offer, pieces: Sequence[Any], patience: float = SILENCE_SECONDS) -> bool:
    """Copy the pieces to the store at this address; whether they are there now.

    Raises:
        Refused: it does not take them, and has said so.
    """
    line = take(address)
    try:
        _Upload(line, offer.id, patience).run(offer, pieces)
    except (_Failed, zmq.ZMQError, ProtocolError):
        line.close()
        return False
    except BaseException:  # an answer may be on its way
        line.close()
        raise
    give(line)
    return True


def discard(address: str, names: Iterable[bytes], free: bool = False) -> None:
    """Tell the store at this address that their owner does not need these any more.

    free: that they are to go, whoever else needs them

    Nothing confirms it: what is not heard goes with its session.
    """
    _tell(address, names, lambda some: t.Discard(some, free))


def stay(address: str, names: Iterable[bytes]) -> None:
    """Tell the store at this address that somebody has references to these."""
    _tell(address, names, t.Stay)


def _tell(address: str, names: Iterable[bytes], word: Callable[[list[bytes]], t.Question]) -> None:
    line = take(address)
    left = list(names)
    with suppress(zmq.Again):
        for start in range(0, len(left), t.MOST_PIECES):
            line.socket.send(t.encode(word(left[start : start + t.MOST_PIECES])), zmq.DONTWAIT)
    give(line)


def close() -> None:
    """Hang up."""
    while _idle:
        _, lines = _idle.popitem()
        for line in lines:
            line.close()


class Refused(Exception):
    """A store does not take an object: it has no room, or too much is being brought at a time."""


class _Failed(Exception):
    """The gateway can't be reached, or what comes there is not what was sent."""


class _Upload:
    """One object on its way.  waiting: offset -> a chunk that is not confirmed, and how often it was sent."""

    def __init__(self, line: Line, name: bytes, patience: float) -> None:
        self._line, self._name, self._patience = line, name, patience
        self._waiting: dict[int, tuple[Any, int]] = {}

    def run(self, offer: t.Offer, pieces: Sequence[Any]) -> None:
        """Raises _Failed, Refused, or what ZeroMQ and the decoder raise."""
        if len(offer.sizes) > t.MOST_PIECES:
            raise Refused("it has too many pieces")
        self._line.socket.send(t.encode(offer), zmq.DONTWAIT)
        for offset, chunk in chunks(pieces, t.CHUNK_BYTES):
            self._send(offset, chunk, 1)
            while len(self._waiting) >= WINDOW:
                self._hear()
        while not self._hear():
            pass

    def _send(self, offset: int, chunk: Any, times: int) -> None:
        self._waiting[offset] = chunk, times
        fill = t.Fill(self._name, offset, xxh3_64_intdigest(chunk))
        self._line.socket.send(t.encode(fill), zmq.SNDMORE | zmq.DONTWAIT)
        self._line.socket.send(chunk, zmq.DONTWAIT)

    def _hear(self) -> bool:
        """Wait for one answer; whether all is there."""
        answer = self._answer()
        if isinstance(answer, t.Stored) and answer.id == self._name:
            return True
        if isinstance(answer, t.Refusal) and answer.id == self._name:
            raise Refused(answer.why)
        if isinstance(answer, t.Got) and answer.id == self._name and answer.offset in self._waiting:
            chunk, times = self._waiting.pop(answer.offset)
            if not answer.good and times > MOST_REPEATS:
                raise _Failed
            if not answer.good:
                self._send(answer.offset, chunk, times + 1)
        return False

    def _answer(self) -> t.Answer:
        deadline = monotonic() + self._patience
        while not self._line.socket.poll(outside.WAIT_MILLISECONDS):
            if self._line.fault() or monotonic() > deadline:
                raise _Failed
        return t.decode_answer(self._line.socket.recv_multipart()[0])


#: address -> lines that nobody uses.
_idle: dict[str, list[Line]] = {}
_pid = 0


def take(address: str) -> Line:
    """A line to the store at this address, for one thread; to be given back, or closed."""
    global _pid
    if _pid != os.getpid():  # those of the process that this was forked from are not ours
        _idle.clear()
        _pid = os.getpid()
    lines = _idle.get(address, [])
    while lines:
        line = lines.pop()
        if not line.fault():
            return line
        line.close()
    return Line(outside.context(), address)


def give(line: Line) -> None:
    """Nothing is on its way on this one: the next may have it."""
    lines = _idle.setdefault(line.address, [])
    if len(lines) < MOST_IDLE:
        lines.append(line)
    else:
        line.close()
