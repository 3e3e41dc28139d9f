"""Objects on their way here, from whoever has them.

`fetch` begins to have an object brought; its segment fills by chunks, of which
`WINDOW` are asked for at a time; when all are here, or when it can't be had,
`on_end` is told.  The home of an object says who is to bring it (`spread`): itself,
or one that has fetched it, or fetches it now.  When that one dies, or says nothing
for too long, another goes on where it stopped; nothing is waited for without end.

Used by the thread of a store, and by processes on no node (`outside`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import monotonic
from typing import Any

import zmq
from xxhash import xxh3_64_intdigest

from flamezmq.errors import ProtocolError
from flamezmq.store.counter import SPREAD_BYTES
from flamezmq.store.mapping import Target
from flamezmq.wire import transfer as t

#: Chunks of one object that are on their way at a time, and of all objects from one source.
WINDOW = 8
LINE_WINDOW = 32
#: A source that says nothing for so long, while something is wanted of it, is given up.
SILENCE_SECONDS = 10.0
#: How soon a cable that was pulled is noticed: three of them; and a host that does not answer a dial.
HEARTBEAT_MILLISECONDS = 2000
DIAL_MILLISECONDS = 3000
#: Messages taken in from one source before the others have their turn.
TURN_MESSAGES = 32
#: How often a chunk that came damaged is asked for again.
MOST_REPEATS = 3
#: Of one object: sources that are tried, and how often its home is (a cable may just have been pulled).
MOST_SOURCES = 16
#: The router answers in so long, or is not waited for.
ASK_SECONDS = 2.0
MOST_DIALS = 2

_EVENTS = (
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
)
_MONITOR_EVENT = struct.Struct("=H")


class Line:
    """To one other store.

    wants    chunks that it was asked for and has not brought
    waiting  objects that have to wait for this one's credit
    """

    __slots__ = ("address", "monitor", "socket", "waiting", "wants")

    def __init__(self, context: zmq.Context[Any], address: str) -> None:
        self.address = address
        self.socket: Any = context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.ipv6 = "[" in address
        self.socket.maxmsgsize = t.MOST_FRAME_BYTES
        self.socket.heartbeat_ivl = HEARTBEAT_MILLISECONDS
        self.socket.heartbeat_timeout = 3 * HEARTBEAT_MILLISECONDS
        self.socket.connect_timeout = DIAL_MILLISECONDS
        self.monitor: Any = self.socket.get_monitor_socket(_EVENTS)
        self.socket.connect(address)
        self.wants: set[tuple[bytes, int]] = set()
        self.waiting: dict[bytes, None] = {}

    def fault(self) -> str:
        """What is wrong with it, as was found since it was made; "": nothing."""
        try:
            (event,) = _MONITOR_EVENT.unpack_from(self.monitor.recv_multipart(zmq.DONTWAIT)[0])
        except zmq.Again:
            return ""
        if event == zmq.EVENT_CLOSED:
            return f"nobody listens at {self.address} any more"
        return f"the connection to {self.address} was cut"

    def close(self) -> None:
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close(0)


class Fetch:
    """One object on its way here.

    target   the segment that it fills
    home     where its home is reached; source: who brings it now, "" while that is asked for
    others   who else may
    here     which of its chunks are here; left: how many are not
    missing  offsets of chunks that were asked for, or are to be asked for again -> how often that was
    again    those of them that are to be asked for again
    dials    addresses that did not answer -> how often
    asks     the router, which is to say who else has it; has_asked: that was done once
    """

    __slots__ = (
        "again", "asked", "asks", "dials", "has_asked", "heard", "here", "home", "left", "missing",
        "name", "others", "size", "source", "target", "why",
    )  # fmt: skip

    def __init__(self, name: bytes, home: str, target: Target, size: int) -> None:
        self.name, self.home, self.target, self.size = name, home, target, size
        self.source = ""
        self.others: list[str] = []
        self.left = -(-size // t.CHUNK_BYTES)
        self.here = bytearray(self.left)
        self.asked = 0
        self.missing: dict[int, int] = {}
        self.again: list[int] = []
        self.dials: dict[str, int] = {}
        self.has_asked = self.asks = False
        self.heard = monotonic()
        self.why = ""

    def has(self, offset: int, length: int) -> bool:
        """Whether these bytes have come."""
        first, last = offset // t.CHUNK_BYTES, (offset + length - 1) // t.CHUNK_BYTES
        return all(self.here[first : last + 1])


class Courier:
    """The sockets to other stores, and what comes by them.

    at      where others reach this store, so that they can be sent here; "": nowhere
    keeps   what it fetches is there for a while, and goes when its home's object does
    on_end  called with the name of an object, why it did not come ("": it is here), and whether that
            is because no node that has it can be reached
    on_part called with the name of one of which more is here
    on_gone called with the names of objects that were fetched, and are none any more
    who_has asks the router which stores have this one, which it answers by `on_holders`; False: it can't
    fds     have changed when `changed` is set, which is the caller's to clear
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        at: str,
        on_end: Callable[[bytes, str, bool], object],
        on_part: Callable[[bytes], object] = lambda name: None,
        on_gone: Callable[[list[bytes]], object] = lambda names: None,
        who_has: Callable[[bytes], bool] = lambda name: False,
        keeps: bool = True,
    ) -> None:
        self._context, self._at, self._keeps = context, at, keeps
        self._on_end, self._on_part, self._on_gone, self._who_has = on_end, on_part, on_gone, who_has
        self._lines: dict[str, Line] = {}
        self._homes: dict[bytes, str] = {}  # of what was fetched
        self.fetches: dict[bytes, Fetch] = {}
        self.changed = self.has_sent = False

    def fetch(self, name: bytes, home: str, target: Target, size: int) -> None:
        """Have an object of `size` bytes brought to the target."""
        fetch = self.fetches[name] = Fetch(name, home, target, size)
        self._seek(fetch)
        if size < SPREAD_BYTES:
            fetch.source = home
            self._ask_on(fetch)

    def on_dropped(self, names: Iterable[bytes]) -> None:
        """These copies are here no more: nobody is to be sent here for them."""
        by_home: dict[str, list[bytes]] = {}
        for name in names:
            home = self._homes.pop(name, "")
            if home in self._lines:
                by_home.setdefault(home, []).append(name)
        for home, gone in by_home.items():
            self._send(self._lines[home], t.Lack(gone[: t.MOST_PIECES]))

    def on_holders(self, name: bytes, at: list[str]) -> None:
        """The router's answer: stores that have it, as far as it knows."""
        fetch = self.fetches.get(name)
        if fetch is not None and fetch.asks:
            fetch.asks = False
            fetch.others = [address for address in at if address != self._at]
            self._go_on(fetch)

    def fds(self) -> list[int]:
        """Readable when `turn` is to be called, edge by edge."""
        return [int(socket.getsockopt(zmq.FD)) for socket in self.sockets()]

    def sockets(self) -> list[Any]:
        """One of them has something to read when `turn` is to be called."""
        return [socket for line in self._lines.values() for socket in (line.socket, line.monitor)]

    def turn(self) -> bool:
        """Take in what came; whether there may be more."""
        more, self.has_sent = False, False
        for line in list(self._lines.values()):
            more = self._take(line) or more
            if fault := line.fault():
                self._hang_up(line, fault)
        if self.fetches:
            self._look()
        return more or self.has_sent

    def close(self) -> None:
        """Hang up; what is on its way does not come."""
        for line in self._lines.values():
            line.close()
        self._lines.clear()
        self.fetches.clear()

    # --- asking

    def _seek(self, fetch: Fetch, failed: str = "") -> None:
        fetch.source = ""
        self._send(self._line(fetch.home), t.Seek(fetch.name, self._at, failed, self._keeps))

    def _ask_on(self, fetch: Fetch) -> None:
        """Ask for what is to come next, as far as the credit goes."""
        line = self._line(fetch.source)
        while fetch.again or fetch.asked < fetch.size:
            run = 1 if fetch.again else min(t.MOST_CHUNKS, -(-(fetch.size - fetch.asked) // t.CHUNK_BYTES))
            if not fetch.again and len(fetch.missing) + run > WINDOW:
                return
            if len(line.wants) + run > LINE_WINDOW:
                line.waiting[fetch.name] = None
                return
            if fetch.again:
                offset = fetch.again.pop()
                if offset in fetch.missing:  # not if it came late from who was given up
                    self._ask(line, fetch, offset, 1)
            else:
                self._ask(line, fetch, fetch.asked, run)
                fetch.asked += run * t.CHUNK_BYTES

    def _ask(self, line: Line, fetch: Fetch, offset: int, run: int) -> None:
        for start in range(offset, offset + run * t.CHUNK_BYTES, t.CHUNK_BYTES):
            fetch.missing[start] = fetch.missing.get(start, 0) + 1
            line.wants.add((fetch.name, start))
        self._send(line, t.Want(fetch.name, offset, min(run * t.CHUNK_BYTES, fetch.size - offset)))

    def _line(self, address: str) -> Line:
        line = self._lines.get(address)
        if line is None:
            line = self._lines[address] = Line(self._context, address)
            self.changed = True
        return line

    def _send(self, line: Line, question: t.Question) -> None:
        self.has_sent = True
        with suppress(zmq.Again):  # its silence will be noticed
            line.socket.send(t.encode(question), zmq.DONTWAIT)

    # --- answers

    def _take(self, line: Line) -> bool:
        for _ in range(TURN_MESSAGES):
            try:
                frames = line.socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return False
            with suppress(ProtocolError):  # nobody of ours: let it wait for an answer
                self._on_answer(line, t.decode_answer(frames[0].buffer), frames[1:])
        return True

    def _on_answer(self, line: Line, answer: t.Answer, frames: list[Any]) -> None:
        if isinstance(answer, t.Chunk):
            line.wants.discard((answer.id, answer.offset))
            fetch = self.fetches.get(answer.id)
            if fetch is not None and len(frames) == 1 and answer.offset in fetch.missing:
                self._on_chunk(fetch, answer, frames[0].buffer)
            self._ask_waiting(line)
        elif isinstance(answer, t.Missing):
            self._on_missing(line, answer.id)
        elif isinstance(answer, t.Source):
            self._on_source(line, answer)
        elif isinstance(answer, t.Gone):
            mine = [name for name in answer.ids if self._homes.get(name) == line.address]
            self._on_gone(mine)

    def _on_source(self, line: Line, answer: t.Source) -> None:
        fetch = self.fetches.get(answer.id)
        if fetch is None or fetch.home != line.address:
            return
        fetch.others = answer.others
        if not fetch.source:
            fetch.heard = monotonic()
            fetch.source = answer.at or fetch.home
            self._ask_on(fetch)
        self._end_if_all(fetch)  # there may be nothing to ask for

    def _on_chunk(self, fetch: Fetch, answer: t.Chunk, data: memoryview) -> None:
        offset = answer.offset
        fetch.heard = monotonic()
        right = min(t.CHUNK_BYTES, fetch.size - offset)
        if len(data) == right and xxh3_64_intdigest(data) == answer.check:
            fetch.target.write(data, offset)
            del fetch.missing[offset]
            fetch.here[offset // t.CHUNK_BYTES] = 1
            fetch.left -= 1
            self._on_part(fetch.name)
        elif fetch.missing[offset] > MOST_REPEATS:
            self._end(fetch, "it came damaged, again and again")
            return
        else:
            fetch.again.append(offset)
        if fetch.left:
            self._ask_on(fetch)
        else:
            self._end_if_all(fetch)

    def _ask_waiting(self, line: Line) -> None:
        for name in list(line.waiting):
            if len(line.wants) + t.MOST_CHUNKS > LINE_WINDOW:
                return
            del line.waiting[name]
            fetch = self.fetches.get(name)
            if fetch is not None and fetch.source == line.address:
                self._ask_on(fetch)

    def _on_missing(self, line: Line, name: bytes) -> None:
        fetch = self.fetches.get(name)
        if fetch is None:
            line.wants = {want for want in line.wants if want[0] != name}
        elif line.address == fetch.home:
            self._end(fetch, "it was freed, or its session was closed")
        elif line.address == fetch.source:
            self._fail(fetch, line.address, f"{line.address} does not have it any more")

    # --- what goes wrong

    def _look(self) -> None:
        now = monotonic()
        for fetch in list(self.fetches.values()):
            if fetch.asks and now - fetch.heard > ASK_SECONDS:
                self._end(fetch, fetch.why, lost=True)
            elif now - fetch.heard > SILENCE_SECONDS:
                address = fetch.source or fetch.home
                self._fail(fetch, address, f"its store, at {address}, does not answer")

    def _hang_up(self, line: Line, why: str) -> None:
        del self._lines[line.address]
        line.close()
        self.changed = True
        for fetch in list(self.fetches.values()):
            if not fetch.asks and line.address == (fetch.source or fetch.home):
                self._fail(fetch, line.address, why)

    def _fail(self, fetch: Fetch, address: str, why: str) -> None:
        """This one does not bring it: another is to go on."""
        self._forget_wants(fetch)
        fetch.again = list(fetch.missing)
        fetch.heard = monotonic()
        fetch.dials[address] = fetch.dials.get(address, 0) + 1
        if address == fetch.home or not fetch.why:
            fetch.why = why
        if sum(fetch.dials.values()) > MOST_SOURCES:
            self._end(fetch, fetch.why, lost=True)
        elif fetch.dials.get(fetch.home, 0) < MOST_DIALS:
            self._seek(fetch, "" if address == fetch.home else address)
        else:
            self._go_on(fetch)

    def _go_on(self, fetch: Fetch) -> None:
        """Without its home."""
        if left := [other for other in fetch.others if other not in fetch.dials]:
            fetch.source = left[0]
            self._ask_on(fetch)
        elif not fetch.has_asked and self._who_has(fetch.name):
            fetch.has_asked = fetch.asks = True
            fetch.source = ""
        else:
            self._end(fetch, fetch.why, lost=True)

    def _forget_wants(self, fetch: Fetch) -> None:
        line = self._lines.get(fetch.source)
        if line is not None:
            line.wants -= {(fetch.name, offset) for offset in fetch.missing}
            line.waiting.pop(fetch.name, None)

    def _end_if_all(self, fetch: Fetch) -> None:
        if fetch.left or fetch.name not in self.fetches:
            return
        self._homes[fetch.name] = fetch.home
        line = self._lines.get(fetch.home)
        if line is not None:
            self._send(line, t.Have(fetch.name))
        self._end(fetch, "")

    def _end(self, fetch: Fetch, why_not: str, lost: bool = False) -> None:
        self._forget_wants(fetch)
        del self.fetches[fetch.name]
        self._on_end(fetch.name, why_not, lost)
