"""Objects on simulated nodes: what tasks take, what stores report of that, late or never."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flamezmq.core.broker import Broker
from flamezmq.core.locality import BYTES_PER_SECOND
from flamezmq.wire import messages as m
from flamezmq.wire.handles import Handle
from flamezmq.wire.objects import COPY
from tests.sim.world import World

if TYPE_CHECKING:
    from tests.sim.nodes import SimWorker
    from tests.sim.users import SimSession

#: From what makes no difference to what takes 0.2 s.
SIZES = (1000, 2 << 20, 10 << 20, 200_000_000)


class Hold:
    def __init__(self, handle: Handle) -> None:
        self.handle = handle


class Objects:
    """All that were put.  A store reports some of them within 50 ms, and drops some again."""

    def __init__(self, world: World, workers: list[SimWorker]) -> None:
        self.world, self.workers = world, workers
        self._last = 0
        self._of: dict[str, list[Hold]] = {}

    def take(self, session: SimSession) -> list[Hold]:
        """What a new task of this session takes: what others took, or something new."""
        random = self.world.random
        known = self._of.setdefault(session.id, [])
        alive = [worker for worker in self.workers if worker.alive]
        if alive and (not known or random.random() < 0.3):
            known.append(self._put(session, random.choice(alive)))
        return random.sample(known, min(len(known), random.choice((1, 1, 2))))

    def _put(self, session: SimSession, worker: SimWorker) -> Hold:
        self._last += 1
        random = self.world.random
        home = f"{worker.token}-store"
        handle = Handle(
            self._last.to_bytes(16, "big"), home, (random.choice(SIZES),), f"tcp://{worker.node}:1"
        )
        self._report(worker, session.id, handle, 0)
        if random.random() < 0.2:
            self._report(random.choice(self.workers), session.id, handle, COPY)
        return Hold(handle)

    def _report(self, worker: SimWorker, session: str, handle: Handle, marks: int) -> None:
        random = self.world.random
        owner, sessions = (-1, []) if marks & COPY else (0, [session])
        has = m.Stocked(0, sessions, [handle.id], [owner], [handle.size], [marks])
        self.world.after(random.random() * 0.05, self._tell, worker, has)
        if random.random() < 0.3:
            gone = m.Stocked(0, [], [], [], [], [], gone=[handle.id])
            self.world.after(0.05 + random.random(), self._tell, worker, gone)

    @staticmethod
    def _tell(worker: SimWorker, report: m.Stocked) -> None:
        if worker.alive:
            worker.dialler.send(report)


def check(broker: Broker, now: float) -> None:
    """Nobody is idle for longer than what it holds out for would travel; then the router looks."""
    longest = 2 * max(SIZES) / BYTES_PER_SECOND
    for peer, (since, until) in broker.holding_out.items():
        executor = broker.executors.get(peer)
        if executor is None or executor.session is None or executor.tasks:
            continue  # it is looked at in the next turn
        assert until - since <= longest, f"{executor.name} holds out for too long"
        assert now < until or not executor.session.queued, f"{executor.name} holds out, and its time is over"
        deadline = broker.next_deadline(now)
        assert broker.draining or (deadline is not None and deadline <= until), "nobody looks"
