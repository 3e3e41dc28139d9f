"""`python -m perf [SCENARIO ...]`: measure, compare with floors, peers and targets, write it down.

A scenario is a file in perf/scenarios with a docstring and `run(settings, report)`;
it appears here by being there.  One that defines OWN_FLOORS measures the floors
itself.  Exit code 1 means that a scenario broke or left processes behind, never
that a target was missed: figures of a shared machine don't fail a build.
"""

from __future__ import annotations

import importlib
import json
import traceback
from pathlib import Path
from time import perf_counter
from types import ModuleType

import click
from rich.console import Console

from perf import floor, isolate
from perf.engines import ENGINES, OURS, started
from perf.measure import surroundings
from perf.report import Report
from perf.settings import Settings

SCENARIOS = sorted(
    path.stem for path in (Path(__file__).parent / "scenarios").glob("*.py") if path.stem != "__init__"
)


@click.command(
    help="Measure SCENARIOs (all of them without an argument).", epilog=f"Scenarios: {', '.join(SCENARIOS)}."
)
@click.argument("scenarios", nargs=-1, type=click.Choice(SCENARIOS), metavar="[SCENARIO]...")
@click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write the JSON here too."
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=None,
    help="Repeats, instead of the scenario's own number.",
)
@click.option("--quick", is_flag=True, help="A few seconds for each: to see that it works, not to quote.")
@click.option(
    "--engine", "engines", multiple=True, type=click.Choice(list(ENGINES)), help="Only this one (repeatable)."
)
def main(
    scenarios: tuple[str, ...], file: Path | None, rounds: int | None, quick: bool, engines: tuple[str, ...]
) -> None:
    isolate.adopt_orphans()
    console = Console(width=None if Console().is_terminal else 150)
    wanted = tuple(name for name in engines or ENGINES if _can_run(name, console))
    settings = Settings(wanted, rounds or 0, quick)
    reports: list[Report] = []
    broken = False
    for name in scenarios or SCENARIOS:
        report, failure = measure(importlib.import_module(f"perf.scenarios.{name}"), name, settings)
        report.show(console)
        console.print(f"  {report.write()}\n", style="dim", highlight=False, soft_wrap=True)
        console.print(failure, style="red", highlight=False, markup=False, end="")
        broken |= bool(failure)
        reports.append(report)
    if file is not None:
        found = [report.as_dict() for report in reports]
        file.write_text(json.dumps(found[0] if len(found) == 1 else found, indent=1) + "\n")
    raise SystemExit(broken)


def measure(module: ModuleType, name: str, settings: Settings) -> tuple[Report, str]:
    """Run one scenario between two looks at the floors.  Also returns what went wrong, or ""."""
    report = Report(name, (module.__doc__ or "").partition("\n")[0].rstrip("."), settings.quick)
    own_floors = getattr(module, "OWN_FLOORS", False)
    failure = ""
    began = perf_counter()
    with surroundings() as around:
        try:
            if not own_floors:
                report.floors_before = floors(full=not settings.quick)
            module.run(settings, report)
            if not own_floors:
                report.floors_after = floors(full=False)
        except Exception:
            failure = traceback.format_exc()
    report.around, report.seconds = around, perf_counter() - began
    for leak in isolate.leaks:
        report.add("processes left behind", leak, 1, "", note="ended by us")
        failure += f"left behind: {leak}\n"
    isolate.leaks.clear()
    return report, failure


def floors(full: bool) -> list[floor.Floor]:
    """The floors that every scenario is shown beside."""
    found: list[floor.Floor] = [floor.four_hop(1000), floor.four_hop(1000, one_core=True)]
    if full:
        found += [floor.pipelined(), floor.pipe(), floor.pickled()]
    return found


def _can_run(engine: str, console: Console) -> bool:
    """Ours may be a checkout that does not work; the peers do."""
    if engine == OURS:
        try:
            isolate.isolated(_start, engine, limit=30)
        except isolate.JobFailed as why:
            console.print(f"{engine} is not measured: {why}\n", style="yellow", markup=False, highlight=False)
            return False
    return True


def _start(engine: str) -> None:
    with started(engine, 1):
        pass


if __name__ == "__main__":
    main()
