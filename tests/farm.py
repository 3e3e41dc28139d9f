"""A farm: the scheduler alone, with executors and tasks that are nothing but fake time.

Each executor of a session runs its tasks one after the other; what is reclaimed is
given back at the end of a task.  `Farm` looks after every event whether the rules are
kept that hold always: no executor idles while a session could use it, none has too many.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf
from typing import Any

from flamezmq.scheduler import Scheduler


@dataclass(eq=False)
class Job:
    """A session with `tasks` that wait, each of `seconds`.

    running   executors that serve it; the second: of these, those that are to be given back
    resting   those without anything to do
    held      executor-seconds that it has had
    served    when it began a task last
    longest   the longest time between two beginnings while it had tasks
    complete  when it first had its minimum
    loads     seconds that an executor takes for its first task after one of another session's
    loaded    how often that was so
    """

    number: int
    seconds: float
    tasks: float
    limit: int
    minimum: int
    gang: int
    tenant: str
    opened: float
    served: float
    running: int = 0
    leaving: int = 0
    resting: dict[int, None] = field(default_factory=dict)
    held: float = 0.0
    longest: float = 0.0
    complete: float = inf
    loads: float = 0.0
    loaded: int = 0


class Farm:
    """`executors` are 10001, 10002, ..., and jobs 1, 2, ...

    check: compare the indices of the scheduler after every event, which takes long where there are many
    """

    def __init__(self, executors: int, check: bool = True) -> None:
        self.scheduler = Scheduler(lending=lambda number, _other: self.jobs[number].seconds)
        self.now = 0.0
        self.begun = 0  # tasks
        self.jobs: dict[int, Job] = {}
        self._serves: dict[int, Job] = {}
        self._since: dict[int, float] = {}
        self._leaving: set[int] = set()
        self._warm: dict[int, Job] = {}
        self._loading: set[int] = set()
        self._ends: list[tuple[float, int]] = []
        self._check = check
        self._released = False  # since the last decision
        self.limits: dict[str, int] = {}  # of executors, by tenant
        self.executors = range(10_001, 10_001 + executors)
        for number in self.executors:
            self.scheduler.add_executor(number)

    def open(self, seconds: float = 0.1, tasks: float = inf, loads: float = 0.0, **terms: Any) -> Job:
        """A session with these tasks; `terms` are those of `Scheduler.add_session`."""
        if loads:
            terms["enters"] = -1.0
        number, limit, minimum = len(self.jobs) + 1, terms.get("limit", 0), terms.get("minimum", 0)
        gang, tenant = terms.get("gang", 1), terms.get("tenant", "")
        job = Job(number, seconds, tasks, limit, minimum, gang, tenant, self.now, self.now)
        self.jobs[number] = job
        job.loads = loads
        self.scheduler.add_session(number, self.now, **terms)
        self._ask(job)
        self._decide()
        return job

    def limit(self, tenant: str, executors: int) -> None:
        """The tenant may have no more than these; what it has above them stays to the ends of tasks."""
        self.limits[tenant] = executors
        self.scheduler.set_tenant(tenant, max_executors=executors)
        self._decide()

    def serving(self, tenant: str) -> int:
        return sum(job.running for job in self.jobs.values() if job.tenant == tenant)

    def add(self, job: Job, tasks: float) -> None:
        """It has so many more to do."""
        if not job.tasks:
            job.served = self.now
        job.tasks += tasks
        for executor in list(job.resting):
            if job.tasks:
                del job.resting[executor]
                self.scheduler.wake(executor)
                self._begin(executor, job)
        self._ask(job)
        self._decide()

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        until = self.now + seconds
        while True:
            turn = self.scheduler.next_turn()
            due = min(self._ends[0][0] if self._ends else inf, inf if turn is None else turn + 1e-9)
            if due > until:
                break
            self.now = max(self.now, due)
            while self._ends and self._ends[0][0] <= self.now:
                executor = heappop(self._ends)[1]
                job = self._serves[executor]
                if executor in self._loading:
                    self._loading.remove(executor)
                    self.scheduler.learn_enter(job.number, job.loads)
                self._go_on(executor, job)
            self._decide()
        self.now = until
        for executor in self._serves:
            self._count(executor)
        for job in self.jobs.values():
            if job.tasks:
                job.longest = max(job.longest, self.now - job.served)

    def count_from_now(self) -> None:
        for executor in self._serves:
            self._count(executor)
        for job in self.jobs.values():
            job.held = job.longest = 0.0
            job.loaded = 0

    def shares(self) -> list[float]:
        """The part of all executor-seconds that each job has had, in the order in which they came."""
        total = sum(job.held for job in self.jobs.values())
        return [job.held / total for job in self.jobs.values()]

    def lent(self, job: Job) -> dict[int, None]:
        """Executors of a gang's reservation that serve it meanwhile."""
        return self.scheduler._shares[job.number].lent

    def _is_at_limit(self, job: Job) -> bool:
        """Whether its tenant has all that it may, or what it may yet is kept for a gang of its own."""
        most = self.limits.get(job.tenant) or inf
        gathers = self.scheduler._gangs.gathers
        kept = gathers.gang if gathers and self.jobs[gathers.number].tenant == job.tenant else 0
        return self.serving(job.tenant) + kept >= most

    def _look(self) -> None:
        """Nothing that is set aside idles where tasks wait that are short against what the gang waits for."""
        gangs = self.scheduler._gangs
        if not gangs.aside or gangs.called:
            return
        left = max(gangs.longest - self.now, self.now - gangs.asked)
        for job in self.jobs.values():
            hungry = job.number in self.scheduler._hungry
            may = hungry and job.tasks and job.gang == 1 and not self._is_at_limit(job)
            assert not (may and job.seconds <= left / 4), f"job {job.number} may borrow"

    def _count(self, executor: int) -> None:
        self._serves[executor].held += self.now - self._since[executor]
        self._since[executor] = self.now

    def _ask(self, job: Job) -> None:
        busy = job.running - job.leaving - len(job.resting)
        self.scheduler.want(job.number, busy + int(min(job.tasks, 1 << 30)))

    def _begin(self, executor: int, job: Job) -> None:
        job.tasks -= 1
        job.longest = max(job.longest, self.now - job.served)
        job.served = self.now
        loads = job.loads if self._warm.get(executor) is not job else 0.0
        self._warm[executor] = job
        if loads:
            self._loading.add(executor)
            job.loaded += 1
        self.begun += 1
        heappush(self._ends, (round(self.now + loads + job.seconds, 6), executor))  # many at the same time

    def _go_on(self, executor: int, job: Job) -> None:
        """It holds nothing: it gets the next task, or rests, or is free."""
        if executor in self._leaving or not (job.tasks or self.scheduler.stays(job.number, executor)):
            self._release(executor, job)
        elif job.tasks:
            self._begin(executor, job)
        else:
            job.resting[executor] = None
            self.scheduler.rest(executor)
            if job.gang > 1:
                self.scheduler.ripen(executor)
        self._ask(job)

    def _release(self, executor: int, job: Job) -> None:
        self._count(executor)
        del self._serves[executor]
        job.running -= 1
        job.resting.pop(executor, None)
        if executor in self._leaving:
            self._leaving.remove(executor)
            job.leaving -= 1
        self.scheduler.release(executor, self.now)
        self._released = True

    def _decide(self) -> None:
        self._released = True
        while self._released:
            self._released = False
            moves = self.scheduler.decide(self.now)
            for executor, number in moves.assign:
                job = self.jobs[number]
                self._serves[executor], self._since[executor] = job, self.now
                job.running += 1
                assert not job.limit or job.running <= job.limit, f"job {number} has more than its limit"
                most = self.limits.get(job.tenant) or inf
                assert self.serving(job.tenant) <= most, f"tenant {job.tenant} has more than its limit"
                self._go_on(executor, job)
            for executor in moves.reclaim:
                if executor not in self._serves:
                    continue  # it was given just now, and there was nothing left for it to do
                job = self._serves[executor]
                assert executor not in self._leaving
                self._leaving.add(executor)
                job.leaving += 1
                if executor in job.resting:
                    self._release(executor, job)
        for job in self.jobs.values():
            if job.running - job.leaving >= job.minimum:
                job.complete = min(job.complete, self.now)
            assert not (job.running - job.leaving - len(self.lent(job))) % job.gang, (
                f"job {job.number}: no gang"
            )
        if self.scheduler.idle:
            for number in self.scheduler._hungry:
                assert self._is_at_limit(self.jobs[number]), f"an executor idles, job {number} waits"
        self._look()
        if self._check:
            self.scheduler.check()
