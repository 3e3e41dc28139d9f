"""Simulated tasks of tasks: the client in an executor, with the real core (`core.nested`), driven by chance.

Its task does not wait for them: it asks some back now and then, and when it ends
it lets all go, or takes them with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flamezmq.core import caller
from flamezmq.core.nested import NestedCalls
from flamezmq.wire import messages as m
from tests.sim.ends import Dialler
from tests.sim.users import Future, Name

if TYPE_CHECKING:
    from tests.sim.nodes import SimExecutor


class SimInner:
    """One per executor process; a session for each task that has tasks of its own."""

    def __init__(self, executor: SimExecutor) -> None:
        self.executor, self.world = executor, executor.world
        self.calls: dict[int, NestedCalls] = {}
        self.futures: list[Future] = []
        self.mine: NestedCalls | None = None  # of the task that runs
        self._last = 0
        self._name = Name(1, f"{executor.name}:1".encode(), "inner")
        self.dialler = Dialler(
            self.world, executor.worker.router.network, "client", self._on_message, lambda reason: None
        )

    def begin(self) -> None:
        """The task that runs submits some."""
        random = self.world.random
        if self.mine is None:
            self._last += 1
            self.mine = self.calls[self._last] = NestedCalls(self._last, f"{self.executor.name}:{self._last}")
            within = f"{self.executor.worker.token}/{self.executor.number}"
            spec = m.SessionSpec(
                "inner", environment=m.Environment("host", "/home/shared", ()), within=within
            )
            self.dialler.send(m.Open(self._last, self.mine.id, spec))
        for _ in range(random.randint(1, 8)):
            text = f"{self.executor.name}.{len(self.futures)}#{random.choice(('tiny', 'short', 'long'))}"
            future = Future(self._name, text.encode(), [])
            self.futures.append(future)
            self.mine.outbox.append((future, self._name, future.payload))
        self.push()

    def ask_back(self) -> None:
        if self.mine is not None:
            indices = self.mine.ask_back()
            if indices:
                self.dialler.send(m.Cancel(self.mine.alias, indices))

    def end(self, failed: bool) -> None:
        """The task has ended."""
        if self.mine is not None:
            if failed:
                self.mine.cancel_all(self._tell)
            self.mine.let_go(failed)
            self.mine = None
            self.push()

    def push(self) -> None:
        for alias, calls in list(self.calls.items()):
            while calls.room() > 0 and calls.stage(self.dialler.link, calls.room(), self._tell):
                pass
            calls.check()
            if calls.free and not calls.unfinished:
                del self.calls[alias]
                self.dialler.send(m.Close(alias))
        self.dialler.flush()

    def _tell(self, future: Any, state: str) -> None:
        assert future._state not in caller.DONE, "a task ended twice"
        future._state = state
        future.ends += 1

    def _on_message(self, message: Any, frames: list[Any]) -> None:
        calls = self.calls.get(message.session)
        kind = type(message)
        if not self.executor.alive or calls is None or kind in (m.Opened, m.Closed, m.Begun):
            return
        if kind is m.Results:
            calls.on_results(message, frames, self._tell)
        elif kind is m.Taken:
            calls.on_taken(message)
        elif kind is m.Cancelled:
            calls.on_cancelled(message, self._tell)
        else:
            assert kind is m.Lost, message
            calls.on_lost(message, self._tell)
        self.push()
