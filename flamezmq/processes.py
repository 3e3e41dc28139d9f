"""Processes: the system calls that keep us from leaving anything behind.

Rules: a child dies with its parent (`fork_child`: PR_SET_PDEATHSIG fires when
the forking *thread* ends, so only a process's main thread forks here); an owner
that is no parent is watched by pidfd; what escapes both is found by walking the
process table (the launcher adopts it, being a subreaper) or by the cluster's
mark in its environment.

The client imports this before it starts its cluster, so nothing heavy is
imported at the top: no typing, no ctypes, no socket.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import sys
from time import monotonic, sleep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from typing import NoReturn

_SIGKILL, _SIGSTOP = 9, 19
_SETTABLE = [number for number in range(1, 32) if number not in (_SIGKILL, _SIGSTOP)]
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36

#: The environment variable that names the cluster's folder to all that it starts.
MARK = "FLAMEZMQ_FOLDER"
#: A worker needs four for each executor, the router one.
_MOST_FILES = 1 << 14
#: The first descriptor of those that `spawn` hands over.
FIRST_FD = 3

#: argv: folder of the package, "module:function", what the function is for.  The package is
#: loaded from its own place whatever else is installed; its folder comes last on the path, so
#: that nothing in it hides the standard library.
_BOOT = """\
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
root, entry = sys.argv[1:3]
spec = PathFinder.find_spec("flamezmq", [root])
package = sys.modules["flamezmq"] = module_from_spec(spec)
spec.loader.exec_module(package)
if root not in sys.path:
    sys.path.append(root)
module, function = entry.split(":")
__import__(module)
getattr(sys.modules[module], function)()
"""


# --- one process and its parent


def _prctl(option: int, value: int) -> None:
    import ctypes

    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def die_with_parent(parent: int) -> None:
    """Be killed when the parent's main thread ends; ends at once if `parent` is gone already."""
    _prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def become_subreaper() -> None:
    """Orphans among the descendants become children of this process, not of init."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def name_process(name: str) -> None:
    """The name in ps and top; the kernel keeps 15 bytes."""
    try:
        with open("/proc/self/comm", "w") as comm:
            comm.write(name)
    except OSError:
        pass  # a name is a courtesy


def close_all_but(keep: Collection[int]) -> None:
    """Close every descriptor from 3 up that is not in `keep`."""
    for entry in os.listdir("/proc/self/fd"):
        fd = int(entry)
        if fd >= FIRST_FD and fd not in keep:
            try:
                os.close(fd)
            except OSError:
                pass  # the one that listed them


def lift_descriptor_limit() -> None:
    """Let this process open as many descriptors as it may: the usual 1,024 suits a shell."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        pass  # macOS calls it unlimited, and then takes less


def default_signals() -> None:
    """Undo what a parent set up; Ctrl-C belongs to the client, so SIGINT is ignored."""
    import signal

    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Reborn(BaseException):
    """Takes the child of a fork up to `run_and_exit`, away from its parent's stack."""

    def __init__(self, body: Callable[[], int | None]) -> None:
        self.body = body


def fork_child(name: str, keep: Collection[int], body: Callable[[], int | None]) -> int:
    """Fork; the child runs `body` and exits with what it returns.  Returns the child's pid.

    The child dies with this process and inherits 0, 1, 2 and `keep`, nothing else.
    Call it from the main thread of a process that has no other and no ZeroMQ
    context, somewhere below `run_and_exit`: the child's stack begins there (so
    what a task prints of its stack is its own, and what the parent's frames
    held is closed before a descriptor gets another meaning).  No `finally` and
    no `except BaseException` may stand between the two.
    """
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        raise _Reborn(lambda: _as_child(name, parent, keep, body))
    return pid


def _as_child(name: str, parent: int, keep: Collection[int], body: Callable[[], int | None]) -> int | None:
    die_with_parent(parent)
    default_signals()
    name_process(name)
    close_all_but(keep)
    return body()


def run_and_exit(body: Callable[[], int | None]) -> NoReturn:
    """Run `body` and end the process with its answer; children that it forks run here, too."""
    code = 1
    while True:
        try:
            code = body() or 0
        except _Reborn as child:
            body = child.body
            continue  # the parent's frames go here, with the traceback
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            import traceback

            traceback.print_exc()
        leave(code)


def leave(code: int) -> NoReturn:
    """End without the interpreter's own exit: it would join threads and run our parent's handlers."""
    try:
        flush()
    finally:
        os._exit(code & 0xFF)


def flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # closed, or nobody reads it any more


def spawn(
    entry: str,
    argument: str,
    fds: Sequence[int],
    output: int = 2,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Start a clean interpreter that calls `entry` ("module:function"); return its pid.

    It has a session of its own (Ctrl-C in the terminal does not reach it), /dev/null for
    stdin, `output` for stdout and stderr, and `fds` as descriptors 3, 4, ... in that order.
    `argument` is its sys.argv[3].
    """
    if not sys.executable:
        raise OSError(errno.ENOENT, "this Python does not know its own executable (sys.executable is empty)")
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    command = [sys.executable, "-P", "-c", _BOOT, root, entry, argument]
    moved: list[int] = []
    try:
        for fd in (output, *fds):
            moved.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_FD + len(fds)))  # noqa: PERF401
        actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, moved[0], 1),
            (os.POSIX_SPAWN_DUP2, moved[0], 2),
        ]
        actions += [(os.POSIX_SPAWN_DUP2, fd, FIRST_FD + i) for i, fd in enumerate(moved[1:])]
        return os.posix_spawn(
            sys.executable,
            command,
            os.environ if environment is None else environment,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=_SETTABLE,  # the user's process may ignore SIGCHLD or SIGTERM
        )
    finally:
        for fd in moved:
            os.close(fd)


def more_files() -> None:
    """Allow this process, and what it starts, more open files than the 1,024 of most shells, if it may."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def current_folder() -> str:
    """Where this process stands; "/" if that was deleted."""
    try:
        return os.getcwd()
    except OSError:
        return "/"


# --- other processes


class OwnerWatch:
    """Is the owner, which is not our parent, still there?  `fd` is readable once it is gone.

    A pidfd that the owner opened itself and handed down can't name a wrong process,
    even if the owner was dead before we began.
    """

    def __init__(self, pidfd: int) -> None:
        self.fd = pidfd

    def gone(self) -> bool:
        return ready(self.fd)

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def ready(fd: int, seconds: float | None = 0.0) -> bool:
    """Is this readable (a pidfd: has the process ended) within so many seconds?  None waits for ever."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if seconds is None else max(0.0, seconds) * 1000))


def kill(pid: int, number: int = _SIGKILL) -> bool:
    """Send a signal; False if there is nobody to get it."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def signal_name(number: int) -> str:
    """Such as "SIGKILL"."""
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"  # a real-time one


def kill_group(group: int, number: int = _SIGKILL) -> None:
    """Kill what is left of a process group, or send it another signal."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        pass  # all gone, or none of them ours any more


def process_table() -> dict[int, tuple[int, str, str]]:
    """pid -> (parent's pid, name, state letter) of all processes that we can see."""
    table = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as file:
                    text = file.read().decode("utf-8", "replace")
            except OSError:
                continue  # it has just ended
            name, _, rest = text.partition("(")[2].rpartition(")")
            state, parent = rest.split(None, 2)[:2]
            table[int(entry)] = (int(parent), name, state)
    return table


def descendants(pid: int, spare: Collection[int] = ()) -> list[int]:
    """Living descendants of `pid`, without those in `spare` and what is below them."""
    table = process_table()
    children: dict[int, list[int]] = {}
    for child, (parent, _, _) in table.items():
        children.setdefault(parent, []).append(child)
    found, todo = [], [pid]
    while todo:
        for child in children.get(todo.pop(), ()):
            if child not in spare:
                todo.append(child)
                if table[child][2] not in "ZX":
                    found.append(child)
    return found


def kill_descendants(spare: Collection[int] = (), seconds: float = 1.0) -> int:
    """Kill all below this process but `spare`, until none is left; returns how many would not go.

    Reaps nothing: their ends are for the caller's own wait.
    """
    deadline = monotonic() + seconds
    while left := descendants(os.getpid(), spare):
        if monotonic() > deadline:
            return len(left)
        for pid in left:
            kill(pid)
        sleep(0.001)  # those that they started become our children in that time
    return 0


def reap_descendants(seconds: float = 1.0) -> int:
    """Kill and reap all below this process; returns how many would not go."""
    deadline = monotonic() + seconds
    while True:
        left = kill_descendants((), deadline - monotonic())
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return left
        if monotonic() > deadline:
            return left
        sleep(0.001)


def marked(folder: str) -> list[int]:
    """What the cluster of `folder` started, and what that started, by the mark; not this process."""
    mark = f"{MARK}={folder}".encode()
    return [pid for pid in process_table() if pid != os.getpid() and _has_mark(pid, mark)]


def kill_marked(folder: str, seconds: float = 1.0) -> int:
    """Kill what the cluster of `folder` started, by its mark; returns how many it found.

    For the case that nobody is left who could adopt them (the launcher was killed).
    """
    found = set[int]()
    deadline = monotonic() + seconds
    while True:
        alive = marked(folder)
        if not alive or monotonic() > deadline:
            return len(found)
        found.update(alive)
        for pid in alive:
            kill(pid)
        sleep(0.001)


def _has_mark(pid: int, mark: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return mark in file.read().split(b"\0")  # empty for a zombie
    except OSError:
        return False
