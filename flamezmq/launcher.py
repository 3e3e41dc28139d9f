"""The launcher: a slim process that starts a router and a worker, and ends all when their owner ends.

It imports what they need and forks them: the router as soon as it can be, the
worker while the router binds.  It has one thread, no ZeroMQ context, and blocks
in one place.  The client holds the other ends of two pipes: `status` (JSON
lines, ours) and `control` (its word "stop", or its end).

- The owner is watched by the pidfd that it opened itself and handed down.
- The router's death ends everything; the worker's death makes a new worker.
- It is a subreaper: at the end it kills and reaps whatever is left below it,
  also what tasks started and hid in sessions of their own.
- If it is killed itself, router and worker die with it, and what they had.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
from time import monotonic
from typing import Any, NoReturn

import msgspec

from flamezmq import processes
from flamezmq.core.backoff import YOUNG_SECONDS, Backoff
from flamezmq.folder import PrivateFolder, sweep
from flamezmq.store.terms import Terms

#: The descriptors that `Embedded` hands over, in this order.
OWNER_FD, LOCK_FD, CONTROL_FD, STATUS_FD = range(processes.FIRST_FD, processes.FIRST_FD + 4)
#: The worker's time to end its executors, when all ends.
WORKER_SECONDS = 1.0
#: The router's time to end.
ROUTER_SECONDS = 0.3
#: For the death of all that is left.
REAP_SECONDS = 1.0
#: The reason for an end that is no accident.
ASKED = "its owner asked for it"


class LauncherConfig(msgspec.Struct, frozen=True):
    """folder: the cluster's, made and locked by the owner.  executors: 0 for one per usable core.

    store: what the worker's store may use.
    """

    folder: str
    executors: int
    tenants: dict[str, dict[str, Any]] = {}
    store: Terms = Terms()

    @property
    def address(self) -> str:
        return f"ipc://{self.folder}/router"


class Launcher:
    """What runs, and why it ends."""

    def __init__(self, config: LauncherConfig) -> None:
        self.config = config
        self.folder = PrivateFolder(config.folder, LOCK_FD)
        self.owner = processes.OwnerWatch(OWNER_FD)
        self.router = self.worker = 0  # their pids, 0 if there is none
        self.reason = ""  # why all is to end
        self.worker_due: float | None = None  # when there will be another one
        self._worker_born = 0.0
        self._backoff = Backoff()
        self._wake_fd, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._bound_fd, self._bound = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(STATUS_FD, False)  # who does not read it misses it
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self.end("the launcher got SIGTERM"))
        signal.signal(signal.SIGHUP, lambda *_: self.end("the launcher got SIGHUP"))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C belongs to the client

    def end(self, reason: str) -> None:
        self.reason = self.reason or reason

    def tell(self, facts: dict[str, Any]) -> None:
        """One line for the client; also called in the worker."""
        try:
            os.write(STATUS_FD, msgspec.json.encode(facts) + b"\n")
        except OSError:
            pass  # nobody reads, or nobody is there

    # --- what it starts

    def start_router(self) -> None:
        from flamezmq import router
        from flamezmq.core.members import Tenant

        def on_bound() -> None:
            os.write(self._bound, b"+")

        def body() -> None:
            tenants = {name: Tenant(**terms) for name, terms in self.config.tenants.items()}
            router.main(self.config.address, on_bound, tenants)

        self.router = processes.fork_child("flm-router", [self._bound], body)

    def start_worker(self) -> None:
        from flamezmq import capacity, executor, worker

        assert executor  # loaded here, it is there in every zygote that is forked below
        has = capacity.of_node({})
        config = worker.WorkerConfig(
            self.config.address,
            socket.gethostname(),
            self.config.executors or max(1, int(has.cores)),
            has.cores,
            has.memory,
            self.tell,
            devices=has.devices,
            store=self.config.store,
        )
        self.worker = processes.fork_child("flm-worker", [STATUS_FD], lambda: worker.main(config))
        self.worker_due = None
        self._worker_born = monotonic()

    # --- the loop

    def run(self) -> None:
        """Watch, until there is a reason to end.  `poll` is the only place that blocks."""
        poll = select.poll()
        for fd in (self._wake_fd, self._bound_fd, OWNER_FD, CONTROL_FD):
            poll.register(fd, select.POLLIN)
        while not self.reason:
            for fd, _ in poll.poll(self._timeout_ms()):
                if fd == OWNER_FD:
                    self.end("its owner is gone")
                elif fd == CONTROL_FD:
                    self.end(ASKED)
                elif fd == self._wake_fd:
                    os.read(fd, 512)
                    self._reap()
                else:
                    poll.unregister(fd)
                    self._on_bound()
            if self.worker_due is not None and monotonic() >= self.worker_due and not self.reason:
                self.start_worker()

    def _timeout_ms(self) -> float | None:
        return None if self.worker_due is None else max(0.0, self.worker_due - monotonic()) * 1000 + 1

    def _on_bound(self) -> None:
        if os.read(self._bound_fd, 1):  # else the router has died
            facts = {"address": self.config.address, "router": self.router, "worker": self.worker}
            self.tell({**facts, "bound_at": monotonic()})
            sweep()

    def _reap(self) -> None:
        """Take in what has ended: ours, and the orphans that became ours."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid == self.router:
                self.router = 0
                self.end(f"the router {how_it_ended(status)}")
            elif pid == self.worker:
                self.worker = 0
                self._on_worker_end(status)

    def _on_worker_end(self, status: int) -> None:
        """Zygote and executors die with it; what tasks had started is killed here.  Then the next."""
        from flamezmq import worker

        if self.reason:
            return
        code, words = os.waitstatus_to_exitcode(status), last_line(1)
        print(f"launcher: the worker {how_it_ended(status)}", flush=True)
        processes.kill_descendants([self.router])
        if code:  # else it was told to go
            now = monotonic()
            self._backoff.died(now - self._worker_born < YOUNG_SECONDS, self._worker_born, now)
            self.worker_due = max(now, self._backoff.until)
        if code == worker.HOPELESS:
            self.end(f"no executor can start: {words}")
        elif self._backoff.hopeless:
            self.end(f"the worker died {self._backoff.young} times in a row as it started: {words}")

    # --- the end

    def finish(self) -> int:
        """End all that is left, in bounded time; returns the exit code."""
        print(f"launcher: the cluster ends: {self.reason}", flush=True)
        self._end_child("worker", WORKER_SECONDS)
        self._end_child("router", ROUTER_SECONDS)
        left = processes.reap_descendants(REAP_SECONDS)
        self.tell({"ended": self.reason})
        self.folder.remove()
        return 0 if self.reason == ASKED and not left else 1

    def _end_child(self, name: str, seconds: float) -> None:
        pid: int = getattr(self, name)
        deadline = monotonic() + seconds
        if pid:
            processes.kill(pid, signal.SIGTERM)
        while getattr(self, name) and monotonic() < deadline:
            if processes.ready(self._wake_fd, deadline - monotonic()):
                os.read(self._wake_fd, 512)
            self._reap()


def last_line(log: int) -> str:
    """Of a file; "" if it is none."""
    try:
        size = os.fstat(log).st_size
        text = os.pread(log, 4096, max(0, size - 4096)).decode("utf-8", "replace")
    except OSError:
        return ""
    return (text.strip().splitlines() or [""])[-1]


def how_it_ended(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"exited with code {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"


def main(config: LauncherConfig) -> int:
    processes.name_process("flm-launcher")
    processes.become_subreaper()
    processes.more_files()
    launcher = Launcher(config)
    gc.disable()  # imports make no garbage, only objects
    launcher.start_router()
    gc.freeze()
    launcher.start_worker()
    gc.enable()
    launcher.run()
    return launcher.finish()


def boot() -> NoReturn:
    """In a fresh interpreter (`processes.spawn`): the argument is the configuration, as JSON."""
    processes.close_all_but([OWNER_FD, LOCK_FD, CONTROL_FD, STATUS_FD])
    processes.run_and_exit(lambda: main(msgspec.json.decode(sys.argv[3], type=LauncherConfig)))
