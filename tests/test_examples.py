"""The examples run as their docstrings say, and say what they should."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.daemons import environment

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
LIMIT_SECONDS = 50.0

#: What each prints, and the arguments that make it quick.
SAYS = {
    "agents": (r"60 scripts: \d+ ran, .*Error.*\nthe best guess is .* off\n", ""),
    "kmeans": (
        r"8 MiB of points in shared memory, 262,144 in all\n8 of 8 clusters .*\n",
        "--megabytes 8 --rounds 3",
    ),
    "parameter_server": (r"steps that the pole stands.*\nfrom \d+ to (19\d|200) of 200\n", ""),
    "replay_buffer": (
        r"1000 episodes of (\d+) steps were appended, one by one\n"
        r"(discount 0.9\d: read \1 steps in \d+ increments, found a way of 14 steps\n){2}",
        "--episodes 1000 --learners 2",
    ),
    "pi": (r"400,000 darts: pi is about 3\.1[0-8]\d+\n", "--darts 400000"),
    "stars": (
        r"8 frames of 0 MiB through 34 tasks\n(39|40) of 40 stars .*, \d+ in the best one alone\n",
        "--frames 8 --size 256",
    ),
    "warm_model": (
        r"500 displays read by \d+ models that were loaded once; (8|9)\d% are right\n",
        "--requests 500",
    ),
    "sweep": (r"56 epidemics, \d+ of them mild; 8 pairs of rates make no sense\n.*\n.*\n", "--steps 8"),
}


def commands_in(example: Path) -> list[str]:
    """Those that its docstring shows."""
    docstring = ast.get_docstring(ast.parse(example.read_text(encoding="utf-8"))) or ""
    return re.findall(r"^    (python .*)$", docstring, re.MULTILINE)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_an_example_runs_and_says_what_it_should(example: Path) -> None:
    pattern, words = SAYS[example.stem]

    done = run([str(example.relative_to(ROOT)), *words.split()])

    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(pattern, done.stdout), done.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_the_commands_that_an_example_shows_are_its_own(example: Path) -> None:
    shown = commands_in(example)
    usage = run([str(example.relative_to(ROOT)), "--help"]).stdout

    assert shown[0] == f"python examples/{example.name}", "what it does without arguments comes first"
    for command in shown:
        words = shlex.split(command)[2:]
        assert all(word in usage for word in words if word.startswith("--")), command


def test_every_example_is_listed_for_readers() -> None:
    listed = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")

    assert not [example.name for example in EXAMPLES if f"examples/{example.name}" not in listed]


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        cwd=ROOT,
        env=environment(FLAMEZMQ_ADDRESS=""),
        check=False,
    )
