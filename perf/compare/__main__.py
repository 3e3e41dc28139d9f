"""`python -m perf.compare`: measure the peers beside flamezmq, and write the comparison into perf/README.md.

Each peer is installed into an environment of its own when it is first asked for.
Every run of a peer has flamezmq and the floors in it; what is measured replaces
what was measured before, cell by cell, in perf/peers/measured.json, and table and
picture are made anew from that file.  A peer that hangs or fails has the reason in
its cell; the others go on.
"""

from __future__ import annotations

import json
from time import perf_counter
from typing import Any

import click

from perf import isolate
from perf.compare import picture, table
from perf.compare.run import ALL, NAMES, engine_commit, kind_of, merged, one_run
from perf.report import RESULTS


def names_in(choices: list[str] | tuple[str, ...], text: str) -> list[str]:
    """Those that a list with commas names, in our order; all if it is empty."""
    asked = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in asked if name not in choices]
    if unknown:
        raise click.BadParameter(f"{', '.join(unknown)}; there are {', '.join(choices)}")
    return [name for name in choices if not asked or name in asked]


@click.command(help="Compare flamezmq with its peers, and write perf/README.md.")
@click.option("--only", default="", help=f"These peers: {','.join(NAMES)}.")
@click.option("--scenario", default="", help=f"These scenarios: {','.join(ALL)}.")
@click.option("--quick", is_flag=True, help="Few tasks, to see that all works; nothing is kept.")
@click.option("--table", "only_table", is_flag=True, help="Measure nothing: make table and picture anew.")
def main(only: str, scenario: str, quick: bool, only_table: bool) -> None:
    isolate.adopt_orphans()
    names, scenarios = names_in(NAMES, only), names_in(ALL, scenario)
    at = engine_commit()
    if not only_table:
        for name in names:
            began = perf_counter()
            click.echo(f"{kind_of(name).title} ...", nl=False)
            run = one_run(name, scenarios, quick, at)
            click.echo(f" {perf_counter() - began:.0f} s")
            for one, cell in run["cells"].items():
                click.echo(f"    {one:10} {_in_words(cell)}")
            if not quick:
                _keep(run)
    if not quick:
        table.write()
        picture.write()


def _in_words(cell: dict[str, Any]) -> str:
    if "figures" in cell:
        return ", ".join(f"{name} {value:,.4g}" for name, value in cell["figures"].items())
    return next(f"{word}: {cell[word]}" for word in ("failed", "cannot") if word in cell)


def _keep(run: dict[str, Any]) -> None:
    """The run by itself in perf/results, and its cells in what was measured."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"peers-{run['began'][:19].replace(':', '-')}-{run['peer']}.json"
    file.write_text(json.dumps(run, indent=1) + "\n")
    before = json.loads(table.MEASURED.read_text()) if table.MEASURED.exists() else {}
    table.MEASURED.write_text(_spelled(merged(before, run)) + "\n")


def _spelled(found: Any, depth: int = 4) -> str:
    """JSON with a line for each cell, so that a new measurement is easy to compare with the old one."""
    if not isinstance(found, dict) or not depth:
        return json.dumps(found, sort_keys=True)
    lines = (f"{json.dumps(key)}: {_spelled(value, depth - 1)}" for key, value in sorted(found.items()))
    return "{\n" + ",\n".join(lines) + "\n}"


if __name__ == "__main__":
    main()
