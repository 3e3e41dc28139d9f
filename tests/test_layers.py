"""The layers of flamezmq, and what each may import.

`LAYERS` is the rule: a module imports from its own layer and from those below
it.  Imports in functions and under TYPE_CHECKING count; `flamezmq/__init__.py`
alone may import anything, but lazily.

These tests read the source and import nothing of it, so they also hold while
half of the modules are yet to be written.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "flamezmq"
ROOT = Path(__file__).resolve().parent.parent

#: From the bottom up.  A name is a module or a package directly in flamezmq/.
LAYERS = (
    "address errors fairness ids resources states tenant version",
    "backfill bounding bounds gangs idle picking promises reclaims retracts rooms scheduler scheduler_check"
    " shares waits",
    "wire",
    "core",
    "config log metrics net journal optioned security serialize store processes page streams capacity folder"
    " executor_config home",
    "shims provision",
    "client router worker executor attendant binding running acting scripts zygote launcher daemon batch",
    "adapters aio dashboard cli testing",
)
LAYER_OF = {name: layer for layer, names in enumerate(LAYERS) for name in names.split()}
#: `from flamezmq import Client` is for users, and for the faces, which are users.
LAYER_OF[PACKAGE] = len(LAYERS) - 1

#: Up to this layer there is no clock, socket, file, thread or randomness: time comes in, effects go out.
LAST_PURE_LAYER = 3
IMPURE = {"asyncio", "os", "random", "select", "socket", "subprocess", "threading", "time", "zmq"}

#: Imported where they are used, so that `import flamezmq` is quick.
HEAVY = {"click", "numpy", "psutil", "rich", "structlog", "yaml", "zmq"}

MAX_LINES = 600


@dataclass(frozen=True)
class Import:
    """`target` is an absolute name; for `from a import b` it is "a.b", whether b is a module or not."""

    line: int
    target: str


def imports_of(source: str, module: str, *, is_package: bool = False) -> list[Import]:
    """Every import in a module's source, at any depth, by line.  `module` is its full name."""
    found = []
    for node in ast.walk(ast.parse(source, filename=module)):
        if isinstance(node, ast.Import):
            found += [Import(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [node.module] if node.module else []
            if node.level:
                parents = module.split(".")
                keep = len(parents) - node.level + is_package
                base = parents[:keep] + base
            found += [Import(node.lineno, ".".join([*base, alias.name])) for alias in node.names]
    return sorted(found, key=lambda one: one.line)


def component(name: str) -> str:
    """Which entry of the table a full name belongs to: flamezmq.core.link.Link -> core.

    A name right under flamezmq that is in no layer, and no file either, is what its `__init__` defines.
    """
    _, top, *rest = [*name.split("."), PACKAGE]
    folder = ROOT / PACKAGE
    is_module = len(rest) > 1 or top in LAYER_OF or (folder / top).is_dir() or (folder / f"{top}.py").exists()
    return top if is_module else PACKAGE


def is_ours(target: str) -> bool:
    return target.split(".")[0] == PACKAGE


def modules() -> Iterator[tuple[Path, str, list[Import]]]:
    """Path, full name and imports of each module, but for flamezmq/__init__.py."""
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        if name != PACKAGE:
            source = path.read_text(encoding="utf-8")
            yield path.relative_to(ROOT), name, imports_of(source, name, is_package=is_package)


def upward(name: str, imports: list[Import]) -> Iterator[tuple[Import, str]]:
    """The imports of one module that break the rule, and how."""
    here = component(name)
    for found in imports:
        if not is_ours(found.target):
            continue
        there = component(found.target)
        if there not in LAYER_OF:
            yield found, f"{found.target} is in no layer"
        elif here in LAYER_OF and LAYER_OF[there] > LAYER_OF[here]:
            yield found, f"{here} (layer {LAYER_OF[here]}) imports {found.target} (layer {LAYER_OF[there]})"


def test_every_module_is_in_a_layer() -> None:
    homeless = [f"{path}:1: {name}" for path, name, _ in modules() if component(name) not in LAYER_OF]

    assert not homeless, "in no layer; add them to LAYERS:\n" + "\n".join(homeless)


def test_no_import_points_up() -> None:
    wrong = [
        f"{path}:{found.line}: {why}"
        for path, name, imports in modules()
        for found, why in upward(name, imports)
    ]

    assert not wrong, "imports point down or sideways, never up:\n" + "\n".join(wrong)


def test_the_pure_layers_import_no_clock_socket_file_thread_or_randomness() -> None:
    wrong = [
        f"{path}:{found.line}: {component(name)} is pure and imports {found.target}"
        for path, name, imports in modules()
        if LAYER_OF.get(component(name), len(LAYERS)) <= LAST_PURE_LAYER
        for found in imports
        if found.target.split(".")[0] in IMPURE
    ]

    assert not wrong, "take `now` as an argument, return an effect:\n" + "\n".join(wrong)


def test_no_file_is_longer_than_it_needs_to_be() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{MAX_LINES + 1}: {lines} lines"
        for folder in (PACKAGE, "perf", "tests")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    ]

    assert not long, f"at most {MAX_LINES} lines:\n" + "\n".join(long)


def test_import_flamezmq_is_light() -> None:
    program = f"import sys, {PACKAGE}; print(*sorted({HEAVY!r}.intersection(sys.modules)))"

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [], "import these where they are used"


def test_an_upward_import_is_seen_wherever_it_hides() -> None:
    source = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from flamezmq.router import Router
from . import link
from .. import client
from ..wire.codec import decode
def late():
    import flamezmq.worker.agent as a
    from flamezmq import Client, states
"""
    imports = imports_of(source, "flamezmq.core.broker")

    assert [(found.line, why) for found, why in upward("flamezmq.core.broker", imports)] == [
        (4, "core (layer 3) imports flamezmq.router.Router (layer 6)"),
        (6, "core (layer 3) imports flamezmq.client (layer 6)"),
        (9, "core (layer 3) imports flamezmq.worker.agent (layer 6)"),
        (10, "core (layer 3) imports flamezmq.Client (layer 7)"),
    ]


def test_a_relative_import_in_a_package_starts_at_the_package() -> None:
    source = "from .link import Link\nfrom ..states import TaskState\n"

    found = [found.target for found in imports_of(source, "flamezmq.core", is_package=True)]

    assert found == ["flamezmq.core.link.Link", "flamezmq.states.TaskState"]
