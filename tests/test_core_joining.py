"""Sessions with members, in the broker alone: whose results go where, what is kept, what is held back."""

from __future__ import annotations

from typing import Any

import pytest

from flamezmq.core.members import Session
from flamezmq.errors import ProtocolError
from flamezmq.wire import joining as j
from flamezmq.wire import messages as m
from flamezmq.wire.joining import STRIDE
from tests.core_stage import CLIENT, OTHER, Stage


def join(stage: Stage, peer: int, alias: int = 1, id: str = "one", **spec: Any) -> j.Joined:
    said = stage.say(peer, m.Open(alias, id, m.SessionSpec("s", **spec), f"peer {peer}"))
    (answer,) = [message for to, message in said if to == peer]
    assert isinstance(answer, j.Joined)
    return answer


def submit(stage: Stage, peer: int, first: int, count: int = 1, alias: int = 1, known: bool = False) -> None:
    new = [] if known else [m.NewFunction(1, b"of %d" % peer, "f")]
    part = m.Slice(1, first, count, 1)
    stage.say(peer, m.Submit(alias, new, [], [part], [b"x"] * count, []))


def of(stage: Stage, peer: int, kind: type) -> list[Any]:
    return [message for to, message in stage.said if to == peer and isinstance(message, kind)]


def indices(results: list[Any]) -> list[int]:
    return [i for one in results for part in one.slices for i in range(part.first, part.first + part.count)]


def the(stage: Stage) -> Session:
    (session,) = stage.broker.sessions.values()
    return session


def test_members_have_one_session_and_each_gets_its_own_results() -> None:
    stage = Stage(executors=1, batch_tasks=64)
    assert (join(stage, CLIENT).member, join(stage, OTHER, alias=7).member) == (0, 1)
    submit(stage, CLIENT, 0)
    stage.finish(1, outputs=[b"a"])
    submit(stage, CLIENT, 1, count=2, known=True)
    submit(stage, OTHER, STRIDE, count=2, alias=7)
    stage.finish(1, count=2, outputs=[b"0", b"1"])
    assert indices(of(stage, CLIENT, m.RoutedResults)) == [1, 2]
    stage.finish(1, outputs=[b"2", b"3"])
    (theirs,) = of(stage, OTHER, m.RoutedResults)
    assert (theirs.session, indices([theirs])) == (7, [STRIDE, STRIDE + 1])
    assert not of(stage, CLIENT, m.RoutedResults)
    assert the(stage).succeed == 5


def test_results_of_several_members_in_one_message_are_taken_apart() -> None:
    stage = Stage(executors=1, horizon_seconds=10.0, deep_seconds=10.0)
    join(stage, CLIENT)
    join(stage, OTHER)
    for peer, first in ((CLIENT, 0), (OTHER, STRIDE)):  # their run times are known from here on
        submit(stage, peer, first)
        stage.finish(1, seconds=1e-3, outputs=[b""])
    submit(stage, CLIENT, 1, count=20, known=True)
    submit(stage, OTHER, STRIDE + 1, count=2, known=True)
    assert len({run.start // STRIDE for run in stage.executor(1).held}) == 2
    outputs: list[Any] = [b"m%d" % i for i in range(20)] + [[b"o0", b"frame"], b"o1"]
    stage.finish(1, outputs=outputs, failed=[3, 21])
    (mine,), (theirs,) = of(stage, CLIENT, m.Results), of(stage, OTHER, m.Results)
    assert (mine.outputs, mine.failed) == (outputs[:20], [3])
    assert (theirs.outputs, theirs.failed, theirs.parts) == ([b"o0", b"o1"], [1], [0, 1])
    frames = [f for (_, one), f in zip(stage.said, stage.frames, strict=True) if one is theirs]
    assert frames == [[b"frame"]]
    # what can't be read ends all the same
    submit(stage, CLIENT, 21, known=True)
    submit(stage, OTHER, STRIDE + 3, known=True)
    stage.finish(1, outputs=[b"one only"])
    assert (of(stage, CLIENT, m.Cancelled)[0].indices, of(stage, OTHER, m.Cancelled)[0].indices) == (
        [21],
        [STRIDE + 3],
    )


def test_the_last_member_that_leaves_closes_the_session_and_others_hear_nothing_of_one_that_goes() -> None:
    stage = Stage(executors=1)
    join(stage, CLIENT)
    join(stage, OTHER)
    submit(stage, OTHER, STRIDE, count=3)
    stage.say(OTHER, j.LeaveSession(1))
    assert of(stage, OTHER, m.Closed)
    assert not of(stage, CLIENT, m.Closed)
    assert not the(stage).queued
    stage.say(CLIENT, j.LeaveSession(1))
    assert "peer 1" in stage.broker.records.find("one").ending  # type: ignore[union-attr]
    answer = join(stage, OTHER, alias=3)
    assert (answer.outcome, answer.text) == (j.CLOSED, "closed when its last member left: peer 1")


def test_another_spec_is_refused_field_by_field() -> None:
    stage = Stage()
    join(stage, CLIENT, weight=2.0, environment=m.Environment("a"))
    answer = join(stage, OTHER, weight=1.0, environment=m.Environment("b"))
    assert (answer.outcome, answer.differs) == (j.DIFFERS, ["weight", "1.0", "2.0"])
    assert join(stage, OTHER, weight=2.0).outcome == j.JOINED


def test_what_was_not_asked_for_is_none_and_pickles_of_one_length_do_not_look_the_same() -> None:
    stage = Stage()
    join(stage, CLIENT, max_executors=1, initializer=b"abc")
    differs = join(stage, OTHER, tenant="blue", initializer=b"abd").differs
    assert differs[:6] == ["tenant", "'blue'", "none", "max_executors", "none", "1"]
    assert differs[6] == "initializer"
    assert differs[7] != differs[8]
    assert differs[8].startswith("a pickle of 3 bytes")


def test_a_detached_session_keeps_what_was_not_confirmed_when_its_client_died() -> None:
    stage = Stage(executors=1)
    join(stage, CLIENT, detached=True)
    submit(stage, CLIENT, 0)
    stage.finish(1, outputs=[b"first"])
    submit(stage, CLIENT, 1, known=True)
    stage.lose(CLIENT)
    stage.finish(1, outputs=[b"second"])
    stage.broker.on_client(CLIENT)
    stage.say(CLIENT, j.Join(4, "one", "again"))
    stage.say(CLIENT, j.Fetch(4, 5))
    (past,) = of(stage, CLIENT, j.Past)
    assert (past.session, past.tasks) == (5, [0, 2])
    assert indices(of(stage, CLIENT, m.RoutedResults)) == [0, 1]
    assert all(message.session == 5 for message in of(stage, CLIENT, m.RoutedResults))


def test_what_is_kept_and_fetched_is_let_go_when_newer_ones_need_the_room() -> None:
    stage = Stage(executors=1, max_kept_bytes=5000)
    join(stage, CLIENT, detached=True)
    for index in range(4):
        submit(stage, CLIENT, index, known=index > 0)
        stage.finish(1, outputs=[b"x" * 1500])
        stage.say(CLIENT, j.Fetched(1, 1))
    join(stage, OTHER, detached=True)
    stage.say(OTHER, j.Fetch(1, 2))
    assert of(stage, OTHER, j.Past)[0].tasks == [2, 2]
    assert indices(of(stage, OTHER, m.RoutedResults)) == [2, 3]


def test_nothing_more_runs_while_all_room_is_taken_by_what_nobody_has_fetched() -> None:
    stage = Stage(executors=1, max_kept_bytes=3000)
    join(stage, CLIENT, detached=True)
    submit(stage, CLIENT, 0)
    stage.finish(1, outputs=[b"x" * 4000])
    stage.lose(CLIENT)
    join(stage, OTHER, detached=True)
    submit(stage, OTHER, STRIDE)
    assert not stage.executor(1).tasks
    stage.say(OTHER, j.Fetch(1, 2))
    stage.say(OTHER, j.Fetched(2, 1))
    assert stage.executor(1).tasks == 1


def test_a_member_can_submit_and_need_nothing_that_is_not_its_own() -> None:
    stage = Stage(executors=1)
    join(stage, CLIENT)
    join(stage, OTHER)
    submit(stage, CLIENT, 0)
    with pytest.raises(ProtocolError, match="does not follow"):
        submit(stage, OTHER, 1)
    new = [m.NewFunction(1, b"", "f")]
    with pytest.raises(ProtocolError, match="of another member"):
        stage.say(OTHER, m.Submit(1, new, [], [m.Slice(1, STRIDE, 1, 1)], [b""], [], [0, 1, 0]))
