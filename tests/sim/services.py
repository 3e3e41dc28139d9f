"""Services in a simulated executor, by the rules of flamezmq/binding.py.

A service is the chance, as text, that it can't be bound; binding it, and having it
go, take some milliseconds.  Each is entered at most once for a bind, and left once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from tests.sim.nodes import SimExecutor, Task


def application(isolation: str, failing: float) -> m.Application:
    """Its name says what it is, so that whoever registers it says the same."""
    name = f"{isolation}-{failing:g}"
    return m.Application(name, service=b"%g" % failing, isolation=isolation)  # type: ignore[arg-type]


class SimService:
    """What one executor knows of services: `bound` is the session whose service was entered, or 0."""

    def __init__(self, executor: SimExecutor) -> None:
        self._executor, self._world = executor, executor.world
        self._applications: dict[str, tuple[int, m.Application]] = {}
        self._due: dict[int, m.Service] = {}
        self._served: dict[int, None] = {}  # sessions
        self._tenant: str | None = None
        self._alone = False  # it serves one session, and no other
        self.entering = False
        self.bound = 0
        self.leaving = 0
        self.calls: list[str] = []  # of hooks, in order

    def on_bind(self, bind: m.Bind) -> None:
        assert not self.leaving, "bound before it had unbound"
        self._served[bind.session] = None
        self._check_company(bind)
        if bind.service is None:
            assert not self.bound, "bound to a session while it has the service of another"
            return
        assert not self.bound, "a second service"
        if bind.service.description is not None:
            self._applications[bind.service.application] = bind.service.revision, bind.service.description
        revision, _ = self._applications[bind.service.application]
        assert revision == bind.service.revision, "an application that it was not told of"
        self._due[bind.session] = bind.service

    def _check_company(self, bind: m.Bind) -> None:
        session = self._executor.worker.router.broker.sessions.get(bind.session)
        if session is None:
            return
        assert self._tenant in (None, session.tenant), "it has served another tenant"
        self._tenant = session.tenant
        if session.application is not None and session.application.application.isolation == "session":
            self._alone = True
        assert not self._alone or len(self._served) == 1, "it shares a process"

    def is_due(self, session: int) -> bool:
        return session in self._due

    def enter(self, task: Task) -> None:
        """Before the first task of a session."""
        executor = self._executor
        executor.running = task[1]
        executor.attending = not executor.hogging
        self.entering = True
        self._world.after(self._world.random.random() * 0.01, self._end_enter, task)

    def _end_enter(self, task: Task) -> None:
        executor = self._executor
        if not executor.alive or executor._task is not task:
            return
        executor.tasks.appendleft(task)
        executor._task, executor.attending, executor.running = None, False, -1
        self.entering = False
        service = self._due.pop(executor.session)
        _, described = self._applications[service.application]
        if self._world.random.random() < float(described.service):
            executor.tasks.clear()
            executor.broken[executor.session] = None
            executor.dialler.enqueue(m.BindFailed(executor.session, "RuntimeError: weather", ""))
        else:
            self.bound = executor.session
            self.calls.append(f"enter {self.bound}")
        executor._flush()
        executor._next()

    def check_bound(self, session: int) -> None:
        """A task of this session begins."""
        known = self._executor.worker.router.broker.sessions.get(session)
        if known is not None and known.application is not None:
            assert self.bound == session, "a task without its service"

    def on_unbind(self, session: int) -> None:
        executor = self._executor
        assert not executor.tasks, "unbound while it held tasks"
        assert executor.running < 0, "unbound while it ran"
        assert not self.leaving, "unbound twice"
        self.leaving = session
        self._world.after(self._world.random.random() * 0.04, self._leave)

    def _leave(self) -> None:
        executor = self._executor
        if not executor.alive:
            return
        session, self.leaving = self.leaving, 0
        self._due.pop(session, None)
        error = "RuntimeError: weather" if self._world.random.random() < 0.05 else ""
        self.end()
        executor.dialler.enqueue(m.Unbound(session, error))
        executor._flush()
        executor._next()

    def end(self) -> None:
        """The hook is called, also where the process is told to exit."""
        if self.bound:
            self.calls.append(f"leave {self.bound}")
        self.bound = 0

    def check_calls(self) -> None:
        """Each that was entered was left once, before another was entered; but for the last, by a death."""
        for entered, left in zip(self.calls[::2], self.calls[1::2], strict=False):
            assert entered.startswith("enter"), self.calls
            assert left == entered.replace("enter", "leave"), self.calls
