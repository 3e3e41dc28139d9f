"""The examples in `--help` texts are true: each is found, and run, against a small cluster.

They are taken from the click objects of all commands: the lines under `Examples:`, up to
two spaces, behind which stands what they are for.  SESSION, TASK, EXECUTOR, NODE, HOST, FILE and the
names that examples use stand for what is really there, and there is a script.py; a daemon is started,
and stopped when it is ready.
"""

from __future__ import annotations

import importlib
import json
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

import flamezmq as flm
from tests.daemons import LIMIT_SECONDS, Daemons, daemons_in, environment, free_port
from tests.waiting import until

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
#: name of a script -> its module
MODULES = {name: place.partition(":")[0] for name, place in SCRIPTS.items()}
#: Daemons, and the line of their log that says that they do what they are there for.
READY = {"flmrouter": "listening", "flmworker": "registered"}


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command, and every command of a group, by the words that call it."""
    for name, module in MODULES.items():
        command = importlib.import_module(module).command
        yield name, command
        for sub, inner in getattr(command, "commands", {}).items():
            yield f"{name} {sub}", inner


def examples_of(command: click.Command) -> list[str]:
    """Under `Examples:`, up to the next empty line; without what stands behind two spaces."""
    found: list[str] = []
    for text in (command.help or "", command.epilog or ""):
        for block in re.findall(r"^Examples?:\n((?:[^\n]*\S[^\n]*\n?)+)", text, re.MULTILINE):
            found += [re.split(r"\s{2,}", line.strip())[0] for line in block.splitlines()]
    return found


EXAMPLES: list[str] = [example for _, command in commands() for example in examples_of(command)]


@dataclass
class Small:
    """A small cluster, and what examples may name of it."""

    daemons: Daemons
    client: flm.Client
    address: str
    names: dict[str, str]

    @contextmanager
    def names_for(self, words: list[str]) -> Iterator[dict[str, str]]:
        """What changes tasks or a session gets ones of its own; they wait, as the one executor is busy."""
        command = words[1] if words[0] == "flmctl" else ""
        if command == "logs":  # that of the task that runs
            yield {**self.names, "nightly-XcEzMK/13012": self.names["SESSION"] + "/0"}
            return
        if command not in ("cancel", "close", "suspend", "resume"):
            yield self.names
            return
        session = self.client.session("ends")
        task = session.submit(abs, -1)
        task_id = session.id + "/0"
        until(lambda: session.status().pending, "the task waits")
        if command == "resume":
            session.suspend()
        yield {**self.names, **aliases(session.id, task_id)}
        session.close(cancel=True)
        assert task.done()


def aliases(session_id: str, task_id: str) -> dict[str, str]:
    """What examples call a session and a task of it."""
    names = {"SESSION": session_id, "TASK": task_id}
    return {**names, "nightly-XcEzMK": session_id, "nightly-XcEzMK/13012": task_id}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    """A router, a worker with one executor, and a session with one task that runs and some that wait."""
    folder = tmp_path_factory.mktemp("small")
    gate = folder / "gate"
    with daemons_in(folder) as daemons:
        address = f"tcp://127.0.0.1:{free_port()}"
        daemons.router(address)
        daemons.worker(address, "--node", "small", executors=1).wait_for("registered")
        with flm.Client(address) as client:
            session = client.session("shown")
            first = session.submit(hold, str(gate))
            waiting = [session.submit(abs, -number) for number in range(20)]
            until(Path(f"{gate}.begun").exists, "the first task runs")
            until(lambda: run(["flmctl", "logs", session.id], address).stdout, "what the task has printed")
            rows = json.loads(run(["flmctl", "list", "-e", "-o", "json"], address).stdout)
            described = folder / "app.yaml"
            described.write_text("name: model\nservice: models:Model\n")
            names = {
                **aliases(session.id, waiting[-1].task_id),
                "EXECUTOR": rows[0]["id"],
                "NODE": "small",
                "HOST": "127.0.0.1",
                "FILE": str(described),
                "app.yaml": str(described),
                "tcp://head:7601": address,
            }
            yield Small(daemons, client, address, names)
            gate.touch()
            session.close(cancel=True)
            assert first.done()
        assert [daemon.stop() for daemon in daemons.all[1::-1]] == [0, 0]


def hold(gate: str) -> None:
    """A task that says that it has begun, and runs until it is let go."""
    print("begun", flush=True)
    Path(f"{gate}.begun").touch()
    until(Path(gate).exists, "let go")


def run(words: list[str], address: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """One of our scripts, as the console script does it."""
    return subprocess.run(
        [sys.executable, "-P", "-m", MODULES[words[0]], *words[1:]],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        env=environment(FLAMEZMQ_ADDRESS=address),
        check=False,
        **options,
    )


def in_order(example: str) -> int:
    """What registers something comes before what names it, what takes it away last."""
    return 1 - example.startswith("flmctl register") + example.startswith("flmctl unregister")


IN_ORDER: list[str] = sorted(EXAMPLES, key=in_order)


@pytest.mark.parametrize("example", IN_ORDER)
def test_an_example_of_a_help_text_runs(example: str, small: Small, tmp_path: Path) -> None:
    words = shlex.split(example)
    script = words[0]
    assert script in MODULES, "an example calls one of our commands"
    with small.names_for(words) as names:
        words = [names.get(word, word) for word in words]
        if script in READY:
            check_daemon(words, small, tmp_path)
        elif "-f" in words and words[1] in ("logs", "events"):
            check_follower(words, small.address, tmp_path)
        else:
            check_command(words, small.address, tmp_path)


def check_command(words: list[str], address: str, folder: Path) -> None:
    """It ends well, and says something."""
    script, given = words[0], None
    (folder / "script.py").write_text("import sys\nprint(sys.argv)\n", encoding="utf-8")
    if "<" in words:
        given = Path(words[words.index("<") + 1]).read_text(encoding="utf-8")
    for sign in set(words) & {"<", ">"}:
        words = words[: words.index(sign)]
    if words == ["flmctl", "top"]:  # on a terminal it goes on
        words = [*words, "--count", "1"]
    done = run(words, "" if script in ("flmping", "flmexec") else address, cwd=folder, input=given)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    if "json" in words:
        json.loads(done.stdout)


def check_follower(words: list[str], address: str, folder: Path) -> None:
    """It shows what there is, and goes on until Ctrl-C."""
    following = subprocess.Popen(
        [sys.executable, "-P", "-m", MODULES[words[0]], *words[1:]],
        stdout=subprocess.PIPE,
        env=environment(FLAMEZMQ_ADDRESS=address),
        cwd=folder,
    )
    assert following.stdout is not None
    with following.stdout:
        assert following.stdout.readline().strip()
        following.send_signal(signal.SIGINT)
        assert following.wait(LIMIT_SECONDS) == 130


def check_daemon(words: list[str], small: Small, tmp_path: Path) -> None:
    """It gets ready, on a port of its own, and ends in order."""
    script, *rest = words
    (tmp_path / "flamezmq.toml").write_text("[router]\ndrain_seconds = 1\n", encoding="utf-8")
    rest = [word.replace("flamezmq.toml", str(tmp_path / "flamezmq.toml")) for word in rest]
    port = free_port() if script == "flmrouter" else int(small.address.rpartition(":")[2])
    rest = [word.replace("HOST", small.names["HOST"]).replace(":7601", f":{port}") for word in rest]
    rest = [word.replace("0.0.0.0", "127.0.0.1") for word in rest]  # nobody else shall reach a test's router
    variable = f"FLAMEZMQ_{script.removeprefix('flm').upper()}_"
    usual = {f"{variable}BIND": f"tcp://127.0.0.1:{port}", f"{variable}ROUTER": small.address}
    with daemons_in(tmp_path) as daemons:
        daemon = daemons.start(script.removeprefix("flm"), *rest, **usual)
        daemon.wait_for(READY[script])
        assert daemon.stop() == 0


def test_every_command_that_a_user_can_call_has_examples() -> None:
    without = [name for name, command in commands() if " " not in name and not examples_of(command)]

    assert not without


def test_examples_are_found_where_people_see_them() -> None:
    command = click.Command(
        "x", epilog="\b\nExamples:\n  flmping -t 5   five\n  flmping\n\n\b\nOther:\n  no\n"
    )

    assert examples_of(command) == ["flmping -t 5", "flmping"]


def test_every_option_says_what_it_does_and_every_group_what_its_commands_are() -> None:
    silent = [
        f"{name} {option.opts[-1]}"
        for name, command in commands()
        for option in command.params
        if isinstance(option, click.Option) and not option.help
    ]

    assert not silent
    assert not [name for name, command in commands() if not command.help]
