"""Who drives the client's socket, with a line that is not there."""

from __future__ import annotations

from typing import Any

from flamezmq.client.pump import Pump


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
