"""Who drives the client's socket, with a line that is not there."""

from __future__ import annotations

import threading
from typing import Any

from flamezmq.client.pump import STUCK_MILLISECONDS, Pump
from tests.stateful import WAIT_SECONDS
from tests.waiting import until


class Late:
    """A lock that another thread holds, and lets go when it has taken in the last message."""

    def __init__(self, came: list[str]) -> None:
        self.came = came

    def __enter__(self) -> None:
        self.came.append("the last message")

    def __exit__(self, *_: object) -> None:
        pass


class Line:
    lost = None

    def __init__(self) -> None:
        self.came: list[str] = []
        self.lock = Late(self.came)

    def turn(self, timeout_ms: int) -> list[int]:
        raise AssertionError(f"it waits {timeout_ms} ms for what has come already")


def test_a_thread_that_waited_for_the_line_looks_first_whether_its_result_came_meanwhile() -> None:
    line: Any = Line()
    pump = Pump(line, flush=lambda: None, unsent=lambda: False, fail=lambda error: None)

    assert pump.drive(lambda: bool(line.came), None)


class Waking:
    """A line on which nothing comes: how long its turns were to wait."""

    lost = None

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.waits: list[int] = []
        self.woken = threading.Event()

    def turn(self, timeout_ms: int) -> list[int]:
        self.waits.append(timeout_ms)
        self.woken.wait(None if timeout_ms < 0 else timeout_ms / 1000)
        self.woken.clear()
        return []

    def wake(self) -> None:
        self.woken.set()


def test_what_one_thread_submits_is_sent_while_another_one_waits_for_long() -> None:
    line: Any = Waking()
    outbox: list[str] = []
    ended = threading.Event()
    pump = Pump(line, flush=outbox.clear, unsent=lambda: bool(outbox), fail=lambda error: None)
    pump.start()
    waiter = threading.Thread(target=pump.drive, args=(ended.is_set, None))
    waiter.start()
    try:
        until(lambda: pump._driver == waiter.ident and -1 in line.waits)
        outbox.append("a task")
        pump.arm()
        until(lambda: not outbox)
    finally:
        ended.set()
        line.wake()
        waiter.join(WAIT_SECONDS)
        pump.stop(WAIT_SECONDS)


def test_what_can_not_go_is_looked_at_now_and_then_and_not_all_the_time() -> None:
    line: Any = Waking()
    pump = Pump(line, flush=lambda: None, unsent=lambda: True, fail=lambda error: None)
    pump.arm()
    pump.start()
    until(lambda: len(line.waits) >= 4)
    pump.stop(WAIT_SECONDS)
    assert line.waits[0] == 0, "what lingers is sent"
    assert set(line.waits[1:]) == {STUCK_MILLISECONDS}
