"""Rooms: on which node is there room for an executor of a session that asks for resources.

An executor that serves a session with a request takes from its node what that asks
for, so that other executors of the node may have to stay free.  Where no node
has enough left, room is *made*: of the node where the fewest have to go, executors of
sessions that are served better are given back, and until then the node is reserved.

Pure; what is decided here the scheduler carries out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from flamezmq.fairness import EPSILON, QUANTUM_SECONDS, brothers, worthwhile
from flamezmq.resources import Node, unit_of
from flamezmq.shares import Share


def _turn(share: Share, other: Share, executor: int, gone: int) -> float:
    """Seconds for which the other has it for itself.

    One that has loaded a service does not go before that was worth it, unless both are
    served more alike then, or the minimum of the one that waits is to be met.

    gone: so many go already
    """
    loaded = 0.0 if executor in other.resting else other.reload_seconds
    if not loaded or share.expected < share.minimum:
        return QUANTUM_SECONDS
    one, its = brothers(share, other)
    if its.level - (gone + 1) * other.unit / its.weight >= one.level + share.unit / one.weight - EPSILON:
        return QUANTUM_SECONDS
    return max(QUANTUM_SECONDS, worthwhile(one, its, loaded))


class Rooms:
    """The nodes, and which executor is where.

    demanding: sessions that have a request; as long as there are any, it is counted what executors have
    """

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.demanding = 0
        self._home: dict[int, Node] = {}
        self._here: dict[str, dict[int, None]] = {}  # node -> its executors
        self._reserved: dict[str, Share] = {}
        self._aside: dict[int, tuple[Node, Mapping[str, float]]] = {}  # executor of an actor -> what that has

    def add_node(self, name: str, has: Mapping[str, float], executors: int) -> None:
        """A node has so much of everything, for so many executors, which may be known already."""
        node = self._node(name)
        node.has, node.executors = dict(has), executors

    def remove_node(self, name: str) -> None:
        """It is gone; some of its executors may still be known."""
        if name in self._reserved:
            self.abandon(self._reserved[name])
        if not self._here.get(name):
            self.nodes.pop(name, None)
            self._here.pop(name, None)
        else:
            self.nodes[name].has, self.nodes[name].executors = {}, 0

    def add_executor(self, executor: int, name: str) -> None:
        self._home[executor] = self._node(name)
        self._here[name][executor] = None

    def on_node(self, name: str) -> Iterable[int]:
        """The executors of this node, whatever they do."""
        return self._here.get(name, ())

    def remove_executor(self, executor: int) -> None:
        node = self._home.pop(executor, None)
        if node is not None:
            del self._here[node.name][executor]
            if not self._here[node.name] and not node.executors:
                del self.nodes[node.name], self._here[node.name]

    def _node(self, name: str) -> Node:
        self._here.setdefault(name, {})
        return self.nodes.setdefault(name, Node(name))

    def open(self, share: Share, serving: Iterable[int]) -> None:
        """A session with a request has come.

        serving: executors that serve others, or are set aside for them
        """
        self.demanding += 1
        if self.demanding == 1:
            for node in self.nodes.values():
                node.plain = 0
            for executor in serving:
                if executor in self._home:
                    self._home[executor].take({})  # until now nobody had a request
        self.assess(share)

    def take(self, executor: int, share: Share) -> None:
        """It serves this session from now on."""
        if not self.demanding:
            return
        node = self._home.get(executor)
        if node is not None:
            node.take(share.request)
            if share.gathers == node.name:
                self.abandon(share)

    def give_back(self, executor: int, share: Share) -> None:
        """It serves the session no more."""
        if not self.demanding:
            return
        node = self._home.get(executor)
        if node is not None:
            node.give_back(share.request)

    def set_aside(self, executor: int, share: Share) -> None:
        """An actor keeps what it has of its node though its executor, which serves it, is known no more."""
        node = self._home.get(executor)
        if node is not None and share.request:
            node.set_aside(share.request)
            self._aside[executor] = node, share.request

    def put_back(self, executor: int) -> None:
        """The actor is gone.  Calling it again changes nothing."""
        node, request = self._aside.pop(executor, (None, {}))
        if node is not None:
            node.set_aside(request, -1)

    def has_room(self, name: str, share: Share) -> bool:
        """Whether another executor of this node could serve the session now."""
        node = self.nodes.get(name)
        return node is not None and self._reserved.get(name, share) is share and node.fits(share.request)

    def fits(self, executor: int, share: Share) -> bool:
        """Whether it can serve the session now."""
        node = self._home.get(executor)
        if node is None:
            return not share.request
        return self._reserved.get(node.name, share) is share and node.fits(share.request)

    def is_reserved(self, executor: int) -> bool:
        """Whether a session waits for its node."""
        node = self._home.get(executor)
        return node is not None and node.name in self._reserved

    def part(self, executor: int) -> float:
        """Cores that it has at least, whoever it serves."""
        node = self._home.get(executor)
        return 0.0 if node is None else node.part

    def least_part(self) -> float:
        """The same, of that which has the fewest."""
        return min((node.part for node in self.nodes.values() if node.executors), default=0.0)

    def assess(self, share: Share) -> None:
        """Nodes have come or gone: what it counts, and whether any could ever serve it."""
        nodes = self.nodes.values()
        share.homeless = not any(node.could_fit(share.request) for node in nodes)
        share.unit = unit_of(share.request, nodes)

    def make(
        self, share: Share, donor: Share, serves: Mapping[int, int], shares: Mapping[int, Share], now: float
    ) -> list[int] | None:
        """Reserve a node for it; returns what is to be given back there; None: no node will do.

        donor: whose turn it is to give back
        """
        if share.gathers:
            return None  # one after the other
        best: tuple[Node, list[int]] | None = None
        for node in self.nodes.values():
            if node.name not in self._reserved and node.could_fit(share.request):
                going = self._going(node, share, donor, serves, shares, now)
                if going is not None and (best is None or len(going) < len(best[1])):
                    best = node, going
        if best is None:
            return None
        share.gathers = best[0].name
        self._reserved[share.gathers] = share
        return best[1]

    def _going(
        self,
        node: Node,
        share: Share,
        donor: Share,
        serves: Mapping[int, int],
        shares: Mapping[int, Share],
        now: float,
    ) -> list[int] | None:
        """Executors of a node that have to be given back before the session fits; None: not enough may."""
        after = replace(node, taken=dict(node.taken))
        here = self._here[node.name]
        serving = [(executor, shares[serves[executor]]) for executor in here if executor in serves]
        for executor, other in serving:
            if other.leaving.get(executor):
                after.give_back(other.request)
        going: list[int] = []
        taken: dict[Share, int] = {}
        serving.sort(key=lambda one: (one[1] is not donor, one[0] not in one[1].resting, -one[1].level))
        for executor, other in serving:
            if after.fits(share.request):
                break
            gone = taken.get(other, 0)
            spared = other.staying - gone <= other.minimum
            owed = other.level > share.level + EPSILON or share.expected < share.minimum
            if executor in other.leaving or spared or not owed or other is share:
                continue
            if now >= other.have[executor] + _turn(share, other, executor, gone):
                taken[other] = gone + 1
                after.give_back(other.request)
                going.append(executor)
        return going if after.fits(share.request) else None

    def abandon(self, share: Share) -> None:
        """It needs no room any more, or has got it."""
        if share.gathers:
            self._reserved.pop(share.gathers, None)
            share.gathers = ""

    def missing(self, share: Share) -> list[tuple[str, float, float]]:
        """What no node has enough of, as (name, asked for, the most that a node has)."""
        return [
            (name, amount, max((node.has.get(name, 0.0) for node in self.nodes.values()), default=0.0))
            for name, amount in share.request.items()
            if all(name in node.lacks(share.request) for node in self.nodes.values())
        ]

    def check(self, serves: Mapping[int, int], shares: Mapping[int, Share], free: Iterable[int]) -> None:
        """Compare every index with every other."""
        for node in self.nodes.values() if self.demanding else ():
            here = [shares[serves[e]] for e in self._here[node.name] if e in serves]
            assert node.plain == sum(1 for share in here if not share.request)
            assert node.asking == sum(1 for share in here if share.request)
            if node.executors and node.plain <= node.executors:
                assert not node.asking or all(node.free(name) > -EPSILON for name in node.has), "overtaken"
        for node in self.nodes.values():
            kept = [request for other, request in self._aside.values() if other is node]
            assert node.aside == sum(bool(request.get("cpu")) for request in kept), "aside"
        assert {share.gathers: share for share in shares.values() if share.gathers} == self._reserved
        assert self.demanding == sum(1 for share in shares.values() if share.request)
        assert all(executor not in serves for executor in free)
