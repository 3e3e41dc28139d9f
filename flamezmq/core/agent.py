"""The worker's mind: how many executors, which are alive, what is said about those that died.

Time comes in as `now`, effects go out for the host to carry out in their order.
Every number that was ever asked to be forked gets exactly one `Died`, and no
number is used twice.

Replacements are made at once, unless executors die young time after time: then
the next ones wait, longer and longer.  The same holds for the zygote.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from flamezmq.core.backoff import YOUNG_SECONDS, Backoff
from flamezmq.core.chatter import Chatter
from flamezmq.wire import messages as m

#: Forks that the zygote has been asked for and has not answered; more would fill its socket.
FORKS_AT_A_TIME = 16
#: What executors get to end in by themselves when the worker is stopped.
GRACE_SECONDS = 0.5


class Fork(msgspec.Struct, frozen=True, gc=False):
    """Ask the zygote for executor `number`."""

    number: int


class Kill(msgspec.Struct, frozen=True, gc=False):
    """SIGKILL for executor `number`."""

    number: int


class StartZygote(msgspec.Struct, frozen=True, gc=False):
    """Start a fresh one; `Fork`s may follow at once."""


class StopZygote(msgspec.Struct, frozen=True, gc=False):
    """Let it end its executors, within `grace` seconds, and then itself."""

    grace: float


class Send(msgspec.Struct, frozen=True):
    """A message for the router."""

    message: m.Register | m.Died | m.Printed | m.Flushed | m.Leave


Effect: TypeAlias = Fork | Kill | StartZygote | StopZygote | Send
Effects: TypeAlias = list[Effect]


class End(msgspec.Struct, frozen=True, gc=False):
    """How a process ended.  `signal` is a name, "" if it exited by itself with `exit_code`."""

    signal: str = ""
    exit_code: int = 0
    oom: bool = False
    rss_bytes: int = 0


class Words(msgspec.Struct, frozen=True, gc=False):
    """What a dead executor's page says.

    `running` is -1 if no task ran; `binding`: a service was being bound for it; `overdue`: that task, or
    the bind, had a timeout, and its time was over.
    """

    session: int = 0
    running: int = -1
    finished: int = 0
    overdue: bool = False
    binding: bool = False


class Executor(msgspec.Struct, eq=False):
    """`pid` is 0 until the zygote has forked it; `expected`: it was told to go, `overdue`: for its task."""

    number: int
    asked: float
    pid: int = 0
    expected: bool = False
    overdue: bool = False
    chatter: Chatter = msgspec.field(default_factory=Chatter)


class Agent:
    """A node's executors, as its worker sees them."""

    def __init__(self, register: m.Register) -> None:
        self.register = register
        self.desired = register.executors
        self.executors: dict[int, Executor] = {}
        self.stopping = False
        self.draining = False
        self.zygote_up = False
        self._zygote_since = 0.0
        self._backoff = Backoff()  # of executors
        self._zygote_backoff = Backoff()
        self._forking: dict[int, Executor] = {}  # asked for, without a pid yet
        self._talking: dict[int, Executor] = {}  # what they said waits for company
        self._last_number = 0
        self._last_words = ""  # of the last one that died young
        self._died = 0
        self._zygotes = 0

    # --- what the host calls

    def on_start(self, now: float) -> Effects:
        """The host has a zygote and is about to dial the router."""
        self._zygote_is_up(now)
        return [*self._fill(now), Send(self.register)]

    def on_forked(self, number: int, pid: int, now: float) -> Effects:
        executor = self._forking.pop(number, None)
        if executor is None:
            return []
        executor.pid = pid
        effects: Effects = [Kill(number)] if executor.expected else []
        return effects + self._fill(now)

    def on_exited(self, number: int, end: End, words: Words, now: float) -> Effects:
        """An executor is dead, all that it printed has been passed on; report it, replace it."""
        executor = self.executors.get(number)
        if executor is None:
            return []  # its zygote and its pidfd may both tell
        quick = now - executor.asked < YOUNG_SECONDS and not words.finished and words.running < 0
        if not (executor.expected or _left_in_order(end, words)):
            self._backoff.died(quick, executor.asked, now)
            self._last_words = " | ".join(executor.chatter.last_words()[-1:]) if quick else ""
        return [*self._bury(executor, end, words, now), *self._fill(now)]

    def on_zygote_lost(self, now: float) -> Effects:
        """The zygote is dead, and its executors die with it: each end is told by `on_exited`.

        Those that were asked for and not reported have no one else to tell of them.
        """
        if not self.zygote_up:
            return []
        self.zygote_up = False
        effects: Effects = []
        for executor in list(self._forking.values()):
            effects += self._bury(executor, End(signal="SIGKILL"), Words(), now)
        self._zygote_backoff.died(now - self._zygote_since < YOUNG_SECONDS, self._zygote_since, now)
        return effects + self.on_time(now)

    def on_output(
        self, number: int, stream: int, data: bytes, now: float, running: tuple[int, int] = (0, -1)
    ) -> Effects:
        """Executor `number` printed `data` on `stream` (1 or 2).

        running: the task that it runs now (router's session number, index; -1 if none)
        """
        executor = self.executors.get(number)
        if executor is None:
            return []
        executor.chatter.hear(stream, data, now, running)
        self._talking[number] = executor
        return self._pass_on([executor], now)

    def on_flush(self, request: int, now: float) -> Effects:
        """All that was printed until now goes out, unfinished lines too; the host has just read the pipes."""
        effects: Effects = []
        for executor in self._talking.values():
            effects += map(Send, executor.chatter.say(executor.number, now, last=True))
        self._talking.clear()
        return [*effects, Send(m.Flushed(request))]

    def on_kill_order(self, number: int, now: float, overdue: bool = False) -> Effects:
        """The router wants an executor dead; what is gone already stays so.

        overdue: because its task has not kept to its timeout, as the page says just now
        """
        executor = self.executors.get(number)
        if executor is None:
            return []
        executor.expected, executor.overdue = True, overdue
        return [Kill(number)] if executor.pid else []  # else when it is there

    def on_target(self, executors: int, now: float) -> Effects:
        """The router wants so many executors; it tells those to exit that are too many."""
        self.desired = executors
        return self._fill(now)

    def on_drain(self, now: float) -> Effects:
        """No more executors; the router lets those that are there end what they run, and exit."""
        if self.draining or self.stopping:
            return []
        self.draining = True
        return [Send(m.Leave())]

    def on_stop(self, now: float) -> Effects:
        """End everything; the host goes on until `ended`, or until it loses patience."""
        if self.stopping:
            return []
        self.stopping = True
        for executor in self.executors.values():
            executor.expected = True
        return [StopZygote(GRACE_SECONDS)] if self.zygote_up else []

    def on_time(self, now: float) -> Effects:
        """What is due: a zygote, executors, what they printed."""
        effects: Effects = []
        if not self.zygote_up and self._goes_on and now >= self._zygote_backoff.until:
            self._zygote_is_up(now)
            effects.append(StartZygote())
        return effects + self._fill(now) + self._pass_on(list(self._talking.values()), now)

    def next_deadline(self) -> float | None:
        """When `on_time` must be called even if nothing happens."""
        due = [executor.chatter.due() for executor in self._talking.values()]
        if self._goes_on:
            if not self.zygote_up:
                due.append(self._zygote_backoff.until)
            elif len(self.executors) < self.desired and len(self._forking) < FORKS_AT_A_TIME:
                due.append(self._backoff.until)
        return min(due, default=None)

    @property
    def _goes_on(self) -> bool:
        return not self.stopping and not self.draining

    @property
    def ended(self) -> bool:
        """It was stopped, and no executor is left."""
        return self.stopping and not self.executors

    def hopeless(self, now: float) -> str:
        """Why no executor of this node will ever live, as far as one can tell; "" while one does, or may."""
        if not self._backoff.hopeless or any(now - e.asked >= YOUNG_SECONDS for e in self.executors.values()):
            return ""
        words = f", the last one with the words: {self._last_words}" if self._last_words else ""
        return f"{self._backoff.young} times in a row an executor died as it started{words}"

    # --- parts

    def _zygote_is_up(self, now: float) -> None:
        self.zygote_up = True
        self._zygote_since = now
        self._zygotes += 1

    def _fill(self, now: float) -> Effects:
        effects: Effects = []
        if self.zygote_up and self._goes_on and now >= self._backoff.until:
            while len(self.executors) < self.desired and len(self._forking) < FORKS_AT_A_TIME:
                self._last_number += 1
                executor = Executor(self._last_number, now)
                self.executors[executor.number] = self._forking[executor.number] = executor
                effects.append(Fork(executor.number))
        return effects

    def _bury(self, executor: Executor, end: End, words: Words, now: float) -> Effects:
        del self.executors[executor.number]
        self._forking.pop(executor.number, None)
        self._talking.pop(executor.number, None)
        self._died += 1
        died = m.Died(
            executor.number,
            executor.pid,
            self.register.node,
            words.session,
            words.running,
            words.finished,
            end.signal,
            end.exit_code,
            end.oom and not executor.expected,
            end.rss_bytes,
            executor.chatter.last_words(),
            executor.expected or _left_in_order(end, words),
            (executor.overdue or words.binding) and words.overdue,  # else it had come to another task by then
            words.binding,
        )
        printed = executor.chatter.say(executor.number, now, last=True)
        return [*map(Send, printed), Send(died)]

    def _pass_on(self, executors: Iterable[Executor], now: float) -> Effects:
        effects: Effects = []
        for executor in executors:
            effects += map(Send, executor.chatter.say(executor.number, now))
            if not executor.chatter.waiting():
                self._talking.pop(executor.number, None)
        return effects

    def statistics(self) -> dict[str, int]:
        return {
            "desired": self.desired,
            "executors": len(self.executors),
            "forking": len(self._forking),
            "died": self._died,
            "zygotes": self._zygotes,
            "young_deaths": self._backoff.young,
            "dropped_bytes": sum(e.chatter.dropped_bytes for e in self.executors.values()),
        }

    def check(self) -> None:
        """Compare every index with every other."""
        assert len(self._forking) <= FORKS_AT_A_TIME
        for number, executor in self.executors.items():
            assert executor.number == number <= self._last_number
            assert (number in self._forking) == (executor.pid == 0)
            assert (number in self._talking) == executor.chatter.waiting()
        assert self._forking.keys() <= self.executors.keys()
        assert self._talking.keys() <= self.executors.keys()
        assert self.zygote_up or not self._forking, "nobody is there to fork them"
        assert self._died + len(self.executors) == self._last_number, "each number dies once"


def _left_in_order(end: End, words: Words) -> bool:
    """It left by itself, and not from within a task: the router had told it to."""
    return not end.signal and not end.exit_code and words.running < 0
