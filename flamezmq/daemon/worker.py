"""The worker as a service: it waits for the router, works, comes back when the router was away, drains.

Between two routers it has no executors: what they held is lost with the
sessions that a router keeps in its memory.  Each time it begins anew, with a
fresh zygote, a fresh token and a fresh line.
"""

from __future__ import annotations

import hashlib
import os
import socket
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Any

from flamezmq import capacity, processes
from flamezmq.daemon.notify import Notifier
from flamezmq.daemon.signals import Signals
from flamezmq.errors import FlameError
from flamezmq.log import Log
from flamezmq.net.line import Line
from flamezmq.resources import parse_offer
from flamezmq.store.terms import terms_of
from flamezmq.worker import HOPELESS, Worker, WorkerConfig, spawn_zygote

#: A router that has not answered after so long is waited for, which is said.
SAY_SECONDS = 1.0
#: And said again, each time after so long.
SAY_AGAIN_SECONDS = 60.0
#: After a refusal, or an accident, the next try waits for so long.
AGAIN_SECONDS = 2.0
#: A router that is away for longer has lost us, and we it.
PATIENCE_SECONDS = 10.0
#: For the death of what tasks have left behind.
REAP_SECONDS = 1.0


class Service:
    """One worker's life, over all the routers that it sees."""

    def __init__(self, settings: dict[str, Any], log: Log, notifier: Notifier) -> None:
        self.log, self.notifier = log, notifier
        self.address: str = settings["router"]
        self.drain_seconds: float = settings["drain_seconds"]
        self.signals = Signals()
        self._name: socket.socket | None = None
        node = settings["node"] or self._claim_name()
        has = capacity.of_node(parse_offer(settings["resources"]) if settings["resources"] else {})
        self.config = WorkerConfig(
            self.address,
            node,
            settings["executors"] or max(1, int(has.cores)),
            has.cores,
            has.memory,
            log=log,
            devices=has.devices,
            others=has.others,
            store=terms_of(settings),
            store_address=settings["store_address"] or "",
        )

    def _claim_name(self) -> str:
        """The host's name; with a number if another worker for this router has it on this host.

        Who has it holds a socket of that name in the kernel, which goes with its process.
        """
        host = socket.gethostname() or "localhost"
        self._name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        for number in range(1, 10_000):
            name = host if number == 1 else f"{host}-{number}"
            digest = hashlib.blake2b(f"{self.address} {name}".encode(), digest_size=16).hexdigest()
            with suppress(OSError):
                self._name.bind(f"\0flamezmq-node-{digest}")
                return name
        return f"{host}-{os.getpid()}"  # no such sockets here

    def run(self) -> int:
        """Until told to stop; returns the exit code."""
        code = 0
        while not self.signals.stops and not code:
            line = self._connect()
            if line is None:
                break
            code = self._work(line)
            if code < 0:
                code = 0
                break
        self.log.info("stopped")
        return code

    # --- without a router

    def _connect(self) -> Line | None:
        """A line that is up; None if we were told to stop before there was one."""
        said = ""
        while not self.signals.stops:
            line = Line(self.address, "worker", patience_seconds=inf)
            try:
                line.open()
                if self._wait_until_up(line):
                    line.patience_seconds = PATIENCE_SECONDS
                    return line
                line.close()
            except FlameError as error:
                line.close()
                if said != str(error):
                    said = str(error)
                    self.log.warning("router-refuses", router=self.address, reason=said)
                    self.notifier.status(f"the router at {self.address} refuses: {said}")
                self._pause(AGAIN_SECONDS)
        return None

    def _wait_until_up(self, line: Line) -> bool:
        """False if we were told to stop."""
        say_at = monotonic() + SAY_SECONDS
        while not line.link.up:
            now = monotonic()
            if self.signals.stops:
                return False
            if now >= say_at:
                say_at = now + SAY_AGAIN_SECONDS
                self.log.warning("waiting-for-router", router=self.address)
                self.notifier.status(f"waiting for a router at {self.address}")
            self.notifier.alive(now)
            timeout = min(say_at, self.notifier.next_sign() or inf) - now
            line.turn(max(1, int(timeout * 1000)), [self.signals.fd])
            self._take_signals()
        return True

    def _pause(self, seconds: float) -> None:
        until = monotonic() + seconds
        while (now := monotonic()) < until and not self.signals.stops:
            self.notifier.alive(now)
            if processes.ready(self.signals.fd, min(until, self.notifier.next_sign() or inf) - now):
                self._take_signals()

    def _take_signals(self) -> None:
        if self.signals.take():
            _reap_all()

    # --- with one

    def _work(self, line: Line) -> int:
        """Serve this router: 0 to look for the next one, -1 if we are to leave, else the exit code."""
        worker = Worker(self.config, *spawn_zygote(), self.signals.fd, self._on_wake, line)
        try:
            worker.start()
            worker.turn(monotonic())  # says Register
            config = self.config
            self.log.info("registered", router=self.address, node=config.node, executors=config.executors)
            self.notifier.ready(f"node {config.node}, {config.executors} executors, router {self.address}")
            while not worker.ended():
                now = monotonic()
                self.notifier.alive(now)
                worker.turn(self.notifier.next_sign())
                if why := worker.agent.hopeless(monotonic()):
                    self.log.error("executors-die-as-they-start", reason=why)
                    return HOPELESS
            if worker.told:
                why = "a later worker has this node's name"
                self.log.warning("told-to-leave", router=self.address, reason=why)
            elif worker.why_lost and not self.signals.stops:
                self.log.warning("router-lost", router=self.address, reason=worker.why_lost)
                return 0
            return -1
        finally:
            worker.close()
            processes.reap_descendants(REAP_SECONDS)

    def _on_wake(self, worker: Worker) -> None:
        before = self.signals.stops
        if self.signals.take():
            worker.reap()
        if self.signals.stops == before:
            return
        seconds = self.drain_seconds if self.signals.stops == 1 else 0.0
        self.log.info("draining", signal=self.signals.last, seconds=seconds)
        self.notifier.stopping("running tasks may end")
        worker.drain(seconds)

    def close(self) -> None:
        self.signals.close()
        if self._name is not None:
            self._name.close()


def _reap_all() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def run(settings: dict[str, Any], log: Log, notifier: Notifier) -> int:
    """Work until told to stop; returns the exit code: 0, or 4 if no executor can live here.

    Args:
        settings: of the table "worker".
        log: for the events of the node.
        notifier: hears of each registration, of signs of life, and of the end.

    Call it in the main thread: it takes the signals, and adopts what its tasks leave behind.
    """
    processes.name_process("flm-worker")
    processes.become_subreaper()
    processes.more_files()
    service = Service(settings, log, notifier)
    capacity.limit_math_threads(service.config.cores / service.config.executors)
    try:
        return service.run()
    finally:
        service.close()
