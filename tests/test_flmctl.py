"""flmctl as its user meets it: each command on a cluster that runs, the words, the exit codes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import psutil
import pytest
import zmq

import flamezmq as flm
from flamezmq.cli import ctl
from flamezmq.cli.ctl_change import task_of
from flamezmq.cli.ctl_list import by_name
from flamezmq.wire import codec
from flamezmq.wire import messages as m
from tests import daemons
from tests.daemons import call
from tests.hostile import Impostor, sealed
from tests.waiting import until

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-P", "-m", "flamezmq.cli.ctl"]
#: Generous: the machine may be busy.
LIMIT_SECONDS = 40.0
#: As long as a test may take: who sleeps so long has not ended when it is looked at.
LONG_SECONDS = 50.0


def environment(address: str = "") -> dict[str, str]:
    return daemons.environment(FLAMEZMQ_ADDRESS=address)


def run(*words: str, address: str = "") -> subprocess.CompletedProcess[str]:
    return call(COMMAND, *words, FLAMEZMQ_ADDRESS=address)


@pytest.fixture(scope="module")
def client() -> Iterator[flm.Client]:
    with flm.Client(executors=2, forward_output=False) as one:
        yield one


@pytest.fixture
def ask(client: flm.Client) -> Callable[..., str]:
    """Run a command that is to be done; what it says."""

    def done(*words: str) -> str:
        found = run(*words, address=client.address)
        assert (found.returncode, found.stderr) == (0, ""), found
        return found.stdout

    return done


@pytest.fixture
def session(client: flm.Client) -> Iterator[flm.Session]:
    one = client.session("demo")
    yield one
    one.close(cancel=True)


def rows(text: str) -> list[list[str]]:
    """The words of each line of a table; a cell of two words is two."""
    return [line.split() for line in text.splitlines()]


def busy(client: flm.Client, session: flm.Session, waiting: int = 3) -> list[flm.Future]:
    """Two tasks that run until their executors are killed, and some that wait behind them."""
    futures = [session.submit(time.sleep, LONG_SECONDS) for _ in range(2 + waiting)]
    until(lambda: session.status().running == 2)
    return futures


@pytest.fixture
def at_work(client: flm.Client, session: flm.Session) -> Iterator[list[flm.Future]]:
    """The tasks of `session`: two run, three wait.  Those that run are killed in the end."""
    futures = busy(client, session)
    yield futures
    session.close(cancel=True)
    for pid in client.processes()["executors"]:
        os.kill(pid, signal.SIGKILL)


# --- list


def test_sessions_are_listed_as_flame_prints_them(ask: Any, session: flm.Session, at_work: Any) -> None:
    head, *lines = rows(ask("list"))

    assert head == ["ID", "State", "App", "Slots", "Pending", "Running", "Succeed", "Failed", "Created"]
    (line,) = [line for line in lines if line[0] == session.id]
    assert line[1:8] == ["Open", "demo", "2", "3", "2", "0", "0"]


def test_sessions_that_have_ended_are_listed_when_asked_for(ask: Any, client: flm.Client) -> None:
    with client.session("over") as session:
        session.submit(abs, -1).result()
        with pytest.raises(TypeError):
            session.submit(abs, None).result()

    found = json.loads(ask("list", "-A", "-o", "json"))
    (row,) = [row for row in found if row["id"] == session.id]
    assert row["state"] == "Closed"
    assert (row["succeed"], row["failed"], row["ending"]) == (1, 1, "closed by its client")
    assert session.id not in run("list", address=client.address).stdout


def test_executors_are_listed_with_what_they_do(ask: Any, session: flm.Session, at_work: Any) -> None:
    head, *lines = rows(ask("list", "-e"))
    assert head == ["ID", "State", "Session", "Node", "Pid", "Tasks"]
    assert len(lines) == 2
    node = socket.gethostname()
    for line in lines:
        assert line[0].startswith(f"{node}/")
        assert line[1:4] == ["Bound", session.id, node]
        assert psutil.Process(int(line[4])).name().startswith("flm-exec")

    found = json.loads(ask("list", "--executors", "-o", "json"))
    assert {row["task"] for row in found} == {f"{session.id}/0", f"{session.id}/1"}
    assert all(row["task_running_seconds"] >= 0 for row in found)


def test_executors_are_listed_node_by_node_as_they_are_numbered() -> None:
    names = ["b/1", "a/10", "a/9", "a/x"]
    rows = [m.ExecutorRow(at, name, 0, "", "", 1, 0, -1, -1.0, 0) for at, name in enumerate(names)]
    assert [row.name for row in sorted(rows, key=by_name)] == ["a/x", "a/9", "a/10", "b/1"]


def test_nodes_are_listed_with_what_they_have(ask: Any, client: flm.Client) -> None:
    until(lambda: "Ready" in ask("list", "-n"))
    head, line = rows(ask("list", "-n"))

    assert head == ["Name", "State", "Cpu", "Memory", "Gpu", "Others", "Executors", "Store", "Since"]
    assert line[:2] == [socket.gethostname(), "Ready"]
    (row,) = json.loads(ask("list", "--nodes", "-o", "json"))
    assert row["memory"] > 1 << 20
    assert row["wanted"] == 2


def test_a_wide_table_has_all_columns_of_the_narrow_one_and_more(ask: Any, session: flm.Session) -> None:
    for what in ([], ["-e"], ["-n"]):
        narrow, wide = (ask("list", *what, *form).splitlines()[0].split() for form in ([], ["-o", "wide"]))
        assert wide[: len(narrow)] == narrow
        assert len(wide) > len(narrow)


def test_a_list_that_is_cut_says_so(client: flm.Client) -> None:
    with client.session("one"), client.session("two"):
        done = run("list", "--limit", "1", address=client.address)
    assert len(done.stdout.splitlines()) == 2
    assert "more are not shown; --limit" in done.stderr


def test_an_empty_list_says_where_to_look() -> None:
    with flm.Client(executors=1) as client:
        done = run("list", address=client.address)
        assert json.loads(run("list", "-o", "json", address=client.address).stdout) == []
    assert done.stdout.startswith("ID ")
    assert "-A shows those that have ended" in done.stderr


# --- view


def test_a_session_is_shown_with_its_tasks(ask: Any, session: flm.Session, at_work: Any) -> None:
    about, tasks = ask("view", session.id, "-t").split("\n\n")

    facts = dict(line.split(None, 1) for line in about.splitlines())
    assert facts["ID"] == session.id
    assert (facts["State"], facts["Pending"], facts["Running"]) == ("Open", "3", "2")
    head, *lines = rows(tasks)
    assert head == ["Task", "State", "Function", "Attempt", "Executor", "Since", "Seconds"]
    assert [line[:4] for line in lines] == [
        ["0", "Running", "time.sleep", "1"],
        ["1", "Running", "time.sleep", "1"],
        ["2-4", "Pending", "time.sleep", "1"],
    ]


def test_a_session_in_json_has_numbers_and_times(ask: Any, session: flm.Session) -> None:
    assert session.submit(abs, -1).result() == 1
    with pytest.raises(TypeError):
        session.submit(abs, None).result()

    found = json.loads(ask("view", session.id, "-t", "-o", "json"))

    assert (found["succeed"], found["failed"], found["tasks_not_shown"]) == (1, 1, 0)
    assert [(row["first"], row["count"], row["state"]) for row in found["tasks"]] == [
        (0, 1, "Succeed"),
        (1, 1, "Failed"),
    ]
    assert all(row["seconds"] > 0 and row["executor"] for row in found["tasks"])
    (failed,) = json.loads(ask("view", session.id, "--state", "failed", "-o", "json"))["tasks"]
    assert failed["first"] == 1
    assert "tasks" not in json.loads(ask("view", session.id, "-o", "json"))


def test_a_long_queue_is_answered_at_once_and_shown_in_a_few_rows(
    client: flm.Client, session: flm.Session, at_work: Any
) -> None:
    for value in range(200_000):
        session.submit(abs, value)
    until(lambda: session.status().pending > 200_000)

    done = run("view", session.id, "-t", "--limit", "5", "-o", "json", address=client.address)

    found = json.loads(done.stdout)
    assert found["pending"] > 100_000, "as much as its client may have with the router"
    assert len(found["tasks"]) <= 5
    shown = sum(row["count"] for row in found["tasks"])
    assert shown + found["tasks_not_shown"] == found["pending"] + found["running"]


# --- close, cancel


def test_who_waits_for_a_session_that_is_closed_is_told_by_whom(
    ask: Any, client: flm.Client, session: flm.Session, at_work: list[flm.Future]
) -> None:
    said = ask("close", session.id)

    assert said == f"session {session.id} is closed; tasks that waited and are cancelled: 3\n"
    for future in at_work:
        with pytest.raises(CancelledError, match=r"was closed by flmctl \(pid \d+, .+@.+\)"):
            future.result(LIMIT_SECONDS)
        assert future.cancelled()
    with pytest.raises(flm.ClientClosed, match=r"was closed by flmctl .*open a new one"):
        session.submit(abs, 1)
    with pytest.raises(CancelledError, match="flmctl"):
        at_work[0].exception()
    session.close()
    with client.session("next") as another:
        assert another.submit(abs, -2).result(LIMIT_SECONDS) == 2


def test_a_map_of_a_session_that_is_closed_ends(ask: Any, client: flm.Client) -> None:
    session = client.session("mapped")
    results = session.map(time.sleep, [0.001] * 100_000)
    next(results)

    ask("close", session.id)

    with pytest.raises((CancelledError, flm.ClientClosed), match="closed by flmctl"):
        list(results)


def test_what_a_closed_session_has_printed_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    with flm.Client(executors=1) as client:
        session = client.session("loud")
        running = session.submit(print, "before the end")
        running.result(LIMIT_SECONDS)
        session.submit(time.sleep, LONG_SECONDS)
        assert run("close", session.id, address=client.address).returncode == 0
        until(lambda: session.id not in [one.id for one in client._sessions.values()])
    assert "before the end" in capfd.readouterr().out


def test_a_task_that_waits_is_cancelled_and_its_future_says_by_whom(
    ask: Any, at_work: list[flm.Future]
) -> None:
    assert ask("cancel", at_work[4].task_id) == f"task {at_work[4].task_id} is cancelled\n"
    assert json.loads(ask("cancel", at_work[3].task_id, "-o", "json"))["done"] is True

    for future in at_work[3:]:
        with pytest.raises(CancelledError, match="cancelled by flmctl"):
            future.result(LIMIT_SECONDS)
    assert not at_work[2].done()


def test_a_task_that_runs_is_not_cancelled(client: flm.Client, at_work: list[flm.Future]) -> None:
    done = run("cancel", at_work[0].task_id, address=client.address)

    assert done.returncode == 1
    assert "has begun or ended: it is not cancelled" in done.stderr
    assert not at_work[0].done()


def test_a_session_is_closed_once(ask: Any, client: flm.Client, session: flm.Session) -> None:
    ask("close", session.id)
    done = run("close", session.id, address=client.address)

    assert done.returncode == 1
    assert "is closed already" in done.stderr


def test_the_name_of_a_task_is_taken_apart() -> None:
    assert task_of("a-b/c/12") == ("a-b/c", 12)
    for wrong in ("a", "a/", "/1", "a/x", "a/-1", "a/1.5", "a/" + "9" * 30, "a/²"):
        with pytest.raises(click.UsageError):
            task_of(wrong)


# --- logs


def chatter(number: int) -> int:
    print("line", number)
    if number == 2:
        print("a complaint", file=sys.stderr)
    return number


def logged(ask: Any, *words: str) -> str:
    """The log, when something is in it: it comes a moment after the result."""
    until(lambda: ask("logs", *words))
    return str(ask("logs", *words))


def test_the_log_of_a_task_has_its_lines_and_no_others(ask: Any, session: flm.Session) -> None:
    futures = [session.submit(chatter, number) for number in range(20)]
    assert [future.result(LIMIT_SECONDS) for future in futures] == list(range(20))

    for number in (0, 7, 19):
        assert logged(ask, futures[number].task_id) == f"line {number}\n"
    until(lambda: ask("logs", futures[2].task_id).count("\n") == 2)
    assert sorted(ask("logs", futures[2].task_id).splitlines()) == ["a complaint", "line 2"]


def test_the_log_of_an_executor_has_all_of_its_tasks(ask: Any, session: flm.Session) -> None:
    for number in range(10):
        session.submit(chatter, number).result(LIMIT_SECONDS)
    names = [row["id"] for row in json.loads(ask("list", "-e", "-o", "json"))]

    until(lambda: sum(ask("logs", name).count(f"line {9}\n") for name in names))
    wide = "".join(ask("logs", name, "-o", "wide") for name in names)
    assert f"{session.id}/9  out  line 9\n" in wide


def test_a_log_in_json_is_an_object_a_line(ask: Any, session: flm.Session) -> None:
    task = session.submit(chatter, 2)
    task.result(LIMIT_SECONDS)
    until(lambda: ask("logs", task.task_id).count("\n") == 2)

    found = [json.loads(line) for line in ask("logs", session.id, "-o", "json").splitlines()]

    assert {(row["task"], row["stream"], row["text"]) for row in found} == {
        (task.task_id, "stdout", "line 2\n"),
        (task.task_id, "stderr", "a complaint\n"),
    }


def shell(line: str) -> int:
    return os.system(line)


def test_what_a_program_prints_that_a_task_has_started_is_the_tasks(ask: Any, session: flm.Session) -> None:
    tasks = [session.submit(shell, f"echo says {number}; sleep 0.1") for number in range(4)]
    assert [task.result(LIMIT_SECONDS) for task in tasks] == [0] * 4

    for number, task in enumerate(tasks):
        assert logged(ask, task.task_id) == f"says {number}\n"


def test_a_log_is_followed_until_ctrl_c(client: flm.Client, session: flm.Session) -> None:
    session.submit(chatter, 1).result(LIMIT_SECONDS)
    command = [*COMMAND, "logs", "-f", session.id]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(client.address)
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "line 1\n"
        session.submit(chatter, 5).result(LIMIT_SECONDS)
        assert program.stdout.readline() == "line 5\n"
        program.send_signal(signal.SIGINT)
        _, complaint = program.communicate(timeout=LIMIT_SECONDS)

    assert (program.returncode, complaint.strip()) == (130, "")


# --- what goes wrong


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["view", "nobody"], "there is no session 'nobody'"),
        (["view", "nobody", "-t"], "there is no session 'nobody'"),
        (["close", "nobody"], "there is no session 'nobody'"),
        (["cancel", "nobody/1"], "there is no session 'nobody'"),
        (["cancel", "SESSION/99"], "has no task 99"),
        (["logs", "SESSION/99"], "has no task 99"),
        (["logs", "nobody/1"], "there is no task, session or executor 'nobody/1'"),
        (["logs", "nobody"], "there is no task, session or executor 'nobody'"),
    ],
)
def test_what_is_not_there_is_exit_code_4(
    client: flm.Client, session: flm.Session, words: list[str], complaint: str
) -> None:
    done = run(*(word.replace("SESSION", session.id) for word in words), address=client.address)

    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("flmctl: ")
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["nonsense"], "No such command 'nonsense'. See flmctl --help."),
        (["list", "--nonsense"], "See flmctl list --help."),
        (["list", "-a", "nonsense"], "'nonsense' is not an address (tcp://HOST:PORT or ipc://PATH)."),
        (["-a", "tcp://127.0.0.1", "list"], "its port must be a number from 1 to 65535."),
        (["list", "-e", "-A"], "-A is for sessions"),
        (["list", "-o", "xml"], "'xml' is not one of"),
        (["list", "--limit", "0"], "0 is not in the range"),
        (["unregister", "a", "b"], "extra argument (b). See flmctl unregister --help."),
        (["view"], "Missing argument 'SESSION'. See flmctl view --help."),
        (["view", "x", "--limit", "257"], "257 is not in the range"),
        (["view", "x", "--state", "cancelled"], "'cancelled' is not one of"),
        (["list", "-a"], "Option '-a' requires an argument. See --help."),
        (["cancel", "x"], "'x' is no task"),
        (["top"], "top draws on a terminal"),
        (["top", "-d", "0"], "0.0 is not in the range"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(words: list[str], complaint: str) -> None:
    done = run(*words)

    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1


def free_address() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{one.getsockname()[1]}"


def test_no_router_is_exit_code_3_within_a_bound() -> None:
    address = free_address()
    commands = (["list"], ["view", "x"], ["close", "x"], ["cancel", "x/1"], ["logs", "x"], ["top", "-n", "1"])
    with ThreadPoolExecutor(len(commands)) as pool:  # each waits for some seconds
        found = list(pool.map(lambda words: run(*words, "-a", address), commands))

    for done in found:
        assert (done.returncode, done.stdout) == (3, ""), done
        assert f"no router answers at {address}" in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_something_else_that_listens_is_no_router() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        done = run("list", "-a", f"tcp://127.0.0.1:{listener.getsockname()[1]}")

    assert done.returncode == 3
    assert "no router answers" in done.stderr


def against(tmp_path: Path, answer: Callable[[Impostor, int], None]) -> subprocess.CompletedProcess[str]:
    """`flmctl list`, with somebody at the other end who gives this answer to each message."""
    context: zmq.Context[Any] = zmq.Context()
    address = f"ipc://{tmp_path}/s"
    command = [*COMMAND, "list", "-a", address]
    with context, Impostor(context, address) as router:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
        ) as program:
            deadline = time.monotonic() + LIMIT_SECONDS
            while program.poll() is None and time.monotonic() < deadline:
                heard = router.hear(20)
                if heard is not None:
                    answer(router, heard[0])
            said, complaint = program.communicate(timeout=LIMIT_SECONDS)
    return subprocess.CompletedProcess(command, program.returncode, said, complaint)


@pytest.mark.slow
def test_a_router_that_never_answers_the_question_is_exit_code_3(tmp_path: Path) -> None:
    def answer(router: Impostor, kind: int) -> None:
        if kind == codec.HELLO:
            router.welcome()

    done = against(tmp_path, answer)

    assert done.returncode == 3
    assert "has not answered in 3 s" in done.stderr


def test_a_router_that_refuses_us_is_exit_code_5(tmp_path: Path) -> None:
    def answer(router: Impostor, kind: int) -> None:
        router.send(sealed(codec.REFUSE, m.Refuse("you are too old")))

    done = against(tmp_path, answer)

    assert (done.returncode, done.stderr) == (5, "flmctl: the router refuses us: you are too old\n")


def test_a_router_that_talks_nonsense_is_exit_code_3(tmp_path: Path) -> None:
    def answer(router: Impostor, kind: int) -> None:
        if kind == codec.HELLO:
            router.welcome()
        elif kind == codec.DATA:
            router.say([30, "no number"])

    done = against(tmp_path, answer)

    assert done.returncode == 3
    assert "nonsense" in done.stderr


def test_names_that_a_peer_has_made_up_can_not_paint_the_terminal(tmp_path: Path) -> None:
    def answer(router: Impostor, kind: int) -> None:
        if kind == codec.HELLO:
            router.welcome()
        elif kind == codec.DATA:
            wild = "\x1b[2J\nx"
            row: list[Any] = [
                1,
                wild,
                77,
                wild,
                wild,
                wild,
                0,
                1.0,
                3,
                wild,
                *[0] * 6,
                0.1,
                1e300,
                -1.0,
                wild,
            ]
            router.say(m.Answer(1, sessions=[m.SessionRow(*row)]))

    done = against(tmp_path, answer)

    assert done.returncode == 0, done.stderr
    _, line = done.stdout.splitlines()
    assert line.startswith("?[2J?x")
    assert line.split()[1] == "77", "a state that we do not know"


def test_the_address_may_stand_before_the_command_or_behind_it_or_in_the_environment(
    client: flm.Client, session: flm.Session
) -> None:
    nowhere = "ipc:///nowhere/at/all"
    for words in (["-a", client.address, "list"], ["-a", nowhere, "list", "-a", client.address]):
        assert session.id in run(*words, address=nowhere).stdout
    assert session.id in run("list", address=client.address).stdout
    assert "no/address" in run("list", address="no/address").stderr  # said at once, others are waited for


def test_nobody_reads_no_complaint_and_a_full_disk_is_one_sentence(client: flm.Client) -> None:
    command = " ".join(COMMAND)
    for line, code, words in (
        (f"{command} list > /dev/full", 1, "can't write the output"),
        (f"{command} list -o wide | true", 0, ""),
        (f"{command} list >&-", 0, ""),
    ):
        done = subprocess.run(
            ["sh", "-c", line],
            stderr=subprocess.PIPE,
            text=True,
            timeout=LIMIT_SECONDS,
            env=environment(client.address),
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert words in done.stderr
        assert done.stderr.count("\n") <= 1


def test_each_help_has_the_address_and_examples_of_its_command_and_the_groups_has_the_exit_codes() -> None:
    done = run("--help")
    assert done.returncode == 0
    for code in (0, 1, 2, 3, 4, 5, 130):
        assert f"\n    {code:<3}  " in done.stdout
    for name, command in ctl.command.commands.items():
        assert f"\n  {name} " in done.stdout
        context = click.Context(command, info_name=name)
        options, _, examples = command.get_help(context).partition("Examples:\n")
        assert "--address" in options
        assert examples
        assert all(line.strip().startswith(f"flmctl {name}") for line in examples.splitlines())
