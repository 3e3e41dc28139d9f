"""The switchboard: the router's ROUTER socket, and a link for every peer.

Peers are integers here and in the broker; their routing ids change with every
connection, their links do not.  What comes from a connection that has not said
HELLO is answered with STRANGER, what can't be read with REFUSE; neither can
stop the others from being served.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import zmq
from zmq.backend import Socket as Backend

from flamezmq.address import is_ipv6
from flamezmq.core.link import Link, Verdict
from flamezmq.errors import ProtocolError
from flamezmq.net.berth import Berth
from flamezmq.version import __version__
from flamezmq.wire import codec
from flamezmq.wire import messages as m

# The compiled methods, called by position: keywords and flags as enums cost a microsecond a call.
_raw_send: Any = Backend.send
_raw_recv: Any = Backend.recv
_poll: Any = zmq.zmq_poll
_DATA, _APPLY = codec.DATA, Verdict.APPLY
_POLLIN = int(zmq.POLLIN)
_MORE = int(zmq.SNDMORE)
_PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"

_STRANGER = "this router does not know you (was it started anew?); open a new connection"
_NEVER_SENT = "your link quotes messages that this router never sent"

ROLES = ("client", "executor", "worker")
#: One turn takes in messages for about so long.
TURN_SECONDS = 0.001
#: A wait of so long or longer is one blocking receive, half the price of poll and receive, and ends then.
LONG_SECONDS = 1.0
#: A peer that was not heard for so long is probed.
PROBE_SECONDS = 2.0
#: A peer whose connection is gone is given up after so long.
PATIENCE_SECONDS = 3.0
#: Results that a client has not taken, in bytes, at which no more are made for it.
BACKLOG_BYTES = 256 << 20
#: Characters of a refusal; it may quote what the peer said.
MOST_WORDS = 400


class Peer:
    """Somebody who said HELLO.  `id` is what the broker knows it by."""

    __slots__ = ("backlogged", "decode", "down_since", "heard", "id", "link", "role", "routing_id", "token")

    def __init__(self, id: int, role: str, token: bytes, routing_id: bytes) -> None:
        self.id, self.role, self.token, self.routing_id = id, role, token, routing_id
        self.decode = codec.decoder(role)
        self.link = Link()
        self.heard = 0.0
        self.down_since = 0.0
        self.backlogged = False


class Board:
    """on_client, on_lost, on_backlog: what the broker must hear about peers."""

    def __init__(
        self,
        limits: tuple[int, int],
        on_client: Callable[[int], None],
        on_lost: Callable[[int], None],
        on_backlog: Callable[[int, bool], None],
    ) -> None:
        self.peers: dict[int, Peer] = {}
        self.refused = 0
        self.on_refused: Callable[[Peer | None, str], None] = lambda peer, reason: None
        self.welcoming = True  # False: whoever is new gets no answer
        self._limits, self._on_client, self._on_lost, self._on_backlog = (
            limits,
            on_client,
            on_lost,
            on_backlog,
        )
        self._by_route: dict[bytes, Peer] = {}
        self._by_token: dict[bytes, Peer] = {}
        self._last_id = 0
        self._probe_at = 0.0
        self.berth = Berth()
        socket = self._socket = self.berth.socket(zmq.ROUTER)
        socket.set_hwm(0)  # credit is the bound
        socket.linger = 0
        socket.router_mandatory = True
        socket.setsockopt(zmq.MAXMSGSIZE, codec.MAX_FRAME_BYTES)
        socket.rcvtimeo = int(LONG_SECONDS * 1000)
        self._poll = [(socket, _POLLIN)]

    def bind(self, address: str) -> str:
        """Listen; returns the address with the port that was given for port 0 (`tcp://127.0.0.1:*`)."""
        self._socket.ipv6 = is_ipv6(address)
        if address.startswith("tcp"):
            self._socket.heartbeat_ivl = 1000
            self._socket.heartbeat_timeout = 5000
        self._socket.bind(address)
        bound: bytes = self._socket.getsockopt(zmq.LAST_ENDPOINT)
        return bound.rstrip(b"\0").decode()

    def close(self, linger_ms: int = 0) -> None:
        """Hang up; what was sent gets so long to leave."""
        self._socket.close(linger_ms)
        self.berth.close()

    # --- receiving

    def receive(self, seconds: float) -> Iterator[tuple[Peer, Any, list[Any]]]:
        """Wait so long for messages, LONG_SECONDS at most; yield what came, for about TURN_SECONDS.

        The caller applies each message before it asks for the next, or calls `refuse`.
        """
        socket, routes, unpack = self._socket, self._by_route, codec.open_envelope
        route = self._wait(seconds)
        if not route:
            return
        now = monotonic()
        stop = now + TURN_SECONDS
        while True:
            frame = _raw_recv(socket, 0, False)
            frames = _rest(socket) if frame.more else []
            peer = routes.get(route)
            try:
                kind, epoch, seq, ack = unpack(frame)
                if kind == _DATA and peer is not None:
                    link = peer.link
                    peer.heard = now
                    size = len(frame) + sum(map(len, frames)) if frames else len(frame)
                    verdict = link.accept(epoch, seq, ack, size)
                    if verdict is _APPLY:
                        yield peer, peer.decode(frame), frames
                        if link.ack_due:
                            self._raw(peer, codec.signal(codec.ACK, link.epoch, 0, link.ack_riding()))
                    elif verdict is Verdict.GAP:
                        self._raw(peer, codec.signal(codec.STRANGER, link.epoch))
                else:
                    self._on_control(route, peer, kind, epoch, ack, frame, now)
            except ProtocolError as error:
                self._refuse_route(route, peer, str(error))
            if peer is not None and peer.backlogged:
                self._weigh(peer)
            if not _poll(self._poll, 0) or monotonic() > stop:
                return
            route = _raw_recv(socket)

    def _wait(self, seconds: float) -> bytes:
        """The first frame of the next message, b"" when none has come in time."""
        if seconds < LONG_SECONDS and not _poll(self._poll, max(0, int(seconds * 1000) + 1)):
            return b""
        try:
            route: bytes = _raw_recv(self._socket)
        except zmq.Again:
            return b""
        return route

    def _on_control(
        self, route: bytes, peer: Peer | None, kind: int, epoch: int, ack: int, frame: Any, now: float
    ) -> None:
        if kind == codec.HELLO:
            self._on_hello(route, epoch, codec.decode_hello(frame), now)
        elif peer is None:
            self._send_to(route, codec.signal(codec.STRANGER, epoch))
        elif kind in (codec.ACK, codec.PONG, codec.PING):
            peer.heard = now
            if epoch == peer.link.epoch:
                peer.link.acknowledged(ack)
            if kind == codec.PING:
                self._raw(peer, codec.signal(codec.PONG, epoch, 0, peer.link.ack_riding()))
        elif kind == codec.BYE:
            self.forget(peer)
        else:
            raise ProtocolError(f"a message of kind {kind} is not for a router")

    def _on_hello(self, route: bytes, epoch: int, hello: m.Hello, now: float) -> None:
        if hello.protocol != m.PROTOCOL:
            raise ProtocolError(
                f"you speak protocol {hello.protocol} (flamezmq {hello.version}), this router protocol "
                f"{m.PROTOCOL} (flamezmq {__version__}); install the same version on both sides"
            )
        if hello.python != _PYTHON:
            raise ProtocolError(
                f"you run Python {hello.python}, this cluster Python {_PYTHON}; pickled functions "
                "do not travel between minor versions: use the same one on both sides"
            )
        if hello.role not in ROLES:
            raise ProtocolError(f"nobody here is a {hello.role!r}")
        peer = self._by_token.get(hello.link) if hello.link else None
        if peer is None and hello.link:
            self._refuse_route(route, None, _STRANGER, gone=True)
            return
        if hello.received and peer is None:
            raise ProtocolError(_NEVER_SENT)
        if peer is None and not self.welcoming:
            return  # it goes on dialling, and meets the next router
        if peer is not None and epoch <= peer.link.epoch:
            return  # said on a connection that was cut since; it came late
        before = self._by_route.get(route)
        if before is not None and before is not peer:
            self.forget(before)  # a connection has one link: nobody would answer for the other
        if peer is None:
            peer = self._admit(hello.role, route)
        self._by_route.pop(peer.routing_id, None)
        peer.routing_id = route
        self._by_route[route] = peer
        peer.heard, peer.down_since = now, 0.0
        if not peer.link.begin(epoch, hello.received):
            self.forget(peer)
            raise ProtocolError(_NEVER_SENT)
        if peer.backlogged:  # it may have nothing to say for long: a HELLO acknowledges, too
            self._weigh(peer)
        welcome = codec.encode(m.Welcome(peer.token, peer.link.received, *self._limits))
        codec.seal(welcome, codec.WELCOME, epoch, 0, peer.link.received)
        self._raw(peer, welcome)
        self.flush(peer)

    def _admit(self, role: str, route: bytes) -> Peer:
        self._last_id += 1
        peer = Peer(self._last_id, role, os.urandom(16), route)
        self.peers[peer.id] = self._by_token[peer.token] = peer
        if role == "client":
            self._on_client(peer.id)
        return peer

    # --- sending

    def send(self, effects: list[tuple[int, Any, list[Any]]]) -> None:
        """Commit messages to their peers' links and send what can be sent."""
        peers, socket = self.peers, self._socket
        for id, message, frames in effects:
            peer = peers.get(id)
            if peer is None:
                continue
            link = peer.link
            body = codec.encode(message)
            whole = [body, *frames] if frames else [body]
            number = link.commit(whole, len(body) + sum(map(len, frames)) if frames else len(body))
            if number:
                codec.seal(body, _DATA, link.epoch, number, link.ack_riding())
                try:
                    _raw_send(socket, peer.routing_id, _MORE, True, False)
                except zmq.ZMQError as error:
                    self._unreachable(peer, error)
                else:
                    _send_frames(socket, whole)
            if link.bytes_kept > BACKLOG_BYTES and not peer.backlogged:
                self._weigh(peer)

    def flush(self, peer: Peer) -> None:
        """Send what its link has kept for it, at the beginning of an epoch."""
        link, socket = peer.link, self._socket
        for number, frames in link.outgoing():
            codec.seal(frames[0], _DATA, link.epoch, number, link.ack_riding())
            try:
                _raw_send(socket, peer.routing_id, _MORE, True, False)
            except zmq.ZMQError as error:
                self._unreachable(peer, error)
                return
            _send_frames(socket, frames)

    def _raw(self, peer: Peer, frame: Any) -> None:
        if not self._send_to(peer.routing_id, frame):
            self._cut(peer)

    def _send_to(self, route: bytes, frame: Any) -> bool:
        try:
            _raw_send(self._socket, route, _MORE, True, False)
        except zmq.ZMQError as error:
            if error.errno != errno.EHOSTUNREACH:
                raise
            return False
        _raw_send(self._socket, frame, 0, True, False)
        return True

    def _unreachable(self, peer: Peer, error: zmq.ZMQError) -> None:
        if error.errno != errno.EHOSTUNREACH:
            raise error
        self._cut(peer)

    def _cut(self, peer: Peer) -> None:
        """Its connection is gone; it may dial again."""
        peer.link.cut()
        if not peer.down_since:
            peer.down_since = monotonic()
            self._probe_at = min(self._probe_at, peer.down_since + PATIENCE_SECONDS)

    # --- peers that fail

    def refuse(self, peer: Peer, reason: str, gone: bool = False) -> None:
        """It said what it must not: tell it, forget it, keep serving.  `gone`: it is we who leave."""
        self._refuse_route(peer.routing_id, peer, reason, gone)

    def _refuse_route(self, route: bytes, peer: Peer | None, reason: str, gone: bool = False) -> None:
        self.refused += 1
        if not gone:
            self.on_refused(peer, reason)
        frame = codec.encode(m.Refuse(reason[:MOST_WORDS], gone))
        codec.seal(frame, codec.REFUSE, peer.link.epoch if peer else 0, 0, 0)
        self._send_to(route, frame)
        if peer is not None:
            self.forget(peer)

    def forget(self, peer: Peer) -> None:
        if self.peers.pop(peer.id, None) is not None:
            self._by_route.pop(peer.routing_id, None)
            self._by_token.pop(peer.token, None)
            self._on_lost(peer.id)

    def _weigh(self, peer: Peer) -> None:
        """Has the client taken its results?"""
        heavy = peer.link.bytes_kept > (BACKLOG_BYTES // 2 if peer.backlogged else BACKLOG_BYTES)
        if heavy != peer.backlogged:
            peer.backlogged = heavy
            self._on_backlog(peer.id, heavy)

    def probe(self, now: float) -> float:
        """Ping the silent, give up those that are long gone; returns when to come again."""
        if now < self._probe_at:
            return self._probe_at
        due = now + PROBE_SECONDS
        for peer in list(self.peers.values()):
            if peer.down_since:
                if now >= peer.down_since + PATIENCE_SECONDS:
                    self.forget(peer)
                else:
                    due = min(due, peer.down_since + PATIENCE_SECONDS)
            elif now - peer.heard >= PROBE_SECONDS:
                self._raw(peer, codec.signal(codec.PING, peer.link.epoch, 0, peer.link.ack_riding()))
        self._probe_at = due
        return due


def _rest(socket: zmq.Socket[bytes]) -> list[Any]:
    """The frames of a message after its first."""
    frames = [_raw_recv(socket, 0, False)]
    while frames[-1].more:
        frames.append(_raw_recv(socket, 0, False))
    return frames


def _send_frames(socket: zmq.Socket[bytes], frames: list[Any]) -> None:
    last = len(frames) - 1
    for position, frame in enumerate(frames):
        _raw_send(socket, frame, _MORE if position < last else 0, len(frame) < 65536, False)
