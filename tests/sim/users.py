"""Simulated clients: the real core of the client (`core.caller`), driven by chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from flamezmq.core import caller
from flamezmq.core.allowance import MOST_ASKED, Allowance
from flamezmq.core.caller import Calls
from flamezmq.core.link import ACK_AFTER_BYTES
from flamezmq.wire import joining as j
from flamezmq.wire import messages as m
from flamezmq.wire.codec import join_payloads
from tests.sim.ends import Dialler, Router
from tests.sim.network import Connection
from tests.sim.nodes import answer
from tests.sim.objects import Objects
from tests.sim.payloads import head, is_stream
from tests.sim.streaming import Reader

#: What run times a function has; see nodes.run_seconds.
KINDS = ("tiny", "short", "long", "liar")


#: The id of the session that users join.
COMMON = "common"


@dataclass(slots=True, eq=False)
class Name:
    """A function, as the client's core wants it."""

    number: int
    blob: bytes
    label: str
    options: m.Options | None = None


class Future:
    def __init__(self, name: Name, payload: Any, needs: list[Future]) -> None:
        self._index = -1
        self._state: str = caller.PENDING
        self._form = caller.RAW
        self._value: Any = None
        self._more = self  # somebody wants to be told
        self._hold = None
        self.name, self.payload, self.needs = name, payload, needs
        self.cancel_asked = self.interrupt_asked = False
        self.submitted = self.ended = 0.0
        self.ends = 0
        self.reader: Reader | None = None  # of a stream
        self.expected = b""

    @property
    def has_failed(self) -> bool:
        if self._state not in caller.DONE:
            return False
        return self._state == caller.CANCELLED or self._form not in (caller.RAW, caller.VALUE)


class SimSession:
    """One session; `left` tasks are still to be submitted."""

    def __init__(
        self, user: SimUser, alias: int, max_retries: int, tasks: int, kinds: tuple[str, ...]
    ) -> None:
        self.user, self.max_retries, self.left, self.kinds = user, max_retries, tasks, kinds
        self.id = f"{user.name}.{alias}"
        self.known_as = self.id  # at the router
        self.shared = self.detached = False  # with other users, by an id; it goes on without them
        self.base = 0  # index of its first task
        self.unconfirmed = 0
        self.calls = Calls(alias, self.id, user.needed)
        self.futures: list[Future] = []
        self.announced: dict[int, str] = {}  # index -> how the router said that it ended
        self.refused: dict[int, None] = {}
        self.visited: dict[int, None] = {}  # indices that a visitor wanted to have cancelled
        self.closing = False
        self.restarts = -1  # of an actor
        self.drained = False  # a visitor has it closed when what was submitted has ended
        self.poison = self.needy = self.streams = self.data = 0.0
        self.objects: Objects | None = None
        self.buffers = False

    @property
    def actor(self) -> bool:
        return self.restarts >= 0

    @property
    def done(self) -> bool:
        return not self.left and not self.calls.unfinished

    def submit(self, count: int) -> None:
        random = self.user.world.random
        for _ in range(min(count, self.left)):
            kind = random.choice(self.kinds)
            name = self.user.function(kind, plain=self.actor)
            text = f"{self.id}.{len(self.futures)}#{kind}"
            chance = random.random()
            if chance < self.poison:
                text += "#poison"
            elif chance < 0.1:
                text += "#raises"
            elif chance < 0.3 and name.options is not None:
                text += random.choice(("#flaky", "#flaky", "#hangs"))
            elif chance > 1.0 - self.streams:
                text += f"#stream:{random.randrange(0, 20)}:{random.randrange(2)}"
            payload: Any = text.encode()
            if self.buffers and random.random() < 0.3:
                payload = [payload, *(b"x" * random.randrange(1, 50) for _ in range(random.randrange(1, 3)))]
            needs = self.user.some_futures(self) if random.random() < self.needy else []
            future = Future(name, payload, [need for _, need in needs])
            future.submitted = self.user.world.now
            self.futures.append(future)
            self.left -= 1
            if is_stream(payload):
                future.reader = Reader(self, future)
            dead = next((need for need in future.needs if need.has_failed), None)
            if dead is not None:  # as Session.submit does
                future._form, future._value = caller.UNMET, dead
                self.tell(future, caller.FINISHED)
                continue
            takes = self._takes()
            record = caller.Dependent(payload, needs, takes) if needs or takes else payload
            self.calls.outbox.append((future, name, record))

    def _takes(self) -> list[Any]:
        """The objects of a new task."""
        if self.objects is None or self.user.world.random.random() >= self.data:
            return []
        return self.objects.take(self)

    def tell(self, future: Future, state: str) -> None:
        assert future._state not in (caller.FINISHED, caller.CANCELLED), "a task ended twice"
        future._state = state
        future.ends += 1
        future.ended = self.user.world.now

    def announce(self, index: int, how: str) -> None:
        assert index not in self.announced, f"{self.id} {index}: {self.announced[index]}, then {how}"
        self.announced[index] = how


class SimUser:
    """A client process with its sessions.  It may sleep: then it takes nothing from its line."""

    def __init__(self, router: Router, name: str) -> None:
        self.router, self.world, self.name = router, router.world, name
        self.sessions: dict[int, SimSession] = {}
        self.needed: WeakValueDictionary[tuple[int, int], Future] = WeakValueDictionary()
        self.home = name
        self.with_options = False
        self.gone = False
        self.asleep = False
        self._names: dict[str, Name] = {}
        self._last_number = 0
        self._last_alias = 0
        self._kept: list[tuple[Connection, list[Any]]] = []
        # As in life, it acknowledges long before what it leaves unacknowledged holds it back.
        ack_after = min(ACK_AFTER_BYTES, router.backlog_bytes // 4)
        self.dialler = Dialler(
            self.world, router.network, "client", self._on_message, self._on_lost, ack_after
        )
        self._on_wire = self.dialler.on_wire
        self.dialler.on_wire = self._on_wire_unless_asleep  # type: ignore[method-assign]

    def function(self, kind: str, plain: bool = False) -> Name:
        """Sometimes a new one of that kind: the user has edited it.  plain: one without options"""
        key = kind + " plain" * plain
        name = self._names.get(key)
        if name is None or self.world.random.random() < 0.01:
            self._last_number += 1
            if name is not None:
                for session in self.sessions.values():
                    if not any(record[1] is name for record in session.calls.outbox) and name.number in (
                        session.calls.shipped
                    ):
                        session.calls.forget.append(name.number)
            number = self._last_number
            name = self._names[key] = Name(number, f"{self.name}:{number}".encode(), kind)
            if self.with_options and not plain and self.world.random.random() < 0.7:
                options = name.options = self._draw_options()
                name.blob += f":{options.retries}:{options.backoff}:{options.timeout}".encode()
        return name

    def _draw_options(self) -> m.Options:
        random = self.world.random
        return m.Options(
            retries=random.choice((0, 1, 3)),
            backoff=random.choice((0.0, 0.001, 0.2)),
            timeout=random.choice((0.0, 0.5)),
            priority=random.choice((0, 0, 1, -1)),
            retry_timeouts=random.random() < 0.5,
            deadline=random.choice((0.0, 0.0, 0.02, 0.3)),
        )

    def some_futures(self, mine: SimSession) -> list[tuple[Calls, Future]]:
        """Such as a task may need: mostly young ones, mostly of its own session."""
        random = self.world.random
        found: dict[Future, Calls] = {}
        for _ in range(random.choice((1, 1, 2, 5))):
            session = mine if random.random() < 0.8 else random.choice(list(self.sessions.values()))
            if session is not mine and (session.shared or mine.shared):
                continue  # as Session._refuses
            if session.futures:
                back = min(int(random.expovariate(0.3)) + 1, len(session.futures))
                found[session.futures[-back]] = session.calls
        return [(calls, future) for future, calls in found.items()]

    # --- what it does

    def open(
        self, max_retries: int, tasks: int, kinds: tuple[str, ...], weight: float = 1.0, **limits: Any
    ) -> SimSession:
        self._last_alias += 1
        session = SimSession(self, self._last_alias, max_retries, tasks, kinds)
        session.restarts = limits.get("restarts", -1)
        self.sessions[self._last_alias] = session
        environment = m.Environment("host", f"/home/{self.home}", ())
        spec = m.SessionSpec(
            session.id, weight=weight, max_retries=max_retries, environment=environment, **limits
        )
        self.dialler.send(m.Open(self._last_alias, session.id, spec))
        return session

    def join(self, tasks: int, kinds: tuple[str, ...], detached: bool) -> SimSession:
        """Open the session that all users share, or join it: nothing is sent before it is a member."""
        self._last_alias += 1
        session = SimSession(self, self._last_alias, 3, tasks, kinds)
        session.known_as, session.shared, session.detached = COMMON, True, detached
        self.sessions[self._last_alias] = session
        spec = m.SessionSpec(COMMON, environment=m.Environment(self.home), detached=detached)
        self.dialler.send(m.Open(self._last_alias, COMMON, spec, self.name))
        return session

    def _on_joined(self, session: SimSession, answer: j.Joined) -> None:
        assert answer.outcome in (j.JOINED, j.CLOSED, j.REFUSED), answer
        if answer.outcome == j.JOINED:
            session.base = session.calls.committed = answer.member * j.STRIDE
            session.calls.opened = True
        else:  # it was closed, or is about to be
            session.left, session.closing, session.calls.closed = 0, True, True
            session.calls.cancel_all(session.tell)

    def _count_end(self, session: SimSession) -> None:
        """A message has come that a detached session keeps."""
        if session.detached:
            session.unconfirmed += 1
            if session.unconfirmed >= 3:
                self.dialler.send(j.Fetched(session.calls.alias, session.unconfirmed))
                session.unconfirmed = 0

    def register(self, application: m.Application) -> str:
        """Make it known, as everybody does who uses it; returns its name."""
        self.dialler.send(m.RegisterApplication(1, application, self.name))
        return application.name

    def push(self) -> None:
        """As Client._stage: move outboxes into the link, as far as the credit goes."""
        if self.gone:
            return
        most = self.dialler.limits[0]
        moved = True
        while moved:
            moved = False
            for session in self.sessions.values():
                calls = session.calls
                if calls.broken is not None:
                    calls.fail_all(calls.broken, session.tell)
                while calls.outbox and not session.closing and (calls.opened or not session.shared):
                    room = most - sum(len(other.calls.pending) for other in self.sessions.values())
                    if calls.allowance is not None:
                        room = min(room, calls.allowance.room(calls.committed, calls.outbox))
                    if room <= 0 or not calls.stage(self.dialler.link, room, session.tell, self.world.now):
                        break
                    moved = True
                if not session.closing:
                    self._ask_for_room(calls)
        for session in self.sessions.values():
            calls = session.calls
            if calls.draining and not (calls.outbox or calls.said_drained or session.closing):
                calls.said_drained = True
                self.dialler.enqueue(m.Close(calls.alias, True))
        self.dialler.flush()

    def _ask_for_room(self, calls: Calls) -> None:
        """As client/quota.py."""
        allowance, records = calls.allowance, calls.outbox[:MOST_ASKED]
        if allowance is None:
            return
        if not records or calls.is_obstructed:
            if (message := allowance.give_back(calls.alias, calls.committed)) is not None:
                self.dialler.enqueue(message)
        elif not allowance.asked and not allowance.room(calls.committed, records):
            self.dialler.enqueue(allowance.want(calls.alias, calls.committed, records, True))

    def cancel(self, session: SimSession, futures: list[Future], running: bool) -> None:
        wanted = []
        for future in futures:
            future.cancel_asked = True
            future.interrupt_asked = future.interrupt_asked or running
            if session.calls.take_from_outbox(future):
                session.tell(future, caller.CANCELLED)
            elif future._index >= 0:
                wanted.append(future._index)
        if wanted:
            self.dialler.send(m.Cancel(session.calls.alias, wanted, running))

    def close(self, session: SimSession) -> None:
        """As Session.close: what has not ended is cancelled here, whatever the router says later."""
        if not session.closing and not self.gone:
            session.closing = True
            session.left = 0
            session.calls.cancel_all(session.tell)
            leaves = session.shared and self.world.random.random() < 0.9
            bye = j.LeaveSession(session.calls.alias) if leaves else m.Close(session.calls.alias)
            self.dialler.send(bye)

    def leave(self, bye: bool) -> None:
        if not self.gone:
            self.world.trace(self.name, "leaves", "with a BYE" if bye else "silently")
            self.gone = True
            self.dialler.close(bye)
            for session in self.sessions.values():
                session.left = 0
                session.closing = True
                session.calls.cancel_all(session.tell)

    def _on_lost(self, reason: str) -> None:
        self.world.trace(self.name, "lost the router:", reason)
        assert not reason.startswith("another"), reason
        self.gone = True
        for session in self.sessions.values():
            session.left = 0
            session.closing = True
            session.calls.fail_all(RuntimeError(reason), session.tell)

    def sleep(self, seconds: float) -> None:
        self.asleep = True
        self.world.after(seconds, self._awake)

    def _awake(self) -> None:
        self.asleep = False
        kept, self._kept = self._kept, []
        for connection, frames in kept:
            self._on_wire(connection, frames)
        self.dialler.say_ack()

    def _on_wire_unless_asleep(self, connection: Connection, frames: list[Any]) -> None:
        if self.asleep:
            self._kept.append((connection, frames))
        else:
            self._on_wire(connection, frames)

    # --- what it hears

    def _on_wanted(self, message: m.Wanted) -> None:
        for index in message.indices:
            need = self.needed.get((message.session, index))
            if need is None or need._state not in caller.DONE:
                continue
            if need.has_failed:
                self.dialler.send(m.Supply(message.session, index, True, [], []))
            else:
                column, parts, frames = join_payloads([need._value])
                self.dialler.send(m.Supply(message.session, index, False, column, parts), frames)

    def _on_unmet(self, message: m.Unmet) -> None:
        tasks = message.tasks
        for alias, index, *needed in zip(*(tasks[i::4] for i in range(4)), strict=True):
            session = self.sessions[alias]
            session.announce(index, "unmet")
            self._count_end(session)
            session.calls.on_unmet(index, tuple(needed), session.tell)
        self.push()

    def _on_message(self, message: Any, frames: list[Any]) -> None:
        if type(message) is m.Wanted:
            self._on_wanted(message)
            return
        if type(message) is m.Unmet:
            self._on_unmet(message)
            return
        if type(message) is m.Done:
            assert message.outcome == 0, message.text
            return
        session = self.sessions.get(message.session)
        assert session is not None, message
        calls = session.calls
        kind = type(message)
        if kind is j.Joined:
            self._on_joined(session, message)
        elif kind is m.Results:
            self._count_end(session)
            assert not calls.closed, "results after Closed"
            assert sum(part.count for part in message.slices) == len(message.outputs)
            for part in message.slices:
                if part.attempt:
                    for index in range(part.first, part.first + part.count):
                        session.announce(index, "ended")
            calls.on_results(message, frames, session.tell)
        elif kind is m.Part:
            future = calls.pending.get(message.index)
            if future is not None:
                assert future.reader is not None, "values of a task that does not stream"
                future.reader.on_part(message, frames)
        elif kind is m.Cancelled:
            if message.indices:
                self._count_end(session)
            for index in message.indices:
                session.announce(index, "cancelled")
            session.refused.update(dict.fromkeys(message.refused))
            calls.on_cancelled(message, session.tell)
        elif kind is m.Lost:
            self._count_end(session)
            session.announce(message.index, f"lost after {message.attempts}")
            calls.on_lost(message, session.tell)
        elif kind is m.Expired:
            self._count_end(session)
            for index in message.indices:
                session.announce(index, "too late")
            calls.on_expired(message, session.tell)
        elif kind is m.Room:
            calls.allowance = calls.allowance or Allowance()
            calls.allowance.on_room(message, calls.committed, calls.outbox)
        elif kind is m.Opened:
            calls.opened, calls.error = not message.error, message.error
        elif kind is m.Broken:
            calls.broken, calls.closed = RuntimeError(message.text), True
            calls.fail_all(calls.broken, session.tell)
        elif kind is m.ClosedBy:
            session.left = 0
            session.drained = session.drained or message.draining
            session.closing = session.closing or not message.draining
            calls.on_closed_by(message, session.tell)
        elif kind is m.Closed:
            assert session.closing or not calls.unfinished, "closed before it was drained"
            calls.closed = True
        elif kind is m.Begun:
            future = calls.pending.get(message.index)
            if future is not None and future._state is caller.PENDING:
                future._state = caller.RUNNING
        calls.check()
        self.push()


def expected_value(future: Future) -> bytes:
    if not future.expected:
        values = [expected_value(need) for need in future.needs]
        future.expected = answer(future.name.blob, head(future.payload), values)
    return future.expected
