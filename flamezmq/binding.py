"""What a session has in an executor's process besides functions: its initializer, or its service.

Both come before the session's first task here.  For the worker that task runs
already, so that the executor is served while it is busy with this; if it is a
service, the page says so, too, and then nobody is charged for a death.

`on_bind` and `on_unbind` are told by the router, under the line's lock; all
hooks are called in the main thread, between tasks.  Entering and leaving are bounded
by a watch that needs no GIL: it says where the hook hangs, and ends the process.
"""

from __future__ import annotations

import faulthandler
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

from flamezmq import page, running, shims, streams
from flamezmq.errors import NoTask
from flamezmq.serialize.failures import words_of
from flamezmq.serialize.initializer import Assigned
from flamezmq.shims.base import Shim
from flamezmq.shims.calls import Bound
from flamezmq.shims.context import Context
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.executor import Executor


class Bindings:
    """`due`: sessions with something to do before their first task; `broken`: whose tasks are dropped."""

    def __init__(self, executor: Executor) -> None:
        self.assigned = Assigned()
        self.due: dict[int, m.Bind] = {}
        self.broken: dict[int, None] = {}
        self.leaving = 0  # the session whose service is to go
        self._executor = executor
        self._applications: dict[str, tuple[int, m.Application]] = {}  # name -> revision and description
        self._shim: Shim | None = None  # the last one that was started
        self._revision = 0  # its application's, and how long that may take to go
        self._grace = 0.0

    # --- from the router

    def on_bind(self, bind: m.Bind) -> None:
        service = bind.service
        if service is not None and service.description is not None:
            self._applications[service.application] = (service.revision, service.description)
        if bind.initializer or service is not None:
            self.due[bind.session] = bind

    def on_unbind(self, unbind: m.Unbind) -> None:
        self.leaving = unbind.session

    # --- main thread

    def prepare(self, session: int) -> None:
        """Do what is due before the session's first task."""
        executor = self._executor
        words = executor.words
        try:
            task = executor.tasks.popleft()
        except IndexError:
            return  # the attendant has just given it back
        bind = self.due.pop(session)
        words[page.PREPARING] = page.BINDING if bind.service is not None else 1
        words[page.RUNNING] = task[1] + 1
        failure: BaseException | None = None
        try:
            if bind.initializer:
                self.assigned.call(bind.initializer)
            if bind.service is not None:
                self._enter(bind, bind.service)
        except BaseException as error:
            if executor.terminated:
                raise
            failure = error
        if executor.forked:
            leave_fork()
        for function in list(executor.functions.values()):
            function.share_globals()
        executor.tasks.appendleft(task)
        if failure is not None:
            self._fail(bind, failure)
        words[page.RUNNING] = words[page.PREPARING] = 0

    def _enter(self, bind: m.Bind, service: m.Service) -> None:
        revision, application = self._applications[service.application]
        fresh = False
        if self._shim is None or self._revision != revision:
            self._stop()
            self._shim, self._revision = shims.make(application), revision
            self._grace = application.grace
            fresh = True
        name = f"{self._executor.config.node}/{self._executor.config.number}"
        who = self._executor.who
        devices = self._executor.home.devices
        ctx = Context(application.name, bind.id, name, service.common_data, who, _publish, devices)
        with self._bounded(self._shim.enter_seconds):
            if fresh:
                self._shim.start()
            self._shim.enter(ctx)
        Bound.shim, Bound.ctx = self._shim, ctx

    @contextmanager
    def _bounded(self, seconds: float | None) -> Iterator[None]:
        """Watch what is inside; the page says when its time is over, so that the router can tell why."""
        if seconds is None:
            yield
            return
        words = self._executor.words
        words[page.DUE] = int((monotonic() + seconds) * 1e9)
        try:
            with _watched(seconds):
                yield
        finally:
            words[page.DUE] = 0

    def _fail(self, bind: m.Bind, error: BaseException) -> None:
        """Say so, and drop what is held of the session: this process serves it no more."""
        executor = self._executor
        text, trace = words_of(error)
        name = f"{executor.config.node}/{executor.config.number}"
        session = bind.session
        failed = bind.service is not None
        words = m.BindFailed(session, text, trace) if failed else m.Broken(session, name, text, trace)
        with executor.attendant.claim():
            executor.attendant.claims = False
            self.broken[session] = None
            executor.tasks.clear()
            executor.line.enqueue(words)

    def leave(self) -> None:
        """The router wants the service gone: call its last hook, and say that it is done."""
        session, self.leaving = self.leaving, 0
        self.due.pop(session, None)  # it may never have come to a task
        error = self._leave() if Bound.ctx is not None else ""
        streams.flush_printed()
        with self._executor.attendant.claim():
            self._executor.attendant.claims = False
            self._executor.line.enqueue(m.Unbound(session, error))

    def _leave(self) -> str:
        """Call the last hook; returns what it has raised."""
        shim, ctx = Bound.shim, Bound.ctx
        assert shim is not None and ctx is not None
        Bound.shim = Bound.ctx = None
        error = ""
        with _watched(self._grace):
            try:
                shim.leave(ctx)
            except BaseException as raised:
                if self._executor.forked:
                    leave_fork()
                traceback.print_exc()
                error = words_of(raised)[0]
        return error

    def end(self) -> None:
        """The process ends: so does the service that is bound, and what its shim has started."""
        if Bound.ctx is not None:
            self._leave()
        self._stop()
        streams.flush_printed()

    def _stop(self) -> None:
        shim, self._shim = self._shim, None
        if shim is not None:
            with _watched(self._grace):
                try:
                    shim.stop()
                except Exception:
                    traceback.print_exc()  # whatever is left of it ends with this process's group


def _publish(value: object) -> None:
    try:
        task = running.current()
    except NoTask:
        raise NoTask("ctx.publish(...)") from None  # by what its user has written
    task.publish(value)


@contextmanager
def _watched(seconds: float) -> Iterator[None]:
    """If what is inside takes longer, the process ends, and its traceback says where it was."""
    faulthandler.dump_traceback_later(max(seconds, 0.001), exit=True, file=2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def leave_fork() -> None:
    """A task forked and its child came back from it: the child is not an executor."""
    try:
        streams.flush_printed()
    finally:
        os._exit(0)
