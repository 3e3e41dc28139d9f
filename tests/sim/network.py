"""Connections between diallers and the router: delays, and cuts that lose messages silently.

As with TCP under ZeroMQ: each direction keeps its order; after a cut a prefix
of what was in flight may still arrive, even after the next connection was made;
what was sent before the cut was noticed is gone, or goes out on the next
connection; both ends notice in their own time.  As with no TCP, but for
the links' sake, some networks also deliver twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flamezmq.wire import codec
from tests.sim.world import World

Frames = list[Any]


class Connection:
    """One connection of one dialler; its identity is what the ROUTER socket calls a routing id."""

    __slots__ = (
        "alive",
        "carried",
        "dialler",
        "known_dead",
        "last_down",
        "last_up",
        "until_down",
        "until_up",
    )

    def __init__(self, dialler: Any) -> None:
        self.dialler = dialler
        self.alive = True
        self.known_dead = False  # the router's socket has noticed
        self.last_up = self.last_down = 0.0
        self.until_up = self.until_down = float("inf")  # what arrives later is lost
        self.carried: list[Frames] = []  # sent after the cut, before the dialler noticed


class Network:
    """duplicates: the share of numbered messages that arrive twice."""

    def __init__(
        self,
        world: World,
        deliver: Callable[[Connection, Frames], None],
        latency: float,
        duplicates: float = 0.0,
    ) -> None:
        self.world, self.deliver, self.latency, self.duplicates = world, deliver, latency, duplicates
        self.cuts = 0

    def _delay(self) -> float:
        random = self.world.random
        if random.random() < 0.02:
            return random.random() * self.latency * 30
        return self.latency * (0.5 + random.random())

    def _arrivals(self, frames: Frames) -> int:
        """How often it arrives; what is not numbered arrives once."""
        if not self.duplicates or frames[0][0] != codec.DATA:
            return 1
        return 2 if self.world.random.random() < self.duplicates else 1

    def connect(self, dialler: Any) -> Connection:
        return Connection(dialler)

    def up(self, connection: Connection, frames: Frames) -> None:
        """Towards the router."""
        if not connection.alive:
            connection.carried.append(frames)
            return
        connection.last_up = max(connection.last_up, self.world.now + self._delay())
        for _ in range(self._arrivals(frames)):
            self.world.at(connection.last_up, self._arrive_up, connection, frames)

    def down(self, connection: Connection, frames: Frames) -> bool:
        """Towards the dialler; False when the router's socket knows that nobody is there."""
        if connection.known_dead:
            return False
        if connection.alive:
            connection.last_down = max(connection.last_down, self.world.now + self._delay())
            for _ in range(self._arrivals(frames)):
                self.world.at(connection.last_down, self._arrive_down, connection, frames)
        return True

    def _arrive_up(self, connection: Connection, frames: Frames) -> None:
        if self.world.now <= connection.until_up:
            self.deliver(connection, frames)

    def _arrive_down(self, connection: Connection, frames: Frames) -> None:
        if self.world.now <= connection.until_down:
            connection.dialler.on_wire(connection, frames)

    def cut(self, connection: Connection, outage: float, survivors: bool = False) -> None:
        """It breaks now; the dialler dials again after `outage`.

        survivors: all that was sent before still arrives (a process that dies
        leaves it to the kernel).
        """
        if not connection.alive:
            return
        world, random = self.world, self.world.random
        self.cuts += 1
        connection.alive = False
        connection.until_up = world.now + (1e9 if survivors else random.choice((0.0, random.random() * 0.01)))
        connection.until_down = world.now + random.choice((0.0, random.random() * 0.01))
        world.after(random.random() * 0.02, self._router_notices, connection)
        world.after(random.random() * 0.005, connection.dialler.on_disconnected, connection, outage)

    def _router_notices(self, connection: Connection) -> None:
        connection.known_dead = True

    def reconnect(self, old: Connection) -> Connection:
        """The dialler's socket has dialled again; what it had queued goes first, or is gone."""
        new = Connection(old.dialler)
        if self.world.random.random() < 0.5:
            for frames in old.carried:
                self.up(new, frames)
        return new
