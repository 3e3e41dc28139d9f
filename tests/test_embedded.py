"""The embedded cluster: it comes up, it stays up, it leaves nothing, whoever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import flamezmq
from flamezmq import processes
from flamezmq.client.embedded import Embedded
from flamezmq.errors import StartFailed
from tests.waiting import alive, until

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parent.parent
#: For what must happen at once; generous, for the machine may be busy.
WAIT_SECONDS = 10.0
#: After the death of an owner, nothing may be left after so long.
GONE_SECONDS = 2.0

Pids = dict[str, list[int]]


def whole(cluster: Embedded, executors: int = 2) -> Pids:
    """Wait until all of it is there; returns the pids."""
    found: Pids = {}

    def is_whole() -> bool:
        found.update(cluster.processes())
        return [len(pids) for pids in found.values()] == [1, 1, 1, 1, executors]

    until(is_whole, f"not whole: {found}")
    return found


def all_of(pids: Pids) -> list[int]:
    return [pid for some in pids.values() for pid in some]


def nothing_left(pids: Pids, folder: str | None, seconds: float = GONE_SECONDS) -> None:
    until(lambda: not [pid for pid in all_of(pids) if alive(pid)], f"left of {pids}", seconds)
    assert folder is None or not os.path.exists(folder)


def gone(cluster: Embedded, executor: int) -> bool:
    return executor not in cluster.processes()["executors"]


def folder_of(cluster: Embedded) -> str:
    return os.path.dirname(cluster.address.removeprefix("ipc://"))


@pytest.fixture
def cluster() -> Iterator[Embedded]:
    one = Embedded(2)
    one.spawn()
    one.wait()
    yield one
    one.stop()


# --- start


def test_it_comes_up_whole_in_a_private_folder(cluster: Embedded) -> None:
    pids = whole(cluster)

    assert cluster.address.startswith("ipc://")
    assert os.stat(folder_of(cluster)).st_mode & 0o777 == 0o700
    assert cluster.alive()
    assert not processes.ready(cluster.pidfd)
    assert pids["router"] == [cluster.facts["router"]]
    assert cluster.wait() == cluster.address, "it may be asked again"


def test_a_terminal_can_not_interrupt_it(cluster: Embedded) -> None:
    pids = whole(cluster)

    for pid in all_of(pids):
        assert os.getsid(pid) != os.getsid(0)
        os.kill(pid, signal.SIGINT)
    assert whole(cluster) == pids


def test_modules_of_the_working_folder_do_not_hide_the_standard_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "select", "random", "zmq"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('this is not the one')\n")
    monkeypatch.chdir(tmp_path)
    one = Embedded(1)
    one.spawn()

    try:
        one.wait()
        whole(one, 1)
    finally:
        one.stop()


def test_a_start_that_fails_says_why_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zmq.py").write_text("raise RuntimeError('a broken installation')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    one = Embedded(1)
    one.spawn()

    with pytest.raises(StartFailed, match="a broken installation"):
        one.wait()
    assert not one.alive()
    one.stop()


def test_a_python_that_can_not_be_started_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/does/not/exist")

    with pytest.raises(StartFailed, match="/does/not/exist"):
        Embedded(1).spawn()


@pytest.mark.slow
def test_a_start_that_takes_too_long_is_ended() -> None:
    one = Embedded(1)
    one.spawn()
    os.kill(one.pid, signal.SIGSTOP)

    with pytest.raises(StartFailed, match="not ready after"):
        one.wait(0.1)
    assert not one.alive()


def test_it_may_be_stopped_before_it_is_up() -> None:
    one = Embedded(1)
    one.stop()
    one.spawn()

    one.stop()
    assert not one.alive()


# --- stop


def test_a_stop_is_quick_idempotent_and_leaves_nothing(cluster: Embedded) -> None:
    pids, folder = whole(cluster), folder_of(cluster)
    began = time.monotonic()

    cluster.stop()
    cluster.stop()

    assert time.monotonic() - began < GONE_SECONDS
    nothing_left(pids, folder, 0.0)


def test_a_fork_of_the_owner_can_not_stop_it(cluster: Embedded) -> None:
    pids = whole(cluster)

    def child() -> None:
        cluster.stop()

    pid = os.fork()
    if not pid:
        processes.run_and_exit(child)
    assert os.waitpid(pid, 0)[1] == 0

    assert whole(cluster) == pids


def test_a_stop_does_not_wait_for_who_is_stuck(cluster: Embedded) -> None:
    pids, folder = whole(cluster), folder_of(cluster)
    for role in ("zygote", "worker", "router", "launcher"):
        os.kill(pids[role][0], signal.SIGSTOP)

    cluster.stop(0.1)

    nothing_left(pids, folder, 0.5)


# --- deaths inside


def test_a_killed_executor_is_replaced(cluster: Embedded) -> None:
    before = whole(cluster)

    os.kill(before["executors"][0], signal.SIGKILL)

    until(partial(gone, cluster, before["executors"][0]), "still there")
    after = whole(cluster)
    assert before["executors"][1] in after["executors"]
    assert {**after, "executors": []} == {**before, "executors": []}


@pytest.mark.slow
def test_many_deaths_leave_no_descriptor_behind(cluster: Embedded) -> None:
    pids = whole(cluster)
    keepers = [pids[role][0] for role in ("launcher", "worker", "zygote")]

    def descriptors() -> list[int]:
        return [len(os.listdir(f"/proc/{pid}/fd")) for pid in keepers]

    before = descriptors()
    for _ in range(15):
        victim = whole(cluster)["executors"][0]
        os.kill(victim, signal.SIGKILL)
        until(partial(gone, cluster, victim), "still there")
    whole(cluster)

    # A leak would be 15 of them at least; a few come and go with the line to the router.
    until(
        lambda: all(now < then + 10 for now, then in zip(descriptors(), before, strict=True)),
        f"{descriptors()}, before it was {before}",
    )


@pytest.mark.parametrize("role", ["zygote", "worker"])
def test_a_killed_zygote_or_worker_is_replaced_with_all_below_it(cluster: Embedded, role: str) -> None:
    before = whole(cluster)

    os.kill(before[role][0], signal.SIGKILL)

    below = {"zygote": ["zygote", "executors"], "worker": ["worker", "zygote", "executors"]}[role]
    dead = [pid for name in below for pid in before[name]]
    until(lambda: not [pid for pid in dead if alive(pid)], "the old ones live")
    after = whole(cluster)
    assert not set(dead) & set(all_of(after))
    assert after["router"] == before["router"]


def test_the_routers_death_ends_everything_and_the_client_can_say_why(cluster: Embedded) -> None:
    pids, folder = whole(cluster), folder_of(cluster)

    os.kill(pids["router"][0], signal.SIGKILL)

    assert processes.ready(cluster.pidfd, WAIT_SECONDS)
    assert "the router was killed by SIGKILL" in cluster.why_it_ended()
    nothing_left(pids, folder, 0.5)


def test_nothing_outlives_a_killed_launcher_but_the_folder_and_that_is_swept(cluster: Embedded) -> None:
    pids, folder = whole(cluster), folder_of(cluster)

    os.kill(pids["launcher"][0], signal.SIGKILL)

    assert processes.ready(cluster.pidfd, WAIT_SECONDS)
    nothing_left(pids, None)
    assert os.path.exists(folder)
    cluster.stop()
    assert not os.path.exists(folder)


def test_a_launcher_ends_in_order_when_it_is_terminated(cluster: Embedded) -> None:
    pids, folder = whole(cluster), folder_of(cluster)

    os.kill(pids["launcher"][0], signal.SIGTERM)

    assert processes.ready(cluster.pidfd, WAIT_SECONDS)
    nothing_left(pids, folder, 0.5)


# --- the death of the owner

OWNER = """
import os, signal, sys
from flamezmq.client.embedded import Embedded
one = Embedded(2)
one.spawn()
if sys.argv[1] == "up":
    one.wait()
    while len(one.processes()["executors"]) < 2:
        os.sched_yield()
    pids = one.processes()
else:
    pids = {"launcher": [one.pid]}
print(repr((pids, one._folder.path)), flush=True)
signal.pause()
"""


def owner(state: str) -> tuple[subprocess.Popen[str], Pids, str]:
    child = subprocess.Popen(
        [sys.executable, "-c", OWNER, state],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert child.stdout is not None
    pids, folder = eval(child.stdout.readline())
    return child, pids, folder


@pytest.mark.parametrize("state", ["up", "starting"])
def test_nothing_outlives_a_killed_owner(state: str) -> None:
    child, pids, folder = owner(state)
    with child:
        child.kill()
        child.wait(WAIT_SECONDS)

        nothing_left(pids, None)
        until(lambda: not os.path.exists(folder), "the folder is there", 0.5)
        assert processes.kill_marked(folder, 0.0) == 0


def test_what_a_kill_of_everything_leaves_is_swept_by_the_next_start() -> None:
    child, pids, folder = owner("up")
    with child:
        os.kill(pids["launcher"][0], signal.SIGKILL)
        child.kill()
        child.wait(WAIT_SECONDS)
        nothing_left(pids, None)
        assert os.path.exists(folder)

        one = Embedded(1)
        one.spawn()
        try:
            one.wait()
            until(lambda: not os.path.exists(folder), "it was not swept")
        finally:
            one.stop()


def test_an_owner_that_becomes_another_program_has_no_cluster_any_more() -> None:
    """Its pidfd lives on; its end of the control pipe does not."""
    program = OWNER.replace("signal.pause()", "os.execvp('sleep', ['sleep', '100'])")
    child = subprocess.Popen(
        [sys.executable, "-c", program, "up"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert child.stdout is not None
    with child:
        pids, folder = eval(child.stdout.readline())
        nothing_left(pids, None)
        until(lambda: not os.path.exists(folder), "the folder is there", 0.5)
        child.kill()


# --- with tasks in it


@pytest.fixture
def client() -> Iterator[flamezmq.Client]:
    with flamezmq.Client(executors=2) as one:
        yield one


def own_pid() -> int:
    return os.getpid()


def start_hidden() -> int:
    """What a task can do to escape: a session of its own, and a parent that has ended."""
    text = subprocess.check_output(["sh", "-c", "setsid sleep 100 >/dev/null 2>&1 & echo $!"])
    return int(text)


def test_what_tasks_have_hidden_ends_with_the_cluster() -> None:
    with flamezmq.Client(executors=1) as client:
        hidden = client.submit(start_hidden).result(WAIT_SECONDS)
        assert alive(hidden), "it is the user's, as long as the cluster lives"

    assert not alive(hidden)


def test_what_tasks_have_hidden_ends_with_their_worker(client: flamezmq.Client) -> None:
    hidden = client.submit(start_hidden).result(WAIT_SECONDS)

    os.kill(client.processes()["worker"][0], signal.SIGKILL)

    until(lambda: not alive(hidden), "it lives")
    assert client.submit(pow, 2, 5).result(WAIT_SECONDS) == 32


def test_what_tasks_have_hidden_ends_even_if_the_launcher_is_killed() -> None:
    client = flamezmq.Client(executors=1)
    hidden = client.submit(start_hidden).result(WAIT_SECONDS)
    os.kill(client.processes()["launcher"][0], signal.SIGKILL)
    with pytest.raises(flamezmq.FlameError):
        client.submit(time.sleep, 100).result(WAIT_SECONDS)

    client.close()
    assert not alive(hidden)


@pytest.mark.parametrize("role", ["executors", "zygote", "worker"])
def test_tasks_survive_the_death_of_all_but_the_router(client: flamezmq.Client, role: str) -> None:
    def stay(seconds: float) -> int:
        time.sleep(seconds)
        return os.getpid()

    before = client.processes()
    futures = [client.submit(stay, 0.3) for _ in range(4)]
    until(lambda: any(future.running() for future in futures), "nothing runs")

    os.kill(client.processes()[role][0], signal.SIGKILL)

    pids = {future.result(WAIT_SECONDS) for future in futures}
    assert role == "executors" or not pids & set(before["executors"])


@pytest.mark.parametrize("role", ["executors", "zygote"])
def test_the_certificate_of_a_killed_executor_says_how(client: flamezmq.Client, role: str) -> None:
    def stay() -> None:
        print("my last words", file=sys.stderr)
        time.sleep(100)

    future = client.session(max_retries=0).submit(stay)
    until(future.running, "it does not run")
    pids = client.processes()

    for pid in pids[role]:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(flamezmq.TaskLost) as caught:
        future.result(WAIT_SECONDS)

    certificate = caught.value.certificate
    assert (certificate.signal, certificate.oom, certificate.stderr) == ("SIGKILL", False, ("my last words",))
    assert certificate.pid in pids["executors"]
    assert (certificate.rss_bytes > 0) == (role == "executors"), "only the zygote can tell"


def test_a_task_that_prints_without_end_harms_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    def flood() -> int:
        for _ in range(20_000):
            print("x" * 999)
        return 7

    with flamezmq.Client(executors=2) as client:
        loud = client.submit(flood)
        assert client.submit(pow, 2, 5).result(WAIT_SECONDS) == 32
        assert loud.result(30) == 7

    out, err = capfd.readouterr()
    assert 1_000_000 < len(out) + len(err) < 20_000_000, "some of it came, what was over the rate did not"


def test_a_close_does_not_wait_for_tasks_that_do_not_end() -> None:
    def stay() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(100)

    client = flamezmq.Client(executors=2)
    futures = [client.submit(stay) for _ in range(2)]
    until(lambda: all(future.running() for future in futures), "they do not run")
    pids = client.processes()
    began = time.monotonic()

    client.close()

    assert time.monotonic() - began < GONE_SECONDS
    nothing_left(pids, None, 0.0)
