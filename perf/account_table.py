"""Write the last account that was measured into perf/README.md: `python -m perf.account_table [JSON]`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perf.report import RESULTS

README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- made: account -->\n", "<!-- end -->\n"


def main() -> None:
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else max(RESULTS.glob("account-*.json"))
    before, rest = README.read_text().split(BEGIN)
    after = rest.split(END, 1)[1]
    README.write_text(before + BEGIN + "\n".join(tables(json.loads(file.read_text()))) + "\n" + END + after)


def tables(found: dict[str, Any]) -> Iterator[str]:
    """Both kinds side by side, then what each task pays."""
    trip, bulk = found["raw"]
    yield f"{_conditions(found)}\n"
    yield f"| CPU us | {trip['kind']} | {bulk['kind']} |"
    yield "| --- | ---: | ---: |"
    total = [sum(kind["threads"].values()) + kind["io"] for kind in (trip, bulk)]
    yield f"| **all** | **{_us(total[0])}** | **{_us(total[1])}** |"
    for who in trip["threads"]:
        yield f"| **{who}, in all** | **{_us(trip['threads'][who])}** | **{_us(bulk['threads'][who])}** |"
        for label, us in trip["steps"].items():
            if label.startswith(f"{who}: "):
                yield f"| {label} | {_us(us)} | {_us(bulk['steps'][label])} |"
        calls = (f"{kind['calls'][who]:.4g}" for kind in (trip, bulk))
        yield f"| {who}: function calls | {' | '.join(calls)} |"
    yield f"| **ZeroMQ's I/O threads** | **{_us(trip['io'])}** | **{_us(bulk['io'])}** |"
    yield "\nWhat every task pays, each in a loop of its own:\n"
    yield "| CPU us | |"
    yield "| --- | ---: |"
    for row in found["rows"]:
        kind, _, what = row["figure"].partition(": ")
        if kind == "each task":
            yield f"| {what} | {_us(row['value'])} |"


def _conditions(found: dict[str, Any]) -> str:
    floors = found["floors_before"] + found["floors_after"]
    echo = min(one["cpu_us"] for one in floors if one["what"] == "four-hop" and one["one_core"])
    piped = next((one for one in floors if one["what"] == "pipelined"), None)
    batch = f"; pipelined, {piped['cpu_us']} us of CPU per trip" if piped else ""
    host = found["machine"]
    return (
        f"{found['began'][:10]}, commit {found['commit']}, {host['cpu']}, {host['usable_cores']} cores, "
        f"Python {host['python']}; others used {found['around']['others_cores']} cores.\n"
        f"Floor of the same run: the bare four-hop echo on one core, {echo} us of CPU{batch}."
    )


def _us(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


if __name__ == "__main__":
    main()
