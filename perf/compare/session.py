"""The runner's side of one peer: start its host, ask it, and end all that it has started.

Every request has a bound.  When the session ends, whatever the host and its
descendants have left is killed by pid, and its private folder is removed.  The
calling process should adopt orphans (`perf.isolate.adopt_orphans`), or a daemon
that a peer starts is not seen.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Self

from perf.measure import Pids, Sample, descendants, rss_bytes, sample

ROOT = Path(__file__).parents[2]
CLOSE_SECONDS = 8.0
#: How long processes that were killed may take to be gone.
GONE_SECONDS = 5.0
#: And their resource trackers, to end by themselves.
TIDY_SECONDS = 2.0


class PeerFailed(Exception):
    """A peer raised, died, or did not answer in time: the text goes into its cell."""


class Session:
    """`module` is imported by `python`: a peer's file, by its full name."""

    def __init__(self, module: str, python: Path) -> None:
        self._others = set(descendants(os.getpid()))
        self._folder = Path(tempfile.mkdtemp(prefix="flmp-", dir="/tmp"))  # short: sockets go in here
        self._complaints = self._folder / "stderr"
        with self._complaints.open("wb") as complaints:
            self._process = subprocess.Popen(
                [str(python), "-m", "perf.compare.host", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                cwd=self._folder,
                env=environment(python, self._folder),
                start_new_session=True,  # Ctrl-C is for us; we end it
            )
        self._unread = b""
        self._hung = False
        self._shared: set[Path] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end(gently=error is None)

    def ask(self, do: str, limit: float, **arguments: object) -> dict[str, Any]:
        """One request; the answer.

        Raises:
            PeerFailed: the peer says so, has died, or needs more than `limit` seconds.
        """
        assert self._process.stdin is not None
        self._shared |= shared_files(self._started())
        try:
            self._process.stdin.write(json.dumps({"do": do} | arguments).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise PeerFailed(self._how_it_died()) from None
        said = json.loads(self._line(monotonic() + limit, limit))
        if "error" in said:
            raise PeerFailed(said["error"])
        answer: dict[str, Any] = said["ok"]
        return answer

    def measured(self, do: str, limit: float, **arguments: object) -> tuple[dict[str, Any], Sample]:
        """As `ask`, and what it cost all processes."""
        answers: list[dict[str, Any]] = []
        cost = sample(self.pids(), lambda: answers.append(self.ask(do, limit, **arguments)))
        return answers[0], cost

    def pids(self) -> Pids:
        """The program, and all that it has started."""
        return {"program": [self._process.pid], "others": self._started()[1:]}

    def memory(self) -> int:
        """Resident bytes of all processes."""
        return rss_bytes(self._started())

    def end(self, gently: bool) -> None:
        """`gently`: as the engine's users do, if that works.  Once is enough."""
        try:
            if gently and not self._hung and self._process.poll() is None:
                try:
                    self.ask("close", CLOSE_SECONDS)
                except PeerFailed:
                    pass
        finally:
            self._kill_all()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _started(self) -> list[int]:
        """The host first, if it lives."""
        found = [pid for pid in descendants(os.getpid()) if pid not in self._others]
        return sorted(found, key=lambda pid: pid != self._process.pid)

    def _kill_all(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        started = self._started()
        self._shared |= shared_files(started)
        started += self._kill(lambda: [pid for pid in self._started() if not is_tracker(pid)])
        deadline = monotonic() + TIDY_SECONDS
        while self._started() and monotonic() < deadline:
            sleep(0.02)  # trackers remove what the dead have left, and end
        started += self._kill(self._started)
        self._process.wait(GONE_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                pipe.close()
            except BrokenPipeError:
                pass
        _reap(started)
        for path in self._shared:
            path.unlink(missing_ok=True)

    @staticmethod
    def _kill(living: Callable[[], list[int]]) -> list[int]:
        """Until there are none; who they were."""
        killed: list[int] = []
        deadline = monotonic() + GONE_SECONDS
        while (pids := living()) and monotonic() < deadline:
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            killed += pids
            sleep(0.02)
        return killed

    def _line(self, deadline: float, limit: float) -> bytes:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        while b"\n" not in self._unread:
            if monotonic() > deadline:
                self._hung = True
                raise PeerFailed(f"hung: no answer in {limit:.0f} s")
            # In short steps: what a dead host has forked may keep its end of the pipe open.
            if select.select([pipe], [], [], 0.2)[0]:
                some = os.read(pipe, 1 << 16)
                if not some:
                    raise PeerFailed(self._how_it_died())
                self._unread += some
            elif self._process.poll() is not None:
                raise PeerFailed(self._how_it_died())
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _how_it_died(self) -> str:
        try:
            code: object = self._process.wait(GONE_SECONDS)
        except subprocess.TimeoutExpired:
            code = "none"
        lines = self._complaints.read_text(errors="replace").strip().splitlines()
        return f"its program died with code {code}: {lines[-1].strip() if lines else 'no word'}"


def environment(python: Path, folder: Path) -> Mapping[str, str]:
    """That of a program of `python`, whose files of all kinds go into `folder`."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    private = ("TMPDIR", "RAY_TMPDIR", "JOBLIB_TEMP_FOLDER", "IPYTHONDIR", "XDG_RUNTIME_DIR")
    return (
        kept
        | dict.fromkeys(private, str(folder))
        | {
            "PATH": f"{python.parent}{os.pathsep}{kept.get('PATH', os.defpath)}",
            "PYTHONPATH": str(ROOT),
            "VIRTUAL_ENV": str(python.parent.parent),
            "RAY_USAGE_STATS_ENABLED": "0",
            "DO_NOT_TRACK": "1",
        }
    )


def _reap(pids: Iterable[int]) -> None:
    """Those that became ours."""
    for pid in dict.fromkeys(pids):
        try:
            os.waitpid(pid, 0 if pid in descendants(os.getpid()) else os.WNOHANG)
        except ChildProcessError:
            pass


def is_tracker(pid: int) -> bool:
    """A process of multiprocessing or loky that outlives all others, to remove their semaphores."""
    try:
        return b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def shared_files(pids: Iterable[int]) -> set[Path]:
    """Files in /dev/shm that these map (semaphores, segments): who is killed can't remove them."""
    found: set[Path] = set()
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
        except OSError:
            continue
        names = (line.split(None, 5)[5] for line in lines if " /dev/shm/" in line)
        found.update(Path(name) for name in names if not name.endswith("(deleted)"))
    return found
