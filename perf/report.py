"""Rows of figures with their targets: one table for the eye, one JSON for the record.

The JSON holds the machine, the versions, the floors of the same run and what
else ran meanwhile, because a figure without them says nothing on a shared
machine.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

import zmq
from rich.console import Console
from rich.table import Table

from perf.engines import OURS
from perf.floor import Floor
from perf.isolate import JobFailed, isolated
from perf.measure import Costs, Surroundings, in_words
from perf.settings import Settings

T = TypeVar("T")

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("flamezmq", "pyzmq", "msgspec", "cloudpickle", "numpy")


@dataclass(frozen=True, slots=True)
class Target:
    """What TARGETS asks of a figure."""

    sign: str
    limit: float

    def met(self, value: float) -> bool:
        return value >= self.limit if self.sign == ">=" else value <= self.limit

    def __str__(self) -> str:
        return f"{self.sign} {self.limit:,g}"


def at_least(limit: float) -> Target:
    """More is better."""
    return Target(">=", limit)


def at_most(limit: float) -> Target:
    """Less is better."""
    return Target("<=", limit)


@dataclass(slots=True)
class Row:
    """One figure of one engine.  `value` None: it could not be had, and `note` says why."""

    figure: str
    engine: str
    value: float | None
    unit: str
    target: Target | None = None
    note: str = ""
    costs: Costs | None = None

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        if self.value is None:
            return "none"
        return "pass" if self.target.met(self.value) else "FAIL"


@dataclass(slots=True)
class Report:
    """What one run of a scenario found."""

    scenario: str
    about: str
    quick: bool
    rows: list[Row] = field(default_factory=list)
    #: Whatever else a scenario wants to keep, for the JSON only.
    raw: list[object] = field(default_factory=list)
    floors_before: list[Floor] = field(default_factory=list)
    floors_after: list[Floor] = field(default_factory=list)
    around: Surroundings = field(default_factory=Surroundings)
    seconds: float = 0.0
    began: datetime = field(default_factory=lambda: datetime.now(UTC))

    def add(
        self,
        figure: str,
        engine: str,
        value: float | None,
        unit: str,
        target: Target | None = None,
        note: str = "",
        costs: Costs | None = None,
    ) -> None:
        """Append a row.  A `value` is kept to four digits: no more of it is true.

        costs: what each task of it took; kept in the JSON, and told in the note.
        """
        kept = None if value is None else float(f"{value:.4g}")
        if costs is not None:
            note = "; ".join(filter(None, (note, in_words(costs))))
        self.rows.append(Row(figure, engine, kept, unit, target, note, costs))

    def attempt(
        self,
        figure: str,
        engine: str,
        unit: str,
        target: Target | None,
        function: Callable[..., T],
        *arguments: object,
        limit: float,
    ) -> T | None:
        """Run a job.  If it fails, this figure has no value, and the row says why; returns None."""
        try:
            return isolated(function, *arguments, limit=limit)
        except JobFailed as why:
            self.add(figure, engine, None, unit, target, why.summary)
            self.raw.append({"figure": figure, "engine": engine, "failed": why.details or why.summary})
            return None

    def attempt_ours(
        self,
        settings: Settings,
        figure: str,
        unit: str,
        target: Target | None,
        function: Callable[..., T],
        *arguments: object,
        limit: float,
    ) -> T | None:
        """`attempt` with our own engine; if that is not to be measured, the row says so."""
        if OURS not in settings.engines:
            self.add(figure, OURS, None, unit, target, "not measured")
            return None
        return self.attempt(figure, OURS, unit, target, function, *arguments, limit=limit)

    def as_dict(self) -> dict[str, object]:
        return {
            "scenario": self.scenario,
            "began": self.began.isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 1),
            "quick": self.quick,
            "machine": machine(),
            "packages": packages(),
            "commit": commit(),
            "around": asdict(self.around),
            "floors_before": [asdict(floor) for floor in self.floors_before],
            "floors_after": [asdict(floor) for floor in self.floors_after],
            "rows": [_row_as_dict(row) for row in self.rows],
            "raw": self.raw,
        }

    def write(self) -> Path:
        """Keep it in perf/results, which git ignores."""
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{self.scenario}-{self.began:%Y-%m-%dT%H-%M-%S}.json"
        path.write_text(json.dumps(self.as_dict(), indent=1) + "\n")
        return path

    def show(self, console: Console) -> None:
        """Print the table, with the floors above and the machine below it."""
        console.print(f"[bold]{self.scenario}[/]: {self.about}", highlight=False)
        table = Table(show_edge=False)
        for name in ("figure", "engine"):
            table.add_column(name, overflow="fold")
        for name in ("value", "target"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        table.add_column("note", overflow="fold")
        for row in self.rows:
            value = "-" if row.value is None else f"{_number(row.value)} {row.unit}".rstrip()
            target = "" if row.target is None else str(row.target)
            table.add_row(row.figure, row.engine, value, target, _coloured(row.verdict), row.note)
        console.print(table)
        for when, floors in (("before", self.floors_before), ("after", self.floors_after)):
            for found in floors:
                console.print(f"  floor {when}: {_sentence(found)}", style="dim", highlight=False)
        console.print(f"  {self._conditions()}\n", style="dim", highlight=False)

    def _conditions(self) -> str:
        host = machine()
        return (
            f"{host['cpu']}, {host['usable_cores']} cores; others used {self.around.others_cores} cores, "
            f"the host took {self.around.stolen_cores}; {self.seconds:.0f} s{'; QUICK' if self.quick else ''}"
        )


def _row_as_dict(row: Row) -> dict[str, object]:
    target = None if row.target is None else str(row.target)
    return asdict(row) | {"target": target, "verdict": row.verdict}


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _coloured(verdict: str) -> str:
    style = {"pass": "green", "FAIL": "bold red", "none": "yellow"}.get(verdict)
    return f"[{style}]{verdict}[/]" if style else verdict


def _sentence(found: Floor) -> str:
    fields = asdict(found)
    return f"{fields.pop('what')} " + ", ".join(f"{key} {value}" for key, value in fields.items())


def machine() -> dict[str, object]:
    """The hardware and the system, as far as figures depend on them."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def packages() -> dict[str, str]:
    """Versions of what the figures depend on."""
    found = {"libzmq": zmq.zmq_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def commit() -> str:
    """The commit of this checkout, "+" behind it if files differ; "" outside git."""
    words: Sequence[str] = ("git", "describe", "--always", "--dirty=+", "--exclude=*")
    try:
        done = subprocess.run(
            words, check=False, cwd=RESULTS.parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
