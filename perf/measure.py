"""What a piece of work cost: wall time, CPU, thread hand-offs, memory, Python calls.

CPU is read per process from its own clock (all of its threads, those that have
ended too, to the nanosecond), so it is nearly immune to what else the machine
does.  A voluntary context switch is a thread that went to sleep; per task, they
tell how often work was handed from thread to thread.

Processes come as `Pids`: a name to the pids that bear it.  A pid that has gone
counts nothing.  Linux only, as is everything that reads /proc.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import clock_gettime_ns, perf_counter
from typing import TypeVar

Pids = Mapping[str, Sequence[int]]
#: "cpu_us_per_task" and "handoffs_per_task", each by process name.
Costs = dict[str, dict[str, float]]
N = TypeVar("N", int, float)

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process with all its threads, dead ones included; 0 if it is gone."""
    try:
        return clock_gettime_ns(~pid << 3 | 2) / 1e9  # what clock_getcpuclockid(3) makes of a pid
    except OSError:
        return 0.0


def queued_seconds(pid: int) -> float:
    """Seconds that its living threads were ready to run and had no core."""
    return sum(int(text.split()[1]) for text in _of_threads(pid, "schedstat")) / 1e9


def switches(pid: int) -> int:
    """Voluntary context switches of its living threads."""
    lines = (line for text in _of_threads(pid, "status") for line in text.splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def rss_bytes(pids: Sequence[int]) -> int:
    """Resident memory, summed; pages shared by several processes count for each."""
    total = 0
    for pid in pids:
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
        except OSError:
            continue
    return total


def descendants(pid: int) -> list[int]:
    """All living processes below `pid`, parents first; zombies are not among them."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        state, parent = _state_and_parent(int(name))
        if state not in "ZX":
            children.setdefault(parent, []).append(int(name))
    found = list(children.get(pid, ()))
    for child in found:  # which grows as we go
        found += children.get(child, ())
    return found


def _state_and_parent(pid: int) -> tuple[str, int]:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "X", 0
    return fields[0], int(fields[1])


def _of_threads(pid: int, name: str) -> Iterator[str]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return
    for thread in threads:
        try:
            yield Path(f"/proc/{pid}/task/{thread}/{name}").read_text()
        except OSError:
            continue  # it has just ended


@dataclass(slots=True)
class Sample:
    """One run: wall seconds; CPU seconds, waits for a core and hand-offs by process name."""

    seconds: float
    cpu: dict[str, float] = field(default_factory=dict)
    queued: dict[str, float] = field(default_factory=dict)
    switches: dict[str, int] = field(default_factory=dict)

    def cpu_us(self, tasks: int, name: str = "") -> float:
        """CPU microseconds per task, of one name or of all."""
        return (self.cpu.get(name, 0.0) if name else sum(self.cpu.values())) / tasks * 1e6

    def handoffs(self, tasks: int, name: str = "") -> float:
        """Voluntary context switches per task, of one name or of all."""
        return (self.switches.get(name, 0) if name else sum(self.switches.values())) / tasks

    def costs(self, tasks: int) -> Costs:
        """What each task cost, by process name."""
        names = [name for name in self.cpu if self.cpu[name] or self.switches.get(name)]
        return {
            "cpu_us_per_task": {name: round(self.cpu_us(tasks, name), 4) for name in names},
            "handoffs_per_task": {name: round(self.handoffs(tasks, name), 4) for name in names},
        }


def in_words(costs: Costs) -> str:
    """For a note."""
    cpu = ", ".join(f"{name} {us:.3g}" for name, us in costs["cpu_us_per_task"].items())
    return f"CPU us: {cpu}; hand-offs {sum(costs['handoffs_per_task'].values()):.2g}"


def sample(pids: Pids, work: Callable[[], object]) -> Sample:
    """Run `work` once and say what it cost these processes.  Looking costs them nothing that counts."""
    switched, queued, cpu = _sums(pids, switches), _sums(pids, queued_seconds), _sums(pids, cpu_seconds)
    began = perf_counter()
    work()
    seconds = perf_counter() - began
    cpu_after = _sums(pids, cpu_seconds)
    queued_after, switched_after = _sums(pids, queued_seconds), _sums(pids, switches)
    return Sample(
        seconds,
        {name: cpu_after[name] - cpu[name] for name in pids},
        {name: queued_after[name] - queued[name] for name in pids},
        {name: switched_after[name] - switched[name] for name in pids},
    )


def _sums(pids: Pids, of: Callable[[int], N]) -> dict[str, N]:
    return {name: sum(map(of, some)) for name, some in pids.items()}


def median_sample(samples: Sequence[Sample]) -> Sample:
    """The median of each figure by itself."""
    names = samples[0].cpu
    return Sample(
        median(s.seconds for s in samples),
        {name: median(s.cpu.get(name, 0.0) for s in samples) for name in names},
        {name: median(s.queued.get(name, 0.0) for s in samples) for name in names},
        {name: int(median(s.switches.get(name, 0) for s in samples)) for name in names},
    )


def percentile(values: Sequence[float], quantile: float) -> float:
    """The value that this share of all is below; `values` need not be sorted."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * quantile), len(ordered) - 1)]


def times(once: Callable[[], object], rounds: int) -> list[float]:
    """Seconds of each of so many calls."""
    took: list[float] = []
    for _ in range(rounds):
        began = perf_counter()
        once()
        took.append(perf_counter() - began)
    return took


@dataclass(slots=True)
class Surroundings:
    """What else happened on the machine: cores that others used, cores the host took away."""

    others_cores: float = 0.0
    stolen_cores: float = 0.0


@contextmanager
def surroundings() -> Iterator[Surroundings]:
    """Filled in at the end.  Ours is this process and the children it has waited for."""
    found = Surroundings()
    began, (busy, stolen), ours = perf_counter(), _machine_seconds(), _our_seconds()
    try:
        yield found
    finally:
        seconds = max(perf_counter() - began, 1e-9)
        busy_after, stolen_after = _machine_seconds()
        others = busy_after - busy - (_our_seconds() - ours)
        found.others_cores = round(max(others, 0.0) / seconds, 2)
        found.stolen_cores = round((stolen_after - stolen) / seconds, 2)


def _machine_seconds() -> tuple[float, float]:
    user, nice, system, _, _, irq, softirq, stolen = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq) / _TICK, stolen / _TICK


def _our_seconds() -> float:
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
