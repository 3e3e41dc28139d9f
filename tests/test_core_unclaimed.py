"""Results that lie in a store and reach nobody: the store is told, and of no others."""

from __future__ import annotations

from typing import Any

import pytest

from flamezmq.wire import messages as m
from flamezmq.wire.handles import Handle, pack
from tests.core_stage import CLIENT, FIRST, OTHER, WORKER, Stage, raw, results


@pytest.fixture
def stage() -> Stage:
    """One executor, whose node has a store."""
    stage = Stage()
    stage.say(WORKER, m.Register("node", "token", 1, 2.0, 1 << 30, 1, store="its-store"))
    stage.ready(1)
    stage.open()
    return stage


def id_of(number: int) -> bytes:
    return bytes(8) + number.to_bytes(8, "big")


def handle(number: int) -> bytes:
    return pack(Handle(id_of(number), "its-store", (100_000,)))


def answer(stage: Stage, number: int, index: int, attempt: int = 1, session: int = 1) -> list[Any]:
    """The executor has put the result of the task as this object."""
    column = raw([handle(number)])
    part = m.Slice(1, index, 1, attempt)
    said = results(session, [part], [0.001], outputs=column, stored=[0, 100_000], last=id_of(number))
    return stage.say(FIRST, said)


def test_what_a_dead_executor_had_put_and_not_sent_is_told_to_its_store(stage: Stage) -> None:
    stage.submit(3)
    answer(stage, 7, 0)
    stage.dies(1, running=1, finished=1)
    assert stage.heard(WORKER, m.Unclaimed) == [m.Unclaimed(101, id_of(7))]


def test_of_one_that_has_sent_none_all_are_told(stage: Stage) -> None:
    stage.submit(1)
    stage.dies(1, running=0)
    assert stage.heard(WORKER, m.Unclaimed) == [m.Unclaimed(101, b"")]


def test_a_result_that_comes_too_late_is_told_and_reaches_no_client(stage: Stage) -> None:
    stage.submit(1)
    stage.say(CLIENT, m.Cancel(1, [0], True))
    answer(stage, 7, 0, attempt=2)
    assert stage.heard(WORKER, m.Discard) == [m.Discard([id_of(7)])]
    assert not stage.heard(CLIENT, m.RoutedResults)


def test_a_result_for_a_session_that_the_executor_does_not_serve_is_told(stage: Stage) -> None:
    stage.submit(1)
    answer(stage, 7, 0, session=99)
    assert stage.heard(WORKER, m.Discard) == [m.Discard([id_of(7)])]


def test_a_result_in_time_is_told_to_its_client_only(stage: Stage) -> None:
    stage.submit(1)
    answer(stage, 7, 0)
    assert not stage.heard(WORKER, m.Discard)
    assert stage.heard(CLIENT, m.RoutedResults)[0].last == id_of(7)


def test_results_that_nobody_can_read_are_passed_over(stage: Stage) -> None:
    stage.submit(1)
    part = m.Slice(1, 0, 1, 9)
    stage.say(FIRST, results(1, [part], [0.001], outputs=raw([b"\1nonsense"]), stored=[0, 5], last=b"x"))
    stage.say(FIRST, results(1, [part], [0.001], outputs=raw([]), stored=[3, 5], last=b"x"))
    assert not stage.heard(WORKER, m.Discard)


def test_where_no_store_is_nobody_is_told() -> None:
    stage = Stage(executors=1)
    stage.open(client=OTHER)
    stage.dies(1)
    assert not stage.heard(WORKER, m.Unclaimed)
