"""No executor idles while another one holds what it could run: the broker alone, no sockets."""

from __future__ import annotations

from typing import Any

import msgspec

from flamezmq.core.broker import Broker
from flamezmq.core.members import Effects
from flamezmq.wire import messages as m

CLIENT, EXECUTORS = 1, (11, 12)
QUICK, OTHER = 1, 2


class Stage:
    """A broker, a client with one session, two executors; `running`: what they hold."""

    def __init__(self) -> None:
        self.broker = Broker()
        self.now = 0.0
        self.next_index = 0
        self.running: dict[int, list[int]] = {peer: [] for peer in EXECUTORS}
        self.asked: list[tuple[int, int]] = []  # who has got a Retract, and its `keep`
        self.number = 0
        self.broker.on_client(CLIENT)
        self.say(CLIENT, m.Open(1, "s", m.SessionSpec("s")))
        for number, peer in enumerate(EXECUTORS):
            self.say(peer, m.Ready("node", "token", number, 100 + number))

    def say(self, peer: int, message: Any) -> None:
        out: Effects = []
        self.broker.on_message(peer, message, [], self.now, out)
        self.turn(out)

    def turn(self, out: Effects) -> None:
        self.broker.on_turn_end(self.now, out)
        self.broker.check()
        for peer, message, _ in out:
            if isinstance(message, m.Grant):
                self.number = message.session
                for part in message.slices:
                    self.running[peer] += range(part.first, part.first + part.count)
            elif isinstance(message, m.Retract):
                self.asked.append((peer, message.keep))

    def submit(self, function: int, count: int = 1) -> None:
        new = [m.NewFunction(function, b"%d" % function, "f")]
        part = m.Slice(function, self.next_index, count, 1)
        self.next_index += count
        self.say(CLIENT, m.Submit(1, new, [], [part], [b""] * count, []))

    def finish(self, peer: int, seconds_each: float) -> None:
        """All that this executor holds."""
        indices, self.running[peer] = self.running[peer], []
        for index in indices:
            part = m.Slice(0, index, 1, 1)
            output = msgspec.Raw(b"\x91\xc4\x00")
            self.say(peer, m.RoutedResults(self.number, [part], [], [seconds_each], [], output))

    def give_back(self, peer: int, keep: int) -> None:
        held = self.running[peer]
        self.running[peer] = held[:keep]
        self.say(peer, m.Retracted(self.number, [m.Slice(0, index, 1, 1) for index in held[keep:]]))

    def learn_that_tasks_are_quick(self) -> None:
        self.submit(QUICK)
        for peer in EXECUTORS:
            self.finish(peer, 1e-6)


def test_an_unknown_function_goes_to_both_executors_though_the_session_was_quick_before() -> None:
    stage = Stage()
    stage.learn_that_tasks_are_quick()

    stage.submit(OTHER)
    stage.submit(OTHER)

    assert [len(held) for held in stage.running.values()] == [1, 1]


def test_what_is_submitted_at_once_is_divided_among_those_that_are_free() -> None:
    stage = Stage()
    stage.learn_that_tasks_are_quick()

    stage.submit(OTHER, 2)

    assert [len(held) for held in stage.running.values()] == [1, 1]


def test_what_a_stalled_executor_gave_back_goes_to_the_idle_one_and_not_to_it_again() -> None:
    stage = Stage()
    stage.learn_that_tasks_are_quick()
    stage.submit(QUICK)
    stage.submit(QUICK)
    holder = max(EXECUTORS, key=lambda peer: len(stage.running[peer]))
    assert len(stage.running[holder]) == 2, "a quick task follows a quick one on the same executor"

    stage.now += 1.0
    stage.turn([])
    assert stage.asked == [(holder, 1)]
    stage.give_back(holder, keep=1)

    assert [len(held) for held in stage.running.values()] == [1, 1]
