"""A line to the router: a DEALER socket, its monitor, and the link that survives its cuts.

One owner at a time: whoever calls `turn` holds `lock`, everybody else writes
`wake` to make it come back from its wait.  An exception may land anywhere in a
turn (Ctrl-C): the line is then *torn*, and the next turn dials anew, which the
link treats like any cut connection: nothing is lost, nothing comes twice.
"""

from __future__ import annotations

import os
import struct
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import zmq
from zmq.backend import Socket as Backend

from flamezmq.address import is_ipv6
from flamezmq.core.link import Link, Verdict
from flamezmq.errors import ProtocolError, Refused, RouterLost
from flamezmq.net.berth import Berth
from flamezmq.version import __version__
from flamezmq.wire import codec
from flamezmq.wire import messages as m

# The compiled methods, called by position: keywords and flags as enums cost a microsecond a call.
_raw_send: Any = Backend.send
_raw_recv: Any = Backend.recv
_POLLIN = int(zmq.POLLIN)
_MORE = int(zmq.SNDMORE)
#: How an event of the monitor begins.  (pyzmq has a parser, but it imports asyncio: 15 ms of each start.)
_MONITOR_EVENT = struct.Struct("=H")
_EVENTS = zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED

#: A HELLO that was not answered for so long is said again, over a connection that stands.
HELLO_AGAIN_SECONDS = 1.0
#: A host that does not answer to a dial is dialled again after so long (TCP alone would try for minutes).
DIAL_MILLISECONDS = 3000
#: Messages applied in one turn before the owner looks at its own business again.
TURN_MESSAGES = 64

Apply = Callable[[Any, list[Any]], None]


class Line:
    """The dialling end of a link.

    patience_seconds  without the router for so long, the line is lost
    """

    def __init__(
        self, address: str, role: str, apply: Apply | None = None, patience_seconds: float = 10.0
    ) -> None:
        self.address, self.role, self.patience_seconds = address, role, patience_seconds
        self.link = Link()
        self.lock = threading.Lock()
        self.limits = (0, 0)  # tasks and bytes that the router lets this peer have with it
        self.lost: Exception | None = None
        self.router_was_there = False
        self._inbox: list[tuple[Any, list[Any]]] = []
        self._apply: Apply = apply or self._keep
        self._decode = codec.decoder("to " + role)
        self._token = b""
        self._torn = True
        self._down_since = time.monotonic()
        self._hello_at = 0.0
        self._connected = False  # as far as the monitor has told
        self.berth = Berth()
        self._socket: Any = None
        self._monitor: Any = None
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._closed = False
        self._poll: list[tuple[Any, int]] = []
        self._dials = 0
        self._guard_fd = -1
        self._guard_reason: Callable[[], str] = str

    # --- for owners

    def guard(self, fd: int, reason: Callable[[], str]) -> None:
        """When `fd` becomes readable the router is gone for good; to be called before `open`."""
        self._guard_fd, self._guard_reason = fd, reason

    def open(self) -> None:
        """Dial and say HELLO; the answer comes in some later turn."""
        self._dial()
        self._torn = False

    def enqueue(self, message: Any, frames: Sequence[Any] = ()) -> None:
        """Commit a message; the next turn sends it."""
        body = codec.encode(message)
        size = len(body)
        for frame in frames:
            size += len(frame)
        self.link.enqueue([body, *frames], size)

    def send(self, message: Any, frames: Sequence[Any] = ()) -> None:
        """Commit a message and send what can be sent."""
        self.enqueue(message, frames)
        self.turn(0)

    def turn(self, timeout_ms: int, fds: Sequence[int] = ()) -> list[int]:
        """Send what is due, wait for something to happen, apply what came.

        timeout_ms: the longest wait; -1 waits for ever (but for `wake`).
        fds: raw descriptors whose readiness ends the wait; the ready ones are returned.

        Raises:
            RouterLost, Refused: for good; every later turn raises the same.
        """
        if self.lost is not None:
            raise self.lost
        if self._torn:
            self._dial()
        self._torn = True
        self._flush()
        self._torn = False
        if not self.link.up:
            timeout_ms = self._while_down(timeout_ms)
        poll = self._poll if not fds else self._poll + [(fd, _POLLIN) for fd in fds]
        ready = (zmq.zmq_poll if self.berth.cpu is None else self.berth.poll)(poll, timeout_ms)
        if not ready:
            return []
        self._torn = True
        others = self._take(ready)
        if self.link.ack_due and self.link.up:
            self._raw(codec.signal(codec.ACK, self.link.epoch, 0, self.link.ack_riding()))
        self._torn = False
        return others

    def transmit(self) -> None:
        """Send what is due, without looking for anything that came.  For the owner, as `turn`."""
        if self._torn or not self.link.up:
            return  # the next turn dials
        self._torn = True
        self._flush()
        self._torn = False

    def huddle(self, cpu: int) -> None:
        """The router wants us to sleep on its processor (negative: not any more), if this is its host."""
        if self.address.startswith("ipc:"):
            self.berth.move(cpu)

    def wake(self) -> None:
        """End the owner's wait; from any thread."""
        os.eventfd_write(self._wake_fd, 1)

    def receive(self) -> list[tuple[Any, list[Any]]]:
        """Messages that came, where no `apply` was given."""
        inbox, self._inbox = self._inbox, []
        return inbox

    def poll(self, timeout_ms: int, fds: Sequence[int] = ()) -> list[int]:
        """`turn` by its other name, for hosts that read with `receive`."""
        return self.turn(0 if self._inbox else timeout_ms, fds)

    def close(self, bye: bool = False, flush: bool = False) -> None:
        """Hang up.  Idempotent.

        bye: tell the router, if it is there, to forget us; what is committed is sent before that.
        flush: send what is committed, and say nothing more.
        """
        if self._closed:
            return
        if (bye or flush) and self.link.up and not self._torn and self.lost is None:
            self._flush()
            if bye:
                self._raw(codec.signal(codec.BYE, self.link.epoch))
            self._hang_up(linger_ms=200)
        self._hang_up()
        self.berth.close()
        self.lost = self.lost or RouterLost("this line was closed")
        self._closed = True

    def __del__(self) -> None:
        # Not before: another thread may be about to `wake` us, and the number would soon be another file's.
        if (fd := getattr(self, "_wake_fd", -1)) >= 0:
            os.close(fd)

    def abandon(self) -> None:
        """Forget the sockets without touching them: for the child of a fork."""
        self._closed = True
        self.lost = RouterLost("this process was forked from the one that holds the line")

    # --- dialling

    def _dial(self) -> None:
        self._hang_up()
        self._connected = False
        self._cut()
        self._down_since = time.monotonic()  # that we dial anew is our doing, and none of the router's
        socket = self._socket = self.berth.socket(zmq.DEALER)
        socket.set_hwm(0)  # credit is the bound
        socket.linger = 0
        socket.maxmsgsize = codec.MAX_FRAME_BYTES
        socket.reconnect_ivl = 10
        socket.reconnect_ivl_max = 200
        socket.ipv6 = is_ipv6(self.address)
        if self.address.startswith("tcp"):
            socket.heartbeat_ivl = 1000
            socket.heartbeat_timeout = 5000
            socket.connect_timeout = DIAL_MILLISECONDS
        # A name of our own: pyzmq names it by a descriptor, which an interrupted dial may still hold.
        self._dials += 1
        monitor = f"inproc://flm-monitor-{self._dials}"
        socket.monitor(monitor, _EVENTS)
        self._monitor = self.berth.socket(zmq.PAIR)
        self._monitor.linger = 0
        self._monitor.connect(monitor)
        socket.connect(self.address)
        self._poll = [(socket, _POLLIN), (self._monitor, _POLLIN), (self._wake_fd, _POLLIN)]
        if self._guard_fd >= 0:
            self._poll.append((self._guard_fd, _POLLIN))
        self._hello()

    def _hang_up(self, linger_ms: int = 0) -> None:
        """Close the sockets; may be interrupted, and called again, at any point."""
        if self._socket is not None and not self._socket.closed:
            self._socket.monitor(None, 0)  # else ZeroMQ's I/O thread would wait for a monitor that is gone
        if self._monitor is not None:
            self._monitor.close(0)
            self._monitor = None
        if self._socket is not None:
            self._socket.close(linger_ms)
            self._socket = None

    def _cut(self) -> None:
        """The connection is gone, or given up: from now on the router's patience counts."""
        if self.link.up:
            self._down_since = time.monotonic()
        self.link.cut()

    def _hello(self) -> None:
        self._cut()
        self.link.epoch += 1
        self._hello_at = time.monotonic()
        hello = m.Hello(
            m.PROTOCOL,
            __version__,
            f"{sys.version_info[0]}.{sys.version_info[1]}",
            self.role,
            self._token,
            self.link.received,
        )
        frame = codec.encode(hello)
        codec.seal(frame, codec.HELLO, self.link.epoch, 0, 0)
        self._raw(frame)

    def _while_down(self, timeout_ms: int) -> int:
        """What a wait may take while the router is not there; raises when it was too long."""
        now = time.monotonic()
        left = self._down_since + self.patience_seconds - now
        if left <= 0:
            raise self._lose(RouterLost(self._what_is_lost()))
        if self._connected and now - self._hello_at >= HELLO_AGAIN_SECONDS:
            self._hello()  # else it would only lie in a queue: a connection begins with one anyway
        bound = int(min(left, HELLO_AGAIN_SECONDS) * 1000) + 1
        return bound if timeout_ms < 0 else min(bound, timeout_ms)

    def _what_is_lost(self) -> str:
        if self.router_was_there:
            return f"the router at {self.address} is gone; its sessions are lost with it: open a new Client"
        return (
            f"no router answers at {self.address} (waited {self.patience_seconds:g} s); "
            f"is the address right, and is it running? (flmrouter --bind {self.address} starts one)"
        )

    def _lose(self, error: Exception) -> Exception:
        self.lost = self.lost or error
        return self.lost

    # --- sending

    def _raw(self, frame: Any) -> None:
        _raw_send(self._socket, frame, 0, True, False)

    def _flush(self) -> None:
        link, socket = self.link, self._socket
        for number, frames in link.outgoing():
            codec.seal(frames[0], codec.DATA, link.epoch, number, link.ack_riding())
            last = len(frames) - 1
            if not last:
                _raw_send(socket, frames[0], 0, True, False)
                continue
            for position, frame in enumerate(frames):
                _raw_send(socket, frame, _MORE if position < last else 0, len(frame) < 65536, False)

    # --- receiving

    def _take(self, ready: Sequence[tuple[Any, int]]) -> list[int]:
        others: list[int] = []
        for source, _ in ready:
            if source is self._socket:
                self._take_messages()
            elif source is self._monitor:
                self._take_events()
            elif source == self._wake_fd:
                os.eventfd_read(self._wake_fd)
            elif source == self._guard_fd:
                raise self._lose(RouterLost(self._guard_reason()))
            else:
                others.append(source)
        return others

    def _take_messages(self) -> None:
        socket = self._socket
        only = [(socket, _POLLIN)]
        for _ in range(TURN_MESSAGES):
            frame = _raw_recv(socket, 0, False)
            frames = []
            more = frame.more
            while more:
                frames.append(_raw_recv(socket, 0, False))
                more = frames[-1].more
            self._on_frames(frame, frames)
            if not zmq.zmq_poll(only, 0):
                return

    def _on_frames(self, frame: Any, frames: list[Any]) -> None:
        link = self.link
        try:
            kind, epoch, seq, ack = codec.open_envelope(frame)
            if kind == codec.DATA:
                verdict = link.judge(epoch, seq)
                if verdict is Verdict.APPLY:
                    link.acknowledged(ack)
                    self._apply(self._decode(frame), frames)
                    link.applied(seq, len(frame) + sum(map(len, frames)) if frames else len(frame))
                elif verdict is Verdict.GAP:
                    self._hello()
            elif kind == codec.WELCOME:
                if epoch == link.epoch and not link.up:
                    self._welcomed(epoch, codec.decode_welcome(frame))
            elif kind == codec.ACK:
                link.acknowledged(ack)
            elif kind == codec.PING:
                link.acknowledged(ack)
                self._raw(codec.signal(codec.PONG, link.epoch, 0, link.ack_riding()))
            elif kind == codec.STRANGER:
                if link.up:
                    self._hello()
            elif kind == codec.REFUSE:
                refuse = codec.decode_refuse(frame)
                raise self._lose((RouterLost if refuse.gone else Refused)(refuse.reason))
        except ProtocolError as error:
            raise self._lose(RouterLost(f"the router at {self.address} sent nonsense: {error}")) from error

    def _welcomed(self, epoch: int, welcome: m.Welcome) -> None:
        if self._token and welcome.link != self._token:
            raise self._lose(
                RouterLost(f"the router at {self.address} is not the one that this process knew")
            )
        if not self.link.begin(epoch, welcome.received):
            raise self._lose(RouterLost(f"the router at {self.address} has lost its memory of this process"))
        self._token = welcome.link
        self.limits = (welcome.max_tasks, welcome.max_bytes)
        self.router_was_there = True
        self._flush()

    def _take_events(self) -> None:
        """The monitor is the only one who notices that a connection was cut."""
        while zmq.zmq_poll([(self._monitor, _POLLIN)], 0):
            event = _MONITOR_EVENT.unpack_from(self._monitor.recv_multipart()[0])[0]
            self._connected = event != zmq.EVENT_DISCONNECTED
            if not self._connected:
                self._cut()
            elif self.router_was_there or self._hello_at < time.monotonic() - 0.2:
                self._hello()

    def _keep(self, message: Any, frames: list[Any]) -> None:
        self._inbox.append((message, frames))

    def statistics(self) -> dict[str, int]:
        return {**self.link.statistics(), "up": int(self.link.up)}
