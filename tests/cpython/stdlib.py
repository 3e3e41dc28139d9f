"""CPython's own tests of executors: where this machine has them, and how they are imported.

They are part of the standard library, as the package `test`, but many builds of
Python are delivered without, or without those of executors.  Then the package of
another installation serves: of the same version (Debian has one to install,
libpython3.11-testsuite), or else of the nearest version that is here.  A folder
that holds nothing but a link to it goes on the path.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
NAME = "test.test_concurrent_futures"
#: Its modules, since Python 3.12; before that it was one file.
PARTS = (
    "util",
    "executor",
    "test_as_completed",
    "test_deadlock",
    "test_init",
    "test_process_pool",
    "test_shutdown",
    "test_wait",
)
HERE = sys.version_info[:2]


class NotHere(Exception):
    """Why there is nothing to run."""


def load() -> tuple[list[ModuleType], tuple[int, int]]:
    """The modules, and which version of Python they are from.  They stay importable by their names.

    Raises:
        NotHere: no installation has any; the text says what to do.
    """
    version = HERE
    folder = _folder_of(os.path.dirname(os.__file__))
    if folder is None:
        found = sorted(_others(), key=lambda other: (abs(other[0][1] - HERE[1]), other[0] < HERE))
        if not found:
            debian = "libpython{}.{}-testsuite".format(*HERE)
            raise NotHere(f"no Python here has {NAME}; on Debian: apt-get install {debian}")
        version, folder = found[0]
        sys.path.insert(0, str(_with_a_link_to(folder, version)))
        importlib.invalidate_caches()
    package = importlib.import_module(NAME)
    if not hasattr(package, "__path__"):
        return [package], version
    return [importlib.import_module(f"{NAME}.{part}") for part in PARTS], version


def _folder_of(library: str | os.PathLike[str]) -> Path | None:
    """The package `test` of a standard library, if it has the tests of executors."""
    folder = Path(library) / "test"
    there = (folder / "test_concurrent_futures.py").exists() or (folder / "test_concurrent_futures").is_dir()
    return folder if there and (folder / "support").is_dir() else None


def _others() -> Iterator[tuple[tuple[int, int], Path]]:
    """Those of other installations: the system's, and pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    libraries = [*Path("/usr/lib").glob("python3.*"), *Path("/usr/local/lib").glob("python3.*")]
    libraries += pyenv.glob("versions/3.*/lib/python3.*")
    for library in sorted(libraries):
        version = re.fullmatch(r"python3\.(\d+)", library.name)
        folder = _folder_of(library)
        if version and folder and int(version[1]) >= 11:
            yield (3, int(version[1])), folder


def _with_a_link_to(folder: Path, version: tuple[int, int]) -> Path:
    """It stays where it is: executors, and programs that the tests start, import from it, too."""
    place = ROOT / ".venvs" / "cpython-{}.{}".format(*version)
    link = place / "test"
    if not link.is_symlink() or link.readlink() != folder:
        place.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(folder)
    return place
