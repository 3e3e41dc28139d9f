"""An environment for each peer, made on request: .venvs/peers/NAME.

Made anew when the peer's file asks for other packages.  `make clean` removes them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from perf.compare.face import Peer

FOLDER = Path(__file__).parents[2] / ".venvs" / "peers"
#: The biggest is about 300 MB.
NEEDED_BYTES = 1 << 30
INSTALL_SECONDS = 600.0


class NotInstalled(Exception):
    """A peer can't be had here: the text says why."""


def python_of(name: str, kind: type[Peer], folder: Path = FOLDER) -> Path:
    """The Python that has the peer; installs it if need be.

    Raises:
        NotInstalled: no room, no network, no such version.
    """
    if not kind.packages:
        return Path(sys.executable)
    home = folder / name
    stamp, python = home / ".stamp", home / "bin" / "python"
    wanted = json.dumps([sys.version, *kind.packages])
    if not stamp.exists() or stamp.read_text() != wanted or not python.exists():
        _install(home, python, kind.packages)
        stamp.write_text(wanted)
    return python


def _install(home: Path, python: Path, packages: Sequence[str]) -> None:
    shutil.rmtree(home, ignore_errors=True)
    home.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(home.parent).free
    if free < NEEDED_BYTES:
        raise NotInstalled(f"{free >> 20} MiB are free, {NEEDED_BYTES >> 20} are needed")
    _run([sys.executable, "-m", "venv", "--without-pip", str(home)])
    quiet = ("--quiet", "--disable-pip-version-check", "--no-input")
    try:
        _run([sys.executable, "-m", "pip", "--python", str(python), "install", *quiet, *packages])
    except NotInstalled:
        shutil.rmtree(home, ignore_errors=True)
        raise


def _run(words: Sequence[str]) -> None:
    try:
        done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"pip did not end in {INSTALL_SECONDS:.0f} s") from None
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise NotInstalled((errors or done.stderr.splitlines() or ["it does not say why"])[-1])
