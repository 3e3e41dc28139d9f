"""Resources: what nodes have, and what sessions ask for each of their executors.

A request is a text like "cpu=2,mem=1g,gpu=1,license=2": cores, bytes, pieces, and
whatever a cluster calls its own.  An executor without a request takes its part of
the node's cores and nothing else; one with a request at least that.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

#: Amounts are floats.
EPSILON = 1e-6
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_ONE = re.compile(r"\s*([A-Za-z][A-Za-z0-9_.-]{0,62})\s*=\s*(\d+(?:\.\d+)?)\s*([A-Za-z]?)\s*")
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]?)\s*")

Amounts = Mapping[str, float]


def parse(text: str, zeros: bool = False) -> dict[str, float]:
    """What "cpu=2,mem=1g" says; what is asked for with 0 is left out, unless `zeros` matter.

    Amounts are decimal numbers; k, m, g and t stand for powers of 1024.

    Raises:
        ValueError: it says nothing that can be understood; the text tells where.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        match = _ONE.fullmatch(part)
        unit = match.group(3).lower() if match else ""
        if match is None or unit not in _UNITS:
            raise ValueError(
                f"resources are given as 'cpu=1,mem=1g,gpu=0', a name and an amount from 0 each, not {part!r}"
            )
        name = match.group(1)
        if name in found:
            raise ValueError(f"resources name {name!r} twice, in {text!r}")
        found[name] = float(match.group(2)) * _UNITS[unit]
    return {name: amount for name, amount in found.items() if amount or zeros}


def parse_offer(text: str) -> dict[str, float]:
    """What a node is said to have, as in "gpu=2,fpga=1"; 0 says that it has none.

    Raises:
        ValueError: as `parse`; GPUs that are no whole number, or no cores or memory at all.
    """
    found = parse(text, zeros=True)
    if found.get("gpu", 0.0) % 1:
        raise ValueError(f"a node has a whole number of GPUs, not {found['gpu']:g}")
    for name in ("cpu", "mem"):
        if found.get(name) == 0:
            raise ValueError(f"a node has some {name}, more than 0")
    return found


def size(text: str) -> int:
    """Bytes that a text like "1g" or "64m" says.

    Raises:
        ValueError: it says none.
    """
    match = _SIZE.fullmatch(text)
    unit = match.group(2).lower() if match else ""
    if match is None or unit not in _UNITS:
        raise ValueError(f"a size is given as '64m' or '1g', not {text!r}")
    return int(float(match.group(1)) * _UNITS[unit])


@dataclass(slots=True, eq=False)
class Node:
    """What a node has, and how much of it its executors have.

    executors  among which its cores are divided, if they do not ask for more
    plain      executors that serve sessions without a request
    asking     those that serve sessions with one
    aside      actors that have cores; they are not among its executors
    taken      what those that ask have, and actors
    """

    name: str
    has: dict[str, float] = field(default_factory=dict)
    executors: int = 0
    plain: int = 0
    asking: int = 0
    aside: int = 0
    taken: dict[str, float] = field(default_factory=dict)

    @property
    def part(self) -> float:
        """Cores of an executor that asks for none."""
        return self.has.get("cpu", 0.0) / self.executors if self.executors else 0.0

    def free(self, name: str) -> float:
        """How much of it nobody has."""
        left = self.has.get(name, 0.0) - self.taken.get(name, 0.0)
        return left - self.plain * self.part if name == "cpu" else left

    def fits(self, request: Amounts) -> bool:
        """Whether one more executor may serve a session with this request (or without one)."""
        if not (request or self.asking or self.aside):
            return True  # as many as it has
        return all(self.free(name) >= amount - EPSILON for name, amount in self._whole(request).items())

    def could_fit(self, request: Amounts) -> bool:
        """Whether it would, if it did nothing else."""
        return not self.lacks(request)

    def lacks(self, request: Amounts) -> list[str]:
        """Of which resources it has less than is asked for, even if it did nothing else."""
        return [name for name, amount in request.items() if self.has.get(name, 0.0) < amount - EPSILON]

    def take(self, request: Amounts) -> None:
        """One more executor serves a session with this request."""
        self._count(request, 1)

    def give_back(self, request: Amounts) -> None:
        self._count(request, -1)

    def _count(self, request: Amounts, sign: int) -> None:
        if not request:
            self.plain += sign
            return
        self.asking += sign
        self._add(self._whole(request), sign)

    def set_aside(self, request: Amounts, sign: int = 1) -> None:
        """An actor has so much of it from now on (or, with -1, no more), and no part of the cores besides."""
        self.aside += sign * bool(request.get("cpu"))
        self._add(request, sign)

    def _add(self, request: Amounts, sign: int) -> None:
        for name, amount in request.items():
            self.taken[name] = self.taken.get(name, 0.0) + sign * amount

    def _whole(self, request: Amounts) -> dict[str, float]:
        """With a part of the cores, unless it is said that none is needed."""
        cores = request.get("cpu", self.part)
        return {**request, "cpu": max(cores, self.part) if cores else 0.0}


def unit_of(request: Amounts, nodes: Iterable[Node]) -> float:
    """What one executor with this request counts, where one without counts 1: its dominant share.

    That is the resource of which it takes the largest part of all that the nodes have.
    """
    if not request:
        return 1.0
    total: dict[str, float] = {}
    executors = 0
    for node in nodes:
        executors += node.executors
        for name, amount in node.has.items():
            total[name] = total.get(name, 0.0) + amount
    parts = [amount / total[name] for name, amount in request.items() if total.get(name)]
    return max([1.0, *(part * executors for part in parts)])


def in_words(amount: float) -> str:
    """An amount for people: large ones with a unit, as `parse` reads them."""
    for unit in "tgmk":
        if amount >= _UNITS[unit]:
            return f"{amount / _UNITS[unit]:.3g}{unit}"
    return f"{amount:g}"
