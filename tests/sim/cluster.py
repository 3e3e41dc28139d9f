"""One run: a cluster drawn from a seed, weather, and what must hold during it and after it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flamezmq.core import caller
from flamezmq.core.actors import has_room
from flamezmq.core.broker import Broker
from flamezmq.core.departures import outer_clients
from flamezmq.core.dispatch import may_have, suits
from flamezmq.core.members import Effects, Executor, Limits, Session
from flamezmq.core.meter import Leeway
from flamezmq.core.quotas import usage
from flamezmq.errors import DeadlinePassed, TaskTimeout
from flamezmq.wire import messages as m
from tests.sim import lateness, objects, tenants
from tests.sim.ends import Router
from tests.sim.ledger import Ledger
from tests.sim.nodes import SimExecutor, SimWorker
from tests.sim.objects import Objects
from tests.sim.payloads import head
from tests.sim.plan import Plan, draw
from tests.sim.services import application
from tests.sim.users import COMMON, SimSession, SimUser, expected_value
from tests.sim.visitors import SimVisitor
from tests.sim.world import World

#: After the last fault, some task must end in every so many (simulated) seconds until all have.
PATIENCE_SECONDS = 25.0
#: What sessions ask for; each node has two GPUs.
REQUESTS = ((), (), (m.Resource("cpu", 2.0),), (m.Resource("gpu", 1.0),), (m.Resource("gpu", 0.5),))


class Cluster:
    """`run` goes from the first fork to the last BYE, and returns the digest of all the router said."""

    def __init__(self, seed: int, plan: Plan | None = None, tracing: bool = False) -> None:
        self.plan = plan = plan or draw(seed)
        self.world = World(seed, tracing)
        self.ledger = Ledger()
        limits = replace(
            Limits(),
            max_grant=plan.max_grant,
            known_functions=plan.known_functions,
            max_bytes=plan.max_bytes,
            actors_per_worker=plan.actors_per_worker,
            tenants=tenants.quotas(plan),
        )
        self.router = Router(self.world, limits, plan.latency, plan.backlog_bytes, plan.duplicates)
        self.router.after_turn = self._after_turn
        self.broker: Broker = self.router.broker
        self.workers: list[SimWorker] = []
        self.users: list[SimUser] = []
        self.sessions: list[SimSession] = []
        self.objects = Objects(self.world, self.workers)
        self.visitor: SimVisitor | None = None
        self.unreported = False  # some executor has died, or was lost, without a report
        self._until: dict[Leeway, int] = {}  # how far sessions may submit, at the end of the last turn
        self._numbers: dict[tuple[int, int], int] = {}
        self._ending = False
        self._to_open = plan.users * plan.sessions
        for number in range(plan.workers):
            self.start_worker(f"node{number}", 0)
        for number in range(plan.users):
            user = self.add_user(f"u{number}")
            for _ in range(plan.sessions):
                self.world.after(self.world.random.random() * 0.3, self._open, user)

    def add_user(self, name: str) -> SimUser:
        user = SimUser(self.router, name)
        user.home = name if self.plan.foreign else "shared"
        user.with_options = self.plan.options
        self.users.append(user)
        return user

    def start_worker(self, node: str, life: int) -> SimWorker:
        worker = SimWorker(self.router, self.ledger, node, life, self.plan.executors, self.plan.pauses)
        self.workers.append(worker)
        return worker

    def _open(self, user: SimUser) -> None:
        self._to_open -= 1
        if user.gone:
            return
        plan, random = self.plan, self.world.random
        retries, tasks = random.choice((0, 1, 3)), random.randint(1, plan.tasks)
        if plan.joins and random.random() < plan.joins:
            self._begin(user.join(tasks, plan.kinds, plan.detached))
            return
        limits = self._limits()
        if plan.services and "initializer" not in limits and random.random() < 0.7:
            isolation = random.choice(("app", "app", "session"))
            limits["application"] = user.register(application(isolation, plan.failing))
        self._begin(user.open(retries, tasks, plan.kinds, **limits))

    def _begin(self, session: SimSession) -> None:
        plan = self.plan
        session.poison, session.needy, session.buffers = plan.poison, plan.needy, plan.buffers
        session.streams = 0.0 if session.detached else plan.streams
        session.data, session.objects = plan.data, self.objects if plan.workers > 1 else None
        self.sessions.append(session)
        self._submit(session)

    def _limits(self) -> dict[str, Any]:
        """Of a session: what it may have, and what its executors must do for it."""
        plan, random = self.plan, self.world.random
        limits: dict[str, Any] = {}
        if plan.actors and random.random() < plan.actors:
            limits = {"restarts": random.choice((0, 1, 3, 50)), "initializer": b"%g" % (plan.failing / 3)}
            asks = plan.shares and plan.executors > 1 and plan.actors_per_worker == 1  # else they stay open
            return limits | {"resources": random.choice(REQUESTS)} if asks else limits
        if plan.limits:
            limits["max_executors"] = random.choice((0, 1, 1, 2, 3))
        if plan.lives:
            limits["max_tasks_per_child"] = random.choice((0, 1, 3, 20))
        if plan.initializers and random.random() < 0.7:
            limits["initializer"] = b"%g" % (plan.failing if random.random() < 0.5 else 0.0)
        if plan.shares:
            limits["weight"] = random.choice((0.5, 1.0, 1.0, 3.0))
            limits["priority"] = random.choice((-1, 0, 0, 5))
            limits["tenant"] = random.choice(("", "", "other"))
            limits["delay_release"] = random.choice((0.0, 0.003, 0.05, 1e12))
            limits["preempt_after"] = random.choice((0.0, 0.0, 0.01))
            if plan.executors > 1:
                limits["resources"] = random.choice(REQUESTS)
            if plan.executors * plan.workers > plan.users * plan.sessions:  # else some wait till others close
                few = limits.get("max_executors") or 1
                limits["min_executors"] = 0 if limits.get("resources") else min(random.choice((0, 1)), few)
        if plan.gangs and not limits.get("resources"):
            most = limits.get("max_executors") or plan.executors * plan.workers
            limits["gang"] = min(random.choice((1, 2, 3)), most, plan.executors * plan.workers)
            if limits["gang"] > 1:
                limits["min_executors"] = 0  # or the gang of another one may never come
        return limits

    def _submit(self, session: SimSession) -> None:
        random = self.world.random
        session.submit(random.choice((1, 1, 5, 20, 100)))
        session.user.push()
        if session.left:
            self.world.after(random.choice((0.0, 0.0005, 0.01)) * random.random(), self._submit, session)

    # --- weather

    def _weather(self) -> None:
        plan, random, world = self.plan, self.world.random, self.world
        storms = (
            (plan.crashes, self._crash),
            (plan.cuts, self._cut),
            (plan.long_cuts, self._long_cut),
            (plan.node_crashes, self._crash_node),
            (plan.cancels, self._cancel),
            (plan.early_closes, self._close_early),
            (plan.sleeps, self._sleep),
            (plan.vanish, self._vanish),
            (plan.drains, self._drain_node),
            (plan.visits, self._visit),
        )
        for rate, what in storms:
            when = 0.0
            while rate:
                when += random.expovariate(rate)
                if when > plan.fault_seconds:
                    break
                world.after(when, what)

    def executors(self) -> list[SimExecutor]:
        return [executor for worker in self.workers for executor in worker.executors.values()]

    def _crash(self) -> None:
        alive = self.executors()
        if alive:
            executor = self.world.random.choice(alive)
            if self.world.random.random() < 0.3:
                executor.doomed = True  # a moment after it will have sent results
            else:
                executor.worker.kill(executor, "SIGKILL")

    def _diallers(self) -> list:
        users = [user for user in self.users if not user.gone]
        workers = [worker for worker in self.workers if worker.alive]
        return [someone.dialler for someone in (*self.executors(), *workers, *users)]  # type: ignore[attr-defined]

    def _cut(self) -> None:
        diallers = self._diallers()
        if diallers:
            dialler = self.world.random.choice(diallers)
            self.world.trace("cut", dialler.role)
            self.router.network.cut(dialler.connection, 0.01 + self.world.random.random() * 0.1)

    def _long_cut(self) -> None:
        """So long that the router gives the peer up."""
        diallers = self._diallers()
        if diallers:
            dialler = self.world.random.choice(diallers)
            self.world.trace("long cut", dialler.role)
            self.unreported = True
            self.router.network.cut(dialler.connection, 4.0 + self.world.random.random() * 4)

    def _crash_node(self) -> None:
        worker = self.world.random.choice(self.workers)
        if worker.alive:
            self.unreported = True
            worker.crash()

    def _drain_node(self) -> None:
        random = self.world.random
        if self.plan.cuts:
            self.unreported = True  # its last words may be cut off
        random.choice(self.workers).drain(random.choice((0.02, 0.3, 5.0)))

    def _mend_nodes(self) -> None:
        """Where a worker is gone, whoever started it starts another."""
        latest = {worker.node: worker for worker in self.workers}
        for worker in latest.values():
            if not worker.alive:
                self.start_worker(worker.node, worker.life + 1)

    def _make_room(self) -> None:
        """Where few actors may live, those that are done are closed for others."""
        for session in self.sessions:
            if session.actor and session.done and self.plan.actors_per_worker == 1:
                session.user.close(session)

    def _cancel(self) -> None:
        random = self.world.random
        sessions = [s for s in self.sessions if s.futures and not s.closing]
        if sessions:
            session = random.choice(sessions)
            count = random.choice((1, 1, 3, 20))
            futures = [random.choice(session.futures) for _ in range(count)]
            session.user.cancel(session, futures, running=random.random() < 0.5)

    def _close_early(self) -> None:
        sessions = [s for s in self.sessions if not s.closing]
        if sessions:
            session = self.world.random.choice(sessions)
            session.user.close(session)

    def _visit(self) -> None:
        if self.visitor is None:
            self.visitor = SimVisitor(self.router, self.plan.has_quotas)
        self.visitor.visit(self.sessions)

    def _resume(self) -> None:
        """Whatever visitors have suspended goes on."""
        if self.plan.visits:
            if self.visitor is None or self.visitor.gone:
                self.visitor = SimVisitor(self.router, self.plan.has_quotas)
            self.visitor.resume(self.sessions)

    def _sleep(self) -> None:
        user = self.world.random.choice(self.users)
        if not user.asleep and not user.gone:
            user.sleep(self.world.random.random())

    def _vanish(self) -> None:
        self.world.random.choice(self.users).leave(bye=self.world.random.random() < 0.5)

    # --- the run

    def run(self) -> int:
        world = self.world
        self._weather()
        world.run(self.plan.fault_seconds, lambda: False)
        self._resume()
        self._mend_until_done()
        self.check_tasks()
        self.leave()
        self.check_refusals()
        return self.router.digest

    def _mend_until_done(self) -> None:
        world = self.world

        def mend() -> None:
            if not self._ending:
                self._mend_nodes()
                self._make_room()
                world.after(0.5, mend)

        def done() -> bool:
            return not self._to_open and all(session.done for session in self.sessions)

        mend()
        left = -1
        while not done():
            before, left = left, sum(session.left + session.calls.unfinished for session in self.sessions)
            assert self._to_open or left != before, f"a hang: {self.picture()}"
            world.run(world.now + PATIENCE_SECONDS, done)
        world.run(world.now + 0.3, lambda: False)  # late answers
        assert done(), f"not done any more: {self.picture()}"

    def leave(self) -> None:
        """Everybody goes home; nothing may be left in the broker."""
        world = self.world
        for session in self.sessions:
            if world.random.random() < 0.7:
                session.user.close(session)
        world.run(world.now + 0.2, lambda: False)
        if self.plan.joins and self.plan.detached:  # nobody else may ever close it
            self.visitor = self.visitor or SimVisitor(self.router, self.plan.has_quotas)
            self.visitor.close(COMMON)
            world.run(world.now + 0.2, lambda: False)
        if self.visitor is not None:
            assert not self.visitor.waiting, f"was never answered: {self.visitor.waiting}"
            self.visitor.leave()
        for user in self.users:
            user.leave(bye=world.random.random() < 0.7)
        if world.random.random() < 0.5:
            world.run(world.now + 8.0, lambda: not outer_clients(self.broker))
            assert not outer_clients(self.broker), self.picture()
            world.run(world.now + 3.0, lambda: not self.broker.sessions)
            assert not self.broker.sessions, f"sessions without clients: {self.picture()}"
            world.run(world.now + 0.5, lambda: False)
            for executor in self.executors():
                if executor.inner is not None and not executor.inner.dialler.lost:
                    assert all(future.ends == 1 for future in executor.inner.futures), executor.name
            world.run(world.now + 20.0, lambda: not self._crowded())
            assert not self._crowded(), f"executors that nobody needs any more: {self.picture()}"
        self._ending = True
        for worker in self.workers:
            if worker.alive:
                worker.leave()
        world.run(world.now + 12.0, lambda: False)
        self.check_empty()

    def _crowded(self) -> list[str]:
        """Nodes that have more executors than they were started with."""
        least = {worker.token: worker.executors for worker in self.broker.workers.values()}
        here = [worker for worker in self.workers if worker.alive and not worker.closing]
        return [one.node for one in here if len(one.executors) > least.get(one.token, len(one.executors))]

    # --- what must hold all the time

    def _after_turn(self, effects: Effects) -> None:
        broker = self.broker
        broker.check()
        self._check_nobody_waits()
        self._check_departures(effects)
        self._check_suspended(effects)
        self._check_quotas()
        tenants.check(broker)
        objects.check(broker, self.world.now)
        if broker.scheduler.idle:
            overdue = [executor for executor in broker.executors.values() if self._overdue(executor)]
            now = self.world.now
            asked = any(executor.asked for executor in broker.executors.values())  # the idle one may get that
            for executor in overdue:
                silent = now - executor.heard
                assert asked or silent < 0.05 + 2 * executor.load, (
                    f"tasks wait behind a long one at {executor.name}, others idle: {self.picture()}"
                )
            if overdue:
                deadline = broker.next_deadline(now)
                assert deadline is not None, "tasks wait behind others, executors are idle, nobody looks"
                assert deadline <= now + 0.1

    def _check_nobody_waits(self) -> None:
        """Work-conserving: where a task waits, each executor works, or is none that could run it.

        Of those that can't (another program's modules are loaded in them),
        enough must be about to be replaced.
        """
        broker = self.broker
        free = [e for e in broker.executors.values() if e.session is None and not e.exiting]
        idle = free + list(broker.lingering.values())
        for session in broker.sessions.values():
            for executor in session.executors.values():
                rests = session.keeps and executor.rests_since is not None
                rests = rests or executor.peer in broker.lingering or executor.peer in broker.holding_out
                assert executor.tasks or rests or executor.unbinding or executor.aside, (
                    f"executor {executor.name} is bound and has nothing to do"
                )
            most = session.spec.max_executors
            may_have_more = not most or len(session.executors) < most
            if any(executor.peer in broker.going for executor in session.executors.values()):
                continue  # it is about to have another one
            if session.actor:
                room = session.number in broker.placing or has_room(broker)
                may_have_more = room and not session.executors
            if session.spec.gang > 1:
                continue  # nothing less than so many is of use to it
            holding_out = sum(peer in broker.holding_out for peer in session.executors)
            if session.queued > holding_out and may_have_more and may_have(session):
                fitting = [e for e in idle if broker.scheduler.fits(e.peer, session.number)]
                for executor in fitting:
                    assert not suits(executor, session), (
                        f"{executor.name} is idle, {session.queued} queued in session {session.number}"
                    )
                assert not fitting or broker.scheduler.coming, (
                    f"{len(idle)} idle, {session.queued} queued in session {session.number}, none is coming"
                )

    def _check_departures(self, effects: Effects) -> None:
        """Whose worker leaves gets nothing more, and is told to exit as soon as it is free."""
        broker = self.broker
        leaving = {worker.token for worker in broker.workers.values() if worker.leaving}
        for executor in broker.executors.values():
            if executor.token in leaving:
                assert executor.departing, f"{executor.name} does not know that its worker leaves"
                assert executor.session is not None or executor.exiting, f"{executor.name} is kept"
        for peer, message, _ in effects:
            if type(message) is m.Grant and peer in broker.executors:
                assert not broker.executors[peer].departing, "a grant for an executor that is to leave"

    def _check_suspended(self, effects: Effects) -> None:
        """Of a suspended session nothing is handed out, and only what has begun stays with executors."""
        for session in self.broker.sessions.values():
            if session.suspended and not session.closed:
                held = {process.name: process.tasks for process in self.executors()}
                for executor in session.executors.values():
                    kept = held.get(f"{executor.token}/{executor.number}")
                    assert executor.asked or not kept, f"{executor.name} keeps what has not begun"
        for _, message, _ in effects:
            if type(message) is m.Grant:
                assert not self.broker.sessions[message.session].suspended, "a grant of a suspended session"

    def _check_quotas(self) -> None:
        """No room is given beyond a quota, and nobody waits for room where nothing is queued."""
        until: dict[Leeway, int] = {}
        for account in self.broker.accounts.of.values():
            used, given = usage(account), False
            for leeway in account.leeways:
                until[leeway] = leeway.until
                raised = self._until.get(leeway, 1 << 62) < leeway.until
                given = given or (raised and leeway.left > 0)
            if given and account.terms.queued_tasks:
                assert used.tasks + used.ahead <= account.terms.queued_tasks, used
            waited = any(self.world.now - since > 0.05 for _, since in account.asking.values())
            assert used.tasks or used.ahead or not waited, f"nothing is queued, and {account.asking} wait"
        self._until = until

    def _overdue(self, executor: Executor) -> bool:
        session = executor.session
        if executor.aside:
            return False  # nothing of an actor's goes elsewhere
        return executor.tasks > 1 and not executor.asked and session is not None and not session.closed

    # --- what must hold at the end

    def check_tasks(self) -> None:
        for session in self.sessions:
            assert session.calls.closed or not session.drained or session.user.gone, (
                f"{session.id} is not closed"
            )
            for future in session.futures:
                self._check_future(session, future)
                if future.reader is not None:
                    future.reader.check()
            if session.actor:
                self._check_actor(session)

    def _check_actor(self, session: SimSession) -> None:
        """Calls began in order, in one process after the other, of which there were not too many."""
        calls = self.ledger.calls.get(session.id, [])
        first_time = [index for index, attempt, _ in calls if attempt == 1]
        processes = list(dict.fromkeys(executor for _, _, executor in calls))
        assert len(processes) <= session.restarts + 1, f"{session.id}: {calls}"
        for process in processes:
            here = [index for index, _, executor in calls if executor == process]
            assert here == sorted(set(here)), f"{session.id}: {here}"
        if not self.unreported:  # else one that was given up for dead may have lived on
            assert first_time == sorted(set(first_time)), f"{session.id}: {calls}"
            order = [executor for _, _, executor in calls]
            assert order == sorted(order, key=processes.index), f"{session.id} had two at a time: {calls}"

    def _faultless_network(self) -> bool:
        """All that was sent arrives, and sooner than the router gives up to wait for a dead one's words."""
        plan = self.plan
        return not self.unreported and not plan.cuts and plan.latency < 0.001

    def _cancels(self) -> bool:
        return bool(self.plan.cancels or self.plan.visits)

    def _check_future(self, session: SimSession, future) -> None:
        account = self.ledger.of(head(future.payload))
        name = head(future.payload).decode()
        retries = session.max_retries
        assert future.ends == 1, f"{name} ended {future.ends} times"
        again = account.sent_back + account.overdue
        if retries == 0:
            assert len(account.begins) <= 1 + again, f"{name} must not be started twice: {account}"
        options = future.name.options or m.Options()
        dead = {executor.name for worker in self.workers for executor in worker.retired}
        unheard = sum(executor in dead for executor, _ in account.begins)  # they may have died with it
        assert account.sent_back <= options.retries + unheard, f"{name}: {account}"
        assert account.overdue <= options.retries + 1, f"{name}: {account}"
        if self._faultless_network():
            assert account.sent <= 1, f"{name}: what a dead executor had sent was not waited for: {account}"
        if not self.unreported:
            attempts = [attempt for _, attempt in account.begins]
            assert all(a < b for a, b in zip(attempts, attempts[1:], strict=False)), f"{name}: {account}"  # noqa: RUF007
            assert account.took_down <= retries + 1, f"{name}: {account}"
        if account.interrupted and not session.closing and session.calls.broken is None:
            assert future.interrupt_asked or future._index in session.visited, f"{name} was interrupted"
            assert future._state == caller.CANCELLED, f"{name} was interrupted: {account}"
        if future._state == caller.CANCELLED:
            asked = future.cancel_asked or future._index in session.visited
            assert asked or session.closing, f"{name} was cancelled by nobody"
            said = session.announced.get(future._index)
            if not session.closing and said is not None and not self.unreported:
                # If it has come to its end, its result died with its executor, and it waited to run again.
                assert not account.finished or any(e in dead for e, _ in account.begins), f"{name}: {account}"
            return
        if future._form == caller.UNMET:
            assert future._value.has_failed
            assert future._value in future.needs
            assert not account.begins, f"{name} has run without what it needs: {account}"
            return
        if session.closing or session.calls.broken is not None:
            return
        said = session.announced[future._index]
        if type(future._value) is DeadlinePassed:
            lateness.check(self, future, account)
            return
        if future._form == caller.ERROR:
            assert said.startswith("lost"), said
            if type(future._value) is TaskTimeout:
                assert b"#hangs" in head(future.payload), name
                assert account.overdue == 1 + options.retries * options.retry_timeouts, f"{name}: {account}"
                return
            if not self.unreported:
                if getattr(future._value, "values", 0):
                    pass  # a stream that had come in part, when its executor died
                elif retries:
                    assert account.took_down == retries + 1, f"{name} is lost: {account}"
                elif not self._cancels():  # else it may be that others were given back before it
                    assert 1 <= len(account.begins) <= 1 + again, f"{name} is lost: {account}"
            assert (
                said == f"lost after {len(account.begins)}"
                or self.unreported
                or (not retries and self._cancels())
            ), f"{name}: {said}, {account}"
            return
        if not self.unreported:
            assert account.took_down <= retries, f"{name} has a value: {account}"
        assert not any(need.has_failed for need in future.needs), f"{name} has run without what it needs"
        value = future._value
        assert (type(value) is list) == (type(future.payload) is list)
        assert head(value) == expected_value(future), f"{name} got {head(value)!r}"
        if type(value) is list:
            assert [bytes(part) for part in value[1:]] == future.payload[1:]
        if b"#flaky" not in head(future.payload):
            assert future._form == (caller.RAW_ERROR if b"#raises" in head(future.payload) else caller.RAW)
        if future._form == caller.RAW_ERROR:
            assert account.sent_back >= options.retries, f"{name} was not tried often enough: {account}"
        assert account.finished >= 1

    def check_refusals(self) -> None:
        """Everybody here is honest: only those are refused that were given up before they spoke again."""
        given_up = ("this is an executor's message", "this router does not know you")
        for said in self.router.refused:
            assert said.endswith(given_up), said

    def check_empty(self) -> None:
        broker, scheduler = self.broker, self.broker.scheduler
        left = {
            name: value
            for name, value in [*vars(broker).items(), *vars(scheduler).items()]
            if isinstance(value, dict) and value and name != "_handlers"
        }
        assert not left, f"left behind: {left}"
        assert not len(broker._functions)
        assert not self.router.peers, self.router.peers

    def picture(self) -> str:
        """Where everything stands, for a failure."""
        lines = [f"at {self.world.now:.3f}: {self.broker.statistics()} {self.broker.scheduler.statistics()}"]
        for session in self.sessions:
            if not session.done:
                lines.append(  # noqa: PERF401
                    f"  {session.id}: {session.left} to submit, {session.calls.unfinished} unfinished"
                )
        for s in self.broker.sessions.values():
            lines.append(f"  session {s.number} ({s.id}): {_short(s)}")  # noqa: PERF401
        for e in self.broker.executors.values():
            lines.append(  # noqa: PERF401
                f"  executor {e.name} peer {e.peer}: session {e.session and e.session.number}, {e.tasks} tasks,"  # noqa: E501
                f" asked {list(e.asked)}, leaving {e.leaving}, exiting {e.exiting}, load {e.load:g}"
            )
        for worker in self.workers:
            for executor in worker.executors.values():
                lines.append(  # noqa: PERF401
                    f"  process {executor.name}: runs {executor.running}, holds {len(executor.tasks)}"
                )
        return "\n".join(lines)


def _short(s: Session) -> str:
    return f"queued {s.queued}, held {s.held}, busy {s.busy}, {len(s.executors)} executors, closed {s.closed}"
