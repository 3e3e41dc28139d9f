"""What a run consists of, and what may go wrong in it; drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tests.sim.users import KINDS


@dataclass(frozen=True)
class Plan:
    """What a run consists of.  Rates are per simulated second, for the whole cluster."""

    workers: int = 1
    executors: int = 2
    users: int = 1
    sessions: int = 1
    tasks: int = 100
    kinds: tuple[str, ...] = KINDS
    latency: float = 0.0002
    fault_seconds: float = 1.0
    crashes: float = 0.0
    cuts: float = 0.0
    long_cuts: float = 0.0
    node_crashes: float = 0.0
    poison: float = 0.0
    needy: float = 0.0  # the share of tasks that need others
    streams: float = 0.0  # and of those that stream
    cancels: float = 0.0
    early_closes: float = 0.0
    sleeps: float = 0.0
    vanish: float = 0.0
    duplicates: float = 0.0  # not a rate: the share of messages that arrive twice
    buffers: bool = False
    foreign: bool = False  # users are at home in different environments
    options: bool = False  # functions have some: tasks are sent back, hang, have priorities
    backlog_bytes: int = 1 << 20
    max_grant: int = 4096
    known_functions: int = 512
    pauses: float = 0.0  # the share of long tasks that wait for tasks of their own
    limits: bool = False  # sessions may have a most number of executors
    lives: bool = False  # and of tasks for each process
    initializers: bool = False
    failing: float = 0.0  # the chance that an initializer fails when it is called
    drains: float = 0.0
    max_bytes: int = 256 << 20  # of values that the router keeps for those that need them
    visits: float = 0.0  # of somebody who looks from outside, and gives orders
    services: bool = False  # sessions may have an application
    shares: bool = False  # sessions have weights, priorities, tenants, minima, and keep executors that rest
    gangs: bool = False  # sessions may get executors two or three at a time
    actors: float = 0.0  # the share of sessions that are actors
    actors_per_worker: int = 64
    joins: float = 0.0  # the share of sessions that are one, of which several users are members
    detached: bool = False  # and that goes on without them
    queued_tasks: int = 0  # what each tenant may have queued
    queued_bytes: int = 0
    tenant_executors: int = 0  # that may serve each tenant
    data: float = 0.0  # the share of tasks that take objects, where there are several nodes

    @property
    def has_quotas(self) -> bool:
        """Not where actors may wait for others to be closed: their calls may use up all of a quota."""
        return self.actors_per_worker > 1


def draw(seed: int) -> Plan:
    """The plan of a seed: what may go wrong is switched on independently, so that faults meet."""
    r = Random(seed ^ 0x5EED)

    def maybe(chance: float, low: float, high: float) -> float:
        return low + r.random() * (high - low) if r.random() < chance else 0.0

    return Plan(
        workers=r.choice((1, 1, 1, 2)),
        executors=r.choice((1, 1, 2, 2, 3, 4, 6)),
        users=r.choice((1, 1, 1, 2, 3)),
        sessions=r.choice((1, 1, 2, 3)),
        tasks=r.choice((5, 20, 50, 100, 200)),
        kinds=tuple(r.sample(KINDS, r.randint(1, len(KINDS)))),
        latency=r.choice((0.00005, 0.0002, 0.002)),
        fault_seconds=0.2 + r.random(),
        crashes=maybe(0.4, 1, 60),
        cuts=maybe(0.4, 1, 40),
        long_cuts=maybe(0.08, 0.2, 2),
        node_crashes=maybe(0.1, 0.5, 4),
        poison=maybe(0.15, 0.005, 0.05),
        cancels=maybe(0.4, 5, 100),
        early_closes=maybe(0.2, 0.5, 3),
        sleeps=maybe(0.2, 1, 10),
        vanish=maybe(0.1, 0.5, 2),
        duplicates=maybe(0.2, 0.001, 0.1),
        buffers=r.random() < 0.3,
        foreign=r.random() < 0.2,
        backlog_bytes=r.choice((1 << 20, 1 << 20, 1500)),
        max_grant=r.choice((4096, 4096, 3)),
        known_functions=r.choice((512, 512, 3)),
        pauses=maybe(0.3, 0.1, 0.9),
        options=r.random() < 0.4,
        limits=r.random() < 0.3,
        lives=r.random() < 0.2,
        initializers=r.random() < 0.3,
        failing=maybe(0.3, 0.01, 0.2),
        drains=maybe(0.25, 0.5, 6),
        needy=maybe(0.4, 0.02, 0.9),
        max_bytes=r.choice((256 << 20, 256 << 20, 100)),
        visits=maybe(0.3, 5, 60),
        services=r.random() < 0.3,
        shares=r.random() < 0.4,
        actors=maybe(0.4, 0.3, 1.0),
        actors_per_worker=r.choice((64, 64, 1)),
        streams=maybe(0.4, 0.02, 0.6),
        joins=maybe(0.4, 0.2, 1.0),
        detached=r.random() < 0.5,
        queued_tasks=r.choice((0, 0, 1, 3, 20)),
        queued_bytes=r.choice((0, 0, 0, 1, 60, 1000)),
        gangs=r.random() < 0.3,
        tenant_executors=r.choice((0, 0, 0, 1, 2, 3)),
        data=maybe(0.7, 0.1, 1.0),
    )
