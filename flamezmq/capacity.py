"""What this node can give: cores and memory as the kernel allows them, not as the machine has them.

Affinity and the limits of the cgroup, and of those above it, count; version 1
and 2.  Also the kernel's count of out-of-memory kills.  Reads files, keeps nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

#: The pools of threads that the numeric libraries start, one thread per core unless told otherwise.
MATH_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
#: Says which GPUs a process sees, and is read when a library begins to use them.
VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"


def limit_math_threads(cores: float) -> None:
    """Let numeric libraries use `cores` threads each; what the user has set stays.

    They read it when they are loaded, so this comes before numpy.
    """
    for name in MATH_THREADS:
        os.environ.setdefault(name, str(max(1, int(cores))))


def usable_cores(root: str = "/") -> float:
    """Cores by affinity and cgroup quota; 1.5 means one and a half."""
    cores = float(len(os.sched_getaffinity(0)))
    for folder in _cgroups("cpu", root):
        quota, period = _quota(folder)
        if quota > 0 and period > 0:
            cores = min(cores, quota / period)
    return cores


def memory_limit(root: str = "/") -> int:
    """Bytes: the machine's memory, or less if a cgroup limits it."""
    limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for folder in _cgroups("memory", root):
        for name in ("memory.max", "memory.limit_in_bytes"):
            words = _words(os.path.join(folder, name))
            if words and words[0].isdigit():  # "max": no limit
                limit = min(limit, int(words[0]))
    return limit


def devices(root: str = "/") -> tuple[str, ...]:
    """Devices of Nvidia for this process: those of CUDA_VISIBLE_DEVICES, else those that are there.

    Named as in that variable: by their numbers, or however it does.
    """
    visible = os.environ.get(VISIBLE_DEVICES)
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        return tuple(name for name in names if name not in ("", "-1"))
    try:
        files = os.listdir(os.path.join(root, "dev"))
    except OSError:
        return ()
    numbers = sorted(int(name[6:]) for name in files if name.startswith("nvidia") and name[6:].isdigit())
    return tuple(map(str, numbers))


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a node has: cores, bytes of memory, the names of its GPUs, and what its cluster has names for."""

    cores: float
    memory: int
    devices: tuple[str, ...]
    others: Mapping[str, float]


def of_node(said: Mapping[str, float], root: str = "/") -> Capacity:
    """What is here; what is `said` of it (`resources.parse_offer`) counts for more.

    GPUs that are said to be there and are not seen get the numbers 0, 1, ...
    """
    others = dict(said)
    cores, memory = others.pop("cpu", None), others.pop("mem", None)
    seen, count = devices(root), others.pop("gpu", None)
    if count is not None:
        seen = seen[: int(count)] if count <= len(seen) else tuple(map(str, range(int(count))))
    return Capacity(
        usable_cores(root) if cores is None else cores,
        memory_limit(root) if memory is None else int(memory),
        seen,
        {name: amount for name, amount in others.items() if amount},
    )


def oom_kills(root: str = "/") -> int:
    """How often the kernel killed for want of memory, in our cgroup if it says so, else anywhere."""
    places = [
        (folder, name)
        for folder in _cgroups("memory", root)
        for name in ("memory.events", "memory.oom_control")
    ]
    places.append((os.path.join(root, "proc"), "vmstat"))
    for folder, name in places:
        words = _words(os.path.join(folder, name))
        if "oom_kill" in words[::2]:
            return int(words[2 * words[::2].index("oom_kill") + 1])
    return 0


def _quota(folder: str) -> tuple[int, int]:
    """(microseconds per period, period), or (0, 0) where there is no limit."""
    words = _words(os.path.join(folder, "cpu.max"))  # version 2: "150000 100000" or "max 100000"
    if not words:
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        words = [word for name in names for word in _words(os.path.join(folder, name))[:1]]
    if len(words) == 2 and words[0].isdigit() and words[1].isdigit():  # "-1": no limit
        return int(words[0]), int(words[1])
    return 0, 0


def _cgroups(controller: str, root: str) -> Iterator[str]:
    """Folders of our cgroup and of those above it, own first.

    In a container the path may be the host's, which is not mounted here: then
    only what is visible counts, the mount's root at least.
    """
    mounts = os.path.join(root, "sys/fs/cgroup")
    try:
        with open(os.path.join(root, "proc/self/cgroup")) as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            tops = [mounts, os.path.join(mounts, "unified")]
        elif controller in controllers.split(","):
            tops = [os.path.join(mounts, controllers), os.path.join(mounts, controller)]
        else:
            continue
        for top in dict.fromkeys(tops):
            yield from _upwards(top, path)


def _upwards(top: str, path: str) -> Iterator[str]:
    path = path.strip("/")
    while path:
        folder = os.path.join(top, path)
        if os.path.isdir(folder):
            yield folder
        path = os.path.dirname(path)
    if os.path.isdir(top):
        yield top


def _words(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.read().split()
    except OSError:
        return []
