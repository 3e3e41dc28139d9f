"""What the http and the grpc shim share: a server of the application's own, started and watched here.

The server is told where to listen by variables of its environment, and asked
until it is ready, with patience that has an end.  It serves one session after
the other; a fresh one, after a failure, is told of the session again.

Rule: whatever goes wrong between us and the server (an interrupt as well) ends
it; that it answers with an error of its own does not.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from flamezmq.errors import BadPayload, ServiceError
from flamezmq.shims.base import Shim
from flamezmq.shims.options import ShimOptions, check, check_command
from flamezmq.shims.payloads import NotJson, the_input
from flamezmq.shims.program import DYING_SECONDS, Keeper, Program
from flamezmq.shims.roles import Application, Context

#: start_timeout: seconds until it must be ready.
#: task_timeout: seconds for one task; then the server is killed.
#: session_timeout: seconds for what it does when a session comes.
#: max_bytes: the largest answer.
OPTIONS: dict[str, Any] = {
    "start_timeout": 30.0,
    "task_timeout": None,
    "session_timeout": 60.0,
    "max_bytes": 1 << 28,
}
#: Between two looks whether it is ready: at first, and at most.
_LOOK_SECONDS, _MOST_LOOK_SECONDS = 0.005, 0.1
#: What one look may take.
LOOK_PATIENCE_SECONDS = 5.0
#: Somebody answers, but it can't be seen whether it is our server (it may be one in a container).  One whose
#: place is taken ends within this.
STRANGER_SECONDS = 2.0


class TooLate(Exception):
    """An answer has not come in time."""


class CutOff(Exception):
    """The server does not answer any more; the text says how that showed."""


class Nonsense(Exception):
    """It answers what is no answer; the text says what."""


class ServerShim(Shim):
    """See the head of this file."""

    def __init__(self, application: Application, known: dict[str, Any], needs_folder: bool) -> None:
        super().__init__(application)
        check_command(application)
        self.options = ShimOptions(application, {**OPTIONS, **known})
        self.start_timeout = self.options.seconds("start_timeout") or float("inf")
        self.task_timeout = self.options.seconds("task_timeout")
        self.session_timeout = self.options.seconds("session_timeout")
        self.patience = application.grace / 2  # with a session that ends, and after SIGTERM
        self.most = self.options.count("max_bytes")
        self._keeper = Keeper(application, needs_folder)
        self._program: Program | None = None
        self._entered = False  # the server knows of the session

    # --- what the protocols do; they raise TooLate, CutOff, Nonsense, or an error of the task's own

    @abstractmethod
    def place(self) -> dict[str, str]:
        """Choose where the next server listens; the variables that tell it."""

    @abstractmethod
    def connect(self) -> None:
        """The server has been started at that place."""

    @abstractmethod
    def hang_up(self) -> None:
        """It is gone, or will go.  May be called twice."""

    @abstractmethod
    def ready(self, seconds: float) -> bool:
        """Does it answer?"""

    @abstractmethod
    def open_session(self, ctx: Context) -> None: ...

    @abstractmethod
    def run_task(self, ctx: Context, value: Any) -> Any: ...

    @abstractmethod
    def close_session(self, ctx: Context) -> None: ...

    def ours(self) -> bool:
        """It answers; is that our server for sure?"""
        return True

    def misplaced(self) -> bool:
        """Has somebody else taken its place before it could?"""
        return False

    # --- the shim

    @classmethod
    def check(cls, application: Application) -> None:
        check(cls, application)

    def enter(self, ctx: Context) -> None:
        self._entered = False
        self._serving(ctx)

    def invoke(self, ctx: Context, /, *args: Any, **kwargs: Any) -> Any:
        value = the_input(args, kwargs)
        program = self._serving(ctx)
        with self._watched(program, self.task_timeout, "task_timeout"):
            return self.run_task(ctx, value)

    def leave(self, ctx: Context) -> None:
        program = self._program
        if program is None or not self._entered or not program.alive():
            return
        self._entered = False
        with self._watched(program, self.patience, "half of its grace"):
            self.close_session(ctx)

    def stop(self) -> None:
        program, self._program = self._program, None
        try:
            self.hang_up()
            if program is not None:
                program.end(self.patience)
        finally:
            self._keeper.close()

    def _serving(self, ctx: Context) -> Program:
        """The server, ready, and told of the session."""
        program = self._program
        if program is not None and not program.alive():
            ctx.log.warning("flamezmq: %s", self._failure(program))
            program = None
        if program is None:
            program = self._fresh(ctx)
            self._entered = False
        program.murmur.log = ctx.log
        if not self._entered:
            with self._watched(program, self.session_timeout, "session_timeout"):
                self.open_session(ctx)
            self._entered = True
        return program

    def _fresh(self, ctx: Context) -> Program:
        deadline = monotonic() + self.start_timeout
        while True:
            program = self._keeper.start(ctx, self.place(), stdin=False, stdout=False)
            program.murmur.follow()
            self._program = program
            try:
                self.connect()
                if self._wait_ready(program, deadline):
                    return program
            except BaseException:
                self._drop(program)
                raise
            if program.alive():
                words = f"was not ready {self.start_timeout:g} s after its start (start_timeout)"
                raise self._failure(program, words, dying=0.0)
            if monotonic() > deadline or not self.misplaced():
                raise self._failure(program, "did not become ready")
            self._drop(program)

    def _wait_ready(self, program: Program, deadline: float) -> bool:
        pause = _LOOK_SECONDS
        while (left := deadline - monotonic()) > 0 and program.alive():
            if self.ready(min(left, LOOK_PATIENCE_SECONDS)):
                return self.ours() or not program.wait(STRANGER_SECONDS)
            program.wait(min(pause, left))
            pause = min(pause * 1.5, _MOST_LOOK_SECONDS)
        return False

    @contextmanager
    def _watched(self, program: Program, seconds: float | None, limit: str) -> Iterator[None]:
        try:
            yield
        except (ServiceError, BadPayload):
            raise
        except TooLate:
            words = f"has not answered within {seconds:g} s ({limit})"
            raise self._failure(program, words, dying=0.0) from None
        except CutOff as error:
            what = "" if program.wait(DYING_SECONDS) else f"has cut us off ({error})"
            raise self._failure(program, what, dying=0.0) from None
        except (Nonsense, NotJson) as error:
            raise self._failure(program, f"answered nonsense: {error}", dying=0.0) from None
        except BaseException:
            self._drop(program)
            raise
        finally:
            program.murmur.drain()

    def _failure(self, program: Program, what: str = "", dying: float = 1.0) -> Exception:
        if self._program is program:
            self._program = None
        self.hang_up()
        return program.failure(what, dying)

    def _drop(self, program: Program) -> None:
        if self._program is program:
            self._program = None
        self.hang_up()
        program.end()
