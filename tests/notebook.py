"""A notebook stand-in for the tests of functions: cells that edit each other's globals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from flamezmq.serialize.functions import FunctionName

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


def elsewhere(name: FunctionName, expression: str) -> str:
    """What `f` does in another process, whose `__main__` is empty."""
    program = (
        "import sys\n"
        "from flamezmq.serialize.functions import load_function\n"
        "f = load_function(sys.stdin.buffer.read())\n"
        f"print(repr(({expression})))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        input=name.blob,
        capture_output=True,
        cwd="/",
        env={"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert run.returncode == 0, run.stderr.decode()
    return run.stdout.decode().strip()
