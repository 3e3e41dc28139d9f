"""A client's core alone: futures, functions, and what its link would send."""

from __future__ import annotations

from typing import Any

from flamezmq.core import caller
from flamezmq.core.caller import Calls
from flamezmq.core.link import Link
from flamezmq.wire import codec
from flamezmq.wire import messages as m


class Name:
    """A function, as the core wants it."""

    def __init__(self, number: int) -> None:
        self.number, self.blob, self.label, self.options = number, b"%d" % number, "f", None


class Future:
    """`told`: the states that it was told of; with `silent` nobody wants to be told."""

    def __init__(self, silent: bool = True) -> None:
        self._index = -1
        self._state: str = caller.PENDING
        self._form: int = caller.RAW
        self._value: Any = None
        self._more = None if silent else self
        self._hold = None
        self.submitted = 0.0
        self.told: list[str] = []

    @property
    def outcome(self) -> tuple[str, int, Any]:
        return (self._state, self._form, self._value)


def tell(future: Any, state: str) -> None:
    """As Future._end: the first one counts."""
    if future._state not in (caller.FINISHED, caller.CANCELLED):
        future._state = state
        future.told.append(state)


def link_up(epoch: int = 1) -> Link:
    link = Link()
    assert link.begin(epoch, 0)
    return link


def calls_with(payloads: list[Any], functions: list[int] | None = None) -> tuple[Calls, list[Future]]:
    """An outbox of these payloads; every other future wants to be told."""
    calls = Calls(1, "s")
    names = {number: Name(number) for number in (functions or [1])}
    futures = [Future(silent=position % 2 == 0) for position in range(len(payloads))]
    for position, (future, payload) in enumerate(zip(futures, payloads, strict=True)):
        name = names[(functions or [1] * len(payloads))[position]]
        calls.outbox.append((future, name, payload))
    return calls, futures


def submits(link: Link) -> list[m.Submit]:
    """What the link would send, each message's payloads put together."""
    found: list[m.Submit] = []
    for number, (frame, *frames), _ in link._kept:
        message = codec.decode("client", frame)
        assert number == len(found) + 1
        message.inputs = codec.split_payloads(message.inputs, message.parts, frames)
        found.append(message)
    return found


def everything(messages: list[m.Submit]) -> list[tuple[int, int, Any]]:
    """(index, function, payload) of all tasks, as the router reads them; it must know each function."""
    tasks: list[tuple[int, int, Any]] = []
    known: set[int] = set()
    for message in messages:
        known |= {new.number for new in message.functions}
        used = 0
        for part in message.slices:
            assert part.function in known, "a function that was not sent"
            assert part.first == len(tasks), "a gap, or a task twice"
            for payload in message.inputs[used : used + part.count]:
                tasks.append((len(tasks), part.function, payload))
            used += part.count
        assert used == len(message.inputs)
        known -= set(message.forget)
    return tasks


def answer(first: int, outputs: list[bytes], failed: list[int] | None = None, attempt: int = 1) -> m.Results:
    return m.Results(1, [m.Slice(1, first, len(outputs), attempt)], failed or [], [0.1], [], outputs)
