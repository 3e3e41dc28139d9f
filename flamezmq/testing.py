"""Real clusters for the tests of your own code.

    import flamezmq as flm

    cluster = flm.testing.fixture(executors=2)  # in conftest.py


    def test_my_code(cluster):
        assert cluster.submit(abs, -1).result(10) == 1

A cluster of processes starts in a quarter of a second, so nothing is faked: what
can't be pickled, what dies, and what is forgotten fails here as it does outside.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Literal

from flamezmq import processes

if TYPE_CHECKING:
    from flamezmq.client.api import Client
    from flamezmq.tenant import Tenant

__all__ = ["Leaked", "cluster", "fixture", "kill_an_executor"]

#: What is still there so long after the end of a cluster is a leak.
PATIENCE_SECONDS = 2.0
#: How long `kill_an_executor` may take.
REPLACED_SECONDS = 10.0
_POLL_SECONDS = 0.005

Scope = Literal["session", "package", "module", "class", "function"]


class Leaked(AssertionError):
    """A cluster has ended and left something behind.

    Fields: `what`, a tuple of descriptions: of processes (which were killed meanwhile), threads and
    folders.
    """

    def __init__(self, what: tuple[str, ...]) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        lines = "".join(f"\n  {one}" for one in self.what)
        return f"{PATIENCE_SECONDS:g} seconds after its end, the cluster has left behind:{lines}"


@contextmanager
def cluster(
    executors: int = 2, *, forward_output: bool = True, tenants: Mapping[str, Tenant] | None = None
) -> Iterator[Client]:
    """A client with a private cluster of real processes, for the length of a `with` block.

    Args:
        executors: how many processes run tasks; two are enough to find most races.
        forward_output: print what tasks print.
        tenants: what each may have, as in `flm.Client`.

    Raises:
        StartFailed: the cluster did not come up.
        Leaked: at the end, if something is left; what was left is killed.  If the block has failed,
            this is only a note on its own error.

    The cluster is private whatever $FLAMEZMQ_ADDRESS says.  At the end of the block tasks that
    have not ended are cancelled, not waited for: a test that has forgotten one must not hang.
    """
    from flamezmq.client.api import Client

    client = Client("", executors=executors, forward_output=forward_output, tenants=tenants)
    try:
        yield client
    except BaseException as error:
        if left := _close(client):
            error.add_note(str(Leaked(left)))
        raise
    if left := _close(client):
        raise Leaked(left)


def fixture(
    *,
    executors: int = 2,
    scope: Scope = "session",
    name: str | None = None,
    forward_output: bool = True,
    tenants: Mapping[str, Tenant] | None = None,
) -> Callable[..., Any]:
    """A pytest fixture that gives a client with a cluster of its own: `cluster = fixture()` in conftest.py.

    Args:
        executors: how many processes run tasks.
        scope: how long the cluster lives, in pytest's words.  One for the whole run, as is the
            default, costs a quarter of a second once; tests that kill something, or count
            tasks, may want "function".
        name: the fixture's name, if not that of the variable.
        forward_output: print what tasks print.
        tenants: what each may have, as in `flm.Client`.

    Raises:
        Leaked: in its teardown: something is left behind.

    A function and not a plugin that pytest loads by itself: who does not test with flamezmq pays
    nothing for it, and the name, the size and the scope are yours.  Needs pytest, which is imported here.
    """
    import pytest

    @pytest.fixture(scope=scope, name=name)
    def flame_cluster() -> Generator[Client, None, None]:
        with cluster(executors, forward_output=forward_output, tenants=tenants) as client:
            yield client

    return flame_cluster


def kill_an_executor(client: Any, pid: int | None = None, *, timeout: float = REPLACED_SECONDS) -> int:
    """Kill one of the cluster's executors (SIGKILL); returns its pid when its replacement is there.

    Args:
        client: an open client with a cluster of its own (an `flm.Client`, an `flm.aio.Client`).
        pid: which one; None takes the first.
        timeout: seconds.

    Raises:
        ValueError: `pid` is none of the cluster's executors, or the client has no cluster of its own.
        TimeoutError: there were no executors, or there was no replacement in time.

    When it returns, the dead one was reaped, and there are as many executors as before; the
    replacement may need some milliseconds more until it takes tasks.  What the dead one held runs
    again, under a higher attempt if it had begun.
    """
    deadline = monotonic() + timeout
    if not client.processes().get("launcher"):
        raise ValueError("this client has no cluster of its own, so there is nothing for it to kill")
    before = _wait_for(lambda: client.processes()["executors"], deadline, "the cluster has no executor yet")
    if pid is None:
        pid = before[0]
    elif pid not in before:
        raise ValueError(f"process {pid} is none of the cluster's executors, which are {before}")
    processes.kill(pid)

    def replaced() -> bool:
        now = client.processes()["executors"]
        return bool(set(now) - set(before)) and len(now) >= len(before) and not os.path.exists(f"/proc/{pid}")

    _wait_for(replaced, deadline, f"executor {pid} was killed {timeout:g} s ago and has no replacement yet")
    return pid


def _wait_for(condition: Callable[[], Any], deadline: float, complaint: str) -> Any:
    while not (answer := condition()):
        if monotonic() > deadline:
            raise TimeoutError(complaint)
        sleep(_POLL_SECONDS)
    return answer


# --- what is left


class _Watch:
    """Processes, by pidfd: a number alone may be another process's by the time we look again."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, str]] = {}  # pid -> (pidfd, description)

    def add(self, pids: list[int]) -> None:
        for pid in pids:
            if pid not in self._seen:
                try:
                    self._seen[pid] = (os.pidfd_open(pid), f"process {pid} ({_command(pid)})")
                except OSError:
                    pass  # it has just ended

    def alive(self) -> list[str]:
        return [text for fd, text in self._seen.values() if not processes.ready(fd)]

    def kill(self) -> None:
        for pid, (fd, _) in self._seen.items():
            if not processes.ready(fd):
                processes.kill(pid)
                processes.ready(fd, PATIENCE_SECONDS)

    def close(self) -> None:
        for fd, _ in self._seen.values():
            os.close(fd)


def _close(client: Client) -> tuple[str, ...]:
    """Close it; returns what it has left behind, processes among it killed."""
    embedded = client._cluster
    assert embedded is not None
    assert embedded._folder is not None
    folder = embedded._folder.path
    threads = (client._pump.keeper, client._errands.thread)
    watch = _Watch()
    try:
        if embedded.alive():
            watch.add([embedded.pid, *processes.descendants(embedded.pid)])
        client.close()
        watch.add(processes.marked(folder))
        deadline = monotonic() + PATIENCE_SECONDS
        while True:
            left = watch.alive()
            left += [f"thread {thread.name!r}" for thread in threads if thread.is_alive()]
            left += [f"folder {folder}"] if os.path.exists(folder) else []
            if not left:
                return ()
            if monotonic() > deadline:
                watch.kill()
                return tuple(left)
            sleep(_POLL_SECONDS)
    finally:
        watch.close()


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(200).replace(b"\0", b" ").decode("utf-8", "replace").split()
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return " ".join([file.read().strip(), *words[1:2]])
    except OSError:
        return "has ended"
