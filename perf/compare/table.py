"""The comparison in words and tables, made from perf/peers/measured.json into perf/README.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from perf.compare.run import NAMES, OURS, PEERS, kind_of
from perf.compare.scenarios import SCENARIOS, Figures

MEASURED = PEERS / "measured.json"
README = PEERS.parent / "README.md"
BEGIN, END = "<!-- made: peers -->\n", "<!-- end -->\n"

Found = dict[str, Any]
Column = tuple[str, str, Callable[[Figures], str]]


def _of(figure: str, spelled: Callable[[float], str]) -> Callable[[Figures], str]:
    return lambda figures: spelled(figures[figure])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _rate(value: float) -> str:
    """Three digits: no more of it is true."""
    return f"{float(f'{value:.3g}'):,.0f}"


def _killed(figures: Figures) -> str:
    lost = ", ".join(
        f"{figures[key]:,.0f} {words}"
        for key, words in (("failed", "failed"), ("pending", "never ended"), ("wrong", "wrong"))
        if figures[key]
    )
    gap = figures["gap_seconds"]
    new = f", replaced in {gap:.2f} s" if gap >= 0 else ""
    again = f", {figures['repeated']:,.0f} ran twice" if figures["repeated"] else ""
    extra = f"{figures['extra_seconds']:+.1f}".replace("-0.0", "+0.0")
    return (lost or f"all done, {extra} s") + new + again


#: Heading, scenario, the cell's text.
SPEED: tuple[Column, ...] = (
    ("tasks/s, by submit", "ping", _of("tasks_per_s", _rate)),
    ("CPU us per task", "ping", _of("cpu_us", _number)),
    ("round trip p50 / p99, us", "roundtrip", lambda f: f"{_number(f['p50_us'])} / {_number(f['p99_us'])}"),
    ("batch, items/s", "batch", _of("items_per_s", _rate)),
    ("1 ms tasks: efficiency", "short", _of("efficiency", "{:.2f}".format)),
    ("cold start, s", "cold", _of("seconds", "{:.2f}".format)),
    ("idle, CPU s in 10 s", "idle", _of("cpu_s", "{:.3f}".format)),
)
REST: tuple[Column, ...] = (
    ("results of 1 MB, MB/s", "payload", _of("results_mb_per_s", _rate)),
    ("arguments of 1 MB, MB/s", "payload", _of("arguments_mb_per_s", _rate)),
    ("nested fib(12), s", "nested", _of("seconds", "{:.2f}".format)),
    ("KB per queued task", "queue", _of("kb_per_task", "{:.2f}".format)),
    ("one of 2 workers killed", "kill", _killed),
)
#: Heading, scenario, figure, whether more is better: as multiples of flamezmq's of the same run.
RATIOS = (
    ("tasks/s", "ping", "tasks_per_s", True),
    ("CPU per task", "ping", "cpu_us", False),
    ("round trip p50", "roundtrip", "p50_us", False),
    ("round trip p99", "roundtrip", "p99_us", False),
    ("batch", "batch", "items_per_s", True),
    ("efficiency, 1 ms", "short", "efficiency", True),
    ("results of 1 MB", "payload", "results_mb_per_s", True),
    ("arguments of 1 MB", "payload", "arguments_mb_per_s", True),
)


def write() -> None:
    """Put the block into perf/README.md."""
    before, rest = README.read_text().split(BEGIN)
    after = rest.split(END, 1)[1]
    README.write_text(before + BEGIN + block(json.loads(MEASURED.read_text())) + END + after)


def block(found: Found) -> str:
    """Everything between the marks."""
    return "\n".join(_lines(found)) + "\n"


def floors(found: Found) -> Figures:
    """The medians of the runs in which time was measured."""
    return _medians([run["floors"] for run in _timed(found)])


def ours(found: Found, scenario: str) -> Figures:
    """flamezmq's figures: the medians of all runs that have it."""
    return _medians([cell["ours"] for cell in _cells(found, scenario) if cell["ours"]])


def _cells(found: Found, scenario: str) -> list[dict[str, Any]]:
    peers = found["peers"].values()
    return [peer["cells"][scenario] for peer in peers if scenario in peer["cells"]]


def _timed(found: Found) -> list[dict[str, Any]]:
    """The runs whose rates are shown; what a queue weighs and a kill costs may come from others."""
    return [found["runs"][cell["run"]] for cell in _cells(found, "ping")]


def _medians(all_figures: list[Figures]) -> Figures:
    names = all_figures[0] if all_figures else {}
    return {name: median(figures[name] for figures in all_figures) for name in names}


def _lines(found: Found) -> Iterator[str]:
    notes = _Notes()
    yield f"{_conditions(found)}\n"
    yield from _table(found, SPEED, notes, _floor_row(found))
    yield ""
    yield from _table(found, REST, notes, [])
    yield ""
    yield from notes.lines()
    yield "\nAs multiples of flamezmq's figure of the same run (**bold**: the peer is better):\n"
    yield from _ratios(found)
    yield f"\n{_better(found)}\n"
    yield "![tasks per second and round trip of all engines](peers/peers.svg)\n"
    yield "What was chosen for each:\n"
    yield "| engine | version | settings and idioms |"
    yield "| --- | --- | --- |"
    for name in _there(found):
        yield f"| {kind_of(name).title} | {_version(found, name)} | {kind_of(name).chosen} |"


def _there(found: Found) -> list[str]:
    """flamezmq, then the others by their rates."""

    def rate(name: str) -> float:
        figures = found["peers"][name]["cells"].get("ping", {}).get("figures")
        return float(figures["tasks_per_s"]) if figures else 0.0

    there = [name for name in NAMES if name in found["peers"]]
    return sorted(there, key=lambda name: (name != OURS, -rate(name)))


def _version(found: Found, name: str) -> str:
    if name == OURS:
        return str(found["packages"][OURS])
    version: str = found["peers"][name]["version"] or f"Python {found['machine']['python']}"
    others = [package.replace("==", " ") for package in kind_of(name).packages[1:]]
    return ", ".join([version, *others])


def _conditions(found: Found) -> str:
    days = [name[:10] for name in found["runs"]]
    commits = list(dict.fromkeys(run["commit"] for run in found["runs"].values()))
    host = found["machine"]
    others = [run["others_cores"] for run in _timed(found)] or [0.0]
    return (
        f"{' to '.join(dict.fromkeys((days[0], days[-1])))}, commit {', '.join(commits)}, {host['cpu']}, "
        f"{host['usable_cores']} cores, {host['memory_gib']:.0f} GiB, kernel {host['kernel']}, "
        f"Python {host['python']}; while rates were taken, others used {median(others):.1f} cores "
        f"(at most {max(others):.1f}; what ended without being waited for counts as others')."
    )


def _floor_row(found: Found) -> list[str]:
    """Figures of bare ZeroMQ, bare processes and a bare Python, in the columns of SPEED."""
    floor = floors(found)
    if not floor:
        return []
    trips = f"{_number(floor['p50_us'])} / {_number(floor['p99_us'])}"
    rates = [_rate(floor["tasks_per_s"]), _number(floor["cpu_us"]), trips]
    return ["*floor*", *rates, "", f"{floor['efficiency']:.2f}", f"{floor['seconds']:.2f}", ""]


def _table(found: Found, columns: tuple[Column, ...], notes: _Notes, floor: list[str]) -> Iterator[str]:
    yield "| | " + " | ".join(heading for heading, _, _ in columns) + " |"
    yield "| --- |" + " ---: |" * len(columns)
    if floor:
        yield f"| {' | '.join(floor)} |"
    for name in _there(found):
        title = f"**{kind_of(name).title}**" if name == OURS else kind_of(name).title
        cells = [_text(found, name, scenario, spell, notes) for _, scenario, spell in columns]
        yield f"| {title} | {' | '.join(cells)} |"


def _text(found: Found, name: str, scenario: str, spell: Callable[[Figures], str], notes: _Notes) -> str:
    """A cell; what it needs to say besides becomes a note."""
    cell = found["peers"][name]["cells"].get(scenario)
    if cell is None:
        return "not measured"
    title = kind_of(name).title
    if "figures" not in cell:
        why = cell.get("cannot") or cell["failed"]
        word = "cannot" if "cannot" in cell else "hung" if why.startswith("hung") else "failed"
        return f"{word} {notes.reason(f'{title}, {scenario}: {why}')}"
    if name == OURS and scenario in SCENARIOS and SCENARIOS[scenario].beside:
        return spell(ours(found, scenario))
    text = spell(cell["figures"])
    if scenario in SCENARIOS and scenario != "idle":
        size = cell["figures"].get("queued", cell["size"])
        if size != SCENARIOS[scenario].full:
            text += notes.fewer(title, f"{scenario} {size:,.0f}")
    return text


@dataclass(slots=True)
class _Notes:
    """What cells have no room for; each method returns the mark that goes into the cell."""

    _reasons: list[str] = field(default_factory=list)
    _sizes: dict[str, list[str]] = field(default_factory=dict)

    def reason(self, text: str) -> str:
        if text not in self._reasons:
            self._reasons.append(text)
        return f"[{self._reasons.index(text) + 1}]"

    def fewer(self, title: str, text: str) -> str:
        sizes = self._sizes.setdefault(title, [])
        if text not in sizes:
            sizes.append(text)
        return r"\*"

    def lines(self) -> Iterator[str]:
        if self._sizes:
            words = "; ".join(f"{title}: {', '.join(sizes)}" for title, sizes in self._sizes.items())
            yield rf"\* Fewer, because it is slow. {words}.  "
        yield from (f"[{number}] {text}.  " for number, text in enumerate(self._reasons, 1))


def _ratios(found: Found) -> Iterator[str]:
    yield "| | " + " | ".join(heading for heading, *_ in RATIOS) + " |"
    yield "| --- |" + " ---: |" * len(RATIOS)
    for name in _there(found):
        if name != OURS:
            cells = []
            for _, scenario, figure, more in RATIOS:
                ratio = _ratio(found, name, scenario, figure)
                text = "" if ratio is None else "< 0.001" if ratio < 1e-3 else f"{ratio:,.3g}"
                cells.append(f"**{text}**" if ratio is not None and (ratio > 1) == more else text)
            yield f"| {kind_of(name).title} | {' | '.join(cells)} |"


def _ratio(found: Found, name: str, scenario: str, figure: str) -> float | None:
    cell = found["peers"][name]["cells"].get(scenario, {})
    if "figures" not in cell or not cell["ours"]:
        return None
    return float(cell["figures"][figure] / cell["ours"][figure])


#: What else can be compared, in runs of their own; less is better.
_BY_THEMSELVES = (
    ("cold start", "cold", "seconds"),
    ("CPU when idle", "idle", "cpu_s"),
    ("nested fib(12)", "nested", "seconds"),
    ("memory per queued task", "queue", "kb_per_task"),
)


def _better(found: Found) -> str:
    """Who beats flamezmq at what."""
    lines = []
    for heading, scenario, figure in _BY_THEMSELVES:
        mine = found["peers"].get(OURS, {"cells": {}})["cells"].get(scenario, {}).get("figures")
        theirs = {
            kind_of(name).title: found["peers"][name]["cells"].get(scenario, {}).get("figures")
            for name in _there(found)
            if name != OURS
        }
        beaten = [f"{title}" for title, one in theirs.items() if mine and one and one[figure] < mine[figure]]
        if beaten:
            lines.append(f"{heading}: {', '.join(beaten)}")
    return "Better than flamezmq in the other columns: " + ("; ".join(lines) or "nobody") + "."
