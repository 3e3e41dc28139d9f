"""flmping as its user meets it: the words, the flags, the exit codes, and nothing left behind."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from flamezmq.cli import ping as flmping
from tests.daemons import call, environment

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-P", "-m", "flamezmq.cli.ping"]
BAR = "=" * 45
#: Generous: the machine may be busy.
LIMIT_SECONDS = 40.0
#: From Ctrl-C to the end.
AT_ONCE_SECONDS = 3.0


def run(*words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return call(COMMAND, *words, **changes)


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )


def test_ten_tasks_in_flames_own_words() -> None:
    done = run("-e", "2")

    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        r"Session <flmping-\w{6}> was created in <[\d,]+ ms>, start to run <10> tasks in the session:\n"
        rf"\n\[100%\] {BAR}   10/10\n"
        r"\n<10> tasks was completed in <[\d,]+ ms>\.\n",
        done.stdout,
    )
    assert done.stderr == ""


def test_thousands_are_written_with_commas_but_in_the_bar() -> None:
    done = run("-t", "3000", "-e", "1")

    assert done.returncode == 0, done.stderr
    assert "start to run <3,000> tasks" in done.stdout
    assert f"[100%] {BAR}   3000/3000\n\n<3,000> tasks was completed" in done.stdout


def test_a_task_uses_as_much_cpu_time_as_asked_for() -> None:
    done = run("-t", "20", "-d", "5", "-e", "1", "-o", "json")

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    page = (ROOT / "docs" / "flmping.md").read_text(encoding="utf-8")
    assert [name for name in found if f"`{name}`" not in page] == []
    assert found["tasks"] == 20
    assert found["duration_ms"] == 5
    assert found["completed_ms"] >= 20 * 5


@pytest.mark.parametrize("size", [1, 8, 1000, 3_000_000])
def test_payloads_travel_both_ways_and_are_compared(size: int) -> None:
    done = run("-t", "60", "-s", str(size), "-e", "2", "-o", "json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["size_bytes"] == size


def test_perf_adds_the_costs_and_the_floor_of_the_same_run() -> None:
    done = run("-t", "500", "-e", "2", "-p", "-o", "json")

    assert done.returncode == 0, done.stderr
    perf = json.loads(done.stdout)["perf"]
    page = (ROOT / "docs" / "flmping.md").read_text(encoding="utf-8")
    assert [name for name in perf if f"`{name}`" not in page] == []
    cpu = perf["cpu_us_per_task"]
    assert {"client", "router", "worker", "zygote", "executors", "launcher", "all"} == cpu.keys()
    assert cpu["all"] == pytest.approx(sum(cpu.values()) / 2, abs=0.1)
    assert min(cpu["client"], cpu["router"], cpu["executors"]) > 0
    for trip in (perf["round_trip_us"], perf["four_hop_floor_us"]):
        assert 0 < trip["p50"] <= trip["p90"] <= trip["p99"]
    assert perf["tasks_per_second"] > 0


def test_perf_for_people() -> None:
    done = run("-t", "10", "-e", "1", "-p")

    assert done.returncode == 0, done.stderr
    for label in ("throughput ", "CPU per task ", "round trip ", "four-hop floor "):
        assert f"\n{label}" in done.stdout


def test_on_a_terminal_the_bar_is_drawn_in_place() -> None:
    ours, its = pty.openpty()
    command = [*COMMAND, "-t", "40", "-d", "10", "-e", "1"]
    with subprocess.Popen(command, stdout=its, stderr=its, env=environment()) as program:
        os.close(its)
        said = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # what Linux says at the end
                break
            if not piece:
                break
            said += piece
    os.close(ours)

    assert program.returncode == 0, said
    bars = said.decode().split("\r\n\r\n")[1].split("\r")
    assert bars[0] == ""
    assert bars[1].startswith("[  0%]")
    assert bars[-1] == f"[100%] {BAR}   40/40"
    assert 2 < len(bars) < 40, "drawn now and then, not for each task"
    assert len({len(bar) for bar in bars[1:]}) == 1, "each covers the one before"


def test_help_has_an_example_and_the_exit_codes() -> None:
    done = run("--help")

    assert done.returncode == 0
    assert "flmping -t 10000" in done.stdout
    for code in ("\n    0  ", "\n    1  ", "\n    2  ", "\n    130 "):
        assert code in done.stdout


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["-t", "0"], "'--task-num': 0 is not in the range"),
        (["-t", "many"], "'many' is not a valid integer"),
        (["-d", "-1"], "'--duration': -1.0 is not in the range"),
        (["-d", "nan"], "'--duration': nan is not in the range"),
        (["-s", "-1"], "'--size': -1 is not in the range"),
        (["-e", "0"], "'--executors': 0 is not in the range"),
        (["-o", "xml"], "'xml' is not one of"),
        (["--nonsense"], "No such option '--nonsense'. See flmping --help."),
        (["-a", "nonsense"], "'nonsense' is not an address (tcp://HOST:PORT or ipc://PATH)."),
        (["-a", "tcp://127.0.0.1"], "its port must be a number from 1 to 65535."),
        (["-a", "ipc:///nowhere/at/all"], "no router answers at ipc:///nowhere/at/all"),
        (["-a", "ipc:///nowhere", "-e", "2"], "does not go with an address"),
    ],
)
def test_what_can_not_be_done_is_one_sentence_and_exit_code_2(words: list[str], complaint: str) -> None:
    done = run(*words, FLAMEZMQ_CLIENT_CONNECT_TIMEOUT="0.5")

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("flmping: ")
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_address_may_come_from_the_environment() -> None:
    done = run(FLAMEZMQ_ADDRESS="ipc:///nowhere/at/all", FLAMEZMQ_CLIENT_CONNECT_TIMEOUT="0.5")

    assert done.returncode == 2
    assert "no router answers at ipc:///nowhere/at/all" in done.stderr


@pytest.mark.parametrize(
    "words", [["-t", "100000", "-d", "5"], ["-t", "4", "-d", "60000"], ["-t", "2000000"]]
)
def test_ctrl_c_ends_it_at_once(words: list[str]) -> None:
    program = start(*words, "-e", "2")
    assert program.stdout is not None
    assert program.stdout.readline().startswith("Session <")
    began = time.monotonic()
    while not any(
        p.name().startswith("flm-exec") for p in psutil.Process(program.pid).children(recursive=True)
    ):
        assert time.monotonic() < began + LIMIT_SECONDS, "no executor has come"

    began = time.monotonic()
    program.send_signal(signal.SIGINT)
    _, complaint = program.communicate(timeout=LIMIT_SECONDS)

    assert program.returncode == 130
    assert time.monotonic() - began < AT_ONCE_SECONDS
    assert complaint.strip() == "", "no traceback"


def test_ctrl_c_in_the_floor_leaves_no_folder_behind(tmp_path: Path) -> None:
    command = [*COMMAND, "-t", "10", "-e", "1", "-p"]
    pipe = subprocess.PIPE
    env = environment() | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env) as program:
        deadline = time.monotonic() + LIMIT_SECONDS
        while not list(tmp_path.glob("flm-floor-*")):
            assert program.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        program.send_signal(signal.SIGINT)
        _, complaint = program.communicate(timeout=LIMIT_SECONDS)

    assert program.returncode == 130, complaint
    assert not list(tmp_path.glob("flm-floor-*"))


def test_a_cluster_that_is_lost_on_the_way_is_exit_code_1() -> None:
    program = start("-t", "1000000", "-d", "1", "-e", "1")
    assert program.stdout is not None
    assert program.stdout.readline().startswith("Session <")
    routers = [p for p in psutil.Process(program.pid).children(recursive=True) if p.name() == "flm-router"]

    routers[0].kill()
    _, complaint = program.communicate(timeout=LIMIT_SECONDS)

    assert program.returncode == 1
    assert complaint.startswith("flmping: ")
    assert "the router was killed by SIGKILL" in complaint
    assert complaint.count("\n") == 1


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """flmping, $FLMPING, in a line of the shell."""
    env = environment() | {"FLMPING": " ".join(COMMAND)}
    return subprocess.run(
        ["sh", "-c", line],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        env=env,
        cwd=folder,
        check=False,
    )


@pytest.mark.parametrize("words", ["-t 10", "--help"])
def test_a_full_disk_is_one_sentence(words: str, tmp_path: Path) -> None:
    done = shell(f"$FLMPING {words} > /dev/full", tmp_path)

    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "can't write the output: " in done.stderr
    assert "No space left" in done.stderr


def test_who_stops_reading_gets_no_complaint(tmp_path: Path) -> None:
    done = shell("$FLMPING -t 2000 -e 1 | head -n 1", tmp_path)

    assert done.stdout.startswith("Session <")
    assert done.stderr == ""


def test_it_runs_without_standard_streams(tmp_path: Path) -> None:
    assert shell("$FLMPING -t 20 -e 1 <&- >&- 2>&-", tmp_path).returncode == 0


def test_it_runs_in_a_folder_that_was_deleted(tmp_path: Path) -> None:
    done = shell("mkdir gone && cd gone && rmdir ../gone && $FLMPING -t 20 -e 1", tmp_path)

    assert done.returncode == 0, done.stderr
    assert "20/20" in done.stdout


@pytest.mark.parametrize("folder", ["/nowhere", "$PWD/" + "x" * 100])
def test_a_useless_folder_for_temporary_files_does_no_harm(folder: str, tmp_path: Path) -> None:
    (tmp_path / ("x" * 100)).mkdir()
    done = shell(f"TMPDIR={folder} XDG_RUNTIME_DIR= $FLMPING -t 20 -e 1 -p", tmp_path)

    assert done.returncode == 0, done.stderr
    assert "four-hop floor" in done.stdout


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        (12, "can't start a cluster: [Errno 24] Too many open files; raise this shell's limit"),
        pytest.param(20, "times in a row", marks=pytest.mark.slow),
    ],
)
def test_too_few_descriptors_are_one_sentence(files: int, complaint: str, tmp_path: Path) -> None:
    done = shell(f"ulimit -n {files}; $FLMPING -t 20", tmp_path)

    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert complaint in done.stderr
    assert "Too many open files" in done.stderr


def pinged(results: list[Any], size: int = 0) -> flmping.Ping:
    """A run whose tasks give `results`."""
    given = iter(results)

    def submit(*_: object) -> Any:
        value = next(given)
        return SimpleNamespace(result=lambda: value, task_id="flmping-x/7")

    session: Any = SimpleNamespace(submit=submit)
    return flmping.Ping(SimpleNamespace(), session, len(results), 0.0, size, perf=False)  # type: ignore[arg-type]


def test_each_result_is_compared_with_what_was_sent() -> None:
    quiet = flmping.Bar(3, shown=False)
    pinged([0, 1, 2]).run(quiet)
    for wrong in (1, 2.0, None, "2", True):
        with pytest.raises(flmping.Failure, match="task flmping-x/7 gave"):
            pinged([0, 1, wrong]).run(quiet)

    ping = pinged([b""], size=10)
    right = (0).to_bytes(8, "little") + ping._data
    for bad in (right[:-1], right + b"x", b"\1" + right[1:], right[:-1] + bytes([right[-1] ^ 1]), 0):
        with pytest.raises(flmping.Failure):
            ping._gather([SimpleNamespace(result=lambda w=bad: w, task_id="t")], 0, quiet)
    ping._gather([SimpleNamespace(result=lambda: right, task_id="t")], 0, quiet)
