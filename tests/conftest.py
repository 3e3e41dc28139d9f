"""What all tests share: whatever a test starts ends with it, and a hang fails.

After each test (and each module, and the run) this file looks for what was not
there before it:

processes    children and theirs; and orphans, known by FLAMEZMQ_TEST_ID in their environment
threads      that are not daemons, or are ours (`flm-*`)
files        in /dev/shm, and `flamezmq-*` in the temporary and the runtime folder
descriptors  sockets and memfds of the test process

What is still there after `PATIENCE_SECONDS` fails the test, by name; leaked
processes are killed.  What a process that was there before has started is not
counted (a cluster of module scope may replace its executors).

The search costs well under a millisecond.  Only reading the environment of
all processes costs more; it is left out unless the module is about processes
(mark `processes`, or the fixtures `cluster` or `client`), or the test did
start one.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import gc
import os
import resource
import shutil
import signal
import socket
import stat
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

TEST_ID = "FLAMEZMQ_TEST_ID"
PATIENCE_SECONDS = 2.0
POLL_SECONDS = 0.02
#: For the clean-up of a failed test; pytest-timeout has stopped its clock by then.
TEARDOWN_SECONDS = 60.0
#: From the end of the run to the end of the process.
EXIT_SECONDS = 30.0
#: So many sockets at a time may stay open in the whole run: a library may open one for
#: itself on its first use (a resolver, a system log).  No such grace for memfds.
SOCKETS_FORGIVEN = 1

STDERR = 2
PROC = Path("/proc")
KERNEL_LISTS_CHILDREN = (PROC / f"self/task/{os.getpid()}/children").exists()
PROCESS_FIXTURES = {"cluster", "client"}
PROCESS_MODULES = pytest.StashKey[set[Path]]()
#: Once a test has spoken gRPC in this process, its handlers would abort what other tests fork.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


@dataclass(frozen=True)
class Leak:
    """`key` names the thing for as long as it lives; `text` is for people."""

    key: object
    text: str


@dataclass(frozen=True)
class Snapshot:
    """What was there.  `reaped` is a number that grows whenever a child has ended."""

    processes: frozenset[psutil.Process]
    threads: frozenset[threading.Thread]
    files: frozenset[Path]
    descriptors: dict[str, int]
    reaped: int


#: Keys of leaks that were reported, or found to be a stranger's.
_settled: set[object] = set()
#: Sockets that are open and forgiven.
_forgiven: set[str] = set()


# ---- the fixtures


@pytest.fixture(scope="session", autouse=True)
def run_id() -> Iterator[str]:
    """Mark all that this run starts, and give it a runtime folder of its own.

    So it neither meets nor sweeps the folders of a cluster that is running on this machine.
    """
    name = uuid.uuid4().hex
    folder = tempfile.mkdtemp(prefix="flmt-", dir="/tmp")  # short: a socket's path has 107 bytes
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TEST_ID, name)
        patch.setenv("XDG_RUNTIME_DIR", folder)
        with nothing_left("the run", deep=True):
            yield name
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def _module_leaves_nothing(request: pytest.FixtureRequest, run_id: str) -> Iterator[None]:
    deep = request.path in request.config.stash[PROCESS_MODULES]
    with nothing_left("the module", deep=deep):
        yield


@pytest.fixture(autouse=True)
def _test_leaves_nothing(request: pytest.FixtureRequest, _module_leaves_nothing: None) -> Iterator[None]:
    deep = request.path in request.config.stash[PROCESS_MODULES]
    with nothing_left("the test", deep=deep):
        yield


@contextlib.contextmanager
def nothing_left(whose: str, *, deep: bool) -> Iterator[None]:
    """Fail if the block leaves something behind; see the head of this file."""
    before = snapshot(deep)
    yield
    found = leaks_since(before, deep)
    if found:
        until = time.monotonic() + PATIENCE_SECONDS
        gc.collect()  # a cycle of the test's own is not a leak of ours
        _settled.update(strangers(found))  # they would cost all of the patience
        while (found := leaks_since(before, deep)) and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
    _settled.update(leak.key for leak in found)
    foreign = strangers(found)
    found = [leak for leak in found if leak.key not in foreign]
    if found:
        kill([leak.key for leak in found if isinstance(leak.key, psutil.Process)])
        lines = "".join(f"\n  {leak.text}" for leak in found)
        title = f"{PATIENCE_SECONDS:g} seconds after its end, {whose} has left behind:"
        pytest.fail(title + lines, pytrace=False)


# ---- what is there


def snapshot(deep: bool) -> Snapshot:
    return Snapshot(
        processes=frozenset(processes(deep).values()),
        threads=frozenset(threading.enumerate()),
        files=frozenset(files()),
        descriptors=descriptors(),
        reaped=reaped(),
    )


def leaks_since(before: Snapshot, deep: bool) -> list[Leak]:
    """What is there and was not, without what has been reported already."""
    deep = deep or has_children() or reaped() != before.reaped
    found = [
        *new_processes(processes(deep), before.processes),
        *new_threads(before.threads),
        *(Leak(path, f"file {path}") for path in files() if path not in before.files),
        *new_descriptors(before.descriptors),
    ]
    return [leak for leak in found if leak.key not in _settled]


def processes(deep: bool) -> dict[int, psutil.Process]:
    """All that descend from the test process; if `deep`, all that carry its mark too."""
    found = {p.pid: p for p in psutil.Process().children(recursive=True)} if has_children() else {}
    if deep:
        for pid in set(marked()) - found.keys() - {os.getpid()}:
            with contextlib.suppress(psutil.Error):
                found[pid] = psutil.Process(pid)
    return {pid: p for pid, p in found.items() if not is_a_helper(p)}


def has_children() -> bool:
    """A short read for each thread; True where the system does not tell."""
    if not KERNEL_LISTS_CHILDREN:
        return True
    try:
        return any(path.read_bytes().strip() for path in PROC.glob("self/task/[0-9]*/children"))
    except FileNotFoundError:  # a thread has just ended
        return True


def marked() -> Iterator[int]:
    """Processes that were started, by whomever, with our mark in their environment."""
    mark = f"{TEST_ID}={os.environ.get(TEST_ID)}".encode()
    for path in PROC.glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has ended, or is not ours to look into
            if mark in path.read_bytes().split(b"\0"):
                yield int(path.parent.name)


def is_a_helper(process: psutil.Process) -> bool:
    """The standard library's own, one per process, which ends with it."""
    with contextlib.suppress(psutil.Error):
        return any("multiprocessing.resource_tracker" in word for word in process.cmdline())
    return False


def reaped() -> int:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt


def files() -> Iterator[Path]:
    """Files of this user where flamezmq and shared memory put theirs."""
    user = os.getuid()
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folders = {Path("/tmp"), Path(tempfile.gettempdir()), *([Path(runtime)] if runtime else [])}
    for folder, prefix in [(Path("/dev/shm"), ""), *((folder, "flamezmq-") for folder in folders)]:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    mine = entry.name.startswith(prefix) and entry.stat(follow_symlinks=False).st_uid == user
                    if mine:
                        yield Path(entry.path)


def descriptors() -> dict[str, int]:
    """Open sockets and memfds of this process: what each is, with its inode -> its number."""
    found: dict[str, int] = {}
    with contextlib.suppress(OSError):
        for number in map(int, os.listdir("/proc/self/fd")):
            with contextlib.suppress(OSError):
                status = os.fstat(number)
                if stat.S_ISSOCK(status.st_mode) and not is_to_a_store(number):
                    found[f"socket {status.st_ino}"] = number
                elif (target := os.readlink(f"/proc/self/fd/{number}")).startswith("/memfd:"):
                    found[f"{target[1:].removesuffix(' (deleted)')} {status.st_ino}"] = number
    return found


def is_to_a_store(number: int) -> bool:
    """A client's connection to a store, which comes with its first large value and ends with it."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as end:
        name = end.getpeername()
        return isinstance(name, bytes) and name.startswith(b"\0flamezmq-")
    return False


# ---- what is new


def new_processes(now: dict[int, psutil.Process], before: frozenset[psutil.Process]) -> Iterator[Leak]:
    for process in now.values():
        ancestor: psutil.Process | None = process
        with contextlib.suppress(psutil.Error):  # it has just ended
            while ancestor is not None and ancestor not in before:
                ancestor = now.get(ancestor.ppid())
            if ancestor is None:
                yield Leak(process, about(process))


def about(process: psutil.Process) -> str:
    with process.oneshot():
        dead = process.status() == psutil.STATUS_ZOMBIE
        words = "ended, but nobody has waited for it" if dead else " ".join(process.cmdline())
        return f"process {process.pid} ({process.name()}, child of {process.ppid()}): {words}"


def new_threads(before: frozenset[threading.Thread]) -> Iterator[Leak]:
    for thread in threading.enumerate():
        if thread not in before and (not thread.daemon or thread.name.startswith("flm-")):
            frame = sys._current_frames().get(thread.ident or 0)
            stack = traceback.extract_stack(frame) if frame else []
            places = [f"{at.filename}:{at.lineno}" for at in stack if at.filename != threading.__file__]
            runs = getattr(thread, "_target", None) or type(thread).run
            where = places[-1] if places else "a lock"
            yield Leak(thread, f"thread {thread.name!r}, runs {runs}, at {where}")


def new_descriptors(before: dict[str, int]) -> list[Leak]:
    now = descriptors()
    new = {name: number for name, number in now.items() if name not in before and name not in _forgiven}
    sockets = [name for name in new if name.startswith("socket ")]
    _forgiven.intersection_update(now)
    if len(sockets) + len(_forgiven) <= SOCKETS_FORGIVEN:
        _forgiven.update(sockets)
        new = {name: number for name, number in new.items() if name not in _forgiven}
    if not new:
        return []
    ends = {end.fd: f"{end.family.name} {end.laddr or '-'} to {end.raddr or '-'}" for end in connections()}
    return [
        Leak(name, f"descriptor {number} ({name}) {ends.get(number, '')}".rstrip())
        for name, number in new.items()
    ]


def connections() -> list[Any]:
    with contextlib.suppress(psutil.Error, OSError):
        return psutil.Process().net_connections("all")
    return []


def strangers(found: list[Leak]) -> set[object]:
    """The keys of files that are somebody else's."""
    return {leak.key for leak in found if isinstance(leak.key, Path) and is_of_a_stranger(leak.key)}


def is_of_a_stranger(path: Path) -> bool:
    """True if a process that is not of this run holds a file: someone else is working on this machine."""
    ours = {os.getpid(), *processes(deep=True)}
    inside = (str(path), f"{path}/")
    sockets = set()
    with contextlib.suppress(OSError):
        for line in (PROC / "net/unix").read_text().splitlines():
            if inside[1] in line:
                sockets.add(f"socket:[{line.split()[6]}]")
    for pid in psutil.pids():
        if pid in ours:
            continue
        with contextlib.suppress(OSError):
            held = [os.readlink(entry) for entry in (PROC / f"{pid}/fd").iterdir()]
            if any(name == inside[0] or name.startswith(inside[1]) or name in sockets for name in held):
                return True
            if inside[0] in (PROC / f"{pid}/maps").read_text():
                return True
    return False


def kill(leaked: list[psutil.Process]) -> None:
    """So that one leak fails one test."""
    for process in leaked:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(leaked, timeout=1.0)


# ---- hooks: which modules are about processes; hangs outside of a test


def pytest_configure(config: pytest.Config) -> None:
    config.stash[PROCESS_MODULES] = set()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if item.get_closest_marker("processes") or PROCESS_FIXTURES.intersection(fixtures):
            config.stash[PROCESS_MODULES].add(item.path)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Once a test has failed, pytest-timeout's clock stands; its clean-up may hang for the same reason."""
    if signal.getitimer(signal.ITIMER_REAL)[0] or item.config.getoption("usepdb"):
        return (yield)

    def on_alarm(*_: object) -> None:
        faulthandler.dump_traceback(STDERR, all_threads=True)
        pytest.fail(f"the clean-up took more than {TEARDOWN_SECONDS:g} seconds")

    previous = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, TEARDOWN_SECONDS, TEARDOWN_SECONDS)  # each fixture may hang
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def pytest_unconfigure() -> None:
    """A leaked thread, or a ZeroMQ context that waits for its sockets, can keep Python from ending."""

    def watch() -> None:
        faulthandler.dump_traceback_later(EXIT_SECONDS, exit=True, file=STDERR)

    atexit.register(watch)
    if any(not thread.daemon and thread is not threading.main_thread() for thread in threading.enumerate()):
        watch()
