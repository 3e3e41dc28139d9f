"""What docs/coming-from.md shows of other libraries is Python, and runs where the library is installed.

The blocks of flamezmq are run by test_guide, like those of any page.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_guide import said_by

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "coming-from.md"
#: The title of a block, and what has to be installed for it, here or by `make peers`.
LIBRARIES = {
    "concurrent.futures": "concurrent.futures",
    "multiprocessing": "multiprocessing",
    "joblib": "joblib",
    "Dask": "distributed",
    "Ray": "ray",
    "Parsl": "parsl",
}
BLOCKS = dict(re.findall(r"^```python title=\"(.*?)\"\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S))
LIMIT_SECONDS = 50.0


def test_every_library_of_the_page_has_its_example_and_its_section() -> None:
    assert BLOCKS.keys() == LIBRARIES.keys()
    assert not [name for name in LIBRARIES if f"\n## {name}\n" not in PAGE.read_text("utf-8")]


@pytest.mark.parametrize("name", LIBRARIES)
def test_the_example_of_another_library_is_python(name: str) -> None:
    ast.parse(BLOCKS[name])


@pytest.mark.parametrize("name", LIBRARIES)
def test_the_example_of_another_library_prints_what_it_says(name: str, tmp_path: Path) -> None:
    python = ROOT / ".venvs" / "peers" / name.lower() / "bin" / "python"
    if importlib.util.find_spec(LIBRARIES[name]) is not None:
        python = Path(sys.executable)
    elif not python.exists():
        pytest.skip(f"{LIBRARIES[name]} is not installed; make peers does it")
    script = tmp_path / "example.py"
    script.write_text(BLOCKS[name], encoding="utf-8")

    done = subprocess.run(
        [str(python), str(script)],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"},  # as Parsl wants it
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == said_by(BLOCKS[name])
