"""flmexec as its user meets it: outputs whole and in order, codes, Ctrl-C, bounded memory, nothing left."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import flamezmq as flm
from flamezmq.cli import exec as flmexec
from flamezmq.cli import exec_run
from flamezmq.client.controller import Controller
from flamezmq.wire import messages as m
from tests.daemons import call, daemons_in, environment, free_port
from tests.test_scripts import gone, pid_in
from tests.waiting import until

pytestmark = pytest.mark.processes

COMMAND = [sys.executable, "-P", "-m", "flamezmq.cli.exec"]
#: Generous: the machine may be busy.
LIMIT_SECONDS = 40.0


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a cluster with two executors, so that not each call has to start one."""
    with flm.Client("", executors=2) as client:
        yield client.address


def run(*words: str, address: str = "", given: str = "", **changes: str) -> subprocess.CompletedProcess[str]:
    return call(COMMAND, *words, given=given, FLAMEZMQ_ADDRESS=address, **changes)


@contextlib.contextmanager
def start(*words: str, address: str = "", stdin: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[str]]:
    """Waits for its end, which comes at once if the test fails."""
    with subprocess.Popen(
        [*COMMAND, *words],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(FLAMEZMQ_ADDRESS=address),
    ) as program:
        try:
            yield program
        except BaseException:
            program.kill()
            raise


def test_ten_tasks_of_a_command_as_flame_runs_them() -> None:
    done = run("-t", "10", "-l", "shell", "-c", "echo $FLAMEZMQ_TASK_NUMBER; echo {#} >&2")

    assert (done.returncode, done.stdout.split()) == (0, [str(n) for n in range(1, 11)]), done.stderr
    assert sorted(map(int, done.stderr.split())) == list(range(1, 11))


def test_outputs_are_whole_and_in_the_order_of_the_inputs(address: str) -> None:
    code = "for i in 1 2 3 4; do echo {}$i; sleep 0.01; done; sleep 0.0$((5 - {#} % 5))"
    done = run(code, ":::", *"abcdefghij", address=address)

    assert done.stdout.split() == [f"{letter}{i}" for letter in "abcdefghij" for i in range(1, 5)]
    assert done.returncode == 0


def test_inputs_come_from_files_too_and_are_combined_with_those_that_are_listed(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes("a b\nit's ü\n".encode())
    (tmp_path / "two").write_text("x\ny")  # the last line has no end

    done = run("--dry-run", "echo", "::::", str(tmp_path / "one"), str(tmp_path / "two"), ":::", "1")

    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        f"echo {one} {two} 1" for one in ("'a b'", "'it'\"'\"'s ü'") for two in ("x", "y")
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["/nowhere/inputs"], "can't read the inputs in '/nowhere/inputs': No such file or directory"),
        ([], "no file of inputs stands behind ::::"),
    ],
)
def test_a_file_of_inputs_that_is_not_there_is_said_and_nothing_runs(words: list[str], said: str) -> None:
    done = run("echo", "::::", *words)

    assert (done.returncode, done.stdout, done.stderr) == (255, "", f"flmexec: {said}\n")


def test_unordered_a_quick_task_is_shown_before_a_slow_one_that_came_first(
    address: str, tmp_path: Path
) -> None:
    code = f"while ! [ -e {tmp_path}/{{}} ]; do sleep 0.01; done; echo {{}}"
    with start("-u", code, ":::", "slow", "quick", address=address) as program:
        assert program.stdout is not None
        (tmp_path / "quick").touch()
        assert program.stdout.readline() == "quick\n"
        (tmp_path / "slow").touch()
        assert program.stdout.readline() == "slow\n"
    assert program.returncode == 0


def test_a_parallel_xargs_appends_or_replaces_the_line(address: str) -> None:
    lines = "a b\n$HOME 'x'\n\n*\n"

    assert run("-i", "printf '<%s>\\n'", given=lines, address=address).stdout == (
        "<a b>\n<$HOME 'x'>\n<>\n<*>\n"
    )
    assert run("-i", "-0", "echo {}-{#}", given="x\ny\0z", address=address).stdout == "x\ny-1\nz-2\n"
    assert run("-i", "echo", given="", address=address).stdout == ""


def test_lines_are_commands_where_there_is_no_other(address: str) -> None:
    done = run("-i", given="echo a | tr a b\nexit 3\n", address=address)

    assert (done.returncode, done.stdout) == (1, "b\n")


def test_it_runs_without_standard_streams(address: str, tmp_path: Path) -> None:
    line = f"{shlex.join(COMMAND)} 'echo x; touch {tmp_path}/ran' <&- >&- 2>&-"
    done = subprocess.run(["sh", "-c", line], timeout=LIMIT_SECONDS, env=environment(), check=False)

    assert done.returncode == 0
    assert (tmp_path / "ran").exists()


def test_names_that_are_no_utf8_reach_the_command_as_they_are(address: str) -> None:
    done = subprocess.run(
        [*COMMAND, "-i", "printf %s"],
        input=b"\xff\xfe\n",
        capture_output=True,
        timeout=LIMIT_SECONDS,
        env=environment(FLAMEZMQ_ADDRESS=address),
        check=False,
    )

    assert done.stdout == b"\xff\xfe"


def test_results_are_shown_while_the_next_line_has_not_come(address: str) -> None:
    with start("-i", "echo got", address=address, stdin=subprocess.PIPE) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        for line in ("1", "2"):
            program.stdin.write(f"{line}\n")
            program.stdin.flush()
            assert program.stdout.readline() == f"got {line}\n"
        program.stdin.close()
        assert program.wait(LIMIT_SECONDS) == 0


def test_a_python_script_gets_its_arguments_and_finds_its_neighbours(address: str, tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text("def greet(words):\n    print('hello', *words)\n")
    script = tmp_path / "script.py"
    script.write_text("import sys\nimport neighbour\nneighbour.greet(sys.argv[1:])\n")

    done = run("-l", "python", str(script), "-v", ":::", "a b", "c", address=address)
    code = run("-l", "python", "-c", "import sys; print({}, sys.argv[1:])", ":::", "x", address=address)

    assert done.stdout == "hello -v a b\nhello -v c\n", done.stderr
    assert code.stdout == "{} ['x']\n", code.stderr


def test_the_code_is_the_number_of_failed_tasks_and_a_table_says_which(address: str) -> None:
    done = run("exit {}", ":::", "0", "3", "0", "137", address=address)

    assert (done.returncode, done.stdout) == (2, "")
    lines = [line.split() for line in done.stderr.splitlines()]
    assert lines[0] == ["Task", "Exit", "Seconds", "Executor"]
    assert [line[:2] for line in lines[1:3]] == [["2", "3"], ["4", "137"]]
    assert done.stderr.endswith("\n2 of 4 tasks have failed\n")
    assert run("-t", "150", "-o", "none", "false", address=address).returncode == 101


def test_all_tasks_with_all_columns_stand_in_the_wide_table(address: str) -> None:
    done = run("-o", "wide", "kill -9 $$; echo {}", ":::", "x", address=address)

    head, line = (row.split() for row in done.stderr.splitlines())
    assert head == ["Task", "Exit", "Seconds", "Executor", "Signal", "Tries", "Began", "Command"]
    assert (line[:2], line[4:6]) == (["1", "137"], ["SIGKILL", "1"])
    assert " ".join(line[7:]) == "kill -9 $$; echo x"


def test_json_for_programs(address: str) -> None:
    done = run("-o", "json", "echo {}; exit {}", ":::", "0", "4", address=address)

    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["task"], one["exit_code"], one["stdout"]) for one in found] == [(1, 0, "0\n"), (2, 4, "4\n")]
    assert (done.returncode, done.stderr) == (1, "")


def test_a_task_that_fails_is_run_again_as_often_as_asked(address: str, tmp_path: Path) -> None:
    code = f"echo x >> {tmp_path}/runs; test $(wc -l < {tmp_path}/runs) -ge 3"

    assert run("--retries", "1", code, address=address).returncode == 1
    assert (tmp_path / "runs").read_text() == "x\n" * 2
    done = run("--retries", "1", "-o", "json", code, address=address)
    assert (done.returncode, json.loads(done.stdout)["tries"]) == (0, 1)


def test_a_task_whose_executor_dies_is_not_run_again_unasked(tmp_path: Path) -> None:
    code = (
        f"echo x >> {tmp_path}/runs; if [ $(wc -l < {tmp_path}/runs) = 1 ]; then kill -9 $PPID; sleep 100; fi"
    )

    done = run("-j", "1", code)
    assert (done.returncode, (tmp_path / "runs").read_text()) == (1, "x\n")
    assert "SIGKILL" in done.stderr
    (tmp_path / "runs").unlink()
    assert run("-j", "1", "--retries", "1", code).returncode == 0
    assert (tmp_path / "runs").read_text() == "x\n" * 2


def test_a_task_over_its_time_has_failed_and_says_so(address: str) -> None:
    done = run("--timeout", "0.3", "-o", "table", "sleep {}", ":::", "0", "1000", address=address)

    assert done.returncode == 1
    assert re.search(r"^ +2 +124 .* its time was over$", done.stderr, re.MULTILINE)


def test_output_beyond_the_bound_is_a_failure_that_says_what_to_do(address: str) -> None:
    code = "head -c {} /dev/zero"
    done = run("--max-output", "64k", code, ":::", "65536", "65537", address=address)

    assert (done.returncode, len(done.stdout)) == (1, 2 * 65536)
    assert "1 bytes of its output are lost; raise --max-output" in done.stderr


def test_halt_soon_lets_run_what_runs_and_begins_no_more(address: str, tmp_path: Path) -> None:
    rest = "case {} in 1) sleep 0.2; exit 5;; 2) sleep 0.6; echo ended;; *) sleep 1;; esac"
    code = f"touch {tmp_path}/{{}}; {rest}"
    done = run("-j", "2", "--halt", "soon,fail=1", code, ":::", "1", "2", "3", "4", "5", address=address)

    assert (done.returncode, done.stdout) == (1, "ended\n")
    assert "1 failed: no more tasks are begun" in done.stderr
    assert "5" not in os.listdir(tmp_path)


def test_halt_now_kills_what_runs(address: str, tmp_path: Path) -> None:
    rest = f"test {{}} = 2 && while ! [ -s {tmp_path}/1 ]; do :; done && exit 1; sleep 1000"
    code = f"echo $$ > {tmp_path}/{{}}; {rest}"
    done = run("--halt", "now,fail=1", code, ":::", "1", "2", address=address)

    assert done.returncode == 1
    assert "1 failed: what runs is killed" in done.stderr
    assert "1 of 1 tasks have failed, and 1 more were cancelled" in done.stderr
    until(gone(pid_in(tmp_path / "1")), "the other task is killed")


def test_a_log_of_jobs_has_a_line_for_each(address: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    run("--joblog", str(log), "exit {}", ":::", "0", "1", address=address)

    rows = sorted(line.split("\t") for line in log.read_text().splitlines()[1:])
    assert [(row[0], row[6], row[8]) for row in rows] == [("1", "0", "exit 0"), ("2", "1", "exit 1")]
    assert all(abs(float(row[2]) - time.time()) < 60 for row in rows)


@pytest.mark.parametrize("own_cluster", [True, False])
def test_ctrl_c_ends_it_at_once_with_all_that_runs(own_cluster: bool, address: str, tmp_path: Path) -> None:
    code = f"sh -c 'echo $$ > {tmp_path}/{{}}; sleep 1000; sleep 1000' & wait"
    with start("-j", "2", code, ":::", "1", "2", address="" if own_cluster else address) as program:
        children = [pid_in(tmp_path / name) for name in ("1", "2")]
        program.send_signal(signal.SIGINT)
        out, complaint = program.communicate(timeout=LIMIT_SECONDS)

    assert (program.returncode, out, complaint.strip()) == (130, "", "")
    for child in children:
        until(gone(child), "its tasks are killed")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_is_as_good_as_ctrl_c(number: int, address: str, tmp_path: Path) -> None:
    with start(f"echo $$ > {tmp_path}/pid; sleep 1000; sleep 1000", address=address) as program:
        child = pid_in(tmp_path / "pid")
        program.send_signal(number)
        assert program.wait(LIMIT_SECONDS) == 128 + number

    until(gone(child), "its task is killed", seconds=3)


@pytest.mark.parametrize("own_cluster", [True, False])
def test_when_it_is_killed_its_tasks_are_too(own_cluster: bool, address: str, tmp_path: Path) -> None:
    code = f"echo $$ > {tmp_path}/pid; sleep 1000; sleep 1000"
    with start(code, address="" if own_cluster else address) as program:
        child = pid_in(tmp_path / "pid")
        program.kill()

    until(gone(child), "its task is killed")


def test_who_stops_reading_ends_it_without_a_complaint(address: str) -> None:
    line = f"{shlex.join(COMMAND)} -t 1000000 'echo {{#}}' | head -n 1"
    done = subprocess.run(
        ["sh", "-c", line],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        env=environment(FLAMEZMQ_ADDRESS=address),
        check=False,
    )

    assert (done.stdout, done.stderr) == ("1\n", "")


#: Far more than 4,096 lines of four bytes, a piece that is read, and a pipe.
ENOUGH_BYTES = 400_000


def test_millions_of_lines_are_not_read_ahead(address: str) -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    chunk = b"0.2\n" * 16_384
    taken = 0
    with (
        start("-i", "-o", "none", "sleep", address=address, stdin=read) as program,
        open(write, "wb", 0) as out,
    ):
        os.close(read)
        assert program.stdout is not None
        while taken < ENOUGH_BYTES and (not taken or select.select([], [write], [], 2.0)[1]):
            taken += out.write(chunk) or 0
        program.send_signal(signal.SIGINT)
        program.communicate(timeout=LIMIT_SECONDS)

    assert taken < ENOUGH_BYTES, "what has room is pulled, and no more"
    assert program.returncode == 130


@pytest.mark.slow
def test_large_outputs_that_wait_for_their_turn_do_not_stay_in_memory(address: str) -> None:
    code = "if [ {#} = 1 ]; then sleep 3; else head -c 8000000 /dev/zero; fi"
    with start("-t", "40", code, address=address) as program:
        assert program.stdout is not None
        worst, got = 0, 0
        process = psutil.Process(program.pid)
        while data := os.read(program.stdout.fileno(), 1 << 20):
            got += len(data)
            worst = max(worst, process.memory_info().rss)

    assert (program.returncode, got) == (0, 39 * 8_000_000)
    assert worst < 200 << 20, "39 times 8 MB waited for the first"


def test_a_bar_is_drawn_on_a_terminal_and_outputs_stand_above_it(address: str) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "--progress", "echo line {#}; exit 1", ":::", *"abc"],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env=environment(FLAMEZMQ_ADDRESS=address, TERM="xterm", COLUMNS="100"),
    ) as program:
        os.close(theirs)
        seen = b""
        try:
            while data := os.read(ours, 65536):
                seen += data
        except OSError:
            pass  # the other end is closed
    os.close(ours)

    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    assert program.returncode == 3
    assert re.search(r"^tasks .* 3/3 3 failed", text, re.MULTILINE), text
    assert [line.strip() for line in text.splitlines() if line.startswith("line")] == [
        "line 1",
        "line 2",
        "line 3",
    ]


def test_elsewhere_no_bar_is_drawn(address: str) -> None:
    assert run("--progress", "true", address=address).stderr == ""


def test_a_cluster_without_executors_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exec_run, "PATIENCE_SECONDS", 0.2)
    with daemons_in(tmp_path) as daemons:
        where = f"tcp://127.0.0.1:{free_port()}"
        daemons.router(where)
        notes = []

        def come(text: str) -> None:
            notes.append(text)
            daemons.worker(where, executors=1)

        monkeypatch.setattr(exec_run, "note", come)
        assert not flmexec.command.main(["-a", where, "true"], prog_name="flmexec", standalone_mode=False)
        assert len(notes) == 1
        assert "no task has begun" in notes[0]
        assert [daemon.stop() for daemon in reversed(daemons.all)] == [0, 0]


def test_a_cluster_that_is_lost_on_the_way_is_one_sentence() -> None:
    with start("-j", "1", "-t", "3", "sleep 1000") as program:
        routers: list[psutil.Process] = until(
            lambda: [
                p for p in psutil.Process(program.pid).children(recursive=True) if p.name() == "flm-router"
            ],
            "the router",
        )
        until(
            lambda: any(p.name() == "sleep" for p in psutil.Process(program.pid).children(recursive=True)),
            "the first task",
        )
        routers[0].kill()
        _, complaint = program.communicate(timeout=LIMIT_SECONDS)

    assert (program.returncode, complaint.count("\n")) == (255, 1), complaint
    assert "the router was killed by SIGKILL" in complaint


def test_somebody_else_closes_the_session(address: str) -> None:
    with start("-t", "2", "sleep 1000", address=address) as program, Controller(address) as controller:
        session: m.SessionRow = until(
            lambda: next((row for row in controller.sessions()[0] if row.name == "flmexec"), None),
            "its session",
        )
        controller.close_session(session.id, by="somebody")
        _, complaint = program.communicate(timeout=LIMIT_SECONDS)

    assert program.returncode == 255
    assert "was closed by somebody" in complaint


def test_a_full_disk_is_one_sentence(address: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{shlex.join(COMMAND)} 'echo x' > /dev/full"],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        env=environment(FLAMEZMQ_ADDRESS=address),
        check=False,
    )

    assert (done.returncode, done.stderr.count("\n")) == (255, 1), done.stderr
    assert "No space left" in done.stderr


def test_bad_arguments_and_an_absent_cluster_have_a_code_of_their_own(tmp_path: Path) -> None:
    refused = run("--nonsense")
    nobody = run("-a", "ipc:///nowhere/at/all", "true", FLAMEZMQ_CLIENT_CONNECT_TIMEOUT="0.2")

    assert refused.returncode == nobody.returncode == 255
    assert refused.stderr.startswith("flmexec: ")
    assert nobody.stderr.splitlines()[-1].startswith("flmexec: ")
    (tmp_path / "bad.toml").write_text("[client]\nadress = 'x'\n")
    misspelt = run("true", FLAMEZMQ_CONFIG=str(tmp_path / "bad.toml"))
    assert misspelt.returncode == 255
    assert misspelt.stderr.endswith("did you mean 'address'?\n")
