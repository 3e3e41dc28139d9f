"""The site has a page for everything, and builds without a warning; a reader needs no network.

`make docs` builds it; what builds it is the extra `docs`, and where that is not installed the
test that builds says so and is skipped.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import flamezmq
from flamezmq import errors
from tests.test_docs import public_things

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
BUILD_SECONDS = 50.0


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="needs the extra: make docs")
@pytest.mark.skipif(importlib.util.find_spec("mkdocstrings") is None, reason="needs the extra: make docs")
def test_the_site_builds_without_a_warning_and_takes_nothing_from_elsewhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=False,
    )

    assert done.returncode == 0, done.stderr
    pages = {page.name: page.read_text(encoding="utf-8") for page in tmp_path.glob("*.html")}
    assert {"index.html", "guide.html", "reference.html", "architecture.html"} <= pages.keys()
    shown = [src for text in pages.values() for src in re.findall(r'<img [^>]*src="([^"]*)"', text)]
    meant = [
        path for path in (*DOCS.glob("*.md"), ROOT / "perf" / "README.md") if "![" in path.read_text("utf-8")
    ]
    assert len(shown) >= len(meant) > 0
    assert not [src for src in shown if not (tmp_path / src).exists()]
    loads = re.compile(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=\"?(?:https?:)?//[^>]*>")
    assert not {name: loads.findall(text) for name, text in pages.items() if loads.search(text)}


def test_every_page_is_in_the_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2].partition("\n\n")[0]
    listed = re.findall(r"([\w-]+\.md)$", menu, re.MULTILINE)

    missing = {page.name for page in DOCS.glob("*.md")} - set(listed)

    assert not missing, "add it to `nav` in mkdocs.yml"
    assert len(listed) == len(set(listed))


def test_every_public_name_is_in_the_reference() -> None:
    text = text_of("reference.md")
    modules = {name for name in flamezmq.__all__ if inspect.ismodule(getattr(flamezmq, name))}
    names = [f"flamezmq.{name}" for name in flamezmq.__all__ if name not in {"__version__", *modules}]
    for module in sorted(modules):
        names += [f"flamezmq.{module}.{name}" for name in getattr(flamezmq, module).__all__]

    missing = [name for name in names if not re.search(rf"^::: {name}$|`{name}`", text, re.MULTILINE)]

    assert not missing, "add a line `::: NAME` to docs/reference.md"


def error_classes() -> list[str]:
    exported = {name: getattr(flamezmq, name) for name in flamezmq.__all__}
    return [
        name
        for name, value in (vars(errors) | exported).items()
        if isinstance(value, type) and issubclass(value, errors.FlameError) and value is not errors.FlameError
    ]


@pytest.mark.parametrize("name", error_classes())
def test_every_error_has_a_section_that_says_what_happened_and_what_to_do(name: str) -> None:
    section = re.search(rf"^## {name}$(.*?)(?=^## |\Z)", text_of("troubleshooting.md"), re.M | re.S)

    assert section, "add it to docs/troubleshooting.md"
    assert "**What happened.**" in section[1]
    assert "**What to do.**" in section[1]


def test_docstrings_read_on_the_site_as_they_read_in_the_source() -> None:
    """Markdown runs lines of columns together, and swallows <words> and [words] that are not in backticks."""
    garbled = []
    for name, thing in public_things():
        if isinstance(thing, str):
            continue
        text = inspect.getdoc(thing) or ""
        bare = re.sub(r"`[^`]*`", "", text)
        columns = re.search(r"^[a-z_]\w*(?:, \w+)* {2,}\S", text, re.MULTILINE)
        heading = re.search(r"^(?:Raises|Args)[^:\n]+:$", text, re.MULTILINE)
        if columns or heading or re.search(r"<[a-z]|\[|(?<!\w)\*\w", bare):
            garbled.append(name)

    assert not garbled
