"""Scripts and programs as tasks: their codes, outputs, bounds, and that nothing of them is left."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import flamezmq as flm
from flamezmq.scripts import LANGUAGES, run_program, run_script
from flamezmq.shims import command
from tests.waiting import alive, until

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def client() -> Iterator[flm.Client]:
    with flm.Client("", executors=1) as client:
        until(lambda: client.processes()["executors"], "its executor is there")
        yield client


def pid_in(file: Path) -> int:
    """A process that a script has written down, once it has."""
    return int(until(lambda: file.exists() and file.read_text().strip(), f"a pid in {file}"))


def gone(pid: int) -> Callable[[], bool]:
    return lambda: not alive(pid)


#: The child of the executor that waits for its end.
FIND_GUARD = "for p in $(ps -o pid= --ppid $PPID); do grep -q ^flm-guard /proc/$p/cmdline && echo $p; done"


def test_a_script_gives_its_code_and_its_outputs(client: flm.Client) -> None:
    result = client.submit(run_script, "shell", "echo out $1; echo err >&2; exit 3", ["a b"]).result()

    assert (result.exit_code, result.stdout, result.stderr) == (3, "out a b\n", "err\n")
    assert (result.ok, result.signal, result.timed_out, result.dropped_bytes) == (False, "", False, 0)
    assert result.executor.endswith("/1")
    assert 0 < result.seconds < 30
    assert abs(result.began - time.time()) < 30


SAYINGS = {
    "shell": ('echo "$1"', "#"),
    "bash": ('[[ -n $1 ]] && echo "$1"', "#"),
    "python": ("import sys; print(sys.argv[1])", "#"),
    "node": ("console.log(process.argv[1])", "//"),
    "perl": ('print "$ARGV[0]\\n";', "#"),
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("size", [0, 200_000])
def test_code_of_every_language_and_of_any_length_runs(language: str, size: int, client: flm.Client) -> None:
    if shutil.which(LANGUAGES[language][0]) is None:
        pytest.skip(f"{language} is not installed")
    code, remark = SAYINGS[language]

    result = client.submit(run_script, language, f"{remark}{'x' * size}\n{code}", ["-hé"]).result()

    assert (result.exit_code, result.stdout) == (0, "-hé\n"), result.stderr


def test_it_can_read_its_input_and_has_more_variables(client: flm.Client) -> None:
    done = client.submit(
        run_script, "shell", "cat; echo $MORE $HOME", stdin="hé\n" * 100_000, environment={"MORE": "more"}
    ).result()

    assert done.stdout == "hé\n" * 100_000 + f"more {os.environ.get('HOME', '')}\n"
    assert client.submit(run_script, "shell", "cat").result().stdout == ""


def test_a_signal_that_kills_it_is_named(client: flm.Client) -> None:
    result = client.submit(run_script, "shell", "kill -SEGV $$").result()

    assert (result.exit_code, result.signal) == (128 + signal.SIGSEGV, "SIGSEGV")


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["no-such-program-here"], 127, "No such file"),
        (["/etc"], 126, "Permission denied"),
        (["echo", "a\0b"], 126, "null"),
        (["echo", "x" * (1 << 17)], 126, "too long"),
    ],
)
def test_what_can_not_be_started_says_why_with_a_shells_code(
    words: list[str], code: int, complaint: str, client: flm.Client
) -> None:
    result = client.submit(run_program, words).result()

    assert result.exit_code == code
    assert complaint in result.stderr


def test_the_outputs_are_kept_up_to_a_bound_and_the_rest_is_counted(client: flm.Client) -> None:
    code = "head -c 3000000 /dev/zero; head -c 50 /dev/zero >&2; echo end >&2"
    result = client.submit(run_script, "shell", code, most_bytes=1000).result()

    assert (len(result.stdout_bytes), result.stderr_bytes) == (1000, bytes(50) + b"end\n")
    assert result.dropped_bytes == 3_000_000 - 1000
    assert result.exit_code == 0


def test_over_its_time_all_of_it_is_killed_also_who_does_not_listen(
    client: flm.Client, tmp_path: Path
) -> None:
    child = f'trap "" TERM; echo $$ > {tmp_path}/pid; sleep 1000; sleep 1000'
    code = f"trap '' TERM; sh -c '{child}' & echo begun; wait"
    result = client.submit(run_script, "shell", code, timeout=0.5).result()

    assert (result.exit_code, result.timed_out, result.stdout) == (124, True, "begun\n")
    until(gone(pid_in(tmp_path / "pid")), "its child is killed, too")


def test_who_is_over_its_time_may_say_goodbye(client: flm.Client) -> None:
    code = "trap 'echo bye; exit 0' TERM; while :; do sleep 0.01; done"

    assert client.submit(run_script, "shell", code, timeout=0.3).result().stdout == "bye\n"


def test_what_it_leaves_behind_is_killed_and_not_waited_for(client: flm.Client, tmp_path: Path) -> None:
    result = client.submit(run_script, "shell", f"sleep 1000 & echo $! > {tmp_path}/pid; echo done").result(
        20
    )

    assert result.stdout == "done\n"
    until(gone(pid_in(tmp_path / "pid")), "the child in the background is killed")


def test_a_script_that_kills_its_own_group_does_not_kill_the_executor(client: flm.Client) -> None:
    before = client.processes()["executors"]

    assert client.submit(run_script, "shell", "kill -KILL 0").result().signal == "SIGKILL"
    assert client.processes()["executors"] == before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_script_dies_with_its_executor(number: int, tmp_path: Path) -> None:
    with flm.Client("", executors=1) as client:
        session = client.session(max_retries=0)
        code = f"sh -c 'echo $$ > {tmp_path}/pid; sleep 1000; sleep 1000' & wait"
        future = session.submit(run_script, "shell", code)
        child = pid_in(tmp_path / "pid")

        os.kill(client.processes()["executors"][0], number)

        until(gone(child), "it is killed with the executor")
        with pytest.raises(flm.TaskLost):
            future.result(20)
        assert session.submit(abs, -1).result(20) == 1


def test_a_guard_that_was_killed_is_replaced(tmp_path: Path) -> None:
    with flm.Client("", executors=1) as client:
        session = client.session(max_retries=0)
        guards = [int(session.submit(run_script, "shell", FIND_GUARD).result().stdout) for _ in range(2)]
        os.kill(guards[0], signal.SIGKILL)
        until(gone(guards[0]), "the guard is dead")
        future = session.submit(run_script, "shell", f"{FIND_GUARD}; echo $$ > {tmp_path}/pid; sleep 1000")
        child = pid_in(tmp_path / "pid")

        os.kill(client.processes()["executors"][0], signal.SIGKILL)

        until(gone(child), "the new guard has killed it")
        assert guards[0] == guards[1], "one for all commands"
        with pytest.raises(flm.TaskLost):
            future.result(20)


def test_a_script_ends_when_its_tasks_time_is_over(client: flm.Client, tmp_path: Path) -> None:
    quick = flm.options(timeout=0.3)(run_script)
    code = f"echo $$ > {tmp_path}/pid; sleep 1000"
    future = client.submit(quick, "shell", code)

    with pytest.raises(flm.TaskTimeout):
        future.result(20)
    until(gone(pid_in(tmp_path / "pid")), "the task's script is killed")


def test_a_script_ends_when_its_task_is_cancelled(client: flm.Client, tmp_path: Path) -> None:
    future = client.submit(run_script, "shell", f"echo $$ > {tmp_path}/pid; sleep 1000")
    child = pid_in(tmp_path / "pid")
    before = client.processes()["executors"]

    assert future.cancel(running=True)
    until(gone(child), "the task's script is killed")
    assert client.processes()["executors"] == before, "the executor need not be"


def test_a_script_ends_with_the_client(tmp_path: Path) -> None:
    with flm.Client("", executors=1) as client:
        client.submit(run_script, "shell", f"echo $$ > {tmp_path}/pid; sleep 1000")
        child = pid_in(tmp_path / "pid")
        client.close()

    until(gone(child), "it is killed with the cluster")


def test_it_inherits_nothing_and_has_usual_signals(client: flm.Client) -> None:
    code = """
import os, signal
print(sorted(map(int, os.listdir("/proc/self/fd")))[:-1])
print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, os.getpgrp() == os.getpid())
print([line for line in open("/proc/self/status") if line.startswith("SigBlk")][0].split()[1].strip("0"))
"""
    result = client.submit(run_script, "python", code).result()

    assert result.stdout == "[0, 1, 2]\nTrue True\n\n", result
    trap = "trap - INT; kill -INT $$; echo survived"
    assert client.submit(run_script, "shell", trap).result().signal == "SIGINT"


def test_a_script_that_is_there_is_run_in_its_place_and_else_from_its_code(
    client: flm.Client, tmp_path: Path
) -> None:
    (tmp_path / "neighbour.py").write_text("VALUE = 42\n")
    code = "import neighbour\nprint(neighbour.VALUE)\n"
    script = tmp_path / "script.py"
    script.write_text(code)

    assert client.submit(run_script, "python", code, file=str(script)).result().stdout == "42\n"
    other = client.submit(run_script, "python", "print(1)", file=str(script)).result()
    assert other.stdout == "1\n", "the file has other code"
    assert client.submit(run_script, "python", "print(2)", file="/nowhere.py").result().stdout == "2\n"


def test_a_language_that_nobody_knows_and_no_words_are_refused(client: flm.Client) -> None:
    with pytest.raises(ValueError, match="no language 'cobol'; there are shell, bash"):
        client.submit(run_script, "cobol", "x").result()
    with pytest.raises(ValueError, match="a program and its arguments"):
        client.submit(run_program, "ls -l").result()


# --- in this process


def test_it_works_outside_of_a_cluster_too() -> None:
    result = run_program([sys.executable, "-c", "print('é')"])

    assert (result.stdout, result.executor) == ("é\n", "")


def test_an_interrupt_while_a_command_runs_kills_it(tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    timer = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            command.run(["sh", "-c", f"echo $$ > {tmp_path}/pid; sleep 1000"])
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, before)

    assert gone(pid_in(tmp_path / "pid"))()
