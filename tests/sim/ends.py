"""The two ends of a link, by the rules of net/line.py and net/board.py, over the simulated network."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any
from zlib import crc32

from flamezmq.core.broker import Broker
from flamezmq.core.link import ACK_AFTER_BYTES, Link, Verdict
from flamezmq.core.members import Effects, Limits
from flamezmq.errors import ProtocolError
from flamezmq.wire import codec
from flamezmq.wire import messages as m
from tests.sim.network import Connection, Frames, Network
from tests.sim.world import World

HELLO_AGAIN_SECONDS = 1.0
PROBE_SECONDS = 2.0
PATIENCE_SECONDS = 3.0
DIALLER_PATIENCE_SECONDS = 10.0
#: Messages that the router takes in before it decides and sends.
TURN_MESSAGES = 40


class Dialler:
    """The dialling end.  apply: called for each message; on_lost: the link is gone for good."""

    def __init__(
        self,
        world: World,
        network: Network,
        role: str,
        apply: Callable[[Any, Frames], None],
        on_lost: Callable[[str], None],
        ack_after_bytes: int = ACK_AFTER_BYTES,
    ) -> None:
        self.world, self.network, self.role = world, network, role
        self.apply, self.on_lost = apply, on_lost
        self.link = Link(ack_after_bytes)
        self.lost = ""
        self.limits = (0, 0)
        self._token = b""
        self._down_since = world.now
        self._was_up = False
        self.connection = network.connect(self)
        self._hello()

    # --- for owners

    def enqueue(self, message: Any, frames: Frames | None = None) -> None:
        body = codec.encode(message)
        frames = frames or []
        self.link.enqueue([body, *frames], len(body) + sum(map(len, frames)))

    def send(self, message: Any, frames: Frames | None = None) -> None:
        self.enqueue(message, frames)
        self.flush()

    def flush(self) -> None:
        link = self.link
        for number, frames in link.outgoing():
            codec.seal(frames[0], codec.DATA, link.epoch, number, link.ack_riding())
            self._up([bytes(frames[0]), *frames[1:]])

    def close(self, bye: bool) -> None:
        """Hang up; the process may be dead, what it had sent is with the kernel."""
        if self.lost:
            return
        if bye and self.link.up:
            self._up([codec.signal(codec.BYE, self.link.epoch)])
        self.lost = "closed"
        self.network.cut(self.connection, 0.0, survivors=True)

    def say_ack(self) -> None:
        if not self.lost and self.link.up:
            self._up([codec.signal(codec.ACK, self.link.epoch, 0, self.link.ack_riding())])

    # --- as in Line

    def _up(self, frames: Frames) -> None:
        self.network.up(self.connection, frames)

    def _hello(self) -> None:
        link = self.link
        if link.up:
            self._down_since = self.world.now
        link.cut()
        link.epoch += 1
        frame = codec.encode(m.Hello(m.PROTOCOL, "sim", "3.x", self.role, self._token, link.received))
        codec.seal(frame, codec.HELLO, link.epoch, 0, 0)
        self._up([bytes(frame)])
        self.world.after(HELLO_AGAIN_SECONDS, self._hello_again, link.epoch)

    def _hello_again(self, epoch: int) -> None:
        if self.lost or self.link.up or self.link.epoch != epoch:
            return
        if self.world.now - self._down_since > DIALLER_PATIENCE_SECONDS:
            self._lose("no router")
            return
        self._hello()

    def on_disconnected(self, connection: Connection, outage: float) -> None:
        if self.lost or connection is not self.connection:
            return
        if self.link.up:
            self._down_since = self.world.now
        self.link.cut()
        self.world.after(outage, self._redial, connection)

    def _redial(self, old: Connection) -> None:
        if self.lost or old is not self.connection:
            return
        self.connection = self.network.reconnect(old)
        if self._was_up:
            self._hello()

    def _lose(self, reason: str) -> None:
        if not self.lost:
            self.lost = reason
            self.network.cut(self.connection, 0.0, survivors=True)
            self.on_lost(reason)

    def on_wire(self, connection: Connection, frames: Frames) -> None:
        if self.lost:
            return
        link = self.link
        kind, epoch, seq, ack = codec.open_envelope(frames[0])
        if kind == codec.DATA:
            verdict = link.judge(epoch, seq)
            if verdict is Verdict.APPLY:
                link.acknowledged(ack)
                self.apply(codec.decode("to " + self.role, frames[0]), frames[1:])
                link.applied(seq, sum(map(len, frames)))
                if link.ack_due and link.up:
                    self.say_ack()
            elif verdict is Verdict.GAP:
                self._hello()
        elif kind == codec.WELCOME:
            if epoch == link.epoch and not link.up:
                self._welcomed(epoch, codec.decode_welcome(frames[0]))
        elif kind == codec.ACK:
            link.acknowledged(ack)
        elif kind == codec.PING:
            link.acknowledged(ack)
            self._up([codec.signal(codec.PONG, link.epoch, 0, link.ack_riding())])
        elif kind == codec.STRANGER:
            if link.up:
                self._hello()
        elif kind == codec.REFUSE:
            self._lose(codec.decode_refuse(frames[0]).reason)
        link.check()

    def _welcomed(self, epoch: int, welcome: m.Welcome) -> None:
        if self._token and welcome.link != self._token:
            self._lose("another router")
        elif not self.link.begin(epoch, welcome.received):
            self._lose("a router without memory")
        else:
            self._token = welcome.link
            self.limits = (welcome.max_tasks, welcome.max_bytes)
            self._was_up = True
            self.flush()


class Peer:
    def __init__(self, id: int, role: str, token: bytes, route: Connection) -> None:
        self.id, self.role, self.token, self.route = id, role, token, route
        self.link = Link()
        self.heard = self.down_since = 0.0
        self.backlogged = False


class Router:
    """The router's host: the board's rules and the loop of router.py.

    after_turn: called when a turn has ended and everything is sent.
    """

    def __init__(
        self,
        world: World,
        limits: Limits,
        latency: float,
        backlog_bytes: int,
        duplicates: float = 0.0,
    ) -> None:
        self.world, self.backlog_bytes = world, backlog_bytes
        self.network = Network(world, self._deliver, latency, duplicates)
        self.broker = Broker(limits)
        self.after_turn: Callable[[Effects], None] = lambda effects: None
        self.peers: dict[int, Peer] = {}
        self.refused: list[str] = []
        self.digest = 0
        self.turns = 0
        self._by_route: dict[Connection, Peer] = {}
        self._by_token: dict[bytes, Peer] = {}
        self._last_id = 0
        self._lost: list[int] = []
        self._probe_at = 0.0
        self._inbox: deque[tuple[Connection, Frames]] = deque()
        self._busy = False
        self._wake = 0
        self._arm()

    # --- the loop

    def _deliver(self, connection: Connection, frames: Frames) -> None:
        self._inbox.append((connection, frames))
        if not self._busy:
            self._busy = True
            self.world.after(0.00002, self._turn)

    def _alarm(self, number: int) -> None:
        if number == self._wake and not self._busy:
            self._busy = True
            self._turn()

    def _turn(self) -> None:
        now = self.world.now
        self.turns += 1
        effects: Effects = []
        taken = 0
        while self._inbox and taken < TURN_MESSAGES:
            taken += 1
            self._take(*self._inbox.popleft(), now, effects)
        while self._lost:
            self.broker.on_peer_lost(self._lost.pop(), now, effects)
        self.broker.on_turn_end(now, effects)
        self._send(effects)
        self.after_turn(effects)
        if self._inbox:
            self.world.after(0.00005 + 0.00001 * taken, self._turn)
            return
        self._busy = False
        self._arm()

    def _arm(self) -> None:
        until = self._probe(self.world.now)
        deadline = self.broker.next_deadline(self.world.now)
        if deadline is not None and deadline < until:
            until = deadline
        self._wake += 1
        self.world.at(0.0 if self._lost else until, self._alarm, self._wake)

    # --- as in Board

    def _take(self, route: Connection, frames: Frames, now: float, effects: Effects) -> None:
        peer = self._by_route.get(route)
        frame = frames[0]
        try:
            kind, epoch, seq, ack = codec.open_envelope(frame)
            if kind == codec.DATA and peer is not None:
                link = peer.link
                peer.heard = now
                verdict = link.accept(epoch, seq, ack, sum(map(len, frames)))
                if verdict is Verdict.APPLY:
                    message = codec.decode(peer.role, frame)
                    self.world.trace("  <-", peer.role, peer.id, message)
                    self.broker.on_message(peer.id, message, frames[1:], now, effects)
                    if link.ack_due and link.up:
                        self._raw(peer, codec.signal(codec.ACK, link.epoch, 0, link.ack_riding()))
                elif verdict is Verdict.GAP:
                    self._raw(peer, codec.signal(codec.STRANGER, link.epoch))
            else:
                self._on_control(route, peer, kind, epoch, ack, frame, now)
        except ProtocolError as error:
            self._refuse(route, peer, str(error))
        if peer is not None:
            if peer.backlogged:
                self._weigh(peer)
            peer.link.check()

    def _on_control(
        self, route: Connection, peer: Peer | None, kind: int, epoch: int, ack: int, frame: Any, now: float
    ) -> None:
        if kind == codec.HELLO:
            self._on_hello(route, epoch, codec.decode_hello(frame), now)
        elif peer is None:
            self._send_to(route, codec.signal(codec.STRANGER, epoch))
        elif kind in (codec.ACK, codec.PONG):
            peer.heard = now
            if epoch == peer.link.epoch:
                peer.link.acknowledged(ack)
        elif kind == codec.BYE:
            self._forget(peer)

    def _on_hello(self, route: Connection, epoch: int, hello: m.Hello, now: float) -> None:
        peer = self._by_token.get(hello.link) if hello.link else None
        if peer is None and hello.link:
            raise ProtocolError("this router does not know you")
        if peer is None:
            self._last_id += 1
            peer = Peer(self._last_id, hello.role, b"token %d" % self._last_id, route)
            self.peers[peer.id] = self._by_token[peer.token] = peer
            if peer.role == "client":
                self.broker.on_client(peer.id)
        elif epoch <= peer.link.epoch:
            return  # said on a connection that was cut since
        if self._by_route.get(peer.route) is peer:
            del self._by_route[peer.route]
        peer.route = route
        self._by_route[route] = peer
        peer.heard, peer.down_since = now, 0.0
        if not peer.link.begin(epoch, hello.received):
            raise ProtocolError("your link quotes messages that this router never sent")
        if peer.backlogged:
            self._weigh(peer)
        welcome = codec.encode(m.Welcome(peer.token, peer.link.received, 1 << 17, 256 << 20))
        codec.seal(welcome, codec.WELCOME, epoch, 0, peer.link.received)
        self._raw(peer, bytes(welcome))
        self._flush(peer)

    def _send(self, effects: Effects) -> None:
        for id, message, frames in effects:
            self.world.trace("  ->", id, message)
            peer = self.peers.get(id)
            if peer is None:
                continue
            body = codec.encode(message)
            self.digest = crc32(body, self.digest + id)
            link = peer.link
            number = link.commit([body, *frames], len(body) + sum(map(len, frames)))
            if number:
                codec.seal(body, codec.DATA, link.epoch, number, link.ack_riding())
                if not self.network.down(peer.route, [bytes(body), *frames]):
                    self._cut(peer)
            if peer.role == "client" and peer.link.bytes_kept > self.backlog_bytes and not peer.backlogged:
                self._weigh(peer)

    def _flush(self, peer: Peer) -> None:
        link = peer.link
        for number, frames in link.outgoing():
            codec.seal(frames[0], codec.DATA, link.epoch, number, link.ack_riding())
            if not self.network.down(peer.route, [bytes(frames[0]), *frames[1:]]):
                self._cut(peer)
                return

    def _raw(self, peer: Peer, frame: bytes) -> None:
        if not self._send_to(peer.route, frame):
            self._cut(peer)

    def _send_to(self, route: Connection, frame: bytes) -> bool:
        return self.network.down(route, [frame])

    def _cut(self, peer: Peer) -> None:
        peer.link.cut()
        if not peer.down_since:
            peer.down_since = self.world.now
            self._probe_at = min(self._probe_at, peer.down_since + PATIENCE_SECONDS)

    def _refuse(self, route: Connection, peer: Peer | None, reason: str) -> None:
        self.world.trace("refused", peer and peer.role, peer and peer.id, reason)
        self.refused.append(f"{peer and peer.role} {peer and peer.id}: {reason}")
        frame = codec.encode(m.Refuse(reason))
        codec.seal(frame, codec.REFUSE, peer.link.epoch if peer else 0, 0, 0)
        self._send_to(route, bytes(frame))
        if peer is not None:
            self._forget(peer)

    def _forget(self, peer: Peer) -> None:
        if self.peers.pop(peer.id, None) is not None:
            if self._by_route.get(peer.route) is peer:
                del self._by_route[peer.route]
            self._by_token.pop(peer.token, None)
            self._lost.append(peer.id)

    def _weigh(self, peer: Peer) -> None:
        heavy = peer.link.bytes_kept > (self.backlog_bytes // 2 if peer.backlogged else self.backlog_bytes)
        if heavy != peer.backlogged:
            self.world.trace("backlog of", peer.id, heavy)
            peer.backlogged = heavy
            self.broker.on_backlog(peer.id, heavy)

    def _probe(self, now: float) -> float:
        if now < self._probe_at:
            return self._probe_at
        due = now + PROBE_SECONDS
        for peer in list(self.peers.values()):
            if peer.down_since:
                if now >= peer.down_since + PATIENCE_SECONDS:
                    self._forget(peer)
                else:
                    due = min(due, peer.down_since + PATIENCE_SECONDS)
            elif now - peer.heard >= PROBE_SECONDS:
                self._raw(peer, codec.signal(codec.PING, peer.link.epoch, 0, peer.link.ack_riding()))
        self._probe_at = due
        return due
