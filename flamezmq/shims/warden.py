"""The warden: a small process that starts an executor's programs, and outlives the executor to end them.

An executor can be killed at any moment, and what it started must go with it:
the program, what that started in turn, what has left its process group.  A
death signal reaches none but direct children.  So programs are children of a
warden, which holds a pidfd of the executor, adopts all orphans below it, and
when the executor is gone (or has hung up) kills whatever descends from it.
Should the warden itself be killed, the program gets the death signal.

It has one thread, and one program at a time.  The executor is at the other end
of `channel` (AF_UNIX, SOCK_SEQPACKET: one message per packet).  `Keeper`, in
program.py, is that end.
"""

from __future__ import annotations

import array
import ctypes
import errno
import os
import select
import signal
import socket
import subprocess
import sys
from time import monotonic
from typing import NoReturn

import msgspec

from flamezmq import processes
from flamezmq.folder import remove_tree

#: The largest message: the arguments and the environment of a program.
PACKET = 1 << 17
#: What is left of a program is killed and waited for so long.
REAP_SECONDS = 2.0
_PR_SET_PDEATHSIG = 1


class Start(msgspec.Struct, tag=1, array_like=True):
    """Executor -> warden: start a program.  With it: its stdin, stdout, stderr, and what it finds as 3, 4...

    environment is added to the warden's own.
    """

    argv: list[str]
    environment: dict[str, str]
    folder: str


class End(msgspec.Struct, tag=2, array_like=True):
    """Executor -> warden: SIGTERM to the program's group, SIGKILL to all of it after `grace` seconds."""

    grace: float


class Started(msgspec.Struct, tag=3, array_like=True):
    """Warden -> executor: it runs.  With it: its pidfd."""

    pid: int


class Failed(msgspec.Struct, tag=4, array_like=True):
    """Warden -> executor: it could not be started, and why."""

    why: str


class Ended(msgspec.Struct, tag=5, array_like=True):
    """Warden -> executor: it ended, and nothing of it is left.

    signal is a name such as "SIGKILL", or "" if it exited by itself.
    """

    signal: str
    exit_code: int
    rss_bytes: int


Order = Start | End
Report = Started | Failed | Ended
_encode = msgspec.msgpack.encode
_orders = msgspec.msgpack.Decoder(Order)
_reports = msgspec.msgpack.Decoder(Report)


def send(end: socket.socket, message: Order | Report, fds: list[int] | None = None) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    data = _encode(message)
    if len(data) > PACKET:
        most, size = PACKET >> 10, len(data) >> 10
        words = f"the arguments and the environment of a program may take {most} KiB, not {size}"
        raise OSError(errno.EMSGSIZE, words)
    end.sendmsg([data], rights)


def receive_report(end: socket.socket) -> tuple[Report, list[int]] | None:
    """The next report and its descriptors; None if the warden is gone."""
    data, fds = _receive(end)
    return (_reports.decode(data), fds) if data else None


def _receive(end: socket.socket) -> tuple[bytes, list[int]]:
    try:
        data, fds, _, _ = socket.recv_fds(end, PACKET, 8, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return b"", []
    return data, fds


class Warden:
    """The loop: wait for an order, for the program's end or the owner's, and deal with it."""

    def __init__(self, end: socket.socket, owner: int) -> None:
        self.end, self.owner = end, owner
        self.child: subprocess.Popen[bytes] | None = None
        self.pidfd = -1
        self.kill_at: float | None = None
        self.poll = select.poll()
        self.poll.register(end, select.POLLIN)
        self.poll.register(owner, select.POLLIN)
        self.libc = ctypes.CDLL(None)  # loaded before any fork

    def serve(self) -> None:
        """Until the executor is gone; whatever happens, nothing stays."""
        try:
            while self._turn():
                pass
        finally:
            if self.child is not None:
                self._kill()
            processes.reap_descendants(REAP_SECONDS)

    def _turn(self) -> bool:
        timeout = None if self.kill_at is None else max(0.0, self.kill_at - monotonic()) * 1000
        ready = {fd for fd, _ in self.poll.poll(timeout)}
        if self.owner in ready:
            return False
        if self.pidfd in ready:
            self._on_end()
        elif self.kill_at is not None and monotonic() >= self.kill_at:
            self.kill_at = None
            self._kill()
        return self.end.fileno() not in ready or self._on_order()

    def _on_order(self) -> bool:
        data, fds = _receive(self.end)
        if not data:
            return False
        order = _orders.decode(data)
        if isinstance(order, Start):
            self._start(order, fds)
            for fd in fds:
                os.close(fd)
        elif self.child is not None:
            processes.kill_group(self.child.pid, signal.SIGTERM if order.grace else signal.SIGKILL)
            self.kill_at = monotonic() + order.grace
        return True

    def _start(self, order: Start, fds: list[int]) -> None:
        more = list(range(processes.FIRST_FD, processes.FIRST_FD + len(fds) - 3))
        parent = os.getpid()

        def before_exec() -> None:
            self.libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # which we ignore
            for fd, place in zip(fds[3:], more, strict=True):
                os.dup2(fd, place)

        try:
            child = subprocess.Popen(
                order.argv,
                stdin=fds[0],
                stdout=fds[1],
                stderr=fds[2],
                cwd=order.folder,
                env={**os.environ, **order.environment},
                start_new_session=True,
                pass_fds=more,
                preexec_fn=before_exec,  # safe: this process has one thread
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self._report(Failed(str(error)))
            return
        self.child, self.pidfd = child, os.pidfd_open(child.pid)
        self.poll.register(self.pidfd, select.POLLIN)
        self._report(Started(child.pid), [self.pidfd])

    def _kill(self) -> None:
        """All of it; that the main process has ended is seen by the next turn."""
        assert self.child is not None
        processes.kill_group(self.child.pid)
        processes.kill_descendants((), REAP_SECONDS)

    def _on_end(self) -> None:
        child, self.child = self.child, None
        assert child is not None
        processes.kill_group(child.pid)  # before it is reaped: the number can't belong to another yet
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = code = os.waitstatus_to_exitcode(status)
        self.poll.unregister(self.pidfd)
        os.close(self.pidfd)
        self.pidfd, self.kill_at = -1, None
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            processes.reap_descendants(REAP_SECONDS)  # it has left something that had a group of its own
        except ChildProcessError:
            pass  # as nearly always
        name = processes.signal_name(-code) if code < 0 else ""
        self._report(Ended(name, max(code, 0), usage.ru_maxrss * 1024))

    def _report(self, report: Report, fds: list[int] | None = None) -> None:
        try:
            send(self.end, report, fds)
        except OSError:
            pass  # the executor is gone; the next turn sees it


def boot() -> NoReturn:
    """In a fresh interpreter (`processes.spawn`): 3 is the channel, 4 a pidfd of the executor.

    The argument is a private folder, whose lock 5 is then, or "".  It goes with the warden.
    """
    processes.run_and_exit(_boot)


def _boot() -> int:
    folder = sys.argv[3]
    channel, owner, lock = range(processes.FIRST_FD, processes.FIRST_FD + 3)
    processes.default_signals()
    processes.name_process("flm-warden")
    processes.become_subreaper()
    processes.close_all_but([channel, owner, lock] if folder else [channel, owner])
    try:
        Warden(socket.socket(fileno=channel), owner).serve()
    finally:
        if folder:
            remove_tree(folder)
    return 0
