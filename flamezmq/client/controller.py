"""The Controller: a peer that looks at a router and gives orders to it, and runs nothing.

A client without threads, futures or pickles: one line, driven by the thread that
asks.  Each call has a bound; what goes wrong is an error with a sentence.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Any

from flamezmq.errors import NotFound, RouterLost
from flamezmq.net.line import Line
from flamezmq.wire import messages as m

#: How long a router may take to answer.
PATIENCE_SECONDS = 3.0
#: The router's line gives up by itself, in better words; it gets so much longer.
GRACE_SECONDS = 0.5
#: Rows that are asked for in one question; the router gives no more.
PAGE_ROWS = 256

SESSIONS, EXECUTORS, NODES, TASKS, LOGS, ROUTER, EVENTS, WHY, OBJECTS = range(9)
_COLUMNS = {SESSIONS: "sessions", EXECUTORS: "executors", NODES: "nodes", OBJECTS: "objects"}


class Controller:
    """A connection to a router, for people and monitors.

    Args:
        address: "tcp://host:port" or "ipc://path".
        patience_seconds: how long connecting, and each answer, may take.

    Raises:
        RouterLost: nobody answers there, or not in time.
        Refused: the router does not want us, and says why.

    As a context manager it hangs up at the end of the block.  For one thread at a time.
    """

    def __init__(self, address: str, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self.address, self.patience_seconds = address, patience_seconds
        self._request = 0
        self._line = Line(address, "client", patience_seconds=patience_seconds)
        try:
            self._line.open()
            self._wait(lambda: self._line.link.up)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Hang up.  Idempotent."""
        self._line.close(bye=True)

    def __enter__(self) -> Controller:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- looking

    def sessions(self, closed: bool = False, limit: int = 1 << 30) -> tuple[list[m.SessionRow], int]:
        """The first `limit` sessions, oldest first, and how many more there are.

        closed: those that have ended of late, too.
        """
        return self._pages(SESSIONS, limit, closed=closed)

    def session(self, id: str) -> m.SessionRow:
        """One session, open or ended of late; the one that was opened last, if several have the id.

        Raises:
            NotFound: there is none.
        """
        row: m.SessionRow = self._only(self._ask(SESSIONS, session=id).sessions, f"session {id!r}")
        return row

    def executors(self, limit: int = 1 << 30) -> tuple[list[m.ExecutorRow], int]:
        """The first `limit` executors, and how many more there are."""
        return self._pages(EXECUTORS, limit)

    def executor(self, name: str) -> m.ExecutorRow:
        """The executor of this name ("node/number").

        Raises:
            NotFound: there is none.
        """
        row: m.ExecutorRow = self._only(self._ask(EXECUTORS, executor=name).executors, f"executor {name!r}")
        return row

    def nodes(self, limit: int = 1 << 30) -> tuple[list[m.NodeRow], int]:
        """The first `limit` nodes, and how many more there are."""
        return self._pages(NODES, limit)

    def tasks(self, session: str, state: int = -1, limit: int = PAGE_ROWS) -> tuple[list[m.TaskRow], int]:
        """Tasks of a session, by index: those that run, some that wait, the last that have ended.

        Args:
            session: its id.
            state: only those in this one, a `TaskState`; -1 for all.
            limit: rows, at most 256; a row is a run of like tasks.

        Returns the rows, and how many tasks are in none of them.

        Raises:
            NotFound: there is no such session.
        """
        answer = self._ask(TASKS, session=session, state=state, limit=limit)
        return answer.tasks, answer.more

    def logs(
        self, session: str = "", task: int = -1, executor: str = "", after: int = 0
    ) -> tuple[list[m.LogRow], int]:
        """What tasks have printed of late, oldest first, and how many more rows follow.

        Args:
            session: only what its tasks have printed.
            task: only this one (its index in `session`); -1 for all.
            executor: only what was printed there.
            after: only what came after the row of this number.

        Raises:
            NotFound: there is no such session, task or executor.
        """
        answer = self._ask(LOGS, session=session, task=task, executor=executor, after=after)
        return answer.logs, answer.more

    def events(self, session: str, after: int = 0) -> tuple[list[m.EventRow], int]:
        """What has happened to a session, oldest first, and how many more rows follow.

        after: only what has a greater number.

        Raises:
            NotFound: there is no such session.
        """
        answer = self._ask(EVENTS, session=session, after=after)
        return answer.events, answer.more

    def why(self, session: str, task: int = -1) -> m.Why:
        """Where a task stands (by its index; -1: those of the session), and why it waits.

        Raises:
            NotFound: there is no such session, or task.
        """
        row: m.Why = self._only(self._ask(WHY, session=session, task=task).why, "answer to that")
        return row

    def objects(self, session: str = "", limit: int = 1 << 30) -> tuple[list[m.ObjectRow], int]:
        """The first `limit` objects in stores, as they came, and how many more there are.

        session: only those of this one, by its id.

        Raises:
            NotFound: there is no such session.
        """
        return self._pages(OBJECTS, limit, session=session)

    def applications(self, limit: int = 1 << 30) -> tuple[list[m.ApplicationRow], int]:
        """The first `limit` registered applications, and how many more there are."""
        rows: list[m.ApplicationRow] = []
        while True:
            after = rows[-1].number if rows else 0
            answer = self._exchange(m.AskApplications(self._next(), "", after), m.Applications)
            rows += answer.rows
            if not answer.more or not answer.rows or len(rows) >= limit:
                return rows[:limit], answer.more + max(len(rows) - limit, 0)

    def application(self, name: str) -> m.ApplicationRow:
        """The application of this name.

        Raises:
            NotFound: there is none.
        """
        answer = self._exchange(m.AskApplications(self._next(), name), m.Applications)
        row: m.ApplicationRow = self._only(answer.rows, f"application {name!r}")
        return row

    def tenants(self) -> list[m.TenantRow]:
        """Those that are named, and those of open sessions, by name."""
        rows: list[m.TenantRow] = []
        while True:
            after = rows[-1].name if rows else None
            answer = self._exchange(m.AskTenants(self._next(), after), m.Tenants)
            rows += answer.rows
            if not answer.more or not answer.rows or answer.rows[-1].name == after:
                return rows

    def router(self) -> m.RouterRow:
        """The router itself: what it is, since when, and how many are with it."""
        row: m.RouterRow = self._only(self._ask(ROUTER).router, "answer to that from this router")
        return row

    # --- orders

    def close_session(self, id: str, by: str) -> tuple[bool, str]:
        """Close somebody's session; returns whether it was done, and a sentence.

        by: who wants it; the session's client, and its futures, quote it.

        Raises:
            NotFound: there is no such session.
        """
        return self._order(m.CloseSession(self._next(), id, by))

    def cancel_task(self, session: str, index: int, by: str, running: bool = False) -> tuple[bool, str]:
        """Cancel somebody's task if it has not begun; returns whether it was done, and a sentence.

        running: interrupt it if it has.

        Raises:
            NotFound: there is no such session, or task.
            RouterLost: no answer in time; where an executor is asked it may still come.
        """
        return self._order(m.CancelTask(self._next(), session, index, by, running))

    def change_session(self, id: str, by: str, **what: Any) -> tuple[bool, str]:
        """Change somebody's session while it runs; returns whether it was done, and a sentence.

        what: fields of `wire.messages.ChangeSession`, those that are to change.

        Raises:
            NotFound: there is no such session.
        """
        return self._order(m.ChangeSession(self._next(), id, by, **what))

    def set_tenant(self, name: str, by: str, new: bool = False, **what: Any) -> tuple[bool, str]:
        """Change what a tenant may have; returns whether it was done, and a sentence.

        new: it need not be known.  what: fields of `wire.messages.SetTenant`, those that are to change.

        Raises:
            NotFound: there is no such tenant.
        """
        return self._order(m.SetTenant(self._next(), name, by, new, **what))

    def register(self, application: m.Application, by: str) -> tuple[bool, str]:
        """Make an application known; returns whether it was done, and a sentence."""
        return self._order(m.RegisterApplication(self._next(), application, by))

    def update(self, application: m.Application, by: str) -> tuple[bool, str]:
        """Put it in the place of the one of its name.

        Raises:
            NotFound: there is none.
        """
        return self._order(m.UpdateApplication(self._next(), application, by))

    def unregister(self, name: str) -> tuple[bool, str]:
        """Have it forgotten.  Raises as `update`."""
        return self._order(m.UnregisterApplication(self._next(), name))

    # --- how

    def _next(self) -> int:
        self._request += 1
        return self._request

    def _ask(self, kind: int, **question: Any) -> m.Answer:
        ask = m.Ask(self._next(), kind, **question)
        answer = self._exchange(ask, m.Answer)
        if answer.error:
            raise NotFound(answer.error)
        return answer  # type: ignore[no-any-return]

    def _pages(self, kind: int, limit: int, **question: Any) -> tuple[list[Any], int]:
        rows: list[Any] = []
        after = 0
        while True:
            answer = self._ask(kind, after=after, limit=min(limit - len(rows), PAGE_ROWS), **question)
            page = getattr(answer, _COLUMNS[kind])
            rows += page
            if not answer.more or not page or page[-1].number <= after or len(rows) >= limit:
                return rows, answer.more
            after = page[-1].number

    def _only(self, rows: list[Any], what: str) -> Any:
        if not rows:
            raise NotFound(f"there is no {what}")
        return rows[0]

    def _order(self, order: Any) -> tuple[bool, str]:
        done = self._exchange(order, m.Done)
        if done.outcome == 2:
            raise NotFound(done.text)
        return done.outcome == 0, done.text

    def _exchange(self, message: Any, kind: type[Any]) -> Any:
        """Send it, and wait for the answer that quotes its request."""
        self._line.enqueue(message)
        found: list[Any] = []

        def answered() -> bool:
            for answer, _ in self._line.receive():
                if isinstance(answer, kind) and answer.request == message.request:
                    found.append(answer)
            return bool(found)

        self._wait(answered)
        return found[0]

    def _wait(self, done: Callable[[], bool]) -> None:
        """Drive the line until `done()`, for as long as patience goes."""
        deadline = monotonic() + self.patience_seconds + GRACE_SECONDS
        while not done():
            left = deadline - monotonic()
            if left <= 0:
                raise RouterLost(
                    f"the router at {self.address} has not answered in {self.patience_seconds:g} s; "
                    "is it one of flamezmq, and is it well?"
                )
            self._line.turn(int(left * 1000) + 1)
