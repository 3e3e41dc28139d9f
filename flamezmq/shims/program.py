"""Programs that an executor runs: started and ended through its warden, watched by pidfd.

`Keeper` is the executor's side of warden.py and has at most one `Program`.  A
program's stdin and stdout are pipes that the shim uses as it likes; its stderr
is read by a `Murmur`.  However a program ends, `Program.failure` says how in a
`ServiceFailed`.
"""

from __future__ import annotations

import os
import socket
from time import monotonic

from flamezmq import processes
from flamezmq.errors import NOT_STARTED, FlameError, ServiceFailed
from flamezmq.folder import PrivateFolder
from flamezmq.shims import warden
from flamezmq.shims.interrupts import unbroken
from flamezmq.shims.murmur import Murmur
from flamezmq.shims.roles import Application, Context

#: The warden is a fresh interpreter, which may take its time on a busy machine.
START_SECONDS = 30.0
#: What the warden may need beyond a program's grace.
KILL_SECONDS = 5.0
#: A program that has closed its stdout, or its connection, is probably about to end.
DYING_SECONDS = 1.0


class Program:
    """One run of an application's command.

    stdin, stdout  our ends of its pipes, or -1
    murmur         what it says on stderr
    ended          how it ended, once that is known
    """

    def __init__(
        self, keeper: Keeper, application: str, pid: int, pidfd: int, pipes: tuple[int, int], murmur: Murmur
    ) -> None:
        self.pid, self.pidfd, self.murmur = pid, pidfd, murmur
        self.stdin, self.stdout = pipes
        self.ended: warden.Ended | None = None
        self._keeper, self._application = keeper, application

    def alive(self) -> bool:
        return self.ended is None and not processes.ready(self.pidfd)

    def wait(self, seconds: float | None) -> bool:
        """Has it ended within so many seconds?  None waits for ever."""
        if self.ended is None and processes.ready(self.pidfd, seconds):
            self._keeper.reap(self)
        return self.ended is not None

    @unbroken
    def end(self, grace: float = 0.0) -> None:
        """End it and all below it: by SIGTERM, and by SIGKILL after `grace` seconds.  Closes everything."""
        self.close_stdin()
        if self.ended is None:
            self._keeper.end(self, grace)
        if self.stdout >= 0:
            os.close(self.stdout)
            self.stdout = -1
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        self.murmur.close()

    def close_stdin(self) -> None:
        fd, self.stdin = self.stdin, -1
        if fd >= 0:
            os.close(fd)

    def failure(self, what: str = "", dying: float = DYING_SECONDS) -> ServiceFailed:
        """End it; the error for a task that it has failed.

        what: what it did wrong, if it has not just died.
        dying: seconds that it gets to end by itself, so that its own exit code can be told.
        """
        died = self.wait(dying)
        self.end()
        ended = self.ended if died else None
        if ended is not None:
            what = f"{what}, and ended" if what else "has died" if ended.signal else "has ended"
        elif what:
            what += ", so it was ended"
        return ServiceFailed(
            self._application,
            what or "has closed its output",
            ended.signal if ended else "",
            ended.exit_code if ended and not ended.signal else None,
            self.murmur.last_words(),
            ended.rss_bytes if ended else 0,
        )


class Keeper:
    """Starts programs of one application, one at a time; what it started dies with this process.

    needs_folder: the warden has a private folder for sockets, which goes with it.
    """

    def __init__(self, application: Application, needs_folder: bool = False) -> None:
        self.application = application
        self._needs_folder = needs_folder
        self._folder: PrivateFolder | None = None
        self._end: socket.socket | None = None
        self._pid = 0

    @unbroken
    def start(
        self,
        ctx: Context,
        more_environment: dict[str, str],
        stdin: bool,
        stdout: bool,
        more: tuple[int, ...] = (),
    ) -> Program:
        """Run the application's command.

        Args:
            more_environment: beside the application's own, and who we are.
            ctx: its log is what the stderr goes to, at first.
            stdin, stdout: whether we have these; else the one is empty, and the other goes with stderr.
            more: descriptors that it finds as 3 and 4.

        Raises:
            ServiceFailed: there is no such program, or it can't be run.
        """
        end = self._channel()
        app = self.application
        theirs_in, stdin_fd = os.pipe() if stdin else (os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), -1)
        stderr_fd, theirs_err = os.pipe()
        stdout_fd, theirs_out = os.pipe() if stdout else (-1, os.dup(theirs_err))
        theirs = (theirs_in, theirs_out, theirs_err)
        ours = [fd for fd in (stdin_fd, stdout_fd, stderr_fd) if fd >= 0]
        order = warden.Start(
            [app.command, *app.arguments],
            {
                **app.environment,
                "FLAMEZMQ_EXECUTOR_ID": ctx.executor_id,
                "FLAMEZMQ_NODE": ctx.node,
                **more_environment,
            },
            app.working_directory or processes.current_folder(),
        )
        report: warden.Report | None = None
        try:
            warden.send(end, order, [*theirs, *more])
            report, fds = self._report(START_SECONDS)
            if not isinstance(report, warden.Started):
                raise OSError(getattr(report, "why", f"its warden has answered {report}"))
        except BaseException as error:
            for fd in ours:
                os.close(fd)
            if not isinstance(report, warden.Failed):
                self.close()  # whatever it is doing, the next start has a warden of its own
            if isinstance(error, OSError) and not isinstance(error, FlameError):
                raise ServiceFailed(app.name, f"{NOT_STARTED} in {order.folder}: {error}") from error
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        for fd in (stdin_fd, stdout_fd):
            if fd >= 0:
                os.set_blocking(fd, False)
        return Program(self, app.name, report.pid, fds[0], (stdin_fd, stdout_fd), Murmur(stderr_fd, ctx.log))

    def file(self, name: str) -> str:
        """The path of this file in the private folder."""
        self._channel()
        assert self._folder is not None, "it was not asked for"
        return self._folder.file(name)

    def tree(self) -> list[int]:
        """Pids of all that runs for us, the warden among them."""
        return [self._pid, *processes.descendants(self._pid)] if self._end is not None else []

    def reap(self, program: Program) -> None:
        """Its pidfd says that it has ended: learn how."""
        self._await_end(program, KILL_SECONDS)

    def end(self, program: Program, grace: float) -> None:
        """See `Program.end`."""
        if self._end is not None:
            try:
                warden.send(self._end, warden.End(grace))
            except FlameError:
                raise  # a TaskTimeout is an OSError, too
            except OSError:
                pass  # it is gone, and its program with it; that is seen next
        self._await_end(program, grace + KILL_SECONDS)

    @unbroken
    def close(self) -> None:
        """End the warden, and with it whatever it runs."""
        end, self._end = self._end, None
        if end is None:
            return
        end.close()
        deadline = monotonic() + KILL_SECONDS
        pidfd = os.pidfd_open(self._pid)  # our child, not reaped yet
        try:
            if not processes.ready(pidfd, KILL_SECONDS):
                processes.kill(self._pid)
                processes.ready(pidfd, max(0.1, deadline - monotonic()))
        finally:
            os.close(pidfd)
        try:
            os.waitpid(self._pid, os.WNOHANG)
        except ChildProcessError:
            pass  # somebody ignores SIGCHLD here
        self._remove_folder()

    def _remove_folder(self) -> None:
        """The warden has done so, unless it was killed."""
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.remove()

    def _await_end(self, program: Program, seconds: float) -> None:
        try:
            report, _ = self._report(seconds)
            assert isinstance(report, warden.Ended), report
            program.ended = report
        except FlameError:
            raise  # as above
        except OSError:  # the warden was killed, or can't end it
            self.close()
            program.ended = warden.Ended("SIGKILL", 0, 0)

    def _channel(self) -> socket.socket:
        if self._end is not None and processes.ready(self._end.fileno()):
            self.close()  # it has died while it had nothing to do
        if self._end is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            me = os.pidfd_open(os.getpid())
            fds, path = [theirs.fileno(), me], ""
            try:
                if self._needs_folder:
                    self._folder = PrivateFolder.create()
                    fds.append(self._folder.lock)
                    path = self._folder.path
                self._pid = processes.spawn("flamezmq.shims.warden:boot", path, fds)
            except BaseException:
                ours.close()
                self._remove_folder()
                raise
            finally:
                theirs.close()
                os.close(me)
            self._end = ours
        return self._end

    def _report(self, seconds: float) -> tuple[warden.Report, list[int]]:
        """Raises OSError if none comes in time, or if the warden is gone."""
        if self._end is None:
            raise ConnectionError("its warden is gone")
        if not processes.ready(self._end.fileno(), seconds):
            raise TimeoutError(f"its warden has not answered for {seconds:g} s; the machine is overloaded")
        found = warden.receive_report(self._end)
        if found is None:
            raise ConnectionError("its warden was killed")
        return found
