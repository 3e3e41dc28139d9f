"""The router's mind: tasks that take the values of others, and never run without them."""

from __future__ import annotations

from typing import Any

import pytest

from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m
from flamezmq.wire.composed import decompose
from tests.core_stage import CLIENT, FIRST, OTHER, WORKER, Stage


def chain(length: int = 3, executors: int = 1, **limits: Any) -> Stage:
    """Task 0, and each that follows needs the one before it."""
    stage = Stage(executors=executors, **limits)
    stage.open()
    stage.submit(length, needs=[n for i in range(1, length) for n in (i, 1, i - 1)])
    return stage


def ends(stage: Stage, index: int, output: Any, failed: bool = False) -> None:
    """Whoever holds the task as its first one ends it, after a second."""
    number = next(
        e.number
        for e in stage.broker.executors.values()
        if stage.tasks(e.held)[:1] and e.held[0].start == index
    )
    stage.finish(number, seconds=1.0, count=1, outputs=[output], failed=[0] if failed else [])


def values(stage: Stage) -> list[tuple[int, list[Any]]]:
    """(index, what it was given) of what was granted in the last turn."""
    return [(index, decompose(payload)[1:]) for index, payload in stage.granted() if payload]


def unmet(stage: Stage) -> list[int]:
    return [number for message in stage.heard(CLIENT, m.Unmet) for number in message.tasks]


def counts(stage: Stage) -> tuple[int, ...]:
    stage.say(CLIENT, m.Query(1, 7))
    (answer,) = stage.heard(CLIENT, m.Counts)
    return (answer.pending, answer.running, answer.succeed, answer.failed, answer.cancelled)


# --- waiting, and going on


def test_a_task_is_kept_aside_until_the_value_that_it_needs_is_there() -> None:
    stage = chain(3)
    assert stage.held() == [[(0, 1)]]
    assert counts(stage) == (2, 1, 0, 0, 0), "what is kept aside is pending"

    stage.finish(1, outputs=[b"zero"])
    assert values(stage) == [(1, [b"zero"])]
    stage.finish(1, outputs=[b"one"])
    assert values(stage) == [(2, [b"one"])]
    stage.finish(1, outputs=[b"two"])
    stage.turn()

    assert stage.broker.scheduler.idle == 1
    assert stage.broker.clients[CLIENT].kept_bytes == 0


def test_the_client_has_the_result_before_anything_that_follows_from_it() -> None:
    stage = chain(2)
    said = stage.finish(1, outputs=[b"an error"], failed=[0])
    assert [type(message) for to, message in said if to == CLIENT] == [m.RoutedResults, m.Unmet]


def test_values_stand_in_the_order_of_the_placeholders_and_buffers_stay_what_they_are() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.submit(3, needs=[2, 1, 1, 2, 1, 0])
    large = b"y" * 20_000

    ends(stage, 0, [b"zero", large])
    ends(stage, 1, b"x" * 5_000)

    (index, (first, *frames)) = stage.granted()[-1]
    assert index == 2
    assert frames[1] is large
    assert decompose([first, *frames]) == [b"", [b"", b"x" * 5_000], [b"zero", large]]


def test_a_value_goes_to_all_that_need_it_as_one_run() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.submit(6, needs=[n for i in range(1, 6) for n in (i, 1, 0)])
    stage.finish(1, outputs=[b"v"])
    grant = stage.heard(FIRST, m.Grant)[-1]
    assert [(part.first, part.count) for part in grant.slices] == [(1, 5)]
    assert values(stage) == [(index, [b"v"]) for index in range(1, 6)]


def test_an_old_task_that_has_all_it_needs_goes_before_younger_ones() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.submit(200, needs=[1, 1, 0])

    said = stage.finish(1, seconds=1.0, count=1, outputs=[b"v"])

    assert said
    assert stage.granted()[0][0] == 1, "what came after it waits on"


def test_a_need_may_be_of_another_session_of_the_same_client() -> None:
    stage = Stage(executors=2)
    stage.open(1)
    stage.open(2)
    stage.submit(1, alias=1)
    stage.submit(1, alias=2, needs=[0, 1, 0])
    assert stage.heard(CLIENT, m.Wanted) == [m.Wanted(1, [0])], "it may have ended: the client knows"

    ends(stage, 0, b"v")

    assert values(stage) == [(0, [b"v"])]


def test_where_a_need_can_not_have_ended_the_client_is_not_asked() -> None:
    stage = chain(3)
    stage.submit(2, needs=[0, 1, 2, 1, 1, 2])
    assert stage.heard(CLIENT, m.Wanted) == []


def test_what_had_ended_is_asked_for_once_and_supplied() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.submit(2)
    stage.finish(1, count=1)
    stage.finish(1)
    stage.submit(2, needs=[0, 1, 0, 0, 1, 1, 1, 1, 0])
    assert stage.heard(CLIENT, m.Wanted) == [m.Wanted(1, [0, 1])]

    stage.say(CLIENT, m.Supply(1, 0, False, [b"zero"], []))
    assert values(stage) == [(3, [b"zero"])]
    stage.say(CLIENT, m.Supply(1, 1, False, [b"one"], [0, 1]), [b"buffer"])
    stage.finish(1)
    assert stage.broker.sessions[1].succeed == 4

    stage.turn()
    before = stage.state()
    assert stage.say(CLIENT, m.Supply(1, 1, False, [b"again"], [])) == []
    assert stage.state() == before, "what nobody waits for changes nothing"


def test_a_session_that_is_closed_can_still_be_needed() -> None:
    stage = Stage(executors=1)
    stage.open(1)
    stage.open(2)
    stage.submit(1, alias=1)
    stage.finish(1)
    stage.submit(1, alias=2, needs=[0, 1, 0])
    stage.say(CLIENT, m.Close(1))
    stage.submit(1, alias=2, needs=[0, 1, 0])

    stage.say(CLIENT, m.Supply(1, 0, False, [b"v"], []))

    assert values(stage) == [(0, [b"v"]), (1, [b"v"])]


def test_a_dependent_that_runs_again_has_its_values() -> None:
    stage = chain(2, executors=1)
    stage.finish(1, outputs=[b"v"])
    stage.dies(1, running=1, finished=1)
    stage.ready(2)
    assert values(stage) == [(1, [b"v"])]
    assert stage.held() == [[(1, 2)]]


# --- needs that come to nothing


def test_what_needs_a_failed_task_fails_and_so_on_for_theirs_each_with_its_own_need() -> None:
    stage = chain(4)
    stage.finish(1, outputs=[b"an error"], failed=[0])
    assert unmet(stage) == [1, 1, 1, 0, 1, 2, 1, 1, 1, 3, 1, 2]
    assert counts(stage) == (0, 0, 0, 4, 0)


def test_what_needs_a_lost_task_fails() -> None:
    stage = Stage(executors=1)
    stage.open(max_retries=0)
    stage.submit(2, needs=[1, 1, 0])
    stage.dies(1, running=0)
    assert [type(message) for to, message in stage.said if to == CLIENT] == [m.Lost, m.Unmet]
    assert unmet(stage) == [1, 1, 1, 0]


@pytest.mark.parametrize("victim", ["queued", "blocked", "held"])
def test_what_needs_a_cancelled_task_fails(victim: str) -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.submit(2)  # the first is held
    stage.submit(3, needs=[0, 1, 1, 1, 1, 2, 2, 1, 0])  # 2 needs 1, 3 needs 2, 4 needs 0
    index = {"queued": 1, "blocked": 2, "held": 0}[victim]
    stage.say(CLIENT, m.Cancel(1, [index]))
    if victim == "held":
        stage.say(FIRST, m.Retracted(1, [m.Slice(1, 0, 1, 1)]))
    (answer,) = stage.heard(CLIENT, m.Cancelled)
    assert answer.indices == [index]
    expected = {"queued": [1, 2, 1, 1, 1, 3, 1, 2], "blocked": [1, 3, 1, 2], "held": [1, 4, 1, 0]}
    assert unmet(stage) == expected[victim]


def test_a_task_that_lost_one_need_does_not_wait_for_the_others() -> None:
    stage = Stage(executors=2)
    stage.open()
    stage.submit(3, needs=[2, 1, 0, 2, 1, 1])
    ends(stage, 0, b"an error", failed=True)
    assert unmet(stage) == [1, 2, 1, 0]
    ends(stage, 1, b"v")
    assert counts(stage) == (0, 0, 1, 2, 0)


def test_what_the_client_can_not_supply_fails_those_that_need_it() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.submit(1)
    stage.finish(1)
    stage.submit(2, needs=[0, 1, 0, 1, 1, 1])
    stage.say(CLIENT, m.Supply(1, 0, True, [], []))
    assert unmet(stage) == [1, 1, 1, 0, 1, 2, 1, 1]


def test_closing_a_session_fails_what_needs_it_elsewhere_and_drops_what_it_had_kept_aside() -> None:
    stage = Stage(executors=1)
    stage.open(1)
    stage.open(2)
    stage.submit(3, alias=1, needs=[1, 1, 0])
    stage.submit(3, alias=2, needs=[0, 1, 0, 1, 1, 1, 2, 1, 2])
    stage.say(CLIENT, m.Close(1))
    assert unmet(stage) == [2, 0, 1, 0, 2, 1, 1, 1, 2, 2, 1, 2]
    assert stage.broker.clients[CLIENT].awaited == {}


def test_closing_a_session_fails_what_needs_a_task_of_it_that_waits_to_run_again() -> None:
    stage = Stage(executors=1)
    stage.open(1)
    stage.open(2)
    stage.submit(1, alias=1, retries=3)
    stage.submit(1, alias=2, needs=[0, 1, 0])
    stage.retry(1, seconds=60.0)
    stage.say(CLIENT, m.Close(1))
    assert unmet(stage) == [2, 0, 1, 0]


def test_an_initializer_that_fails_fails_what_needs_a_task_that_it_was_for() -> None:
    stage = Stage(executors=1)
    session = stage.open(1, initializer=b"prepare")
    stage.open(2)
    stage.submit(1, alias=1)
    stage.submit(1, alias=2, needs=[0, 1, 0])
    stage.say(FIRST, m.Broken(session.number, "node/1", "ValueError: no", "Traceback ..."))
    assert unmet(stage) == [2, 0, 1, 0]


def test_with_its_client_all_that_waited_is_gone() -> None:
    stage = chain(5)
    stage.lose(CLIENT)
    stage.lose(WORKER)
    assert stage.broker.sessions == {}
    assert stage.broker.statistics()["blocked"] == 0


# --- what is kept, and for how long


def test_a_value_counts_once_however_many_have_it_and_until_the_last_is_over() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.submit(3, needs=[1, 1, 0, 2, 1, 0])
    client = stage.broker.clients[CLIENT]
    stage.finish(1, outputs=[b"x" * 100])
    assert client.kept_bytes == 100
    stage.finish(1, count=1)
    assert client.kept_bytes == 100
    stage.say(CLIENT, m.Cancel(1, [2]))
    stage.say(FIRST, m.Retracted(1, [m.Slice(1, 2, 1, 1)]))
    assert client.kept_bytes == 0


def test_values_over_the_limit_are_let_go_and_had_from_the_client_when_nothing_else_is_lacking() -> None:
    stage = Stage(executors=2, max_bytes=100)
    stage.open()
    stage.submit(3, needs=[2, 1, 0, 2, 1, 1])
    client = stage.broker.clients[CLIENT]

    ends(stage, 0, b"x" * 101)
    assert client.kept_bytes == 0
    assert stage.heard(CLIENT, m.Wanted) == [], "it would only lie here while the other one runs"
    ends(stage, 1, b"y")
    assert stage.heard(CLIENT, m.Wanted) == [m.Wanted(1, [0])]
    assert client.kept_bytes == 102
    stage.say(CLIENT, m.Supply(1, 0, False, [b"x" * 101], []))

    assert values(stage) == [(2, [b"x" * 101, b"y"])]


def test_no_more_is_had_from_the_client_than_there_is_room_for_but_always_for_one() -> None:
    stage = Stage(executors=1, max_bytes=100)
    stage.open()
    stage.submit(3)
    stage.submit(3, needs=[0, 1, 0, 1, 1, 1, 2, 1, 2])
    client = stage.broker.clients[CLIENT]

    for index in range(3):
        ends(stage, index, b"x" * 101)
    assert client.kept_bytes == 101, "the first one's was kept, it is about to run"
    assert values(stage) == [(3, [b"x" * 101])]
    ends(stage, 3, b"")
    assert stage.heard(CLIENT, m.Wanted) == [m.Wanted(1, [1])], "one at a time"
    stage.say(CLIENT, m.Supply(1, 1, False, [b"y" * 101], []))
    assert values(stage) == [(4, [b"y" * 101])]
    stage.say(CLIENT, m.Cancel(1, [4]))
    stage.say(FIRST, m.Retracted(1, [m.Slice(1, 4, 1, 1)]))
    assert stage.heard(CLIENT, m.Wanted) == [m.Wanted(1, [2])]
    stage.say(CLIENT, m.Supply(1, 2, True, [], []))

    assert unmet(stage) == [1, 5, 1, 2]
    assert (client.kept_bytes, client.composed) == (0, 0)


# --- what must not be said


@pytest.mark.parametrize(
    ("needs", "what"),
    [
        ([0, 1], "triples"),
        ([2, 1, 0], "does not fit"),
        ([1, 1, 0, 0, 1, 0], "does not fit"),
        ([0, 1, 1], "before it"),
        ([1, 1, 3], "before it"),
        ([0, 2, 0], "before it"),
        ([1, 1, 0, 1, 1, 0], "twice"),
    ],
)
def test_needs_that_make_no_sense_are_refused_and_change_nothing(needs: list[int], what: str) -> None:
    stage = Stage()
    stage.open(1)
    stage.open(2)
    stage.submit(1)
    before = stage.state()
    with pytest.raises(ProtocolError, match=what):
        stage.submit(
            2, needs=[n + 1 if i % 3 == 2 and needs != [0, 2, 0] else n for i, n in enumerate(needs)]
        )
    assert stage.state() == before


def test_outputs_that_can_not_be_read_are_refused_when_somebody_needs_them() -> None:
    stage = chain(2)
    before = stage.state()
    for outputs in ([], [b"one", b"too many"]):
        with pytest.raises(ProtocolError):
            stage.finish(1, outputs=outputs)
        assert stage.state() == before


def test_a_supply_is_a_clients_message_and_has_one_value() -> None:
    stage = chain(2)
    for peer, message in (
        (FIRST, m.Supply(1, 0, False, [b"v"], [])),
        (CLIENT, m.Supply(1, 0, False, [], [])),
        (CLIENT, m.Supply(1, 0, True, [b"v"], [])),
        (CLIENT, m.Supply(1, 0, False, [b"v", b"w"], [])),
    ):
        with pytest.raises(ProtocolError):
            stage.say(peer, message)
    stage.say(OTHER, m.Supply(1, 0, False, [b"v"], []))
    assert stage.granted() == [], "what another client says is its own"
