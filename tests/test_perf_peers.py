"""The comparison with other engines: what a peer may do wrong, and what becomes of its figures."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from perf.compare import run, table, venvs
from perf.compare.__main__ import names_in
from perf.compare.picture import points
from perf.compare.session import PeerFailed, Session, environment
from perf.measure import descendants

HERE = Path(sys.executable)


# --- a peer in its process ---------------------------------------------------------------


@pytest.mark.processes
@pytest.mark.parametrize("name", ["process_pool", "pool"])
def test_an_engine_answers_every_request_and_its_results_are_checked(name: str) -> None:
    with Session(f"perf.peers.{name}", HERE) as session:
        session.ask("start", 20, workers=2)
        assert len(session.pids()["others"]) == 2
        answer, cost = session.measured("ping", 20, tasks=300)
        assert answer["seconds"] > 0
        assert sum(cost.cpu.values()) > 0
        trips = session.ask("roundtrip", 20, rounds=20)
        assert 0 < trips["p50_us"] <= trips["p99_us"]
        work: dict[str, dict[str, float]] = {
            "batch": {"items": 1000},
            "spin": {"tasks": 10, "seconds": 1e-4},
            "arguments": {"size": 100_000, "count": 5},
            "results": {"size": 100_000, "count": 5},
        }
        for do, arguments in work.items():
            assert session.ask(do, 20, **arguments)["seconds"] > 0
        session.ask("hold", 20)
        assert session.ask("fill", 20, tasks=50, seconds=5)["queued"] == 50
        session.end(gently=False)


@pytest.mark.processes
@pytest.mark.parametrize(("name", "lost"), [("process_pool", "failed"), ("pool", "pending")])
def test_the_tasks_that_a_kill_has_cost_are_counted_by_how_they_ended(name: str, lost: str) -> None:
    with Session(f"perf.peers.{name}", HERE) as session:
        session.ask("start", 20, workers=2)

        found = session.ask("kill", 40, tasks=60, seconds=5e-3, patience=0.5)

    assert found[lost] > 0
    assert found["done"] + found["failed"] + found["pending"] == 60
    assert found["wrong"] == 0


@pytest.mark.processes
def test_a_peer_that_hangs_is_ended_with_all_that_it_has_started() -> None:
    before = set(descendants(os.getpid()))
    with Session("tests.fake_peer", HERE) as session:
        session.ask("start", 20, workers=2)

        with pytest.raises(PeerFailed, match="hung: no answer in 1 s"):
            session.ask("arguments", 1, size=100, count=2)

        assert len(session.pids()["others"]) == 2, "a resource tracker, and a daemon"

    assert set(descendants(os.getpid())) <= before


@pytest.mark.processes
def test_a_peer_that_fails_has_the_reason_in_its_cell_and_the_other_scenarios_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "PACKAGE", "tests")

    cells = run.measured("fake_peer", ["ping", "roundtrip", "batch", "short", "nested"], quick=True)["cells"]

    assert cells["ping"] == {"failed": "AssertionError: 125 results of 125, 124 of them wrong"}
    assert cells["roundtrip"] == {"failed": "RuntimeError: no way there"}
    assert cells["batch"] == {"failed": "its program died with code 3: the last words"}
    assert 0 < cells["short"]["figures"]["efficiency"] < 1
    assert cells["nested"] == {"cannot": "fakes have no children"}


@pytest.mark.processes
def test_a_peer_that_does_not_start_fails_everywhere_with_that_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind = run.kind_of("pool")
    monkeypatch.setattr(run, "PACKAGE", "perf.nowhere")
    monkeypatch.setattr(run, "kind_of", lambda name: kind)

    cells = run.measured("pool", ["ping", "batch"], quick=True)["cells"]

    assert set(cells) == {"ping", "batch"}
    assert all("No module named 'perf.nowhere'" in cell["failed"] for cell in cells.values())


def test_files_of_a_peer_go_into_a_folder_of_its_own(tmp_path: Path) -> None:
    found = environment(tmp_path / "venv" / "bin" / "python", tmp_path)

    assert found["TMPDIR"] == found["IPYTHONDIR"] == str(tmp_path)
    assert found["PATH"].startswith(str(tmp_path / "venv" / "bin"))


# --- the peers' files --------------------------------------------------------------------


@pytest.mark.parametrize("name", run.NAMES)
def test_every_peer_says_what_it_is_without_being_installed(name: str) -> None:
    kind = run.kind_of(name)

    assert kind.title
    assert kind.chosen
    assert all(package.count("==") == 1 for package in kind.packages), "versions are pinned"
    assert set(kind.sizes) | set(kind.cannot) <= set(run.ALL)
    compile(kind.program, name, "exec")


def test_a_peer_that_can_not_be_installed_is_told_from_one_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")

    with pytest.raises(venvs.NotInstalled, match="loky"):
        venvs.python_of("loky", run.kind_of("loky"), tmp_path)

    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.timeout(200)
def test_a_peer_is_installed_once_into_an_environment_of_its_own_and_runs_there(tmp_path: Path) -> None:
    kind = run.kind_of("loky")
    try:
        python = venvs.python_of("loky", kind, tmp_path)
    except venvs.NotInstalled as why:
        pytest.skip(f"no package can be had here: {why}")
    made = python.stat().st_mtime_ns

    assert venvs.python_of("loky", kind, tmp_path).stat().st_mtime_ns == made
    with Session("perf.peers.loky", python) as session:
        assert f"loky=={session.ask('start', 30, workers=2)['version']}" in kind.packages
        assert session.ask("ping", 30, tasks=100)["seconds"] > 0


# --- what becomes of the figures ---------------------------------------------------------

FLOORS = {"p50_us": 100, "p99_us": 200, "tasks_per_s": 30_000, "cpu_us": 20, "efficiency": 1, "seconds": 0.1}


def a_run(peer: str, cells: dict[str, Any], ours: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "peer": peer,
        "version": "1.2",
        "began": "2026-11-25T03:00:00+00:00",
        "machine": {"cpu": "x", "usable_cores": 2, "memory_gib": 24, "kernel": "6", "python": "3.11.7"},
        "packages": {"flamezmq": "0.1.0"},
        "commit": "abc",
        "floors": FLOORS,
        "around": {"others_cores": 0.0},
        "ours": ours or {},
        "cells": cells,
    }


def ping(rate: float, size: int = 10_000) -> dict[str, Any]:
    return {"ping": {"size": size, "figures": {"tasks_per_s": rate, "cpu_us": 1e6 / rate}}}


def test_a_run_replaces_its_own_cells_and_no_others() -> None:
    first = run.merged({}, a_run("pool", ping(1000) | {"idle": {"failed": "hung"}}, ping(2000)))

    second = run.merged(first, a_run("pool", ping(3000), ping(4000)))

    cells = second["peers"]["pool"]["cells"]
    assert cells["ping"]["figures"]["tasks_per_s"] == 3000
    assert cells["ping"]["ours"]["tasks_per_s"] == 4000, "a ratio is of one run"
    assert cells["idle"]["failed"] == "hung"
    assert first["peers"]["pool"]["cells"]["ping"]["figures"]["tasks_per_s"] == 1000


def test_ratios_are_of_one_run_and_who_is_better_than_flamezmq_is_bold() -> None:
    found = run.merged({}, a_run("flamezmq", ping(9000)))
    found = run.merged(found, a_run("pool", ping(1000), ping(10_000)))
    found = run.merged(found, a_run("loky", ping(8000), ping(4000)))

    lines = table.block(found).splitlines()

    assert "| multiprocessing.Pool | 0.1 | 10 |  |  |  |  |  |  |" in lines
    assert "| loky | **2** | **0.5** |  |  |  |  |  |  |" in lines
    assert any(line.startswith("| **flamezmq** | 9,000 |") for line in lines), "the median of all runs"


def test_what_could_not_be_measured_is_said_in_a_note_and_so_are_smaller_sizes() -> None:
    cells = ping(500, size=2_000) | {
        "idle": {"failed": "hung: no answer in 9 s"},
        "cold": {"cannot": "is warm"},
    }
    found = run.merged({}, a_run("dask", cells))

    text = table.block(found)

    row = next(line for line in text.splitlines() if line.startswith("| Dask"))
    assert row == (
        r"| Dask (distributed) | 500\* | 2,000\* | not measured | not measured | not measured "
        "| cannot [1] | hung [2] |"
    )
    assert r"\* Fewer, because it is slow. Dask (distributed): ping 2,000." in text
    assert "[1] Dask (distributed), cold: is warm." in text
    assert "[2] Dask (distributed), idle: hung: no answer in 9 s." in text


def test_a_kill_is_told_by_what_was_lost_or_by_what_it_has_cost() -> None:
    spell = next(spell for _, scenario, spell in table.REST if scenario == "kill")
    none = {"failed": 0, "pending": 0, "wrong": 0, "repeated": 0}

    back = none | {"extra_seconds": 0.51, "gap_seconds": 0.123}

    assert spell(back) == "all done, +0.5 s, replaced in 0.12 s"
    assert spell(back | {"pending": 1, "gap_seconds": -1}) == "1 never ended"
    assert spell(back | {"failed": 3, "repeated": 2}) == "3 failed, replaced in 0.12 s, 2 ran twice"


def test_the_picture_shows_who_has_both_a_rate_and_a_round_trip() -> None:
    trip = {"roundtrip": {"size": 1000, "figures": {"p50_us": 250.0, "p99_us": 300.0}}}
    found = run.merged({}, a_run("flamezmq", ping(9000) | trip))
    found = run.merged(found, a_run("pool", ping(1000)))

    assert points(found) == {"flamezmq": (9000, 250)}


def test_the_table_in_the_readme_is_that_of_what_was_measured() -> None:
    found = json.loads(table.MEASURED.read_text())

    assert table.block(found) in table.README.read_text(), "run: python -m perf.compare --table"


def test_a_name_that_is_not_there_is_refused_with_those_that_are() -> None:
    assert names_in(["a", "b", "c"], "c, a") == ["a", "c"]
    assert names_in(["a", "b"], "") == ["a", "b"]
    with pytest.raises(click.BadParameter, match="x; there are a, b"):
        names_in(["a", "b"], "x")
