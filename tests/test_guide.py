"""The pages for users are true: their Python is one program per page, and prints what they say.

All ```python blocks of a page, from top to bottom, are run as one script, as a
user would run it.  `# text` behind a print is what it prints.  In a failure the
line numbers are those of the page.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if "```python\n" in page.read_text(encoding="utf-8")
]
#: Generous: the machine may be busy.
LIMIT_SECONDS = 50.0


def program_in(text: str) -> str:
    """The Python of a page; what is not Python becomes empty lines."""
    lines = []
    inside = False
    for line in text.splitlines():
        if line.startswith("```"):
            inside = line == "```python"
            lines.append("")
        else:
            lines.append(line if inside else "")
    return "\n".join(lines) + "\n"


def said_by(program: str) -> list[str]:
    """What its prints are said to print."""
    return re.findall(r"^\s*(?:print\(|.*: print\().*\)\s+# (.*)$", program, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_runs_from_top_to_bottom_and_prints_what_it_says(page: Path, tmp_path: Path) -> None:
    program = program_in(page.read_text(encoding="utf-8"))
    script = tmp_path / f"{page.stem}.py"
    script.write_text(program, encoding="utf-8")

    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    env.pop("FLAMEZMQ_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        cwd=tmp_path,
        env=env,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert said_by(program), "it shows nothing"
    assert done.stdout.splitlines() == said_by(program)


def test_what_a_page_shows_is_read_as_people_read_it() -> None:
    shown = "print(1)      # 1\nif x: print(a)  # it's  a\n"
    page = f"Text\n```python\n{shown}```\n    print(2)  # 2\n```text\n# no\n```\n"

    program = program_in(page)

    assert program.splitlines()[2] == "print(1)      # 1", "on the page's own line"
    assert said_by(program) == ["1", "it's  a"]
