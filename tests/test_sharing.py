"""Sessions share real executors as they were told."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

import flamezmq as flm
from flamezmq.capacity import usable_cores

pytestmark = pytest.mark.processes

WAIT_SECONDS = 30.0


def rest(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def eventually(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + WAIT_SECONDS
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def busy(*sessions: flm.Session) -> list[int]:
    return [session.status().running for session in sessions]


def test_weights_of_one_two_and_four_share_seven_executors_as_these() -> None:
    with flm.Client(executors=7) as client:
        sessions = [client.session(f"w{weight}", weight=weight) for weight in (1.0, 2.0, 4.0)]
        for session in sessions:
            for _ in range(2000):
                session.submit(rest, 0.02)

        assert eventually(lambda: busy(*sessions) == [1, 2, 4])
        before = [session.status().succeed for session in sessions]
        assert eventually(lambda: sum(s.status().succeed for s in sessions) - sum(before) >= 700)
        done = [s.status().succeed - b for s, b in zip(sessions, before, strict=True)]
        for session in sessions:
            session.close(cancel=True)

    for part, ideal in zip(done, (1 / 7, 2 / 7, 4 / 7), strict=True):
        assert part / sum(done) == pytest.approx(ideal, rel=0.4), done


def test_a_minimum_is_had_while_another_session_floods() -> None:
    with flm.Client(executors=4) as client:
        flood = client.session("flood", weight=1000.0, priority=9)
        for _ in range(5000):
            flood.submit(rest, 0.01)
        assert eventually(lambda: busy(flood) == [4])

        with client.session("service", min_executors=2) as service:
            pids = {service.submit(rest, 0.01).result(WAIT_SECONDS) for _ in range(20)}
            assert eventually(lambda: busy(flood) == [2])
        flood.close(cancel=True)

    assert len(pids) <= 2


def test_an_executor_that_is_kept_serves_the_next_task_of_its_session() -> None:
    with flm.Client(executors=4) as client, client.session("warm", delay_release=math.inf) as session:
        with client.session("all") as everybody:  # they are there
            assert eventually(lambda: len(set(everybody.map(rest, [0.05] * 4, chunksize=1))) == 4)
        first = session.submit(os.getpid).result(WAIT_SECONDS)
        for _ in range(3):
            with client.session("other") as other:
                assert other.submit(os.getpid).result(WAIT_SECONDS) != first
            assert session.submit(os.getpid).result(WAIT_SECONDS) == first


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"weight": 0}, "weight is 0; it must be a number above 0"),
        ({"weight": math.inf}, "weight is inf"),
        ({"weight": "2"}, "weight is '2'"),
        ({"priority": 1.5}, "priority is 1.5; it must be an integer"),
        ({"priority": 1 << 40}, "priority is 1099511627776"),
        ({"tenant": ""}, "a tenant is a text"),
        ({"tenant": 5}, "a tenant is a text"),
        ({"min_executors": -1}, "min_executors is -1; it must be an integer from 0"),
        ({"min_executors": 3, "max_executors": 2}, "min_executors=3 is more than max_executors=2"),
        ({"delay_release": -1.0}, "delay_release is -1.0; it must be a number of seconds from 0"),
        ({"delay_release": math.nan}, "delay_release is nan"),
        ({"preempt_after": 0}, "preempt_after is 0; it must be a number of seconds above 0"),
        ({"preempt_after": 5, "max_retries": 0}, "preempt_after needs max_retries"),
        ({"resources": "cpu=many"}, "resources are given as"),
    ],
)
def test_what_is_no_share_is_said_at_once(arguments: dict[str, Any], text: str) -> None:
    with flm.Client(executors=1) as client, pytest.raises(ValueError, match=text):
        client.session(**arguments)


def test_a_long_task_is_ended_for_a_session_that_waits_and_runs_again() -> None:
    with flm.Client(executors=1) as client, client.session("long", preempt_after=0.05, max_retries=1) as long:
        future = long.submit(rest, 1.0)
        assert eventually(lambda: busy(long) == [1])

        with client.session("short", min_executors=1) as short:
            assert short.submit(os.getpid).result(WAIT_SECONDS)
            assert not future.done()
        assert future.result(WAIT_SECONDS) > 0


def test_a_session_of_two_cores_an_executor_has_half_of_the_executors() -> None:
    cores = usable_cores()
    with flm.Client(executors=4) as client, client.session(resources=f"cpu={cores / 2}") as session:
        assert len(set(session.map(rest, [0.02] * 40, chunksize=1))) <= 2


def test_a_session_that_fits_nowhere_waits_and_can_be_asked_why() -> None:
    with flm.Client(executors=1) as client:
        assert client.submit(abs, -1).result(WAIT_SECONDS) == 1  # the executor is there
        session = client.session(resources="gpu=99")
        future = session.submit(os.getpid)
        why = session.explain()
        assert "No node has what an executor of the session needs" in why
        assert ": gpu=99 (at most 0)" in why
        session.close(cancel=True)
    assert future.cancelled()


def test_a_task_can_not_ask_for_a_share_of_its_own() -> None:
    def nested() -> str:
        with pytest.raises(ValueError, match="weight is not for nested tasks") as caught:
            flm.current().client.session(weight=2.0)
        return str(caught.value)

    with flm.Client(executors=1) as client:
        assert "they count for the session of their task" in client.submit(nested).result(WAIT_SECONDS)


def test_a_gang_of_three_starts_among_small_sessions_and_has_all_three_at_once() -> None:
    with flm.Client(executors=4) as client:
        small = [client.session(f"small{number}") for number in range(3)]
        for session in small:
            for _ in range(500):
                session.submit(rest, 0.01)
        with client.session("gang", gang=3) as gang:
            futures = [gang.submit(rest, 0.3) for _ in range(3)]
            assert eventually(lambda: gang.status().running == 3)
            assert len({future.result(timeout=WAIT_SECONDS) for future in futures}) == 3
        for session in small:
            session.close(cancel=True)
