"""The router: the one process with the ROUTER socket.  Receive, apply to the broker, send.

It never unpickles anything and serves nothing but ZeroMQ.  A peer's mistake
ends that peer's link, not the router.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from flamezmq import processes
from flamezmq.core.broker import Broker
from flamezmq.core.members import Effects, Limits
from flamezmq.errors import ProtocolError
from flamezmq.net.berth import current_cpu
from flamezmq.net.board import Board


class Router:
    """A broker and its sockets."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.broker = Broker(limits, current_cpu())
        self._lost: list[int] = []
        self.board = Board(
            (self.broker.limits.max_tasks, self.broker.limits.max_bytes),
            on_client=self.broker.on_client,
            on_lost=self._lost.append,
            on_backlog=self.broker.on_backlog,
        )
        self.stopping = False
        self._huddled = False
        self._usual = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()

    def serve(self) -> None:
        """Run until stopped.  `board.receive` is the only place that blocks."""
        while not self.stopping:
            self.turn()

    def turn(self) -> None:
        """Take in what came for about a millisecond, then decide once, then send."""
        broker, board = self.broker, self.board
        now = monotonic()
        until = board.probe(now)
        deadline = broker.next_deadline(now)
        if deadline is not None and deadline < until:
            until = deadline
        effects: Effects = []
        for peer, message, frames in board.receive(until - now):
            now = monotonic()
            try:
                broker.on_message(peer.id, message, frames, now, effects)
            except ProtocolError as error:
                board.refuse(peer, str(error))
        now = monotonic()
        while self._lost:
            broker.on_peer_lost(self._lost.pop(), now, effects)
        broker.on_turn_end(now, effects)
        if effects:
            board.send(effects)
        if broker.huddle.on != self._huddled:
            self._huddle()

    def _huddle(self) -> None:
        """Join the others, or leave the common processor; no user's code runs here: all of it may go."""
        self._huddled = self.broker.huddle.on
        self.board.berth.move(self.broker.huddle.cpu if self._huddled else -1)
        if self._usual:
            with suppress(OSError):  # the processors of this process are others by now: the system has chosen
                os.sched_setaffinity(0, self.board.berth.cpu or self._usual)

    def close(self) -> None:
        self.board.close()


def main(address: str, on_bound: Callable[[], None]) -> None:
    """Bind, tell so, and serve until SIGTERM."""
    processes.lift_descriptor_limit()  # each peer is a descriptor
    router = Router()
    router.board.bind(address)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C belongs to the client
    gc.freeze()
    gc.disable()  # nothing here makes cycles; a collection over a million queued tasks costs a second
    on_bound()
    router.serve()
