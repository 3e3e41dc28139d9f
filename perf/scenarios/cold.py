"""Cold start: from the start of a fresh Python to the first result, cluster included.

The clock runs from before the process is started until its answer is read.  A
bare Python, and one that imports pyzmq, are shown beside: nobody can be faster.
Each program runs once before, unmeasured, and may keep its bytecode then, as what
is installed has it.  CPU is that of the program and of all that it started.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

from perf.engines import OURS
from perf.report import Report, at_most
from perf.settings import Settings

FIGURE = "start to first result"
#: A process that says nothing for so long is given up.
LIMIT_SECONDS = 30.0

PROGRAMS = {
    "bare python": "print(7, flush=True)",
    "bare python, import zmq": "import zmq; print(7, flush=True)",
    "ProcessPoolExecutor": """
from concurrent.futures import ProcessPoolExecutor
import multiprocessing
with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
    print(pool.submit(abs, -7).result(), flush=True)
""",
    "Pool": """
import multiprocessing
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.apply(abs, (-7,)), flush=True)
""",
    OURS: """
import flamezmq as flm
with flm.Client(executors=2) as client:
    print(client.submit(abs, -7).result(20), flush=True)
""",
}


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds to the first result, and until the process had ended; CPU seconds of all."""

    result: float
    end: float
    cpu: float


def run(settings: Settings, report: Report) -> None:
    repeats = settings.repeats(5, 2)
    wanted = [name for name in PROGRAMS if name.startswith("bare") or name in settings.engines]
    found: dict[str, list[Start]] = {name: [] for name in wanted}
    for name in wanted:
        report.attempt(FIGURE, name, "s", None, start, PROGRAMS[name], limit=LIMIT_SECONDS + 10)
    for _ in range(repeats):
        for name in wanted:  # in turns: what the machine does meanwhile hits all alike
            one = report.attempt(FIGURE, name, "s", None, start, PROGRAMS[name], limit=LIMIT_SECONDS + 10)
            found[name] += [one] if one else []
    for name, starts in found.items():
        if starts:
            seconds = [s.result for s in starts]
            report.add(
                FIGURE,
                name,
                median(seconds),
                "s",
                at_most(0.25) if name == OURS else None,
                f"{min(seconds):.3f} to {max(seconds):.3f}; ended at {median(s.end for s in starts):.3f}; "
                f"CPU of all {median(s.cpu for s in starts):.3f}",
            )


def start(program: str, python: Path | None = None, environment: Mapping[str, str] | None = None) -> Start:
    """Run it once, by our Python and with our environment, or by others."""
    began = perf_counter()
    words = [str(python or sys.executable), "-c", program]
    folder = Path(__file__).parents[2]  # a checkout is enough: nothing need be installed
    pipe = subprocess.PIPE
    if environment is None:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, cwd=folder, env=environment) as process:
        assert process.stdout is not None
        try:
            line = ""  # the job's own limit bounds this; a server may print something first
            while line.strip() != "7" and (line := process.stdout.readline()):
                pass
            seconds = perf_counter() - began
            _, complaint = process.communicate(timeout=LIMIT_SECONDS)
        finally:
            process.kill()
    if line.strip() != "7" or process.returncode:
        last = complaint.strip().rpartition("\n")[2]
        raise RuntimeError(f"it answered {line.strip()!r} and ended with code {process.returncode}: {last}")
    ended = perf_counter() - began
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)  # this job has no others
    return Start(seconds, ended, usage.ru_utime + usage.ru_stime)
