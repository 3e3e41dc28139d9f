"""The zygote: a clean process that forks executors, reaps them and reports how they ended.

It has one thread and never a ZeroMQ context, so that a fork is safe and takes
milliseconds; what executors need is imported before.  Its worker is at the
other end of `channel` (AF_UNIX, SOCK_SEQPACKET: one message per packet, and an
end that can be seen).  When the channel closes, the zygote ends, and all below it.

Only a parent can tell how its child ended, so the reports come from here; the
pidfd that goes with `Forked` lets the worker kill, and see an end if we die.

An executor is handed fresh random seeds, an empty `__main__`, no descriptor but
its page and its outputs, and a session of its own; what its task leaves in its
process group is killed when it ends.
"""

from __future__ import annotations

import array
import atexit
import faulthandler
import gc
import os
import select
import signal
import socket
import sys
import types
from collections.abc import Callable
from time import monotonic
from typing import Any, NoReturn

import msgspec

from flamezmq import capacity, processes
from flamezmq.executor_config import ExecutorConfig

ExecutorMain = Callable[[ExecutorConfig], None]

#: What an executor's own exit handlers may take.
FAREWELL_SECONDS = 2.0
#: What is added to an executor's claim to be killed when memory runs out, in thousandths of all memory.
OOM_SCORE = 500
_PACKET = 1 << 16


class Fork(msgspec.Struct, tag=1, array_like=True):
    """Worker -> zygote: fork executor `number`.  With it: page, stdout, stderr."""

    number: int
    address: str
    node: str
    token: str
    cores: float


class Stop(msgspec.Struct, tag=2, array_like=True):
    """Worker -> zygote: SIGTERM to all, SIGKILL after `grace` seconds, then end."""

    grace: float


class Forked(msgspec.Struct, tag=3, array_like=True):
    """Zygote -> worker: it is there.  With it: its pidfd."""

    number: int
    pid: int


class Exited(msgspec.Struct, tag=4, array_like=True):
    """Zygote -> worker: it ended; nothing of its process group is left.

    signal is a name such as "SIGKILL", or "" if it exited by itself.  pid is 0
    if there was no fork (its stderr says why).
    """

    number: int
    pid: int
    signal: str
    exit_code: int
    oom: bool
    rss_bytes: int


_encode = msgspec.msgpack.encode
_requests = msgspec.msgpack.Decoder(Fork | Stop)
_reports = msgspec.msgpack.Decoder(Forked | Exited)


def channel() -> tuple[socket.socket, socket.socket]:
    """(the worker's end, the zygote's end)."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(end: socket.socket, message: Fork | Stop | Forked | Exited, fds: list[int] | None = None) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    end.sendmsg([_encode(message)], rights)


def receive_report(end: socket.socket) -> tuple[Forked | Exited, list[int]] | None:
    """The next report and its descriptors, or None if the zygote is gone."""
    data, fds = _receive(end)
    return (_reports.decode(data), fds) if data else None


def _receive(end: socket.socket) -> tuple[bytes, list[int]]:
    try:
        data, fds, _, _ = socket.recv_fds(end, _PACKET, 3, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return b"", []
    for fd in fds:  # not all Pythons pass that flag on; no program of a task shall have our page
        os.set_inheritable(fd, False)
    return data, fds


class Child(msgspec.Struct, eq=False):
    number: int
    pid: int
    pidfd: int


class Zygote:
    """The loop: wait for a request or an end, deal with it."""

    def __init__(self, end: socket.socket, executor_main: ExecutorMain) -> None:
        self.end, self.executor_main = end, executor_main
        self.children: dict[int, Child] = {}  # by pidfd
        self.poll = select.poll()
        self.poll.register(end.fileno(), select.POLLIN)
        self.deserted = False  # the worker is gone
        self.kill_at: float | None = None  # we are to stop, and what is left then gets SIGKILL
        self.oom_kills = capacity.oom_kills()

    def serve(self) -> None:
        """Run until told to stop, or until the worker is gone.  `poll` is the only place that blocks."""
        while self.children or (self.kill_at is None and not self.deserted):
            for fd, _ in self.poll.poll(self._timeout_ms()):
                if fd == self.end.fileno():
                    self._on_request()
                else:
                    self._on_end(self.children[fd])
            if self.kill_at is not None and monotonic() >= self.kill_at:
                self._signal_all(signal.SIGKILL)

    def _timeout_ms(self) -> float | None:
        if self.kill_at is None:
            return None
        return max(10.0, (self.kill_at - monotonic()) * 1000)

    def _on_request(self) -> None:
        data, fds = _receive(self.end)
        if not data:
            self.deserted = True
            self.poll.unregister(self.end.fileno())
            self._stop(0.0)
            return
        request = _requests.decode(data)
        if isinstance(request, Stop):
            self._stop(request.grace)
        else:
            self._fork(request, fds)

    def _stop(self, grace: float) -> None:
        self._signal_all(signal.SIGTERM if grace else signal.SIGKILL)
        self.kill_at = monotonic() + grace

    def _signal_all(self, number: int) -> None:
        for child in self.children.values():
            processes.kill(child.pid, number)  # not reaped yet, so the pid is still its own

    def _fork(self, request: Fork, fds: list[int]) -> None:
        page, out, err = fds
        executor_main = self.executor_main  # the child must not hold on to `self`, and so to our channel
        try:
            pid = processes.fork_child(
                f"flm-exec-{request.number}",
                fds,
                lambda: become_executor(request, page, (out, err), executor_main),
            )
        except OSError as error:
            os.write(err, f"flamezmq: no new executor: {error}\n".encode())
            self._report(Exited(request.number, 0, "", 1, False, 0))
        else:
            pidfd = os.pidfd_open(pid)
            self.children[pidfd] = Child(request.number, pid, pidfd)
            self.poll.register(pidfd, select.POLLIN)
            self._report(Forked(request.number, pid), [pidfd])
        for fd in fds:
            os.close(fd)

    def _on_end(self, child: Child) -> None:
        processes.kill_group(child.pid)  # before it is reaped: the number can't belong to another yet
        _, status, usage = os.wait4(child.pid, 0)
        self.poll.unregister(child.pidfd)
        os.close(child.pidfd)
        del self.children[child.pidfd]
        code = os.waitstatus_to_exitcode(status)
        name = processes.signal_name(-code) if code < 0 else ""
        oom = self._ran_out_of_memory() and name == "SIGKILL"
        self._report(Exited(child.number, child.pid, name, max(code, 0), oom, usage.ru_maxrss * 1024))

    def _ran_out_of_memory(self) -> bool:
        before, self.oom_kills = self.oom_kills, capacity.oom_kills()
        return self.oom_kills > before

    def _report(self, report: Forked | Exited, fds: list[int] | None = None) -> None:
        try:
            send(self.end, report, fds)
        except OSError:
            pass  # the worker is gone; the next poll says so


# --- in the child


def become_executor(request: Fork, page: int, outputs: tuple[int, int], executor_main: ExecutorMain) -> int:
    """Turn a fresh fork into an executor and run it; returns its exit code."""
    os.setsid()
    _fresh_streams(outputs)
    processes.close_all_but([page])
    atexit._clear()  # what the launcher registered is not ours to run
    first_to_go()
    fresh_seeds()
    fresh_main()
    # A crash in C leaves its Python stack for the death certificate.
    faulthandler.enable(all_threads=False)
    gc.enable()
    try:
        executor_main(
            ExecutorConfig(request.address, request.node, request.token, request.number, page, request.cores)
        )
    finally:
        _farewell()
    return 0


def _fresh_streams(outputs: tuple[int, int]) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    for fd, place in zip((null, *outputs), (0, 1, 2), strict=True):
        os.dup2(fd, place)
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # type: ignore[misc]
    # Lines go out when they end, and no character can make `print` fail.
    settings: dict[str, Any] = {
        "buffering": 1,
        "encoding": "utf-8",
        "errors": "backslashreplace",
        "closefd": False,
    }
    sys.stdout = sys.__stdout__ = open(1, "w", **settings)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = open(2, "w", **settings)  # type: ignore[misc]


def first_to_go() -> None:
    """When memory runs out, the kernel should rather take a task than the user's own process."""
    try:
        with open("/proc/self/oom_score_adj", "r+") as file:
            if int(file.read()) < OOM_SCORE:
                file.write(str(OOM_SCORE))
    except (OSError, ValueError):
        pass  # not every container lets us


def fresh_seeds() -> None:
    """A forked Monte Carlo must not repeat its sibling's stream."""
    import random

    random.seed()
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()


def fresh_main() -> None:
    """An empty `__main__`, as in an interactive interpreter: the launcher's is not the user's."""
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = sys.modules["builtins"]
    sys.modules["__main__"] = main
    sys.argv[:] = [""]


def _farewell() -> None:
    """Exit handlers, within a bound.  Threads that the user's tasks left are not waited for."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, FAREWELL_SECONDS)
    atexit._run_exitfuncs()


# --- how it starts


def main(end: socket.socket, executor_main: ExecutorMain | None = None) -> int:
    """Serve at `end`; returns when all executors are dead.

    The caller has made this a process of its own, with one thread.  Tests put
    their own function in the place of `flamezmq.executor.main`.
    """
    if executor_main is None:
        from flamezmq import executor

        executor_main = executor.main
    gc.disable()
    gc.freeze()  # executors share these pages; a collection would write into all of them
    Zygote(end, executor_main).serve()
    return 0


def boot() -> NoReturn:
    """In a fresh interpreter (`processes.spawn`): the argument is the worker's pid, 3 is the channel."""
    processes.run_and_exit(_boot)


def _boot() -> int:
    processes.die_with_parent(int(sys.argv[3]))
    processes.default_signals()
    processes.name_process("flm-zygote")
    processes.close_all_but([processes.FIRST_FD])
    return main(socket.socket(fileno=processes.FIRST_FD))
