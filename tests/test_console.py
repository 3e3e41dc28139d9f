"""What the pages show of a console is what a console shows.

The ```console blocks of a page, from top to bottom, are run in one folder as one user
would: a line behind `$` is a command, what follows is its output.  A block of Python that has a
file's name as its title is that file.  Figures before a unit, times and the letters at the end of a
session's name are those of another run, and any others will do; so will anything where the
page has `...`.  A command with a pipe is the shell's.  One with `&` behind it is a daemon: it is
waited for until it is ready, has a port of its own, and is stopped at the end of the page.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.daemons import LIMIT_SECONDS, Daemons, daemons_in, environment, free_port
from tests.test_help import MODULES, READY

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parent.parent
#: Where `flmrouter` listens unless it is told otherwise.
USUAL_PORT = "7601"
#: Commands that are shown, those in blocks that can't be run, too.
_SHOWN = re.compile(r"^ *\$ (flm\w+.*)$", re.MULTILINE)
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"^```python title=\"([\w-]+\.py)\"\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ALL = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [page for page in ALL if _BLOCK.search(page.read_text("utf-8"))]
SHOWN = [page for page in ALL if _SHOWN.search(page.read_text("utf-8"))]


def commands_in(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each command, and the lines that it is said to print."""
    for block in _BLOCK.findall(text):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *output = part.rstrip("\n").split("\n")
            yield command, output


def alike(said: list[str], printed: list[str]) -> bool:
    """Whether this is what the page says, but for what differs from run to run."""
    pattern = re.escape("\n".join(map(steady, said))).replace(r"\.\.\.", r"[^\n]*")
    return re.fullmatch(pattern, "\n".join(map(steady, printed))) is not None


def steady(line: str) -> str:
    """Without what differs from run to run."""
    line = re.sub(r"\d[\d,.]*(?= (?:ms|us|s|tasks/s|[KMG]iB)\b)", "0", line)
    line = re.sub(r"\b\d\d:\d\d:\d\d\b", "00:00:00", line)
    line = re.sub(r"\b([a-z][\w-]*)-[A-Za-z0-9]{6}\b", r"\1-letters", line)
    return re.sub(r"\s+", " ", line).strip()


class Console:
    """One page's: a folder, variables, and daemons."""

    def __init__(self, folder: Path, daemons: Daemons) -> None:
        self.folder, self.daemons = folder, daemons
        self.port = str(free_port())
        here = f"tcp://127.0.0.1:{self.port}"
        self.usual = {"FLAMEZMQ_ROUTER_BIND": here, "FLAMEZMQ_WORKER_ROUTER": here}
        self.exported: dict[str, str] = {}

    def run(self, command: str) -> list[str]:
        """What it prints, on both streams."""
        command = command.replace(USUAL_PORT, self.port)
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            self.exported[name] = value
            return []
        if " | " in command:
            return self.output_of(["sh", "-c", command])
        words = shlex.split(command)
        if words[-1] == "&":
            self.start(*words[:-1])
            return []
        if words[0] == "flmctl" and not self.exported:  # it looks at the usual port
            words[1:1] = ["--address", f"tcp://127.0.0.1:{self.port}"]
        return self.output_of([self.program(words[0]), *words[1:]])

    def output_of(self, words: list[str]) -> list[str]:
        ours = Path(sys.executable).parent
        done = subprocess.run(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_SECONDS,
            cwd=self.folder,
            env=environment(PATH=f"{ours}:{os.environ['PATH']}", **self.exported),
            check=False,
        )
        return done.stdout.replace(self.port, USUAL_PORT).rstrip("\n").split("\n")

    def start(self, script: str, *words: str) -> None:
        daemon = self.daemons.start(script.removeprefix("flm"), *words, **self.usual)
        daemon.wait_for(READY[script])

    def program(self, name: str) -> str:
        return sys.executable if name == "python" else str(Path(sys.executable).with_name(name))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_console_shows_what_the_page_shows(page: Path, tmp_path: Path) -> None:
    text = page.read_text("utf-8")
    for name, program in _FILE.findall(text):
        (tmp_path / name).write_text(program, encoding="utf-8")

    with daemons_in(tmp_path) as daemons:
        console = Console(tmp_path, daemons)
        for command, said in commands_in(text):
            printed = console.run(command)
            assert alike(said or [""], printed or [""]), "\n".join([f"$ {command}", *printed])
        codes = [daemon.stop() for daemon in reversed(daemons.all)]

    assert set(codes) <= {0}


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.name)
def test_a_command_that_a_page_shows_is_one_that_can_be_called(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the page shows what some other cluster would say, so that it can't be run."""
    monkeypatch.chdir(tmp_path)
    Path("app.yaml").touch()  # a file that pages name must be there
    for line in _SHOWN.findall(page.read_text("utf-8")):
        script, *words = shlex.split(line.rstrip("& "))
        command = importlib.import_module(MODULES[script]).command
        if isinstance(command, click.Group):
            script, *words = words
            command = command.commands[script]
        with command.make_context(script, words):  # fails if a flag or an argument is none of it
            pass


def test_figures_of_another_run_will_do_and_other_words_will_not() -> None:
    assert alike(["<1,000> tasks was completed in <13 ms>."], ["<1,000> tasks was completed in <7 ms>."])
    assert not alike(["<1,000> tasks was completed in <13 ms>."], ["<999> tasks was completed in <13 ms>."])
    assert alike(["client-Hk3vQ9  Closed  ..."], ["client-abcdef   Closed  5 6"])
    assert not alike(["client-Hk3vQ9  Closed  ..."], ["client-abcdef  Open  5 6"])
    assert list(commands_in("```console\n$ a\nx\n$ b\n```\n")) == [("a", ["x"]), ("b", [])]
