"""One picture: rate and round trip of every engine, on logarithmic axes, as perf/peers/peers.svg."""

from __future__ import annotations

import json
from typing import Any

from perf.compare.run import OURS, PEERS, kind_of
from perf.compare.table import MEASURED, floors, ours

PICTURE = PEERS / "peers.svg"
_OURS, _THEIRS, _FLOOR = "#c2410c", "#1d4ed8", "#6b7280"


def points(found: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Tasks/s and p50 in us, of each that has both, by title."""
    there: dict[str, tuple[float, float]] = {}
    for name, peer in found["peers"].items():
        cells = peer["cells"]
        if name == OURS:
            ping, trip = ours(found, "ping"), ours(found, "roundtrip")
        else:
            ping, trip = (cells.get(one, {}).get("figures") or {} for one in ("ping", "roundtrip"))
        if ping and trip:
            there[kind_of(name).title] = (ping["tasks_per_s"], trip["p50_us"])
    return there


def write() -> None:
    """Draw what was measured; without matplotlib the old picture stays, and that is said."""
    try:
        import matplotlib
    except ImportError:
        print("no picture: pip install 'flamezmq[peers]' has matplotlib")
        return
    matplotlib.use("Agg")
    # Text stays text, and the same figures give the same file.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "flamezmq", "font.size": 10})
    from matplotlib import pyplot

    found = json.loads(MEASURED.read_text())
    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    floor = floors(found)
    axes.axhline(floor["p50_us"], color=_FLOOR, linestyle=":", linewidth=1)
    axes.axvline(floor["tasks_per_s"], color=_FLOOR, linestyle=":", linewidth=1)
    there = points(found)
    for title, (rate, trip) in there.items():
        mine = title == kind_of(OURS).title
        axes.scatter(rate, trip, s=60 if mine else 30, color=_OURS if mine else _THEIRS, zorder=3)
        near = (1 < x / rate < 6 and 0.7 < y / trip < 1.4 for x, y in there.values())
        left = any(near)  # another one is where the text would be
        axes.annotate(
            title,
            (rate, trip),
            xytext=(-7 if left else 7, -3),
            textcoords="offset points",
            horizontalalignment="right" if left else "left",
            color=_OURS if mine else "black",
            weight="bold" if mine else "normal",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,.0f}")
        axis.set_minor_formatter("")
    axes.margins(x=0.18, y=0.1)
    axes.invert_yaxis()
    axes.set_xlabel("no-op tasks per second, submitted one by one (more is better)")
    axes.set_ylabel("round trip of one task, p50, us (upwards is better)")
    axes.set_title("2 workers; dotted: a bare ZeroMQ broker, a message for each task", fontsize=9)
    axes.grid(which="major", alpha=0.3)
    figure.savefig(PICTURE, metadata={"Date": None})
    pyplot.close(figure)
