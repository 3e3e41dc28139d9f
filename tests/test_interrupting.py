"""The shim that interrupts a task, by itself: which run is hit, and where it may be."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from flamezmq import page
from flamezmq.errors import TaskCancelled, TaskTimeout
from flamezmq.shims.alarm import alarm
from flamezmq.shims.interrupts import SIGNAL, Interrupts, unbroken

#: The session that the page names.
SESSION = 7


def run_task(call: Callable[[], Any]) -> Any:
    return call()


class Ground:
    """A page, and the interrupts that look at it."""

    def __init__(self) -> None:
        self.words = memoryview(bytearray(page.SIZE)).cast("Q")
        self.interrupts = Interrupts()
        self.interrupts.serve(self.words, lambda: "s/0", run_task)

    def begin(self, index: int) -> tuple[int, int]:
        self.words[page.RUNNING] = index + 1
        return self.words[page.RUNNING], self.words[page.FINISHED]

    def end(self) -> None:
        self.words[page.FINISHED] += 1
        self.words[page.RUNNING] = 0


@pytest.fixture
def ground() -> Iterator[Ground]:
    before = signal.getsignal(SIGNAL)
    yield Ground()
    signal.signal(SIGNAL, before)


def spin(turns: int) -> None:
    for _ in range(turns):
        pass


def test_of_thousands_that_end_about_then_only_those_are_hit_that_are_not_wanted(ground: Ground) -> None:
    """Odd ones are wanted.  What is raised outside `run_task` fails this test."""
    over = threading.Event()
    interrupts, words = ground.interrupts, ground.words

    def attend() -> None:
        while not over.is_set():
            run = words[page.RUNNING], words[page.FINISHED]
            if run[0]:
                interrupts.ring(SESSION, run)

    thread = threading.Thread(target=attend)
    thread.start()
    hit: list[int] = []
    try:
        for index in range(60_000):
            if index >= 6000 and hit:  # the threads take turns when the interpreter lets them
                break
            interrupts.note(SESSION, [index] if index % 2 == 0 else [10**6])
            ground.begin(index)
            try:
                run_task(partial(spin, 200 + index % 7 * 200))
            except TaskCancelled:
                hit.append(index)
                assert interrupts.has_hit()
            else:
                assert not interrupts.has_hit()
            ground.end()
            assert not interrupts.has_hit()
    finally:
        over.set()
        thread.join()
    assert hit
    assert [index for index in hit if index % 2] == []
    assert len(hit) == len(set(hit))


def ring(ground: Ground, index: int = 0) -> bool:
    return ground.interrupts.ring(SESSION, (index + 1, ground.words[page.FINISHED]))


def test_what_is_wanted_or_of_another_session_is_left_alone(ground: Ground) -> None:
    ground.interrupts.note(SESSION, [5])
    ground.begin(4)
    assert not run_task(lambda: ring(ground, 4))
    assert not run_task(lambda: ground.interrupts.ring(SESSION + 1, (6, 0)))


def test_without_indices_whatever_runs_of_the_session_is_hit(ground: Ground) -> None:
    ground.interrupts.note(SESSION, [])
    ground.begin(4)
    with pytest.raises(TaskCancelled):
        run_task(lambda: ring(ground, 4))
    ground.end()
    ground.interrupts.note(SESSION + 1, [99])
    ground.begin(4)
    assert not run_task(lambda: ring(ground, 4)), "that was another session"


def test_a_run_is_hit_once_so_that_it_can_clean_up(ground: Ground) -> None:
    ground.interrupts.note(SESSION, [0])
    ground.begin(0)

    def call() -> bool:
        try:
            ring(ground)
        except TaskCancelled:
            return ring(ground)
        return True

    assert run_task(call) is False


def test_where_it_may_not_be_torn_it_is_rung_for_again(ground: Ground) -> None:
    ground.interrupts.note(SESSION, [0])
    ground.begin(0)

    @unbroken
    def ours() -> bool:
        return ring(ground)

    class Dying:
        def __del__(self) -> None:
            ring(ground)

    def call() -> str:
        assert ours()
        Dying()
        assert not ground.interrupts.has_hit()
        ring(ground)
        return "never"

    assert ring(ground), "not even begun"
    with pytest.raises(TaskCancelled):
        run_task(call)


def test_a_timeout_waits_until_what_must_not_be_torn_has_ended() -> None:
    ended: list[float] = []

    @unbroken
    def ours() -> None:
        time.sleep(0.1)
        ended.append(time.monotonic())

    def call() -> None:
        ours()
        time.sleep(1000)

    begin = time.monotonic()
    with pytest.raises(TaskTimeout):
        alarm.call(0.02, 1, call)
    assert ended
    assert ended[0] >= begin + 0.1


def test_a_signal_that_nobody_has_sent_changes_nothing(ground: Ground) -> None:
    ground.begin(0)
    assert run_task(lambda: signal.raise_signal(SIGNAL)) is None


def test_no_more_is_remembered_than_is_of_use(ground: Ground) -> None:
    ground.begin(3)
    for index in range(5000):
        ground.interrupts.note(SESSION, [index])
    assert len(ground.interrupts._unwanted) < 2000
    with pytest.raises(TaskCancelled):
        run_task(lambda: ring(ground, 3))
