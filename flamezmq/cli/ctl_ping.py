"""`flmctl ping`: does the router answer, and what is it?"""

from __future__ import annotations

import json
from itertools import starmap
from time import perf_counter
from typing import Any

import click

from flamezmq.cli.ctl_base import address_of, address_option, connect, examples, say
from flamezmq.cli.ctl_output import counted
from flamezmq.wire import messages as m


@click.command("ping", epilog=examples("ping", "ping -a tcp://head:7601"))
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.01, max=3600),
    default=3.0,
    show_default=True,
    metavar="SECONDS",
    help="How long connecting, and the answer, may take.",
)
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Form."
)
@address_option
def ping_command(timeout: float, output: str, address: str | None) -> None:
    """Say whether the router answers, its version, its age, and how many are with it.

    Exit code 0 if it answers, 3 if it does not: good for probes of liveness.
    """
    found = address_of(address)
    with connect(found, timeout) as controller:
        began = perf_counter()
        row = controller.router()
        took = perf_counter() - began
    facts = {"address": found, "milliseconds": round(took * 1e3, 3), **as_dict(row)}
    say(json.dumps(facts) if output == "json" else in_words(facts))


def as_dict(row: m.RouterRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__struct_fields__}


def in_words(facts: dict[str, Any]) -> str:
    """Two lines."""
    state = "is stopping" if facts["draining"] else "answers"
    counts = [(facts[f"{name}s"], name) for name in ("node", "executor", "client", "session")]
    with_it = ", ".join(starmap(counted, counts))
    return (
        f"the router at {facts['address']} {state} (in {facts['milliseconds']:.1f} ms): flamezmq "
        f"{facts['version']}, protocol {facts['protocol']}, up {duration(facts['uptime'])}\n"
        f"{with_it}; tasks: {facts['pending']:,} waiting, {facts['held']:,} with executors"
    )


def duration(seconds: float) -> str:
    """Two units at most."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
