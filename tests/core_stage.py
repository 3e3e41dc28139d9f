"""A broker alone, and peers that say what a test wants: no socket, and time that only the test moves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from flamezmq.core.broker import Broker
from flamezmq.core.members import Effects, Executor, Limits, Session
from flamezmq.wire import messages as m
from flamezmq.wire.codec import join_payloads, split_payloads
from flamezmq.wire.streams import STREAMED

#: Peers.  Executors are 11, 12, ..., with the numbers 1, 2, ...
CLIENT, OTHER, WORKER = 1, 2, 5
FIRST = 11


def environment(home: str) -> m.Environment:
    return m.Environment("host", f"/home/{home}", ())


class Stage:
    """`said` are the effects of the last turn: (peer, message)."""

    def __init__(self, executors: int = 0, **limits: Any) -> None:
        self.broker = Broker(Limits(**limits))
        self.now = 0.0
        self.said: list[tuple[int, Any]] = []
        self.frames: list[list[Any]] = []
        self.submitted: dict[int, int] = {}
        self.broker.on_client(CLIENT)
        self.broker.on_client(OTHER)
        self.say(WORKER, m.Register("node", "token", 1, 2.0, 1 << 30, executors))
        for number in range(1, executors + 1):
            self.ready(number)

    # --- what peers say; each is a turn of its own

    def say(self, peer: int, message: Any, frames: Iterable[Any] = ()) -> list[tuple[int, Any]]:
        out: Effects = []
        self.broker.on_message(peer, message, list(frames), self.now, out)
        return self.turn(out)

    def turn(self, out: Effects | None = None) -> list[tuple[int, Any]]:
        out = [] if out is None else out
        self.broker.on_turn_end(self.now, out)
        self.broker.check()
        self.said = [(peer, message) for peer, message, _ in out]
        self.frames = [frames for _, _, frames in out]
        return self.said

    def wait(self, seconds: float) -> list[tuple[int, Any]]:
        self.now += seconds
        return self.turn()

    def lose(self, peer: int) -> list[tuple[int, Any]]:
        out: Effects = []
        self.broker.on_peer_lost(peer, self.now, out)
        return self.turn(out)

    def ready(self, number: int, token: str = "token") -> list[tuple[int, Any]]:
        return self.say(FIRST + number - 1, m.Ready("node", token, number, 100 + number))

    def open(self, alias: int = 1, client: int = CLIENT, home: str = "shared", **spec: Any) -> Session:
        """`home` tells environments apart."""
        self.say(
            client, m.Open(alias, f"s{alias}", m.SessionSpec("s", environment=environment(home), **spec))
        )
        return self.broker.clients[client].sessions[alias]

    def submit(
        self,
        count: int = 1,
        function: int = 1,
        alias: int = 1,
        client: int = CLIENT,
        needs: Iterable[int] = (),
        **options: Any,
    ) -> list:
        """`options` are those of the function, if it is new.

        needs: triples (which of the tasks, alias and index of the one that it needs)
        """
        session = self.broker.clients[client].sessions[alias]
        known = function in session.functions
        theirs = m.Options(**options) if options else None
        new = [] if known else [m.NewFunction(function, b"%d" % function, "f", theirs)]
        part = m.Slice(function, session.next_index, count, 1)
        return self.say(client, m.Submit(alias, new, [], [part], [b""] * count, [], list(needs)))

    def finish(
        self, number: int, seconds: float = 1e-5, count: int = 0, outputs: Any = None, failed: Any = ()
    ) -> list[tuple[int, Any]]:
        """Executor `number` ends `count` tasks of what it holds (0: all), each in so many seconds.

        outputs: their payloads; by default there are none, and nobody may need them
        """
        executor = self.executor(number)
        assert executor.session is not None
        slices = []
        left = count or executor.tasks
        for run in executor.held:
            if left:
                here = min(left, len(run))
                slices.append(m.Slice(run.function.number, run.start, here, run.attempt))
                left -= here
        each = [seconds * part.count for part in slices]
        column, parts, frames = join_payloads(outputs or [])
        answer = results(
            executor.session.number, slices, each, failed=list(failed), parts=parts, outputs=raw(column)
        )
        return self.say(executor.peer, answer, frames)

    def teach(self, seconds: float, function: int = 1, alias: int = 1) -> None:
        """Let the run time of a function be known: one task is run."""
        self.submit(1, function, alias)
        number = next(e.number for e in self.broker.executors.values() if e.tasks)
        self.finish(number, seconds)

    def retry(self, number: int, seconds: float = 0.0) -> list[tuple[int, Any]]:
        """Executor `number` sends back the first task that it holds, to be run again in so many seconds."""
        executor = self.executor(number)
        assert executor.session is not None
        run = executor.held[0]
        part = m.Slice(run.function.number, run.start, 1, run.attempt)
        return self.say(executor.peer, m.Retry(executor.session.number, part, seconds))

    def dies(self, number: int, running: int = -1, finished: int = 0, **fields: Any) -> list[tuple[int, Any]]:
        """Its worker reports the death."""
        executor = self.broker.executors.get(FIRST + number - 1)
        session = executor.session.number if executor and executor.session else 0
        died = m.Died(number, 100 + number, "node", session, running, finished, "SIGKILL", 0, False, 0, ())
        return self.say(WORKER, msgspec.structs.replace(died, **fields))

    def streams(self, number: int) -> None:
        """The task that executor `number` runs gives a value, and then waits for its reader."""
        executor = self.executor(number)
        assert executor.session is not None
        session, run = executor.session.number, executor.held[0]
        part = m.RoutedPart(session, run.start, run.attempt, STREAMED, 0, 1, 16, [], raw([b"v"]))
        self.say(executor.peer, part)
        self.say(executor.peer, m.Waiting(session, True, True))

    def reads_on(self, number: int) -> None:
        """Its reader has taken some."""
        executor = self.executor(number)
        assert executor.session is not None
        self.say(executor.peer, m.Waiting(executor.session.number, False, True))

    # --- what is seen

    def executor(self, number: int) -> Executor:
        return self.broker.executors[FIRST + number - 1]

    def held(self) -> list[list[tuple[int, int]]]:
        """(index, attempt) of what each executor holds, in its order."""
        return [self.tasks(executor.held) for executor in self.broker.executors.values()]

    def holds(self) -> list[int]:
        return [executor.tasks for executor in self.broker.executors.values()]

    @staticmethod
    def tasks(runs: Iterable[Any]) -> list[tuple[int, int]]:
        return [(index, run.attempt) for run in runs for index in range(run.start, run.end)]

    def heard(self, peer: int, kind: type) -> list[Any]:
        """What the peer was told of this kind in the last turn."""
        return [message for to, message in self.said if to == peer and type(message) is kind]

    def granted(self) -> list[tuple[int, Any]]:
        """(index, payload) of what executors were given in the last turn."""
        found: list[tuple[int, Any]] = []
        for (_, message), frames in zip(self.said, self.frames, strict=True):
            if type(message) is m.Grant:
                payloads = iter(split_payloads(message.inputs, message.parts, frames))
                for part in message.slices:
                    found += [(index, next(payloads)) for index in range(part.first, part.first + part.count)]
        return found

    def state(self) -> str:
        """Everything that the broker knows, to see that nothing has changed."""
        broker = self.broker
        sessions = [
            (s.number, self.tasks(s.queue), s.next_index, sorted(s.functions), s.closed, s.succeed, s.failed)
            for s in broker.sessions.values()
        ]
        executors = [
            (e.peer, e.tasks, e.finished, self.tasks(e.held), len(e.asked), e.session and e.session.number)
            for e in broker.executors.values()
        ]
        rest = list(broker.clients), list(broker.workers), broker.scheduler.statistics()
        return repr((sessions, executors, rest))


def results(session: int, slices: list[m.Slice], seconds: list[float], **fields: Any) -> m.RoutedResults:
    """What an executor answers; the router does not look at the outputs."""
    message = m.RoutedResults(session, slices, [], seconds, [], raw([]))
    return msgspec.structs.replace(message, **fields)


def raw(column: list[bytes]) -> msgspec.Raw:
    return msgspec.Raw(msgspec.msgpack.encode(column))
