"""The measuring tools measure: they run against the engine as it is, and find what they must."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import pytest

from perf.stopwatch import Stopwatch, medians

ROOT = Path(__file__).parents[1]


def busy(seconds: float) -> None:
    end = perf_counter() + seconds
    while perf_counter() < end:
        pass


def test_a_stopwatch_gives_each_function_its_own_time_and_not_that_of_those_it_calls() -> None:
    holder = SimpleNamespace()
    holder.inner = lambda: busy(0.004)

    def outer() -> None:
        busy(0.001)
        holder.inner()

    holder.outer = outer
    stopwatch = Stopwatch()
    rounds = []
    with stopwatch.on([("outer", holder, "outer"), ("inner", holder, "inner")]):
        for _ in range(9):
            holder.outer()
            rounds.append(stopwatch.take())

    own = medians(rounds, ("outer", "inner"))
    assert own["outer"] < 2500 < own["inner"]
    assert holder.outer is outer, "it is unwrapped again"


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize(
    "scenario",
    ["account", "actor", "claim", "exec", "fanout", "nested", "ping", "ramp", "roundtrip", "store", "stream"],
)
def test_a_scenario_finds_every_figure_and_leaves_nothing_behind(scenario: str, tmp_path: Path) -> None:
    found = measured(scenario, tmp_path / "found.json")

    not_asked = "not both were measured"
    missing = [row for row in found["rows"] if row["value"] is None and row["note"] != not_asked]
    assert not missing
    assert len(found["rows"]) > 1
    assert {"machine", "packages", "floors_before", "around"} <= found.keys()


@pytest.mark.slow
@pytest.mark.processes
def test_transfers_between_nodes_are_measured_where_networks_can_be_made(tmp_path: Path) -> None:
    found = measured("transfer", tmp_path / "found.json")

    for row in found["rows"]:
        if row["value"] is None and "network namespaces" in row["note"]:
            pytest.skip(row["note"])
    assert all(row["value"] for row in found["rows"])
    assert {row["figure"].partition(",")[2] for row in found["rows"]} >= {
        " times bare ZeroMQ",
        " times one transfer",
    }


def measured(scenario: str, file: Path) -> dict[str, Any]:
    words = [sys.executable, "-m", "perf", scenario, "--quick", "--engine", "flamezmq", "--json", str(file)]
    done = subprocess.run(words, check=False, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(file.read_text())
    return found
