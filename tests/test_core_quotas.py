"""Quotas of tenants, with a broker alone: what is given, to whom, and what comes back."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

import pytest

from flamezmq.core.members import Session, Tenant
from flamezmq.core.meter import Leeway
from flamezmq.core.quotas import PATIENCE_SECONDS, usage
from flamezmq.errors import ProtocolError
from flamezmq.wire import joining as j
from flamezmq.wire import messages as m
from flamezmq.wire.joining import STRIDE
from tests.core_stage import CLIENT, OTHER, Stage


def stage_with(executors: int = 0, **quota: Any) -> Stage:
    return Stage(executors, tenants={"research": Tenant(**quota)})


def room(session: Session) -> int:
    return leeway(session).left


def leeway(session: Session, member: int = 0) -> Leeway:
    assert session.meter is not None
    return session.meter.leeways[member]


def rooms(said: Iterable[tuple[int, Any]]) -> list[m.Room]:
    return [message for _, message in said if type(message) is m.Room]


def want(stage: Stage, tasks: int, alias: int = 1, client: int = CLIENT, **fields: Any) -> list[m.Room]:
    return rooms(stage.say(client, m.WantRoom(alias, tasks, **{"bytes": 0, "first": 0, **fields})))


def test_a_session_of_a_tenant_without_a_quota_has_no_meter_and_hears_nothing() -> None:
    stage = stage_with(queued_tasks=8)

    session = stage.open(tenant="other")

    assert session.meter is None
    assert [type(message) for _, message in stage.said] == [m.Opened]
    assert want(stage, 1) == []


def test_the_first_allowance_comes_before_the_session_is_open() -> None:
    stage = stage_with(queued_tasks=8)

    stage.open(tenant="research")

    assert [type(message) for _, message in stage.said] == [m.Room, m.Opened]
    assert stage.said[0][1].until == 2  # a quarter


def test_all_sessions_and_clients_of_a_tenant_share_one_quota() -> None:
    stage = stage_with(queued_tasks=8)
    stage.open(tenant="research")
    second = stage.open(alias=2, client=OTHER, tenant="research")

    assert want(stage, 100)[0].until == 8
    stage.submit(8)

    assert want(stage, 5, 2, OTHER) == []
    stage.ready(1)  # it takes one: there is room for one
    assert [room(second)] == [1]


def test_who_does_not_wait_is_told_at_once_which_quota_is_used_up() -> None:
    stage = stage_with(queued_tasks=2)
    stage.open(tenant="research")
    assert want(stage, 3, waits=False) == [m.Room(1, 2, None, "queued_tasks", 2, "research")]
    stage.submit(2)

    assert want(stage, 1, waits=False) == [m.Room(1, 2, None, "queued_tasks", 2, "research")]


def test_who_does_not_wait_is_told_at_once_also_behind_somebody_who_waits() -> None:
    stage = stage_with(queued_tasks=2)
    stage.open(tenant="research")
    stage.open(alias=2, client=OTHER, tenant="research")
    want(stage, 2)
    stage.submit(2)
    assert want(stage, 1) == []

    assert want(stage, 1, 2, OTHER, waits=False) == [m.Room(2, 0, None, "queued_tasks", 2, "research")]


def test_what_is_not_needed_any_more_others_may_have() -> None:
    stage = stage_with(queued_tasks=1)
    stage.open(tenant="research")
    stage.open(alias=2, client=OTHER, tenant="research")
    assert want(stage, 1)[0].until == 1
    assert want(stage, 1, 2, OTHER) == []

    assert [message.session for message in want(stage, 0)] == [2]


def test_the_end_of_a_session_and_of_a_client_gives_its_share_back() -> None:
    stage = stage_with(queued_tasks=2)
    stage.open(tenant="research")
    last = stage.open(alias=2, client=OTHER, tenant="research")
    want(stage, 2)
    stage.submit(2)
    assert want(stage, 2, 2, OTHER) == []

    stage.lose(CLIENT)

    assert room(last) == 2
    stage.say(OTHER, m.Close(2))
    assert not stage.broker.accounts.of
    assert not stage.broker.accounts.hungry


def test_room_is_given_in_portions_and_what_is_less_after_a_moment() -> None:
    stage = stage_with(queued_tasks=80)
    stage.open(tenant="research")
    want(stage, 80)
    stage.submit(80)
    assert want(stage, 5) == []
    stage.ready(1)  # which takes one

    assert rooms(stage.said) == []
    assert stage.broker.next_deadline(stage.now) == pytest.approx(PATIENCE_SECONDS)
    assert [message.until for message in rooms(stage.wait(PATIENCE_SECONDS))] == [81]


def test_tasks_of_tasks_do_not_count_and_never_wait() -> None:
    stage = stage_with(1, queued_tasks=1)
    outer = stage.open(tenant="research")
    want(stage, 1)
    stage.submit()  # runs

    inner = stage.open(alias=2, client=OTHER, within="token/1", outer=outer.number)
    stage.submit(50, alias=2, client=OTHER)

    assert inner.meter is None
    assert want(stage, 1)[0].until == 2


def test_bytes_count_as_they_come_and_go_and_a_large_task_goes_alone() -> None:
    stage = stage_with(queued_bytes=100)
    session = stage.open(tenant="research")
    meter = session.meter
    assert meter is not None
    assert leeway(session).until_bytes == 25

    assert want(stage, 2, bytes=90, first=45)[0].bytes == 90
    part = m.Slice(1, 0, 2, 1)
    stage.say(CLIENT, m.Submit(1, [m.NewFunction(1, b"f")], [], [part], [b"x" * 45] * 2, []))
    assert meter.waiting_bytes(session) == 90
    assert want(stage, 1, bytes=500, first=500) == []
    stage.say(CLIENT, m.Cancel(1, [0]))
    assert meter.waiting_bytes(session) == 45
    stage.ready(1)  # which takes the other one

    assert meter.waiting_bytes(session) == 0
    assert leeway(session).left_bytes == 500


@pytest.mark.parametrize("seed", range(20))
def test_clients_that_keep_to_their_allowance_never_pass_the_quota_and_all_get_done(seed: int) -> None:
    random = Random(seed)
    limit = random.choice((1, 2, 7, 40))
    stage = stage_with(random.randint(1, 3), queued_tasks=limit)
    homes = [(1, CLIENT), (2, CLIENT), (1, OTHER), (2, OTHER)]
    left = {home: random.randint(0, 60) for home in homes}
    sessions = {home: stage.open(*home, tenant="research") for home in homes}
    for _ in range(3000):
        home = random.choice(homes)
        session = sessions[home]
        count = min(room(session), left[home], random.randint(1, 9))
        if count:
            stage.submit(count, alias=home[0], client=home[1])
            left[home] -= count
        elif left[home] and leeway(session) not in stage.broker.accounts.of["research"].asking:
            want(stage, left[home], *home)
        number = random.randint(1, len(stage.broker.executors))
        if stage.executor(number).tasks and random.random() < 0.5:
            stage.finish(number)
        stage.wait(random.choice((0.0, 0.02)))
        used = usage(stage.broker.accounts.of["research"])
        assert used.tasks + used.ahead <= limit
        if not any(left.values()):
            break

    assert not any(left.values()), "somebody has waited for ever"


# --- sessions with members


def join(stage: Stage, peer: int, alias: int = 1, **spec: Any) -> list[Any]:
    said = stage.say(
        peer, m.Open(alias, "one", m.SessionSpec("s", tenant="research", **spec), f"peer {peer}")
    )
    return [message for to, message in said if to == peer]


def submit(stage: Stage, peer: int, first: int, count: int, alias: int = 1) -> None:
    new = [m.NewFunction(1, b"f", "f")]
    stage.say(peer, m.Submit(alias, new, [], [m.Slice(1, first, count, 1)], [b"x"] * count, []))


def test_each_member_has_an_allowance_of_one_quota_also_who_joins_later() -> None:
    stage = stage_with(queued_tasks=8)

    first, answer = join(stage, CLIENT)
    assert (first.until, type(answer)) == (2, j.Joined)  # a quarter, before it is a member
    first, answer = join(stage, OTHER, alias=7)
    assert (first.session, first.until, type(answer)) == (7, STRIDE, j.Joined)  # that quarter is given

    assert want(stage, 100)[0].until == 8
    submit(stage, CLIENT, 0, 8)
    assert want(stage, 5, 7, OTHER) == []
    stage.ready(1)  # it takes one: there is room for one
    (given,) = rooms(stage.said)
    assert (given.session, given.until) == (7, STRIDE + 1)


def test_a_member_that_leaves_gives_back_what_it_could_submit_and_what_it_has_submitted_is_cancelled() -> (
    None
):
    stage = stage_with(queued_tasks=8)
    join(stage, CLIENT)
    join(stage, OTHER)
    want(stage, 8)
    submit(stage, CLIENT, 0, 5)
    assert want(stage, 8, client=OTHER) == []

    stage.lose(CLIENT)

    assert [message.until for message in rooms(stage.said)] == [STRIDE + 8]


def test_what_a_detached_session_has_queued_counts_when_its_clients_are_gone() -> None:
    stage = stage_with(queued_tasks=8)
    join(stage, CLIENT, detached=True)
    want(stage, 8)
    submit(stage, CLIENT, 0, 6)
    stage.lose(CLIENT)
    other = stage.open(alias=2, client=OTHER, tenant="research")
    want(stage, 8, 2, OTHER)
    assert room(other) == 2

    stage.say(OTHER, m.CloseSession(1, "one", "the boss"))

    assert want(stage, 8, 2, OTHER, waits=False)[0].until == 8
    assert list(stage.broker.accounts.of["research"].leeways) == [leeway(other)]


def test_who_only_fetches_asks_for_no_room() -> None:
    stage = stage_with(queued_tasks=8)
    join(stage, CLIENT, detached=True)
    stage.say(CLIENT, j.Fetch(1, 9))

    with pytest.raises(ProtocolError, match="where results are fetched"):
        want(stage, 1, 9)
