"""A notebook stand-in for the tests of functions: cells that edit each other's globals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from flamezmq.serialize.functions import FunctionName, FunctionTable

ROOT = Path(__file__).parents[1]


class Notebook:
    """Cells that run in one `__main__`, as in a notebook."""

    def __init__(self, source: str = "") -> None:
        self.globals: dict[str, Any] = {"__name__": "__main__"}
        self.run(source)

    def run(self, source: str) -> None:
        exec(source, self.globals)

    def __getitem__(self, name: str) -> Any:
        return self.globals[name]


def pickles(table: FunctionTable) -> int:
    """How often something was pickled for it."""
    return table.statistics()["pickled"]


def elsewhere(name: FunctionName, expression: str) -> str:
    """What `f` does in another process, whose `__main__` is empty."""
    load = (
        "from flamezmq.serialize.functions import load_function\nf = load_function(sys.stdin.buffer.read())"
    )
    return in_another_process(load, name.blob, expression)


def in_another_process(load: str, given: bytes, expression: str) -> str:
    """The repr of an expression where there is only flamezmq, after `load`, which finds `given` in stdin."""
    run = subprocess.run(
        [sys.executable, "-c", f"import sys\n{load}\nprint(repr(({expression})))\n"],
        input=given,
        capture_output=True,
        cwd="/",
        env={"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert run.returncode == 0, run.stderr.decode()
    return run.stdout.decode().strip()
