"""Transfer: objects from node to node, beside bare ZeroMQ on the same cable; one object to 8 nodes.

Nodes are network namespaces with a cable (veth) each, on a bridge; for the 8 nodes each
cable carries so much in each direction, no more.  Needs root, `ip` and `tc`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from json import dumps, loads
from pathlib import Path
from statistics import median
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

from perf.engines import OURS
from perf.report import Report, at_least, at_most
from perf.settings import Settings

MIB = 1 << 20
ROOT = Path(__file__).resolve().parents[2]
#: Slow enough that two cores carry what 9 such cables do.
CABLE_MBIT = 400
SETTLE_SECONDS = 10.0


def run(settings: Settings, report: Report) -> None:
    size = settings.pick(256, 32) * MIB
    one = f"{size // MIB} MiB from node to node"
    pair_target, tree_target = at_least(0.8), at_most(2)
    pair = report.attempt(one, OURS, "x", pair_target, _pair, size, settings.repeats(5, 2), limit=120)
    if pair is not None:
        for what, seconds in pair.items():
            report.add(f"{one}: {what}", "", size / median(seconds) / 1e6, "MB/s", note=_range(size, seconds))
        ratio = median(pair[KEPT]) / median(pair[AGAIN])
        report.add(f"{one}, times bare ZeroMQ", OURS, ratio, "x", pair_target)
    size = settings.pick(64, 8) * MIB
    many = f"{size // MIB} MiB to 8 nodes at {CABLE_MBIT} Mbit/s"
    found = report.attempt(many, OURS, "x", tree_target, _broadcast, size, settings.repeats(3), limit=120)
    if found is not None:
        alone, all_of_them = (median(column) for column in zip(*found, strict=True))
        report.add(f"{many}: one of them", "", alone, "s")
        report.add(f"{many}: all", OURS, all_of_them, "s")
        report.add(f"{many}, times one transfer", OURS, all_of_them / alone, "x", tree_target)


KEPT = "bare ZeroMQ, into touched memory"
AGAIN = "store to store, into touched memory"


def _range(size: int, seconds: list[float]) -> str:
    return f"{size / max(seconds) / 1e6:,.0f} to {size / min(seconds) / 1e6:,.0f}"


def _pair(size: int, repeats: int) -> dict[str, list[float]]:
    """Seconds, by what was done; in turns, so that all see the same machine."""
    found: dict[str, list[float]] = {KEPT: [], "bare ZeroMQ, let go of at once": [], AGAIN: []}
    with nodes(2) as (home, other):
        first = _fetched(home, other, size)
        for _ in range(repeats):
            for what, keeps in ((KEPT, True), ("bare ZeroMQ, let go of at once", False)):
                at = home.do("send", size=size, times=1)
                found[what] += other.do("receive", at=at, size=size, times=1, keeps=keeps)
            found[AGAIN].append(_fetched(home, other, size))
    found["store to store, the first time"] = [first]
    return found


def _fetched(home: Peer, other: Peer, size: int) -> float:
    handle = home.do("put", size=size)
    seconds = float(other.do("fetch", handle=handle))
    _drop(handle, home, [other])
    return seconds


def _broadcast(size: int, repeats: int) -> list[tuple[float, float]]:
    """(seconds of one transfer, until the last of 8 has it)."""
    found = []
    with nodes(9, CABLE_MBIT) as (home, *others), ThreadPoolExecutor(len(others)) as threads:
        for _ in range(repeats):
            alone = _fetched(home, others[0], size)
            handle = home.do("put", size=size)
            times = list(threads.map(lambda node, handle=handle: node.do("fetch", handle=handle), others))
            _drop(handle, home, others)
            found.append((alone, max(times)))
    return found


def _drop(handle: str, home: Peer, others: list[Peer]) -> None:
    """Wait until its copies have gone, too, so that their memory is used again."""
    home.do("drop", handle=handle)
    deadline = monotonic() + SETTLE_SECONDS
    for node in (home, *others):
        while not node.do("settled"):
            if monotonic() > deadline:
                raise TimeoutError("copies do not go")
            sleep(0.01)


# --- the nodes


class Peer:
    """The process `perf.transfer_node` in a namespace."""

    def __init__(self, space: str, host: str) -> None:
        words = ["ip", "netns", "exec", space, sys.executable, "-m", "perf.transfer_node", host]
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )

    def do(self, name: str, **words: Any) -> Any:
        """Have it do this; its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(dumps({"do": name, **words}), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a node ended as it was to {name}")
        return loads(line)

    def close(self) -> None:
        self._process.communicate(timeout=10)


@contextmanager
def nodes(count: int, mbit: int = 0) -> Iterator[list[Peer]]:
    """So many, each behind a cable that carries `mbit` in each direction; 0: what it can."""
    if os.geteuid() or not shutil.which("ip") or not shutil.which("tc"):
        raise RuntimeError("making network namespaces needs root, ip and tc (iproute2)")
    name = f"flmp{uuid4().hex[:6]}"
    with ExitStack() as stack:
        hub = _space(stack, f"{name}-hub")
        _call("ip", "-n", hub, "link", "add", "bridge0", "type", "bridge")
        _call("ip", "-n", hub, "link", "set", "bridge0", "up")
        found = []
        for number in range(1, count + 1):
            space = _space(stack, f"{name}-{number}")
            _cable(hub, space, number, mbit)
            peer = Peer(space, f"10.78.0.{number}")
            stack.callback(peer.close)
            found.append(peer)
        yield found


def _space(stack: ExitStack, name: str) -> str:
    _call("ip", "netns", "add", name)
    stack.callback(_call, "ip", "netns", "delete", name)
    _call("ip", "-n", name, "link", "set", "lo", "up")
    return name


def _cable(hub: str, space: str, number: int, mbit: int) -> None:
    port = f"to{number}"
    _call("ip", "-n", hub, "link", "add", "name", port, "type", "veth", "peer", "name", "eth", "netns", space)
    _call("ip", "-n", hub, "link", "set", port, "master", "bridge0", "up")
    _call("ip", "-n", space, "addr", "add", f"10.78.0.{number}/24", "dev", "eth")
    _call("ip", "-n", space, "link", "set", "eth", "up")
    for where, device in ((space, "eth"), (hub, port)) if mbit else ():
        rate = ("rate", f"{mbit}mbit", "burst", "256k", "latency", "100ms")
        _call("tc", "-n", where, "qdisc", "add", "dev", device, "root", "tbf", *rate)


def _call(*words: str) -> None:
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=10)
    if done.returncode:
        raise RuntimeError(f"no network namespaces here: {' '.join(words)}: {done.stderr.strip()}")
