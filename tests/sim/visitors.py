"""Simulated controllers: they look at everything, and now and then close or cancel what is not theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flamezmq.client.controller import EVENTS, EXECUTORS, LOGS, NODES, SESSIONS, TASKS, WHY
from flamezmq.client.reasons import sentences
from flamezmq.core.link import ACK_AFTER_BYTES
from flamezmq.core.overview import MOST_ROWS
from flamezmq.wire import codec
from flamezmq.wire import messages as m
from tests.sim.ends import Dialler, Router

if TYPE_CHECKING:
    from tests.sim.users import SimSession

#: More than any answer here may have.
MOST_BYTES = 300_000


class SimVisitor:
    """`waiting`: requests that were not answered yet.  `has_quotas`: it may change those of tenants."""

    def __init__(self, router: Router, has_quotas: bool) -> None:
        self.has_quotas = has_quotas
        self.world = router.world
        self.waiting: dict[int, Any] = {}
        self.gone = False
        self._last = 0
        # As in life, what it has read is acknowledged long before it holds it back.
        ack_after = min(ACK_AFTER_BYTES, router.backlog_bytes // 4)
        self.dialler = Dialler(
            self.world, router.network, "client", self._on_message, self._on_lost, ack_after
        )

    def visit(self, sessions: list[SimSession]) -> None:
        """One question or order, about somebody's session."""
        random = self.world.random
        if self.gone or any(isinstance(message, m.Ask) for message in self.waiting.values()):
            return
        self._last += 1
        session = random.choice(sessions) if sessions else None
        name = session.known_as if session is not None else "nobody"
        looks = (SESSIONS, EXECUTORS, NODES, TASKS, TASKS, LOGS, EVENTS, WHY, WHY)
        orders = ("cancel", "cancel", "close", "suspend", "suspend", "resume", "drain", "set", "tenant")
        kind = random.choice((*looks, *orders))
        message: Any
        if kind == "close" and random.random() < 0.3:
            message = m.CloseSession(self._last, name, "a visitor")
        elif kind in ("suspend", "resume"):
            message = m.ChangeSession(self._last, name, "a visitor", suspended=kind == "suspend")
        elif kind == "set":
            least, most = random.choice(((None, 0), (None, 1), (0, 2), (0, None), (9, 1)))  # else some starve
            weight, priority = random.choice((None, 0.5, 3.0)), random.choice((None, 1, -1))
            shares: Any = {
                "weight": weight,
                "priority": priority,
                "min_executors": least,
                "max_executors": most,
            }
            message = m.ChangeSession(self._last, name, "a visitor", **shares)
        elif kind == "tenant":
            what = self._tenant()
            message = m.SetTenant(self._last, random.choice(("*", "")), "a visitor", **what)
        elif kind == "drain":
            message = m.ChangeSession(self._last, name, "a visitor", drain=random.random() < 0.3)
        elif isinstance(kind, str):
            futures = session.futures if session is not None else []
            index = random.randrange(len(futures) + 1)
            if session is not None:
                index += session.base
                session.visited[index] = None  # whichever task gets that index
            message = m.CancelTask(self._last, name, index, "a visitor", random.random() < 0.5)
        else:
            limit = random.choice((1, 10, 1000))
            message = m.Ask(self._last, kind, name, state=random.randrange(-1, 5), closed=True, limit=limit)
            if kind == WHY:
                message.task = random.randrange(-1, len(session.futures)) if session is not None else -1
                if session is not None and message.task >= 0:
                    message.task += session.base
        self.waiting[self._last] = message
        self.dialler.send(message)

    def _tenant(self) -> dict[str, Any]:
        """Another quota; or another weight, where there are no quotas."""
        random = self.world.random
        if not self.has_quotas:
            return {"weight": random.choice((0.5, 2.0))}
        return {
            "queued_tasks": random.choice((None, 0, 1, 3, 20)),
            "queued_bytes": random.choice((None, 0, 1, 60, 1000)),
            "max_executors": random.choice((None, None, 0, 3, 4)),  # no less than a gang
        }

    def resume(self, sessions: list[SimSession]) -> None:
        """All of them go on: their tasks are to end."""
        for session in () if self.gone else sessions:
            self._last += 1
            self.waiting[self._last] = order = m.ChangeSession(
                self._last, session.known_as, "a visitor", False
            )
            self.dialler.send(order)

    def close(self, id: str) -> None:
        """Whatever is left of the session ends."""
        self._last += 1
        self.waiting[self._last] = order = m.CloseSession(self._last, id, "a visitor")
        self.dialler.send(order)

    def leave(self) -> None:
        if not self.gone:
            self.gone = True
            self.dialler.close(bye=True)

    def _on_lost(self, reason: str) -> None:
        self.gone = True
        self.waiting.clear()

    def _on_message(self, message: Any, frames: list[Any]) -> None:
        said = self.waiting.pop(message.request)
        assert isinstance(said, m.Ask) == isinstance(message, m.Answer), (said, message)
        if isinstance(message, m.Answer):
            rows: tuple[list[Any], ...] = (
                message.sessions,
                message.executors,
                message.nodes,
                message.tasks,
                message.logs,
                message.events,
            )
            assert max(len(some) for some in rows) <= min(said.limit, MOST_ROWS)
            assert message.more >= 0
            assert all(sentences(why).endswith((".", ")")) for why in message.why)
            assert all(row.count > 0 and row.first >= 0 for row in message.tasks)
            assert len(codec.encode(message)) < MOST_BYTES
