"""flmrouter and flmworker as real processes on this machine: meeting, waiting, coming back, leaving."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

import flamezmq as flm
from tests.daemons import LIMIT_SECONDS, ROOT, Daemons, daemons_in, environment, free_port
from tests.waiting import until

pytestmark = pytest.mark.processes


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    with daemons_in(tmp_path) as daemons:
        yield daemons


@pytest.fixture(params=["tcp", "ipc"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return tcp() if request.param == "tcp" else f"ipc://{tmp_path}/r"


def tcp() -> str:
    return f"tcp://127.0.0.1:{free_port()}"


def sleep_and_tell(folder: str, name: str, seconds: float) -> tuple[str, int]:
    """Leaves a file that says that it has begun, with the node's and the process's ids."""
    Path(folder, f"{name}.{os.getpid()}.{os.getppid()}").touch()
    time.sleep(seconds)
    return name, os.getpid()


def begun(folder: Path, name: str = "") -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(name)]


def pid_after(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def double(x: int) -> int:
    return 2 * x


# --- meeting


@pytest.mark.slow
def test_two_workers_serve_one_router_and_all_leave_nothing(daemons: Daemons, address: str) -> None:
    router = daemons.router(address)
    workers = [daemons.worker(address, executors=2) for _ in range(2)]
    for worker in workers:
        worker.wait_for("registered")

    with flm.Client(address) as client:
        assert list(client.map(double, range(1000))) == [2 * x for x in range(1000)]
        session = client.session("pids")

        def answered() -> int:
            futures = [session.submit(pid_after, 0.01) for _ in range(16)]
            return len({future.result(LIMIT_SECONDS) for future in futures})

        until(lambda: answered() == 4, "all four executors have answered")

    names = {line["node"] for line in router.seen("node-joined")}
    host = socket.gethostname()
    assert names == {host, f"{host}-2"}, "the second one on a host gets a name of its own"
    children = [psutil.Process(worker.pid).children(recursive=True) for worker in workers]
    assert [worker.stop() for worker in workers] == [0, 0]
    router.wait_for("node-left", 2)
    assert router.stop() == 0
    assert not [process for family in children for process in family if process.is_running()]
    if address.startswith("ipc://"):
        assert not Path(address.removeprefix("ipc://")).exists()


def test_flmping_uses_the_daemons(daemons: Daemons, address: str) -> None:
    daemons.router(address)
    daemons.worker(address, executors=2)

    done = subprocess.run(
        [sys.executable, "-P", "-m", "flamezmq.cli.ping", "-t", "500", "-a", address],
        capture_output=True, text=True, timeout=LIMIT_SECONDS, env=environment(), check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "<500> tasks was completed" in done.stdout


def test_a_port_that_is_taken_is_one_sentence(daemons: Daemons, address: str) -> None:
    daemons.router(address)

    second = daemons.start("router", "--bind", address)

    assert second.wait() == 1
    assert second.log.read_text().startswith(f"flmrouter: can't listen at {address}: ")
    assert second.log.read_text().count("\n") == 1


@pytest.mark.slow
def test_a_router_that_others_can_reach_has_to_be_told_that_it_may(daemons: Daemons) -> None:
    port = free_port()
    shy = daemons.start("router", "--bind", f"tcp://0.0.0.0:{port}")

    assert shy.wait() == 1
    assert "say --insecure if you trust that network" in shy.log.read_text()
    assert daemons.router(f"tcp://0.0.0.0:{port}", "--insecure").stop() == 0


def test_an_ipc_socket_is_for_its_user_only(daemons: Daemons, tmp_path: Path) -> None:
    daemons.router(f"ipc://{tmp_path}/r")

    assert (tmp_path / "r").stat().st_mode & 0o077 == 0


# --- waiting and coming back


def test_worker_and_client_wait_for_a_router_that_comes_later(
    daemons: Daemons, capfd: pytest.CaptureFixture[str]
) -> None:
    address = tcp()
    worker = daemons.worker(address)

    def connect_and_ask() -> int:
        with flm.Client(address) as client:
            return int(client.submit(double, 21).result())

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(connect_and_ask)
        assert worker.wait_for("waiting-for-router")["router"] == address
        said = ""

        def client_has_said_so() -> bool:
            nonlocal said
            said += capfd.readouterr().err
            return f"flamezmq: waiting for a router at {address}\n" in said

        until(client_has_said_so, "the client says that it waits", 10)
        daemons.router(address)

        assert answer.result(LIMIT_SECONDS) == 42
    assert "waiting" not in capfd.readouterr().err, "it is said once"


def test_a_client_waits_no_longer_than_it_was_told() -> None:
    address = tcp()

    with pytest.raises(flm.RouterLost, match=rf"no router answers at {address} \(waited 0.3 s\)"):
        flm.Client(address, connect_timeout=0.3)
    with pytest.raises(ValueError, match="`connect_timeout` is a number of seconds from 0"):
        flm.Client(address, connect_timeout=-1)


@pytest.mark.slow
def test_a_router_that_is_killed_and_started_again_gets_its_worker_back(
    daemons: Daemons, address: str
) -> None:
    router = daemons.router(address)
    worker = daemons.worker(address, executors=2)
    worker.wait_for("registered")
    with flm.Client(address) as client:
        client.submit(double, 1).result(LIMIT_SECONDS)
        slow = client.submit(time.sleep, 60)
        until(slow.running, "the task runs")
        router.process.kill()
        router.wait()
        daemons.router(address)

        with pytest.raises(flm.RouterLost):
            slow.result(LIMIT_SECONDS)
        with pytest.raises(flm.RouterLost):
            client.submit(double, 1)

    worker.wait_for("router-lost")
    worker.wait_for("registered", 2)
    with flm.Client(address) as client:
        assert client.submit(double, 21).result(LIMIT_SECONDS) == 42
    assert worker.stop() == 0


@pytest.mark.slow
def test_a_worker_whose_router_stays_away_has_no_executors_and_says_that_it_waits(daemons: Daemons) -> None:
    address = tcp()
    router = daemons.router(address)
    worker = daemons.worker(address, executors=2)
    worker.wait_for("registered")
    process = psutil.Process(worker.pid)
    until(lambda: len(process.children(recursive=True)) == 3, "zygote and two executors")

    router.stop()

    worker.wait_for("router-lost")
    worker.wait_for("waiting-for-router")
    assert process.children(recursive=True) == []
    daemons.router(address)
    worker.wait_for("registered", 2)
    assert worker.stop() == 0


def test_a_worker_that_waits_stops_when_it_is_told_to(daemons: Daemons) -> None:
    worker = daemons.worker(tcp())
    worker.wait_for("waiting-for-router")

    assert worker.stop() == 0


def test_of_two_workers_with_one_name_the_later_one_stays(daemons: Daemons) -> None:
    address = tcp()
    daemons.router(address)
    first = daemons.worker(address, "--node", "twin")
    first.wait_for("registered")
    second = daemons.worker(address, "--node", "twin")

    assert first.wait() == 0
    assert first.seen("told-to-leave")
    with flm.Client(address) as client:
        assert client.submit(double, 21).result(LIMIT_SECONDS) == 42
    assert second.process.poll() is None
    assert not second.seen("router-lost")


# --- leaving


def test_a_worker_that_drains_ends_what_runs_and_gives_back_the_rest(
    daemons: Daemons, tmp_path: Path
) -> None:
    address = tcp()
    daemons.router(address)
    first = daemons.worker(address, "--node", "first")
    first.wait_for("registered")
    folder = tmp_path / "begun"
    folder.mkdir()
    with flm.Client(address) as client:
        session = client.session("drained", max_retries=0)  # so nothing may run twice
        client.submit(double, 1).result(LIMIT_SECONDS)
        futures = [session.submit(sleep_and_tell, str(folder), str(n), 0.5) for n in range(6)]
        until(lambda: begun(folder), "the first task runs")
        first.signal()
        first.wait_for("draining")
        second = daemons.worker(address, "--node", "second", executors=2)

        results = [future.result(LIMIT_SECONDS) for future in futures]

    assert [name for name, _ in results] == [str(n) for n in range(6)]
    assert len(begun(folder)) == 6, "each ran once"
    assert first.wait() == 0
    assert second.stop() == 0
    by_zygote = {name.split(".")[2] for name in begun(folder)}
    assert len(by_zygote) == 2, "some on the one node, some on the other"
    assert not first.seen("executor-lost")


@pytest.mark.parametrize("signals", [1, 2])
def test_a_task_that_does_not_end_in_time_runs_again_elsewhere_and_pays_nothing(
    daemons: Daemons, tmp_path: Path, signals: int
) -> None:
    address = tcp()
    daemons.router(address)
    seconds = "0.2" if signals == 1 else "60"
    first = daemons.worker(address, "--drain-seconds", seconds)
    first.wait_for("registered")
    folder = tmp_path / "begun"
    folder.mkdir()
    go_on = tmp_path / "go"

    def hang_at_first(folder: str, go_on: str) -> str:
        Path(folder, str(os.getpid())).touch()
        while not Path(go_on).exists():
            time.sleep(0.01)
        return "done"

    with flm.Client(address) as client:
        with client.session("cut", max_retries=1) as session:
            future = session.submit(hang_at_first, str(folder), str(go_on))
            until(lambda: begun(folder), "it runs")
            first.signal(signal.SIGINT)
            if signals == 2:
                first.wait_for("draining")
                first.signal(signal.SIGINT)
            assert first.wait() == 0
            go_on.touch()
            daemons.worker(address)

            assert future.result(LIMIT_SECONDS) == "done"


def test_a_router_that_drains_lets_running_tasks_end_and_tells_everybody_else(
    daemons: Daemons, tmp_path: Path
) -> None:
    address = tcp()
    router = daemons.router(address)
    worker = daemons.worker(address)
    folder = tmp_path / "begun"
    folder.mkdir()
    with flm.Client(address) as idle, flm.Client(address) as busy:
        idle.submit(double, 1).result(LIMIT_SECONDS)
        running = busy.submit(sleep_and_tell, str(folder), "running", 1.5)
        waiting = busy.submit(sleep_and_tell, str(folder), "waiting", 1.5)
        until(lambda: begun(folder), "the first task runs")
        router.signal()

        with pytest.raises(flm.RouterLost, match=f"the router at {address} was stopped"):
            until(lambda: idle.submit(double, 1).result(LIMIT_SECONDS) and False, "a submit fails")
        assert not running.done()
        assert running.result(LIMIT_SECONDS)[0] == "running"
        with pytest.raises(flm.RouterLost, match=f"the router at {address} was stopped"):
            waiting.result(LIMIT_SECONDS)
    assert router.wait() == 0
    assert begun(folder, "waiting") == []
    worker.wait_for("router-lost")
    assert worker.stop() == 0


@pytest.mark.slow
def test_a_router_that_is_told_twice_does_not_wait_for_running_tasks(daemons: Daemons) -> None:
    address = tcp()
    router = daemons.router(address, "--drain-seconds", "60")
    daemons.worker(address)
    with flm.Client(address) as client:
        slow = client.submit(time.sleep, 60)
        until(slow.running, "it runs")
        router.signal()
        router.wait_for("draining")
        router.signal()

        assert router.wait() == 0
        with pytest.raises(flm.RouterLost):
            slow.result(LIMIT_SECONDS)


def test_what_a_task_has_started_ends_with_the_worker(daemons: Daemons, tmp_path: Path) -> None:
    address = tcp()
    daemons.router(address)
    worker = daemons.worker(address)

    def leave_a_child() -> int:
        return subprocess.Popen(["sleep", "60"], start_new_session=True).pid

    with flm.Client(address) as client:
        child = client.submit(leave_a_child).result(LIMIT_SECONDS)
    assert psutil.pid_exists(child)

    assert worker.stop() == 0
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


@pytest.mark.slow
def test_a_worker_that_is_killed_takes_its_executors_with_it_and_their_tasks_run_elsewhere(
    daemons: Daemons, tmp_path: Path
) -> None:
    address = tcp()
    router = daemons.router(address)
    first = daemons.worker(address, "--node", "first")
    first.wait_for("registered")
    folder = tmp_path / "begun"
    folder.mkdir()
    with flm.Client(address) as client:
        futures = [client.submit(sleep_and_tell, str(folder), str(n), 0.3) for n in range(3)]
        until(lambda: begun(folder), "the first task runs")
        family = psutil.Process(first.pid).children(recursive=True)
        first.signal(signal.SIGKILL)
        daemons.worker(address, "--node", "second")

        assert [future.result(LIMIT_SECONDS)[0] for future in futures] == ["0", "1", "2"]
    router.wait_for("node-lost")
    until(lambda: not any(process.is_running() for process in family), "zygote and executor are gone")


def test_what_a_dead_executor_has_left_behind_is_reaped_when_it_ends(daemons: Daemons) -> None:
    address = tcp()
    daemons.router(address)
    worker = daemons.worker(address)

    def leave_a_child_and_die() -> None:
        subprocess.Popen(["sleep", "0.5"], start_new_session=True)
        os._exit(3)

    with flm.Client(address) as client, client.session("deadly", max_retries=0) as session:
        with pytest.raises(flm.TaskLost):
            session.submit(leave_a_child_and_die).result(LIMIT_SECONDS)

    def names() -> list[str]:
        return [process.name() for process in psutil.Process(worker.pid).children()]

    until(lambda: "sleep" not in names(), "no zombie is left")
    assert names() == ["flm-zygote"]


# --- what they say


def test_on_a_terminal_lines_are_for_people(daemons: Daemons, tmp_path: Path) -> None:
    text = daemons.start("router", "--bind", f"ipc://{tmp_path}/r", "--log-format", "text")

    until(lambda: "listening" in text.log.read_text(), "it listens")
    assert f"address=ipc://{tmp_path}/r" in text.log.read_text()
    assert "\x1b" not in text.log.read_text(), "colours are for terminals"
    assert text.stop() == 0


def test_lines_for_programs_are_objects_with_time_level_and_event_first(
    daemons: Daemons, tmp_path: Path
) -> None:
    router = daemons.router(f"ipc://{tmp_path}/r")
    router.stop()

    lines = [json.loads(line) for line in router.log.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["listening", "draining", "stopped"]
    assert all(list(line)[:3] == ["timestamp", "level", "event"] for line in lines)


def test_below_the_level_nothing_is_said(daemons: Daemons, tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/r"
    quiet = daemons.start("router", "--bind", address, "--log-level", "warning")
    until(lambda: Path(tmp_path / "r").exists(), "it listens")

    assert quiet.stop() == 0
    assert quiet.log.read_text() == ""


def test_an_executor_that_dies_is_told_by_both_sides(daemons: Daemons, tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/r"
    router = daemons.router(address)
    worker = daemons.worker(address, "--node", "n")
    with flm.Client(address) as client, client.session("deadly", max_retries=0) as session:
        with pytest.raises(flm.TaskLost):
            session.submit(lambda: os.kill(os.getpid(), signal.SIGKILL)).result(LIMIT_SECONDS)

    for line in (router.wait_for("executor-lost"), worker.wait_for("executor-lost")):
        assert (line["executor"], line["signal"], line["level"]) == ("n/1", "SIGKILL", "warning")


# --- flmctl ping


def ctl_ping(address: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "flamezmq.cli.ctl", "ping", "-a", address, *words],
        capture_output=True, text=True, timeout=LIMIT_SECONDS, env=environment(), check=False,
    )  # fmt: skip


def test_ping_says_what_the_router_is_and_who_is_with_it(daemons: Daemons, address: str) -> None:
    daemons.router(address)
    daemons.worker(address, executors=2).wait_for("registered")
    with flm.Client(address) as client, client.session("s"):
        until(lambda: json.loads(ctl_ping(address, "-o", "json").stdout)["executors"] == 2, "two executors")
        facts = json.loads(ctl_ping(address, "-o", "json").stdout)
        text = ctl_ping(address)

    assert facts["address"] == address
    assert (facts["version"], facts["nodes"], facts["clients"]) == (flm.__version__, 1, 1)
    assert (facts["sessions"], facts["pending"], facts["held"], facts["draining"]) == (1, 0, 0, False)
    assert 0 < facts["milliseconds"] < 30_000
    assert 0 < facts["uptime"] < 600
    assert text.returncode == 0
    assert text.stdout.startswith(f"the router at {address} answers (in ")
    assert "1 node, 2 executors, 1 client, 1 session; tasks: 0 waiting, 0 with executors\n" in text.stdout


def test_ping_gives_up_within_its_bound_with_an_exit_code_of_its_own() -> None:
    address = tcp()

    done = ctl_ping(address, "--timeout", "0.3")

    assert done.returncode == 3
    assert done.stdout == ""
    assert f"no router answers at {address} (waited 0.3 s)" in done.stderr


def test_ping_gives_up_on_a_router_that_is_frozen(daemons: Daemons) -> None:
    address = tcp()
    router = daemons.router(address)
    router.signal(signal.SIGSTOP)
    try:
        done = ctl_ping(address, "--timeout", "0.5")
    finally:
        router.signal(signal.SIGCONT)

    assert done.returncode == 3
    assert "(waited 0.5 s)" in done.stderr or "has not answered in 0.5 s" in done.stderr


# --- systemd


class Systemd:
    """The socket that systemd would listen at."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.words: list[str] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while text := self.socket.recv(4096).decode():
            self.words += text.splitlines()

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"", self.path)
        self._thread.join(5)
        self.socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    systemd = Systemd(tmp_path / "notify")
    yield systemd
    systemd.close()


def test_systemd_hears_when_a_router_is_ready_alive_and_stopping(
    daemons: Daemons, systemd: Systemd, tmp_path: Path
) -> None:
    address = f"ipc://{tmp_path}/r"
    router = daemons.router(address, NOTIFY_SOCKET=systemd.path, WATCHDOG_USEC="400000")

    until(lambda: systemd.words.count("WATCHDOG=1") >= 3, "signs of life")
    assert systemd.words[:2] == ["READY=1", f"STATUS=listening at {address}"]
    assert router.stop() == 0
    until(lambda: "STOPPING=1" in systemd.words, "its end")


@pytest.mark.slow
def test_systemd_hears_of_a_worker_only_when_it_is_registered(
    daemons: Daemons, systemd: Systemd, tmp_path: Path
) -> None:
    address = f"ipc://{tmp_path}/r"
    worker = daemons.worker(address, "--node", "n", NOTIFY_SOCKET=systemd.path, WATCHDOG_USEC="400000")
    worker.wait_for("waiting-for-router")
    until(lambda: systemd.words.count("WATCHDOG=1") >= 3, "signs of life")
    assert f"STATUS=waiting for a router at {address}" in systemd.words
    assert "READY=1" not in systemd.words

    daemons.router(address)

    until(lambda: "READY=1" in systemd.words, "it is ready")
    seen = len(systemd.words)
    until(lambda: "WATCHDOG=1" in systemd.words[seen:], "more signs of life")
    with flm.Client(address) as client:
        names = client.submit(lambda: list(os.environ)).result(LIMIT_SECONDS)
        assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}.intersection(names)
    assert worker.stop() == 0
    until(lambda: "STOPPING=1" in systemd.words, "its end")


@pytest.mark.parametrize("command", ["flmrouter", "flmworker"])
def test_the_commands_of_a_checkout_start(command: str) -> None:
    done = subprocess.run(
        [str(ROOT / "bin" / command), "--help"], capture_output=True, text=True, timeout=LIMIT_SECONDS,
        env=environment(), check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert f"Usage: {command}" in done.stdout
