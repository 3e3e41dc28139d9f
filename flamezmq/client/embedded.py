"""The private cluster of a client: started, waited for, stopped.

`spawn` returns at once, so that the client imports ZeroMQ while the launcher
starts; for the same reason this file imports nothing heavy.  The cluster dies
with this process whatever happens: the launcher holds our pidfd.

A process forked from the owner has no cluster: its `stop` does nothing.
"""

from __future__ import annotations

import errno
import os
import select
from time import monotonic

from flamezmq import processes
from flamezmq.folder import PrivateFolder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: What is read from the end of the log for an error message.
_LOG_BYTES = 4096
_LOG_LINES = 12
#: What to do about it.
_ADVICE = {
    errno.EMFILE: "; raise this shell's limit of open files (ulimit -n)",
    errno.EAGAIN: "; raise this user's limit of processes (ulimit -u)",
    errno.ENOSPC: "; make room there, or set TMPDIR to another folder",
    errno.EDQUOT: "; make room there, or set TMPDIR to another folder",
    errno.EROFS: "; set TMPDIR to a folder that can be written to",
    errno.EACCES: "; set TMPDIR to a folder that can be written to",
}
#: After the launcher had to be killed.
_KILL_SECONDS = 1.0


class Embedded:
    """A launcher, and through it a router, a worker and its executors.

    executors: how many; None for one per usable core.
    tenants: what each may have, by name, as the file of settings says.
    store: what its store may use, the fields of a `store.terms.Terms`.

    One thread at a time may call `spawn`, `wait` and `stop`.
    """

    def __init__(
        self,
        executors: int | None = None,
        tenants: dict[str, dict[str, Any]] | None = None,
        store: dict[str, Any] | None = None,
    ) -> None:
        self.executors, self.tenants, self.store = executors or 0, tenants or {}, store or {}
        self.address = ""
        self.pid = 0
        self.pidfd = -1  # readable when the launcher is dead; -1 before `spawn` and after `stop`
        self.facts: dict[str, Any] = {}  # what the launcher and the worker have told
        self._folder: PrivateFolder | None = None
        self._owner = 0
        self._control = self._status = self._log = -1
        self._told = b""

    # --- start

    def spawn(self) -> None:
        """Start it; costs a few milliseconds.  Then `wait`.  Once only.

        Raises:
            StartFailed: no folder or no process to be had.
        """
        if self._owner:
            raise RuntimeError("this cluster was started already")
        self._owner = os.getpid()
        fds: list[int] = []
        try:
            folder = self._folder = PrivateFolder.create()
            self._log = os.open(
                folder.file("cluster.log"), os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
            )
            control, self._control = os.pipe2(os.O_CLOEXEC)
            fds.append(control)
            self._status, status = os.pipe2(os.O_CLOEXEC)
            fds.append(status)
            os.set_blocking(self._control, False)
            os.set_blocking(self._status, False)
            owner = os.pidfd_open(os.getpid())
            fds.append(owner)
            self.pid = processes.spawn(
                "flamezmq.launcher:boot",
                _json(
                    {
                        "folder": folder.path,
                        "executors": self.executors,
                        "tenants": self.tenants,
                        "store": self.store,
                    }
                ),
                [owner, folder.lock, control, status],
                self._log,
                {**os.environ, processes.MARK: folder.path},
            )
            self.pidfd = os.pidfd_open(self.pid)
            folder.release()  # the launcher holds the lock now
        except OSError as error:
            self.stop()
            advice = _ADVICE.get(error.errno or 0, "")
            raise _start_failed(f"can't start a cluster: {error}{advice}") from error
        finally:
            for fd in fds:
                os.close(fd)

    def wait(self, timeout: float = 15.0) -> str:
        """The router's address, once it is bound.  Executors may still be on their way.

        Raises:
            StartFailed: it ended, or it took more than `timeout` seconds; it is stopped then.
        """
        deadline = monotonic() + timeout
        while not self.address:
            left = deadline - monotonic()
            dead = not self.alive()
            self._read_status()
            if self.address:
                break
            if dead or left <= 0:
                why = "it ended" if dead else f"it was not ready after {timeout:g} s"
                words = self.last_words()
                self.stop()
                raise _start_failed(f"the cluster did not start, {why}" + (f":\n{words}" if words else ""))
            poll = select.poll()
            for fd in (self._status, self.pidfd):
                poll.register(fd, select.POLLIN)
            poll.poll(left * 1000)
        return self.address

    def _read_status(self) -> None:
        import json

        while self._status >= 0:
            try:
                data = os.read(self._status, 4096)
            except BlockingIOError:
                break
            if not data:
                break
            self._told += data
        *lines, self._told = self._told.split(b"\n")
        for line in lines:
            self.facts.update(json.loads(line))
        self.address = self.facts.get("address", "")

    # --- what is known of it

    def alive(self) -> bool:
        """Is the launcher there?"""
        return self.pidfd >= 0 and not processes.ready(self.pidfd)

    def why_it_ended(self) -> str:
        """The launcher's own words, "" if it had none or has not ended."""
        self._read_status()
        return str(self.facts.get("ended", ""))

    def last_words(self) -> str:
        """The last lines of the log of launcher, router, worker and zygote."""
        if self._log < 0:
            return ""
        start = max(0, os.fstat(self._log).st_size - _LOG_BYTES)
        text = os.pread(self._log, _LOG_BYTES, start).decode("utf-8", "replace")
        return "\n".join(text.splitlines()[-_LOG_LINES:])

    def processes(self) -> dict[str, list[int]]:
        """Pids by role: launcher, router, worker, zygote, executors.  By a walk through /proc."""
        found: dict[str, list[int]] = {
            "launcher": [],
            "router": [],
            "worker": [],
            "zygote": [],
            "executors": [],
        }
        if not self.alive():
            return found
        table = processes.process_table()
        below = {"launcher": [], "worker": "zygote", "zygote": "executors"}
        found["launcher"].append(self.pid)
        for parents in below:
            for pid, (parent, name, state) in sorted(table.items()):
                if parent in found[parents] and state not in "ZX":
                    role = below[parents] or {"flm-router": "router", "flm-worker": "worker"}.get(name)
                    if role:
                        found[str(role)].append(pid)
        return found

    # --- end

    def stop(self, timeout: float = 2.0) -> None:
        """End the cluster and all that its tasks have started.  Idempotent; bounded.

        What does not end in order within `timeout` seconds is killed.
        """
        if self._owner != os.getpid():
            return
        if self.pidfd >= 0:
            self._ask_to_stop()
            if not processes.ready(self.pidfd, timeout):
                self._kill()
            orderly = self._reap()
            if self._folder is not None and not orderly:
                processes.kill_marked(self._folder.path)
        if self._folder is not None:
            self._folder.remove()
        for name in ("pidfd", "_control", "_status", "_log"):
            fd = getattr(self, name)
            setattr(self, name, -1)
            if fd >= 0:
                os.close(fd)

    def _ask_to_stop(self) -> None:
        try:
            os.write(self._control, b"stop\n")
        except OSError:
            pass  # it is dead, or was asked already

    def _kill(self) -> None:
        """The launcher does not answer: kill it, and all below it before they lose their parent."""
        for pid in [self.pid, *processes.descendants(self.pid)]:
            processes.kill(pid)
        processes.ready(self.pidfd, _KILL_SECONDS)

    def _reap(self) -> bool:
        """Did it end in order?"""
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            return False  # the user's program has waited for it
        return bool(pid) and status == 0


def _json(value: dict[str, Any]) -> str:
    import json

    return json.dumps(value)


def _start_failed(text: str) -> Exception:
    from flamezmq.errors import StartFailed

    return StartFailed(text)
