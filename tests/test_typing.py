"""What type checkers accept of users' programs, and what they refuse."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import flamezmq as flm
from flamezmq.client.session_options import SessionOptions

ROOT = Path(__file__).resolve().parent.parent

#: Each line that has `refused` behind it must be refused, and no other.
PROGRAM = """
import flamezmq as flm

def double(x: int) -> int:
    return 2 * x

with flm.Client() as client:
    with client.session("functions", max_executors=2, weight=2.0) as functions:
        functions.submit(double, 1)
        functions.submit(1)  # refused
        functions.map(double, [1, 2])
        functions.map([1, 2])  # refused
        functions.stream(1)  # refused
    with client.session("service", app="model", common_data=[1], priority=3) as service:
        service.submit(1)
        service.map([1, 2], ordered=False)
        service.map(double, [1, 2])  # refused
        service.stream({"x": 1})
        kept: flm.ServiceSession = service
    with client.session("shared", id="shared", detached=True) as shared:
        shared.submit(double, 1)
        shared.submit(1)  # refused
        shared.leave()
    client.session("both", id="shared", app="model").submit(1)
    client.session("functions").leave()  # refused
    client.session("functions", common_data=[1])  # refused
    client.session("functions", max_executor=2)  # refused
    client.session("service", app="model", weight="much")  # refused

async def main() -> None:
    async with flm.aio.Client() as aclient:
        async with aclient.session("functions", max_retries=0) as functions:
            await functions.submit(double, 1)
            await functions.submit(1)  # refused
        async with aclient.session("service", app="model") as service:
            await service.submit(1)
            async for _ in service.map([1, 2]):
                pass
            service.map(double, [1, 2])  # refused
        aclient.session("functions", max_executor=2)  # refused
"""


@pytest.mark.slow
def test_sessions_take_functions_and_those_with_an_application_take_inputs(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)

    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--hide-error-context", str(program)],
        capture_output=True, text=True, timeout=55, cwd=ROOT, check=False,
    )  # fmt: skip

    refused = {int(line) for line in re.findall(r"program\.py:(\d+): error", done.stdout)}
    marked = {n for n, line in enumerate(PROGRAM.splitlines(), 1) if line.endswith("# refused")}
    assert refused == marked, done.stdout + done.stderr


def test_the_types_of_a_session_s_arguments_are_those_of_the_method() -> None:
    parameters = inspect.signature(flm.Client.session).parameters
    own = {"self", "name", "app", "common_data", "id"}

    assert {name: one.annotation for name, one in parameters.items() if name not in own} == {
        name: forward.__forward_arg__ for name, forward in SessionOptions.__annotations__.items()
    }


def test_type_checkers_know_every_name_that_is_exported() -> None:
    tree = ast.parse(Path(flm.__file__).read_text(encoding="utf-8"))
    told = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}

    assert set(flm.__all__) <= told, "without an import under TYPE_CHECKING it is Any to them"
