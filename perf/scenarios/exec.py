"""flmexec: 1,000 commands that do nothing, beside xargs and GNU parallel, if the machine has them.

Two at a time.  flmexec and GNU parallel run each command by a shell; xargs runs the program
itself, so it is shown with a shell, too.  With a cluster of its own, flmexec's start is in the figure.
CPU is that of all processes, commands included; a cluster that runs is not counted.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

from perf.engines import OURS
from perf.report import Report
from perf.settings import Settings

LIMIT_SECONDS = 60.0
WORKERS = 2
ROOT = Path(__file__).parents[2]

XARGS, XARGS_SHELL, PARALLEL = "xargs -P 2", "xargs -P 2, sh -c", "GNU parallel -j 2"
OWN, SHARED = "flmexec, its own cluster", "flmexec, a cluster that runs"


def run(settings: Settings, report: Report) -> None:
    tasks, repeats = settings.pick(1000, 50), settings.repeats(5, 2)
    figure = f"{tasks:,} x true"
    names = [XARGS, XARGS_SHELL] if shutil.which("xargs") else []
    names += [PARALLEL] if shutil.which("parallel") else []
    names += [OWN, SHARED] if OURS in settings.engines else []
    for name in names:
        found = report.attempt(figure, name, "s", None, measure, name, tasks, repeats, limit=LIMIT_SECONDS)
        if found:
            seconds = [one for one, _ in found]
            cpu = median(spent for _, spent in found) / tasks * 1e3
            of_all = f"; CPU ms per task {cpu:.2f}" if name != SHARED else ""
            report.add(
                figure, name, median(seconds), "s", None, f"{min(seconds):.2f} to {max(seconds):.2f}{of_all}"
            )


def measure(name: str, tasks: int, repeats: int) -> list[tuple[float, float]]:
    """Seconds and CPU seconds of each run."""
    if name != SHARED:
        return [once(name, tasks, "") for _ in range(repeats)]
    import flamezmq as flm

    with flm.Client("", executors=WORKERS) as client:
        once(name, 10 * WORKERS, client.address)
        return [once(name, tasks, client.address) for _ in range(repeats)]


def once(name: str, tasks: int, address: str) -> tuple[float, float]:
    """One run, which must succeed."""
    numbers = "".join(f"{number}\n" for number in range(tasks))
    environment = {**os.environ, "FLAMEZMQ_ADDRESS": address, "PYTHONPATH": str(ROOT)}
    before, began = _cpu_of_children(), perf_counter()
    subprocess.run(
        words(name), input=numbers, text=True, env=environment, stdout=subprocess.DEVNULL, check=True
    )
    return perf_counter() - began, _cpu_of_children() - before


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def words(name: str) -> list[str]:
    """The command, to which the numbers of the tasks are given on its stdin."""
    return {
        XARGS: ["xargs", "-P", "2", "-n", "1", "true"],
        XARGS_SHELL: ["xargs", "-P", "2", "-I", "{}", "sh", "-c", "true {}"],
        PARALLEL: ["parallel", "-j", "2", "true"],
    }.get(name, [sys.executable, "-P", "-m", "flamezmq.cli.exec", "-j", "2", "-i", "true"])
