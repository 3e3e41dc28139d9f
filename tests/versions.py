"""The tests that Python's version can break, under the other versions that this machine has.

    python -m tests.versions [ARGUMENTS OF PYTEST]

pyproject.toml names the versions.  Each gets a virtual environment of its own in
`.venvs/`, made once, and installed into again only when pyproject.toml has
changed.  A version that is not here is skipped, in so many words.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENVS = ROOT / ".venvs"
#: Pickles of functions, forks and threads, and what a user sees.
MODULES = (
    "cpython/test_cpython_executors",
    "test_aio",
    "test_engine",
    "test_faults",
    "test_flame_executor",
    "test_flmping",
    "test_guide",
    "test_large_values",
    "test_progress",
    "test_references",
    "test_serialize_failures",
    "test_serialize_functions",
    "test_serialize_values",
    "test_shim_grpc",
    "test_shim_http",
    "test_shim_stdio",
    "test_shims",
    "test_store",
    "test_testing",
    "test_zygote",
)


def named_versions() -> list[str]:
    """Those of the classifiers, such as "3.12"."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return re.findall(r'"Programming Language :: Python :: (3\.\d+)"', project)


def interpreter(version: str) -> str:
    """A Python of this version, "" if there is none: on the PATH, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [f"python{version}", *map(str, sorted(pyenv.glob(f"versions/{version}.*/bin/python")))]
    ask = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
    for candidate in candidates:
        path = shutil.which(candidate)  # it may be a shim that only says that it can't
        if path and said_by(path, "-c", ask) == version:
            return path
    return ""


def said_by(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def environment(version: str, python: str) -> Path:
    """The Python of an up-to-date virtual environment."""
    folder = VENVS / version
    stamp = folder / "stamp"
    wanted = f"{ROOT} {hashlib.sha256((ROOT / 'pyproject.toml').read_bytes()).hexdigest()}"
    if not stamp.exists() or stamp.read_text() != wanted:
        say(f"Python {version}: installing into {folder.relative_to(ROOT)}")
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([python, "-m", "venv", str(folder)], check=True)
        pip = [
            str(folder / "bin" / "python"),
            "-m",
            "pip",
            "-qq",
            "--disable-pip-version-check",
            "--no-input",
        ]
        subprocess.run([*pip, "install", "--editable", f"{ROOT}[test]"], check=True)
        stamp.write_text(wanted)
    return folder / "bin" / "python"


def say(text: str) -> None:
    print(f"versions: {text}", flush=True)


def main(words: list[str]) -> int:
    """How many versions have failed."""
    failed = []
    modules = [f"tests/{module}.py" for module in MODULES]
    for version in named_versions():
        if version == "{}.{}".format(*sys.version_info[:2]):
            continue  # `make test` was about this one
        python = interpreter(version)
        if not python:
            say(f"Python {version}: skipped: this machine has no python{version}")
            continue
        say(f"Python {version}: {said_by(python, '--version')} ({python})")
        command = [str(environment(version, python)), "-m", "pytest", "-q", "-m", "not slow"]
        if subprocess.run([*command, *modules, *words], cwd=ROOT, check=False).returncode:
            failed.append(version)
    if failed:
        say(f"failed: Python {', '.join(failed)}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
