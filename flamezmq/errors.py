"""Every error of flamezmq, in one place (but for BrokenSession: client/broken.py says why).

An error says what happened, to what, and what to do next.  Errors cross
processes, so `args` equals the fields and each one pickles.
"""

from __future__ import annotations

from _pickle import PicklingError  # pickle.PicklingError, without the rest of that module
from collections.abc import Sequence
from dataclasses import dataclass


class FlameError(Exception):
    """Base of all errors that flamezmq raises itself."""


#: How the interpreter's report of a crash begins; the innermost frame comes first.
CRASH = "Fatal Python error: "


def last_words(lines: Sequence[str], count: int) -> list[str]:
    """Of lines on stderr the `count` that say most: of a crash how its report begins, else the last."""
    said = [line.strip() for line in lines if line.strip()]
    for at, line in enumerate(said):
        if line.startswith(CRASH):
            frames = [frame for frame in said[at:] if frame.startswith("File ")]
            return [line, *frames[: count - 1]]
    return said[-count:]


@dataclass(frozen=True, slots=True)
class Certificate:
    """How an executor died; `TaskLost.certificate` is one.

    `executor` is its name ("node/number"), `node` its machine, `pid` its process there.
    `signal` is a name such as "SIGKILL", or "" if it exited by itself with
    `exit_code`.  `oom` is True when the kernel counted an out-of-memory kill
    while it died.  `rss_bytes` is its largest resident size.  `stderr` holds
    its last lines, or the beginning of its report where the interpreter has crashed.
    """

    executor: str
    node: str
    pid: int
    signal: str = ""
    exit_code: int = 0
    oom: bool = False
    rss_bytes: int = 0
    stderr: tuple[str, ...] = ()

    def __str__(self) -> str:
        how = f"killed by {self.signal}" if self.signal else f"exited with code {self.exit_code}"
        memory = " (out of memory)" if self.oom else ""
        words = f"executor {self.executor} (pid {self.pid}) on {self.node} {how}{memory}"
        if self.rss_bytes:
            words += f", at most {self.rss_bytes / 2**20:.0f} MiB resident"
        if self.stderr:
            words += "; its last words: " + " | ".join(last_words(self.stderr, 3))
        return words


class TaskError(FlameError):
    """A task raised what could not travel: its type, text and traceback came instead.

    Fields: `type_name`, the remote exception's type; `text`, its str;
    `traceback`, the remote traceback as text.
    """

    def __init__(self, type_name: str, text: str, traceback: str = "") -> None:
        super().__init__(type_name, text, traceback)
        self.type_name, self.text, self.traceback = type_name, text, traceback

    def __str__(self) -> str:
        return f"{self.type_name}: {self.text}" + (f"\n\n{self.traceback}" if self.traceback else "")


class TaskLost(FlameError):
    """Every attempt of a task took its executor down, or the one of which a stream had come in part.

    Fields: `task_id`; `attempts`, how many were started; `certificate`, how the
    last executor died; `name`, that of its function; `values`, how many of a
    stream's values had come.  Not retryable: the input may be what kills executors.
    """

    def __init__(
        self, task_id: str, attempts: int, certificate: Certificate, name: str = "", values: int = 0
    ) -> None:
        super().__init__(task_id, attempts, certificate, name, values)
        self.task_id, self.attempts, self.certificate, self.name = task_id, attempts, certificate, name
        self.values = values

    def __str__(self) -> str:
        what = f"task {self.task_id} ({self.name})" if self.name else f"task {self.task_id}"
        if self.values:
            came = "1 value" if self.values == 1 else f"{self.values} values"
            return (
                f"{what} lost its executor when {came} of its stream had come: {self.certificate}; "
                "if a second run gives the same values again, let it have one: stream(..., replay=True)"
            )
        times = "an executor" if self.attempts == 1 else f"{self.attempts} executors"
        return (
            f"{what} took down {times}: {self.certificate}; "
            "run it alone to see why, or raise max_retries if the node is to blame"
        )


class ActorDied(TaskLost):
    """The process of an actor died, and its instance with it.

    Fields: `task_id`, that of the call that ran then, or "" in the error of calls that had not
    begun and will not run; `attempts`, how often that call was started, or how many instances
    there were; `certificate`, how the process died; `name`, that of the method, or of the
    class; `actor`, the actor's id.  As a TaskLost it is not retryable by itself.
    """

    def __init__(
        self, task_id: str, attempts: int, certificate: Certificate, name: str = "", actor: str = ""
    ) -> None:
        super().__init__(task_id, attempts, certificate, name)
        self.args = (task_id, attempts, certificate, name, actor)
        self.actor = actor

    def __str__(self) -> str:
        if self.task_id:
            return (
                f"call {self.task_id} ({self.name}) was lost when its actor died: {self.certificate}; "
                "what the instance knew is gone, too: repeat the call only if it may run twice"
            )
        restarts = self.attempts - 1
        times = f", after {restarts} restart{'s' * (restarts > 1)}" if restarts else ""
        return (
            f"actor {self.actor} ({self.name}) died{times}: {self.certificate}; "
            "its calls can't run: make a new one, with max_restarts if it can do without its state"
        )


class TaskTimeout(FlameError, TimeoutError):
    """A task took longer than the `timeout` of its options, and was ended.

    Fields: `task_id`, or "" where the task can't know it (an item of a `map`, the
    task's own code); `seconds`, what it was allowed; `attempt`, the run that took
    longer, from 1.  It is raised in the task, which may clean up, for a second.
    """

    def __init__(self, task_id: str, seconds: float, attempt: int) -> None:
        super().__init__(task_id, seconds, attempt)
        self.task_id, self.seconds, self.attempt = task_id, seconds, attempt

    def __str__(self) -> str:
        who = f"task {self.task_id}" if self.task_id else "the task"
        return (
            f"{who} took longer than the {self.seconds:g} s of its timeout (attempt {self.attempt}); "
            "give it more, or less to do"
        )


#: How a `ServiceFailed` begins whose program never ran.
NOT_STARTED = "can't be started"
#: Lines of its stderr that its text has: a traceback of Node.js or Java says what is wrong first.
SHOWN_LINES = 12


class ServiceFailed(FlameError):
    """The program behind a shim died, did not answer, answered nonsense, or never became ready.

    Fields: `application`, its name; `what` happened to the program; `signal` that killed it ("" if none
    did), or the `exit_code` that it ended with (None if it had to be ended); `stderr`, its last lines;
    `rss_bytes`, its largest resident size, if it ended by itself.  The next task gets a fresh program.
    """

    def __init__(
        self,
        application: str,
        what: str,
        signal: str = "",
        exit_code: int | None = None,
        stderr: tuple[str, ...] = (),
        rss_bytes: int = 0,
    ) -> None:
        super().__init__(application, what, signal, exit_code, stderr, rss_bytes)
        self.application, self.what, self.signal = application, what, signal
        self.exit_code, self.stderr, self.rss_bytes = exit_code, stderr, rss_bytes

    def __str__(self) -> str:
        if self.what.startswith(NOT_STARTED):
            return (
                f"the program of application {self.application!r} {self.what}; see that its command is "
                "there on each node and may be executed, and that its working_directory is there"
            )
        how = ""
        if self.signal:
            how = f" (killed by {self.signal}, at most {self.rss_bytes / 2**20:.0f} MiB resident)"
        elif self.exit_code is not None:
            how = f" (exit code {self.exit_code})"
        words = [line for line in self.stderr if line.strip()][-SHOWN_LINES:]
        said = "its last words: " + " | ".join(words) if words else "it wrote no stderr"
        return (
            f"the program of application {self.application!r} {self.what}{how}; {said}; "
            "run its command by hand with the same input to see why"
        )


class ServiceError(FlameError):
    """The program behind a shim has answered a task with an error of its own; it goes on serving.

    Fields: `application`; `text`, what it said.
    """

    def __init__(self, application: str, text: str) -> None:
        super().__init__(application, text)
        self.application, self.text = application, text

    def __str__(self) -> str:
        return f"application {self.application!r} says: {self.text}"


class BadPayload(FlameError, ValueError):
    """A value can't go to, or has not come from, an application: its schema or its encoding forbids it.

    Fields: `application`; `what`, such as "the input"; `path`, where in the value ("$.size", "$" is all
    of it); `reason`, what was expected there.
    """

    def __init__(self, application: str, what: str, path: str, reason: str) -> None:
        super().__init__(application, what, path, reason)
        self.application, self.what, self.path, self.reason = application, what, path, reason

    def __str__(self) -> str:
        return f"{self.what} of application {self.application!r} is refused at {self.path}: {self.reason}"


class ShimMissing(FlameError, ImportError):
    """A shim needs a library that the executor does not have.

    Fields: `shim`; `module`; `extra`, that of flamezmq which brings it.
    """

    def __init__(self, shim: str, module: str, extra: str) -> None:
        super().__init__(shim, module, extra)
        self.shim, self.module, self.extra = shim, module, extra

    def __str__(self) -> str:
        return (
            f"{self.shim} needs the module {self.module!r}, which the executor does not have; "
            f"install it on its node: pip install 'flamezmq[{self.extra}]'"
        )


class DeadlinePassed(FlameError):
    """A task had not begun when its deadline came, and was dropped.

    Fields: `task_id`; `name`, that of its function; `seconds`, the `deadline` of its options, from
    its submit.  It is not run again.
    """

    def __init__(self, task_id: str, name: str, seconds: float) -> None:
        super().__init__(task_id, name, seconds)
        self.task_id, self.name, self.seconds = task_id, name, seconds

    def __str__(self) -> str:
        what = f"task {self.task_id} ({self.name})" if self.name else f"task {self.task_id}"
        return (
            f"{what} did not begin within {self.seconds:g} s of its submit, which is its deadline, and was "
            "dropped; give it more time, or more executors"
        )


class QuotaExceeded(FlameError):
    """A task was not submitted: its tenant has as much queued as it may, and its session does not wait.

    Fields: `tenant`; `quota`, "queued_tasks" or "queued_bytes"; `limit`, of all that the tenant's
    sessions have queued together.  The task has not run and does not count; submit it again later.
    """

    def __init__(self, tenant: str, quota: str, limit: int) -> None:
        super().__init__(tenant, quota, limit)
        self.tenant, self.quota, self.limit = tenant, quota, limit

    def __str__(self) -> str:
        whose = f"tenant {self.tenant}" if self.tenant else "the tenant without a name"
        what = f"{self.limit:,} queued {'bytes' if self.quota == 'queued_bytes' else 'tasks'}"
        return (
            f"{whose} may have no more than {what} ({self.quota}); submit it again when others have begun, "
            "have submit wait for that (over_quota='wait'), or raise the quota (flmctl tenants set)"
        )


class TaskCancelled(BaseException):
    """Raised in a running task that is not wanted any more: it was cancelled, or its session was closed.

    The task may clean up, for a second; then its process is ended.  As with `asyncio.CancelledError`,
    `except Exception` does not catch it.  Who catches it should raise it again when it has cleaned
    up; a value that the task returns all the same is its result.  The task's Future is cancelled:
    its `result()` raises CancelledError, not this.

    Fields: `task_id`.
    """

    def __init__(self, task_id: str) -> None:
        super().__init__(task_id)
        self.task_id = task_id

    def __str__(self) -> str:
        return f"task {self.task_id} was cancelled while it ran"


class DependencyFailed(FlameError):
    """A task did not run, because a Future among its arguments has no value: it failed or was cancelled.

    Fields: `task_id`; `dependency`, the id of the task whose value it was to get; `reason`, what
    became of that one.  The dependency's own exception is the `__cause__`.
    """

    def __init__(self, task_id: str, dependency: str, reason: str) -> None:
        super().__init__(task_id, dependency, reason)
        self.task_id, self.dependency, self.reason = task_id, dependency, reason

    def __str__(self) -> str:
        return (
            f"task {self.task_id} did not run: task {self.dependency}, whose value it was to get, "
            f"{self.reason}; submit it again when that one has succeeded"
        )


class Unpicklable(FlameError, TypeError, PicklingError):
    """An argument, a result or a function can't be pickled.

    It is a TypeError and a `pickle.PicklingError`, because pickle raises now the one, now the other.
    Fields: `what`, the thing that was to travel ("argument 2 of f"); `path`,
    where in it the culprit sits (`['a'][3]`, or "" for the thing itself);
    `reason`, the pickler's own words.
    """

    def __init__(self, what: str, path: str, reason: str) -> None:
        super().__init__(what, path, reason)
        self.what, self.path, self.reason = what, path, reason

    def __str__(self) -> str:
        where = f" at {self.path}" if self.path else ""
        instead = "make it inside the task, or pass what it is made of"
        if not self.path and "'generator' object" in self.reason:
            instead = "stream(...) gives the values of a generator; for submit(...) make a list of them"
        elif not self.path and "'coroutine' object" in self.reason:
            instead = "a coroutine runs inside the task, by asyncio.run"
        return f"{self.what} can't be pickled{where}: {self.reason}; {instead}"


class StrayFuture(Unpicklable):
    """A Future stands where none can be resolved: of another client or maker, or captured by a function.

    Fields as those of Unpicklable.
    """

    def __str__(self) -> str:
        where = f" at {self.path}" if self.path else ""
        return f"{self.what} holds a Future{where} that can't be waited for there: {self.reason}"


class StrayClient(Unpicklable):
    """A Client, a Session or the handle of an actor was to travel: they stay where they were opened.

    Fields as those of Unpicklable.
    """

    def __str__(self) -> str:
        where = f" at {self.path}" if self.path else ""
        kinds = "a Client, a Session or an actor's handle"
        return f"{self.what} holds {kinds}{where}, which can't travel: {self.reason}"


class TooLarge(Unpicklable):
    """An argument, a result or a function has a piece that no message takes: more than a gibibyte.

    Fields as those of Unpicklable.
    """

    def __str__(self) -> str:
        return f"{self.what} is too large: {self.reason}; divide it, or pass the name of a file"


class NoTask(FlameError, RuntimeError):
    """`flm.current()`, or `ctx.publish(...)` of a service, was called where no task runs.

    Fields: `called`, what was.
    """

    def __init__(self, called: str = "flm.current()") -> None:
        super().__init__(called)
        self.called = called

    def __str__(self) -> str:
        instead = "use flm.Client()" if self.called == "flm.current()" else "in other hooks there is ctx.log"
        return f"{self.called} is for the code of a running task, and here none runs; {instead}"


class MissingModule(FlameError, ModuleNotFoundError):
    """A function needs a module that the executor can't import.

    Fields: `module`; `searched`, the executor's sys.path.  An executor on the machine of the
    client looks where the client did when the session was opened.
    """

    def __init__(self, module: str, searched: tuple[str, ...]) -> None:
        super().__init__(module, searched)
        self.module, self.searched = module, searched

    def __str__(self) -> str:
        return (
            f"the executor has no module {self.module!r} (searched: {', '.join(self.searched)}); "
            "install it there, or put its folder on sys.path before the client is opened"
        )


class ProtocolError(FlameError):
    """A peer sent what the protocol does not allow; the text says what.

    A user meets it only where something else than flamezmq speaks to a router.
    """


class Refused(FlameError):
    """The router refused this process, or a session; the text is its reason.

    Mostly: another version of the protocol, or another minor version of Python.
    """


class SessionMismatch(Refused):
    """A session of this id is open, and was opened otherwise.

    Fields: `id`; `differs`, triples of texts: the field, what was asked for, what the session has.
    Ask for the same, take another id, or join it as it is by `client.attach(id)`.
    """

    def __init__(self, id: str, differs: tuple[tuple[str, str, str], ...]) -> None:
        super().__init__(id, differs)
        self.id, self.differs = id, differs

    def __str__(self) -> str:
        said = "; ".join(f"{field} is {has}, not {asked}" for field, asked, has in self.differs)
        return (
            f"session {self.id} is open and was opened otherwise: {said}; ask for the same, "
            "take another id, or join it as it is by client.attach(id)"
        )


class SessionClosed(Refused):
    """A session of this id was there, and is closed.

    Fields: `id`; `ending`, how and by whom it was closed; `seconds`, how long ago that was.
    """

    def __init__(self, id: str, ending: str, seconds: float) -> None:
        super().__init__(id, ending, seconds)
        self.id, self.ending, self.seconds = id, ending, seconds

    def __str__(self) -> str:
        return f"session {self.id} is closed, since {self.seconds:.1f} s: {self.ending}; take another id"


class NotFound(FlameError, LookupError):
    """The router knows no such session, task, executor or node; the text says which.

    Sessions that have ended are remembered for a while, the last few hundred of them.
    """


class RouterLost(FlameError, ConnectionError):
    """The router is gone, and with it what was pending; every unfinished future fails with it.

    Open a new Client and submit again what has no result.
    """


class ClientClosed(FlameError, RuntimeError):
    """The client, or the session, was closed (or this process was forked from its owner).

    Open a new one.
    """


class StartFailed(FlameError, RuntimeError):
    """The embedded cluster did not come up; the text has the reason and the log's last lines."""


class ConfigError(FlameError, ValueError):
    """The file of settings, or the environment, says what nobody understands.

    The text names the file and the line (or the variable), the key, and what was expected.
    """


class StoreFull(FlameError):
    """A node's store has no room for an object.

    Fields: `wanted`, bytes that were asked for; `limit`, bytes that the store may have in memory; `holders`,
    what holds them, in words.  Retryable once something is freed.
    """

    def __init__(self, wanted: int, limit: int, holders: str) -> None:
        super().__init__(wanted, limit, holders)
        self.wanted, self.limit, self.holders = wanted, limit, holders

    def __str__(self) -> str:
        what = f"no room for an object of {self.wanted:,} bytes in the node's store"
        if not self.limit:
            return f"{what}: {self.holders}"
        held = f"; {self.holders}" if self.holders else ""
        return (
            f"{what}, which may have {self.limit:,}{held}; free objects, close sessions, or raise "
            "store_limit or spill_limit"
        )


class StoreLost(FlameError):
    """The store of this node has ended, as its worker has; `name` is that of its socket."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"the store of this node (socket {self.name!r}) can't be reached: its worker has ended"


class ObjectLost(FlameError):
    """An object is in no store any more: a large value, or an argument, that others were to read there.

    Fields: `id`, of the object; `size`, bytes that it had; `reason`, what became of it, if that is known;
    `node`, the one that kept it, if that can't be reached any more, else ""; `task_id`, of the task that
    was to get it as an argument and therefore did not run, or "" where something else wanted it.
    """

    def __init__(self, id: str, size: int, reason: str = "", node: str = "", task_id: str = "") -> None:
        super().__init__(id, size, reason, node, task_id)
        self.id, self.size, self.reason, self.node, self.task_id = id, size, reason, node, task_id

    def of_task(self, task_id: str) -> ObjectLost:
        """The same, as the reason why the task of this `task_id` did not run."""
        return ObjectLost(self.id, self.size, self.reason, self.node, task_id)

    def __str__(self) -> str:
        what = f"object {self.id} of {self.size:,} bytes"
        if self.task_id:
            what = f"task {self.task_id} did not run: {what}, which it was to get,"
        if self.node:
            why = f"node {self.node}, which kept it, is lost" + (f" ({self.reason})" if self.reason else "")
            return f"{what} is gone: {why}; make it again, as sessions with lineage=True do with results"
        why = self.reason or "it was freed, or its session was closed"
        return f"{what} is gone: {why}; keep its reference, or make it again"


class StaleVersion(FlameError):
    """An object was to be updated from a version that is not the newest any more; nothing was changed.

    Fields: `id`, of the object; `expected`, the version that was to be the newest; `newest`, that is.
    """

    def __init__(self, id: str, expected: int, newest: int) -> None:
        super().__init__(id, expected, newest)
        self.id, self.expected, self.newest = id, expected, newest

    def __str__(self) -> str:
        return (
            f"object {self.id[:12]} was not updated: its newest version is {self.newest}, not "
            f"{self.expected}; read it again, and update what you find"
        )
