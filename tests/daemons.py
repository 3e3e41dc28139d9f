"""Daemons for tests: started as a user would, followed by their log lines, ended for certain."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.waiting import until

ROOT = Path(__file__).resolve().parent.parent
#: Generous: the machine may be busy.
LIMIT_SECONDS = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLAMEZMQ_")}
    kept |= {name: value for name, value in os.environ.items() if name.startswith("FLAMEZMQ_TEST")}
    return {**kept, "PYTHONPATH": str(ROOT), "FLAMEZMQ_CONFIG": "", **changes}


def call(
    command: Sequence[str], *words: str, given: str = "", **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with this on its stdin."""
    return subprocess.run(
        [*command, *words],
        input=given,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        env=environment(**changes),
        check=False,
    )


class Daemon:
    """A process that writes its log, as JSON, into a file."""

    def __init__(
        self, log: Path, command: str, *words: str, before: Sequence[str] = (), **changes: str
    ) -> None:
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [*before, sys.executable, "-P", "-m", f"flamezmq.cli.{command}", *words],
                stdin=subprocess.DEVNULL,
                stderr=out,
                env=environment(**changes),
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def lines(self) -> list[dict[str, Any]]:
        found = []
        for line in self.log.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):  # half a line, or what Python says when it fails
                found.append(json.loads(line))
        return found

    def seen(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines() if line["event"] == event]

    def wait_for(self, event: str, times: int = 1, seconds: float = LIMIT_SECONDS) -> dict[str, Any]:
        """The `times`-th line of this event."""

        def come() -> bool:
            assert self.process.poll() is None or len(self.seen(event)) >= times, self.log.read_text()
            return len(self.seen(event)) >= times

        until(come, f"{event} in {self.log.read_text()}", seconds)
        return self.seen(event)[times - 1]

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = LIMIT_SECONDS) -> int:
        return self.process.wait(seconds)

    def stop(self) -> int:
        """In order: SIGTERM, and its exit code."""
        self.signal()
        return self.wait()


class Daemons:
    """Those of one test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.all: list[Daemon] = []

    def start(self, command: str, *words: str, before: Sequence[str] = (), **changes: str) -> Daemon:
        log = self.folder / f"{command}-{len(self.all)}.log"
        daemon = Daemon(log, command, *words, before=before, **changes)
        self.all.append(daemon)
        return daemon

    def router(self, address: str, *words: str, **changes: Any) -> Daemon:
        """A router that listens."""
        daemon = self.start("router", "--bind", address, *words, **changes)
        daemon.wait_for("listening")
        return daemon

    def worker(self, address: str, *words: str, executors: int = 1, **changes: Any) -> Daemon:
        """A worker that is on its way."""
        return self.start("worker", "--router", address, "--executors", str(executors), *words, **changes)

    def close(self) -> None:
        for daemon in self.all:
            if daemon.process.poll() is None:
                daemon.process.kill()
            daemon.process.wait(LIMIT_SECONDS)


@contextlib.contextmanager
def daemons_in(folder: Path) -> Iterator[Daemons]:
    daemons = Daemons(folder)
    try:
        yield daemons
    finally:
        daemons.close()
