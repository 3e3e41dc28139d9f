"""One run: the floors, flamezmq, and one peer, side by side; the next run has the next peer.

So every ratio is of one run, and any part can be measured again by itself and
merged into what was measured before (`merged`).
"""

from __future__ import annotations

import importlib
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from perf import floor, isolate
from perf.compare.face import Peer
from perf.compare.scenarios import COLD, SCENARIOS, WORKERS, Figures, cold
from perf.compare.session import PeerFailed, Session
from perf.compare.venvs import NotInstalled, python_of
from perf.measure import surroundings
from perf.report import machine, packages
from perf.scenarios import short
from perf.scenarios.cold import PROGRAMS, start

#: Where the peers' files are imported from.
PACKAGE = "perf.peers"
PEERS = Path(__file__).parents[1] / "peers"
OURS = "flamezmq"
NAMES = [OURS, *sorted(path.stem for path in PEERS.glob("*.py") if path.stem != OURS)]
ALL = (COLD, *SCENARIOS)
START_SECONDS = 40.0

#: {"size": ..., "figures": {...}}, {"failed": why} or {"cannot": why}.
Cell = dict[str, Any]


def engine_commit() -> str:
    """The last commit that changed flamezmq itself, "+" behind it if it has changed since; "" outside git."""
    git = ("git", "-C", str(PEERS))
    try:
        last = subprocess.run(
            [*git, "log", "-1", "--format=%h", "--", ":/flamezmq"], capture_output=True, text=True, check=True
        )
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", ":/flamezmq"], check=False)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return last.stdout.strip() + ("+" if changed.returncode else "")


def kind_of(name: str) -> type[Peer]:
    """A peer's class; nothing of the peer is imported."""
    found: type[Peer] = importlib.import_module(f"{PACKAGE}.{name}").Engine
    return found


def one_run(name: str, scenarios: Sequence[str], quick: bool, commit: str) -> dict[str, Any]:
    """Measure one peer, and what stands beside it; `commit` is that of flamezmq."""
    found: dict[str, Any] = {
        "peer": name,
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "packages": packages(),
        "commit": commit,
        "quick": quick,
    }
    with surroundings() as around:
        found["floors"] = floors()
        beside = [one for one in scenarios if one in SCENARIOS and SCENARIOS[one].beside]
        found["ours"] = {} if name == OURS else measured(OURS, beside, quick)["cells"]
        found |= measured(name, scenarios, quick)
    return found | {"around": asdict(around)}


def floors() -> Figures:
    """What nobody can beat, or not by much: bare ZeroMQ through a broker, bare processes, a bare Python."""
    hop, piped = floor.four_hop(1000), floor.pipelined()
    with short.bare_processes() as bare:
        efficiency = short.bare_run(bare, 1000, 1e-3)
    python = isolate.isolated(start, PROGRAMS["bare python"], limit=40).result
    return {
        "p50_us": hop.p50_us,
        "p99_us": hop.p99_us,
        "tasks_per_s": piped.per_second,
        "cpu_us": piped.cpu_us,
        "efficiency": efficiency,
        "seconds": python,
    }


def measured(name: str, scenarios: Iterable[str], quick: bool) -> dict[str, Any]:
    """All cells of one engine; what it can't do, or fails to do, is in its cell.  And its version."""
    kind, version = kind_of(name), ""
    cells: dict[str, Cell] = {one: {"cannot": kind.cannot[one]} for one in scenarios if one in kind.cannot}
    wanted = [one for one in scenarios if one not in cells]
    try:
        python = python_of(name, kind)
    except NotInstalled as why:
        return {"version": "", "cells": {one: {"failed": f"not installed: {why}"} for one in scenarios}}
    if COLD in wanted:
        cells[COLD] = _cold(kind, python, 1 if quick else 3)
    sizes = {one: SCENARIOS[one].quick if quick else _size(kind, one) for one in wanted if one != COLD}
    while sizes:
        try:
            with Session(f"{PACKAGE}.{name}", python) as session:
                version = session.ask("start", START_SECONDS, workers=WORKERS)["version"]
                cells |= _in_one_session(session, sizes)
        except PeerFailed as why:  # it does not start
            cells |= {one: {"failed": str(why)} for one in sizes}
            break
    return {"version": version, "cells": {one: cells[one] for one in scenarios}}


def _in_one_session(session: Session, sizes: dict[str, int]) -> dict[str, Cell]:
    """As many as go in one; takes them out of `sizes`."""
    cells: dict[str, Cell] = {}
    while sizes:
        name = next(iter(sizes))
        if cells and SCENARIOS[name].fresh:
            break
        size = sizes.pop(name)
        try:
            cells[name] = {"size": size, "figures": SCENARIOS[name].run(session, size)}
        except PeerFailed as why:
            cells[name] = {"failed": str(why)}
            break
    return cells


def _cold(kind: type[Peer], python: Path, repeats: int) -> Cell:
    try:
        return {"size": repeats, "figures": cold(kind, python, repeats)}
    except PeerFailed as why:
        return {"failed": str(why)}


def _size(kind: type[Peer], scenario: str) -> int:
    return kind.sizes.get(scenario, SCENARIOS[scenario].full)


def merged(before: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    """What was measured before, with the cells of a run in their places.

    Each cell keeps flamezmq's figures of its own run, and which run that was;
    `runs` has the conditions and floors of those that are still quoted.
    """
    peers = {name: dict(peer) for name, peer in before.get("peers", {}).items()}
    peer = peers.setdefault(run["peer"], {"version": "", "cells": {}})
    peer["version"] = run["version"] or peer["version"]
    name = f"{run['began']} {run['peer']}"
    cells = dict(peer["cells"])
    for scenario, cell in run["cells"].items():
        ours = cell if run["peer"] == OURS else run["ours"].get(scenario, {})
        cells[scenario] = _rounded(cell | {"ours": ours.get("figures"), "run": name})
    peer["cells"] = cells
    conditions = {key: run[key] for key in ("commit", "floors")} | {
        "others_cores": run["around"]["others_cores"]
    }
    runs = before.get("runs", {}) | {name: _rounded(conditions)}
    quoted = {cell["run"] for peer in peers.values() for cell in peer["cells"].values()}
    return {
        "machine": run["machine"],
        "packages": run["packages"],
        "peers": peers,
        "runs": {name: runs[name] for name in sorted(runs) if name in quoted},
    }


def _rounded(found: Any) -> Any:
    """Four digits: no more of it is true."""
    if isinstance(found, dict):
        return {key: _rounded(value) for key, value in found.items()}
    return float(f"{found:.4g}") if isinstance(found, float) else found
