"""The router: the one process with the ROUTER socket.  Receive, apply to the broker, send.

It never unpickles anything and serves nothing but ZeroMQ.  A peer's mistake
ends that peer's link, not the router.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from math import inf
from time import monotonic

from flamezmq import processes
from flamezmq.core import departures
from flamezmq.core.broker import Broker
from flamezmq.core.members import Effects, Limits, Tenant
from flamezmq.errors import ProtocolError
from flamezmq.log import Log, Quiet
from flamezmq.net.berth import current_cpu
from flamezmq.net.board import Board, Peer

#: What a client's last task has printed comes by another way than its result: it gets so long.
LAST_WORDS_SECONDS = 0.1
#: A farewell gets so long to leave.
LINGER_MILLISECONDS = 500


class Router:
    """A broker and its sockets.  log: where the cluster's events go."""

    def __init__(self, limits: Limits | None = None, log: Log | None = None) -> None:
        self.log = log or Quiet()
        self.broker = Broker(limits, current_cpu())
        self.broker.born = monotonic()
        self._lost: list[int] = []
        self.board = Board(
            (self.broker.limits.max_tasks, self.broker.limits.max_bytes),
            on_client=self.broker.on_client,
            on_lost=self._lost.append,
            on_backlog=self.broker.on_backlog,
        )
        self.board.on_refused = self._on_refused
        self.stopping = False
        self.draining = False
        self._resting: dict[int, float] = {}  # clients for whom nothing runs any more -> since when
        self._huddled = False
        self._usual = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()

    def serve(self) -> None:
        """Run until stopped.  `board.receive` is the only place that blocks."""
        while not self.stopping:
            self.turn()

    def turn(self, latest: float = inf) -> None:
        """Take in what came for about a millisecond, then decide once, then send.

        latest: when to come back even if nothing came
        """
        broker, board = self.broker, self.board
        now = monotonic()
        until = min(board.probe(now), latest)
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
        if broker.events:
            for event, fields in broker.events:
                (self.log.warning if event.endswith("-lost") else self.log.info)(event, **fields)
            broker.events.clear()
        if broker.huddle.on != self._huddled:
            self._huddle()

    def _on_refused(self, peer: Peer | None, reason: str) -> None:
        self.log.warning("peer-refused", role=peer.role if peer else "", reason=reason)

    def _huddle(self) -> None:
        """Join the others, or leave the common processor; no user's code runs here: all of it may go."""
        self._huddled = self.broker.huddle.on
        self.board.berth.move(self.broker.huddle.cpu if self._huddled else -1)
        if self._usual:
            with suppress(OSError):  # the processors of this process are others by now: the system has chosen
                os.sched_setaffinity(0, self.board.berth.cpu or self._usual)

    def drain(self) -> None:
        """Take nothing new, and let what runs end; `drained` says when."""
        effects: Effects = []
        self.draining = True
        self.board.welcoming = False
        departures.drain(self.broker, effects, monotonic())
        self.board.send(effects)

    def drained(self, now: float, reason: str) -> bool:
        """While draining: part from clients for whom nothing runs any more; whether all are gone."""
        at_rest = departures.clients_at_rest(self.broker)
        self._resting = {peer: self._resting.get(peer, now) for peer in at_rest}
        for id, since in self._resting.items():
            peer = self.board.peers.get(id)
            if peer is not None and now - since >= LAST_WORDS_SECONDS:
                self.board.refuse(peer, reason, gone=True)
        return not departures.outer_clients(self.broker)

    def close(self, farewell: str = "") -> None:
        """Hang up; with a farewell, tell everybody who is there."""
        for peer in list(self.board.peers.values()) if farewell else ():
            self.board.refuse(peer, farewell, gone=True)
        self.board.close(LINGER_MILLISECONDS if farewell else 0)


def main(address: str, on_bound: Callable[[], None], tenants: Mapping[str, Tenant] | None = None) -> None:
    """Bind, tell so, and serve until SIGTERM."""
    processes.lift_descriptor_limit()  # each peer is a descriptor
    router = Router(replace(Limits(), tenants=dict(tenants or {})))
    router.board.bind(address)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C belongs to the client
    gc.freeze()
    gc.disable()  # nothing here makes cycles; a collection over a million queued tasks costs a second
    on_bound()
    router.serve()
