"""The router's mind: sessions, queues, executors, and who gets which tasks.

Messages and time come in, effects go out through the list that each call is
given.  Work is per run of tasks, not per task.  `on_turn_end` follows every
batch of messages: it asks the scheduler and hands out tasks, once for all.

A peer's mistake raises `ProtocolError`, and the host refuses that peer; what
comes late or twice changes nothing.  Nothing here unpickles.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Sized
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from flamezmq.core import (
    actors,
    applications,
    changes,
    checks,
    control,
    deadlines,
    deaths,
    dispatch,
    duties,
    events,
    interrupts,
    joining,
    locality,
    needs,
    nodes,
    overview,
    printed,
    quotas,
    retries,
    returns,
    services,
    spares,
    stores,
    streams,
    telling,
    tenants,
    unclaimed,
    wear,
)
from flamezmq.core.commons import Common
from flamezmq.core.directory import Directory
from flamezmq.core.huddle import Huddle
from flamezmq.core.members import RECENT_SLICES, Client, Effects, Executor, Limits, Session, Worker
from flamezmq.core.readers import Readers
from flamezmq.core.records import Records
from flamezmq.core.tasks import Function, Ranks, Run
from flamezmq.errors import ProtocolError
from flamezmq.scheduler import Scheduler
from flamezmq.wire import messages as m
from flamezmq.wire.codec import split_payloads


class Broker:
    """All state of the router but its sockets.  Peers are integers that the host gives."""

    def __init__(self, limits: Limits | None = None, cpu: int = -1) -> None:
        self.limits = limits or Limits()
        self.huddle = Huddle(cpu)
        self.clients: dict[int, Client] = {}
        self.executors: dict[int, Executor] = {}
        self.workers: dict[int, Worker] = {}
        self.sessions: dict[int, Session] = {}
        self.scheduler = Scheduler(self._suits, self._lending, partial(locality.wishes, self))
        self.records = Records()
        self.registry = applications.Registry()
        self.commons: dict[int, Common] = {}  # by the client that stands for all members
        self.directory = Directory()
        self.accounts = quotas.Accounts(self.limits.tenants)
        for name, terms in self.limits.tenants.items():
            self.scheduler.set_tenant(name, terms.weight, terms.max_executors, terms.amounts)
        self.now = 0.0  # of the turn that is ending
        #: Closed sessions, each with the workers that are still to send on what its tasks have printed.
        self.flushing: dict[int, tuple[Session, dict[int | str, None]]] = {}
        self.parting: dict[int, Session] = {}  # closed sessions, of which services are still to go
        self.going: dict[int, float] = {}  # executors whose service is to go -> when that is slow
        self.fed: dict[int, Executor] = {}  # executors that may take more, looked at when the turn ends
        self.lingering: dict[int, Executor] = {}  # executors that stay bound for one turn more (see rests.py)
        self.laden: dict[int, Executor] = {}  # executors with more than one task
        self.paused: dict[int, Executor] = {}  # executors whose task waits for its own tasks, or its reader
        self.readers = Readers()
        self.spare: dict[int, Worker] = {}  # workers that have spare executors
        self.unplaced: dict[int, float] = {}  # actors that wait for an executor: since when
        self.placing: dict[
            int, None
        ] = {}  # of these, those for which there is room: the next free ones are theirs
        self.gated: dict[int, int] = {}  # actors with a call that waits for others -> its index
        self.drained: dict[int, Session] = {}  # sessions that end when what they have has ended
        self.delaying: dict[int, Session] = {}  # sessions with tasks that wait for their time
        self.rests: list[tuple[float, int]] = []  # a heap: when to look at an executor that rests
        #: Executors that are idle though there are tasks, for their data is elsewhere: since and until when.
        self.holding_out: dict[int, tuple[float, float]] = {}
        self.preempts: list[tuple[float, int]] = []  # a heap: when to end the task of one that is reclaimed
        self.expiring: dict[int, Session] = {}  # sessions with tasks that have deadlines
        self.look_at = math.inf  # when to look whether some task is over its timeout
        self.owing: dict[int, Client] = {}  # clients of whose values some were let go
        self._functions: WeakValueDictionary[Any, Function] = WeakValueDictionary()  # by pickle and options
        self.by_name: dict[tuple[str, int], int] = {}  # (worker's token, number) -> peer
        self._dead: dict[tuple[str, int], None] = {}  # died before its Ready came
        self.buried: dict[tuple[str, int], Executor] = {}  # lost before its worker reported its death
        self.mourned: dict[int, tuple[float, m.Died]] = {}  # peer -> when to bury it, at the latest
        self.orphans: dict[int, float] = {}  # executors that run what nobody waits for
        self.unwanted: dict[int, Session] = {}  # sessions with tasks that are cancelled, and may run
        self.born = 0.0  # when the router was started
        self.draining, self.drains_since = False, 0.0  # see departures.drain
        self.bare_since = self.alone_since = 0.0  # when the last executor, the last worker has left
        #: Of all these, those of which something may be due at a certain time, or when a turn ends.
        self.duties: tuple[Sized, ...] = (self.mourned, self.orphans, self.expiring, self.unwanted)
        self.duties += (self.delaying, self.drained, self.owing, self.gated)
        self.duties += (self.rests, self.preempts, self.going, self.holding_out)
        #: What people may want to know of, as (event, fields); the host takes it away.
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._last_function = 0
        self.last_session = 0
        self._handlers: dict[type, Callable[[int, Any, list[Any], float, Effects], None]] = {
            m.RoutedResults: self._on_results,
            m.Submit: self._on_submit,
            m.Cancel: partial(returns.on_cancel, self),
            m.Close: partial(changes.on_close, self),
            m.Query: partial(overview.on_query, self),
            m.Supply: partial(needs.on_supply, self),
            m.Ready: partial(nodes.on_ready, self),
            m.Begun: self._on_begun,
            m.Retracted: partial(returns.on_retracted, self),
            m.Waiting: partial(spares.on_waiting, self),
            m.Retry: partial(retries.on_retry, self),
            m.Interrupted: partial(interrupts.on_interrupted, self),
            m.Broken: partial(wear.on_broken, self),
            m.RoutedPart: partial(streams.on_part, self),
            m.Pull: partial(streams.on_pull, self),
            m.Register: partial(nodes.on_register, self),
            m.Died: partial(nodes.on_died, self),
            m.Printed: partial(printed.on_printed, self),
            m.Flushed: partial(printed.on_flushed, self),
            m.Leave: partial(nodes.on_leave, self),
            m.Ask: partial(overview.on_ask, self),
            m.CloseSession: partial(control.on_close_session, self),
            m.CancelTask: partial(control.on_cancel_task, self),
            m.ChangeSession: partial(changes.on_change_session, self),
            **tenants.handlers(self),
            **applications.handlers(self),
            **services.handlers(self),
            **joining.handlers(self),
            **stores.handlers(self),
        }

    # --- what the host calls

    def on_client(self, peer: int) -> None:
        """A client has said HELLO; executors and workers introduce themselves by a message."""
        self.clients[peer] = Client(peer)

    def on_message(self, peer: int, message: Any, frames: list[Any], now: float, out: Effects) -> None:
        """Apply one message of a peer.

        Raises:
            ProtocolError: the peer said what it must not; nothing was changed.
        """
        if self.commons and joining.on_message(self, peer, message, frames, now, out):
            return
        self._handlers[type(message)](peer, message, frames, now, out)

    def handle(self, peer: int, message: Any, frames: list[Any], now: float, out: Effects) -> None:
        """`on_message`, also of a client that stands for several."""
        self._handlers[type(message)](peer, message, frames, now, out)

    def on_turn_end(self, now: float, out: Effects) -> None:
        """Deadlines, the scheduler's moves, and the grants that follow from all that came in."""
        self.now = now
        if any(self.duties) or now >= self.look_at:
            duties.see_to(self, now, out)
        dispatch.balance(self, now, out)
        if (self.paused or self.spare or self.unplaced) and not self.draining:
            spares.balance(self, now, out)
        if self.commons:
            telling.route(self, out)
        if self.accounts.hungry:
            quotas.look(self, now, out)

    def next_deadline(self, now: float) -> float | None:
        """When `on_turn_end` must be called even if nothing comes in."""
        return duties.next_deadline(self, now)

    def on_backlog(self, peer: int, held_back: bool) -> None:
        """A client takes its results too slowly (or again fast enough): stop (start) running for it."""
        client = self.clients.get(peer)
        if client is not None:
            self.hold(client, held_back)
            joining.on_backlog(self, client)

    def hold(self, client: Client, held_back: bool) -> None:
        """Stop (start) running for it."""
        if client.held_back != held_back:
            client.held_back, client.held_since = held_back, self.now
            for session in client.sessions.values():
                events.note(session, events.HELD_BACK if held_back else events.GOES_ON, self.now)
                self.demand(session)
                self.fed.update(session.executors)

    def on_peer_lost(self, peer: int, now: float, out: Effects) -> None:
        """A peer is gone for good.  Calling it again changes nothing."""
        client = self.clients.pop(peer, None)
        if client is not None:
            self.flushing = {n: f for n, f in self.flushing.items() if f[0].client is not client}
            self.parting = {n: s for n, s in self.parting.items() if s.client is not client}
            for session in list(client.sessions.values()):
                self.end(session, "its client is gone", now, out)
            joining.on_client_lost(self, client, now, out)
            self.owing.pop(peer, None)
            client.later.clear()  # they refer to it: nothing here may make a cycle
        if peer in self.workers:
            nodes.on_lost(self, self.workers.pop(peer), now, out)
        lost = self.executors.get(peer)
        if lost is not None:
            if any(w.token == lost.token for w in self.workers.values()):
                self.buried[lost.token, lost.number] = lost
            deaths.bury(self, peer, None, now, out)

    # --- clients

    def client(self, peer: int) -> Client:
        client = self.clients.get(peer)
        if client is None and peer in self.commons:
            return self.commons[peer].client
        if client is None:
            raise ProtocolError("this is a client's message")
        return client

    def session(self, peer: int, alias: int) -> Session | None:
        """The client's open session, or None when it was closed (the message came late)."""
        return self.client(peer).sessions.get(alias)

    def _on_submit(self, peer: int, message: m.Submit, frames: list[Any], now: float, out: Effects) -> None:
        session = self.session(peer, message.session)
        if session is None:
            return
        payloads = split_payloads(message.inputs, message.parts, frames)
        functions = session.functions
        if message.functions:
            functions = functions | {new.number: self._function(new) for new in message.functions}
            for new in message.functions:
                self.records.shipped(session, functions[new.number].number, new.label)
        runs, used = [], 0
        for part in message.slices:
            function = functions.get(part.function)
            if function is None or part.count < 1 or part.first != session.next_index + used:
                raise ProtocolError(f"a slice that does not follow: {part}")
            here = payloads if part.count == len(payloads) else payloads[used : used + part.count]
            runs.append(Run(function, part.first, 1, here, bool(frames), now))
            used += part.count
        if used != len(payloads):
            raise ProtocolError(f"{used} tasks with {len(payloads)} inputs")
        if session.waiting + used > 2 * self.limits.max_tasks * session.members:
            raise ProtocolError(f"more than {self.limits.max_tasks} tasks without credit")
        if message.ages:
            deadlines.check_ages(message)
        wants = needs.read(session, message) if message.needs else None
        inputs = locality.read(message, session.next_index) if message.uses else None
        for number in message.forget:
            functions.pop(number, None)
        if session.functions is not functions:
            session.functions = functions
            ranked = not session.actor and type(session.queue) is deque
            if ranked and any(f.priority for f in functions.values()):
                session.queue = Ranks(session.queue)
        queued = used
        if wants:
            runs = needs.keep_aside(session, runs, wants, out)
            if session.actor:
                self.gated.setdefault(session.number, actors.gate(session))
            queued -= len(wants)
        if inputs:
            locality.note(self, session, inputs)
        session.queue.extend(runs)
        session.next_index += used
        session.queued += queued
        if session.meter is not None:
            quotas.on_submit(self, session, payloads)
        if message.ages:
            deadlines.note(self, session, message, now)
        self.huddle.on_submit(peer, used, out)
        self.demand(session)
        self.fed.update(session.executors)

    def _function(self, new: m.NewFunction) -> Function:
        key = hashlib.blake2b(new.blob, digest_size=16).digest(), new.options
        function = self._functions.get(key)
        if function is None:
            self._last_function += 1
            function = Function(self._last_function, new.blob, new.label, new.options)
            self._functions[key] = function
        return function

    def close_session(self, session: Session, ending: str, now: float, out: Effects) -> None:
        """End it; its client hears `Closed` when all that its tasks have printed has been sent on."""
        self.end(session, ending, now, out)
        if services.is_parting(session):
            self.parting[session.number] = session
        else:
            printed.flush(self, session, out)

    def end(self, session: Session, ending: str, now: float, out: Effects) -> None:
        """Close it: what waits is dropped, what executors hold is asked back, what runs may end."""
        needs.close(session, out)
        quotas.on_end(self, session)
        events.note(session, events.CLOSED, now, ending)
        session.closed, session.closed_at, session.ending = True, now, ending
        session.cancelled += session.queued + retries.forget(self, session)
        session.queued = 0
        session.queue.clear()
        session.inputs.clear()
        session.functions.clear()
        self.drained.pop(session.number, None)
        session.client.sessions.pop(session.alias, None)
        for executor in list(session.executors.values()):
            if executor.tasks:
                executor.asked.append((session, None))
                out.append((executor.peer, m.Retract(session.number, 0), []))
                interrupts.ask_for_all(self, session, executor, now, out)
                streams.stop(executor, session, out)
            else:
                self.fed[executor.peer] = executor  # also one that waits for a service to go
        interrupts.forget(self, session)
        services.close(session, out)
        deadlines.forget(self, session)
        control.on_session_end(session, out)
        if session.stores:
            stores.on_end(self, session, out)
        if session.spec.min_executors or session.spec.gang > 1:
            self.scheduler.set(session.number, minimum=0, whole=False)  # what leaves it shall not come back
        self.demand(session)
        self.forget_if_over(session)

    def forget_if_over(self, session: Session) -> None:
        if session.closed and not session.executors and session.number in self.sessions:
            del self.sessions[session.number]
            self.records.over(session)
            self.scheduler.remove_session(session.number)
            wear.forget(self, session)

    # --- executors

    def executor_of(self, peer: int) -> Executor:
        executor = self.executors.get(peer)
        if executor is None:
            raise ProtocolError("this is an executor's message")
        return executor

    def _on_results(
        self, peer: int, message: m.RoutedResults, frames: list[Any], now: float, out: Effects
    ) -> None:
        executor = self.executor_of(peer)
        executor.heard = now
        if message.stored:
            executor.last_object = message.last
        session = executor.session
        if session is None or session.number != message.session:
            if message.stored:
                unclaimed.on_stale(self, executor, message, frames, out)
            return  # it answers a session that it does not serve any more
        if len(message.seconds) != len(message.slices):
            raise ProtocolError("one run time is due for each slice")
        outputs = needs.outputs_of(session, message, frames) if session.client.awaited else None
        ended = 0
        for part, seconds in zip(message.slices, message.seconds, strict=True):
            ended += self._settle(executor, session, part, seconds)
        if not ended:
            if message.stored:
                unclaimed.on_stale(self, executor, message, frames, out)
            return
        executor.finished += ended
        executor.stalled = False
        if executor.binding:
            services.on_entered(self, executor, session, sum(message.seconds), now)
        executor.since = now
        if len(message.slices) <= RECENT_SLICES:
            session.recent.append((executor.name, message.slices, message.seconds, message.failed, now))
        else:
            self.records.many_results(session, executor, message, now)
        failed = min(len(message.failed), ended)
        session.failed += failed
        session.succeed += ended - failed
        if not session.closed:
            message.session = session.alias
            out.append((session.client.peer, message, frames))
        if outputs is not None:
            needs.on_outputs(self, session, message, outputs, out)
        if session.unwanted:
            interrupts.on_results(session, message, out)
        self.huddle.on_results(peer, ended, message.seconds[0], out)
        self.took_from(executor, session)

    def _settle(self, executor: Executor, session: Session, part: m.Slice, seconds: float) -> int:
        """Take the tasks of one slice out of what the executor holds; returns how many there were.

        A slice that quotes a task that it does not hold is stale: its attempt
        becomes 0, which tells the client to pass over all of it.
        """
        held = executor.held
        first, count = part.first, part.count
        if not (
            dispatch.is_first(held, first, count, part.attempt)
            or dispatch.bring_to_front(held, first, count, part.attempt)
        ):
            part.attempt = 0
            return 0
        each = seconds / count
        left = count
        while left:
            run = held[0]
            here = min(left, len(run))
            run.function.learn(each * here, here)
            executor.load -= here * run.estimate
            run.done += here
            if not len(run):
                held.popleft()
            left -= here
        session.learn(seconds, count)
        executor.tasks -= count
        session.held -= count
        if session.begun:
            for index in range(first, first + count):
                session.begun.pop(index, None)
        if session.charges:
            for index in range(first, first + count):
                session.charges.pop(index, None)
        if session.retried:
            for index in range(first, first + count):
                session.retried.pop(index, None)
        if session.composed:
            needs.over(session, range(first, first + count))
        if session.inputs:
            locality.over(session, range(first, first + count))
        return count

    def took_from(self, executor: Executor, session: Session) -> None:
        """An executor holds less than before: it may take more, or is free."""
        if executor.tasks < 2:
            self.laden.pop(executor.peer, None)
        if not executor.tasks:
            executor.load = 0.0
            if executor.paused is not None:
                spares.forget(self, executor)  # its task was interrupted before it could say so
            if not executor.leaving:
                session.busy -= 1
                self.demand(session)
        self.fed[executor.peer] = executor

    def _on_begun(self, peer: int, message: m.Begun, _frames: list[Any], now: float, out: Effects) -> None:
        executor = self.executor_of(peer)
        executor.heard = now
        session = executor.session
        if session is None or session.number != message.session or session.closed:
            return
        if any(
            run.start <= message.index < run.end and run.attempt == message.attempt for run in executor.held
        ):
            session.begun[message.index] = peer
            message.session = session.alias
            out.append((session.client.peer, message, []))

    # --- what the parts share

    def demand(self, session: Session) -> None:
        """Tell the scheduler how many executors the session could use."""
        if session.actor and session.number in self.sessions:
            self.scheduler.want(session.number, actors.wanted(self, session))
        elif session.number in self.sessions:
            more = 0
            if session.queued and dispatch.may_have(session):
                more = dispatch.worth(session, len(self.executors))
            self.scheduler.want(session.number, session.busy + more)

    def _suits(self, peer: int, number: int) -> bool:
        return dispatch.suits(self.executors[peer], self.sessions[number])

    def _lending(self, number: int, gang: int) -> float:
        return dispatch.lending(self.sessions[number], self.sessions[gang])

    def is_dead(self, peer: int) -> bool:
        """Whether this executor's death was reported: its last messages are still waited for."""
        return peer in self.mourned

    def statistics(self) -> dict[str, int]:
        return {
            "clients": len(self.clients),
            "workers": len(self.workers),
            "executors": len(self.executors),
            "sessions": len(self.sessions),
            "queued": sum(s.queued for s in self.sessions.values()),
            "delayed": sum(len(s.delayed) for s in self.sessions.values()),
            "blocked": sum(len(s.blocked) for s in self.sessions.values()),
            "kept_bytes": sum(client.kept_bytes for client in self.clients.values()),
            "held": sum(s.held for s in self.sessions.values()),
            "functions": len(self._functions),
        }

    def check(self) -> None:
        """Compare every index with every other."""
        checks.check(self, self.mourned)
