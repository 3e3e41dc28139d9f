"""Tenants that are looked at, and changed while the router runs, with a broker alone."""

from __future__ import annotations

from typing import Any

from flamezmq.core.members import Tenant
from flamezmq.core.quotas import NO_LIMIT, PATIENCE_SECONDS
from flamezmq.wire import messages as m
from flamezmq.wire.joining import STRIDE
from tests.core_stage import CLIENT, OTHER, Stage
from tests.test_core_quotas import join, leeway, room, rooms, submit, want


def stage_with(executors: int = 0, **terms: Any) -> Stage:
    return Stage(executors, tenants={"research": Tenant(**terms)})


def change(stage: Stage, name: str = "research", **what: Any) -> m.Done:
    """Rooms that are told of it stand in `stage.said`."""
    stage.say(OTHER, m.SetTenant(1, name, "the boss", **what))
    (done,) = stage.heard(OTHER, m.Done)
    assert isinstance(done, m.Done)
    return done


def rows(stage: Stage) -> dict[str, m.TenantRow]:
    before = stage.state()
    stage.say(OTHER, m.AskTenants(1))
    assert stage.state() == before, "to ask changes nothing"
    (answer,) = stage.heard(OTHER, m.Tenants)
    return {row.name: row for row in answer.rows}


def test_a_lower_quota_reaches_open_sessions_what_is_queued_stays_and_more_waits() -> None:
    stage = stage_with(queued_tasks=100)
    session = stage.open(tenant="research")
    want(stage, 20)
    stage.submit(10)

    done = change(stage, queued_tasks=4)

    assert (done.outcome, done.text) == (
        0,
        "tenant research has queued_tasks=4 from now on, until the router ends",
    )
    assert [message.until for message in rooms(stage.said)] == [10]  # what it could submit yet is gone
    assert (room(session), session.queued) == (0, 10)
    assert want(stage, 1) == []
    assert want(stage, 1, waits=False)[0].limit == 4


def test_a_higher_quota_lets_those_that_wait_go_on_at_once() -> None:
    stage = stage_with(queued_tasks=4)
    stage.open(tenant="research")
    want(stage, 4)
    stage.submit(4)
    assert want(stage, 50) == []

    change(stage, queued_tasks=80)

    assert [message.until for message in rooms(stage.said)] == [54]


def test_the_first_quota_of_a_tenant_is_told_to_all_that_are_open_and_its_end_too() -> None:
    stage = Stage(tenants={})
    session = stage.open(tenant="research")
    stage.submit(7)
    stage.open(alias=2, client=OTHER, tenant="night")

    change(stage, queued_tasks=8)
    assert [(message.session, message.until) for message in rooms(stage.said)] == [(1, 8)]
    assert [message.until for message in want(stage, 5)] == [8]

    change(stage, queued_tasks=0)
    assert [message.until for message in rooms(stage.said)] == [7 + NO_LIMIT]
    assert session.meter is None
    assert not stage.broker.accounts.of
    assert want(stage, 5) == []  # it crossed: nothing is to be said


def test_a_quota_reaches_each_member_of_a_session_at_its_own_tasks() -> None:
    stage = Stage(tenants={})
    join(stage, CLIENT)
    join(stage, OTHER, alias=7)
    submit(stage, OTHER, STRIDE, 3, alias=7)

    change(stage, queued_tasks=16)

    assert {message.session: message.until for message in rooms(stage.said)} == {1: 2, 7: STRIDE + 5}


def test_bytes_that_were_on_their_way_when_they_began_to_count_are_agreed_upon_by_the_next_question() -> None:
    stage = stage_with(queued_tasks=50)
    session = stage.open(tenant="research")
    want(stage, 20)
    submit(stage, CLIENT, 0, 10)

    change(stage, queued_bytes=100)
    (told,) = rooms(stage.said)
    assert told.bytes == 25
    submit(stage, CLIENT, 10, 4)  # on its way; the client has not counted it
    want(stage, 9, bytes=86, first=10, sent=0)

    assert (leeway(session).came, leeway(session).until_bytes) == (0, 86)
    assert rows(stage)["research"].bytes == 14


def test_what_is_said_of_all_others_reaches_those_that_are_not_named() -> None:
    stage = stage_with(queued_tasks=8)
    stage.open(tenant="research")
    stage.open(alias=2, tenant="night")

    change(stage, "*", queued_tasks=20)

    assert [(message.session, message.until) for message in rooms(stage.said)] == [(2, 5)]
    assert (rows(stage)["night"].named, rows(stage)["night"].queued_tasks) == (False, 20)
    change(stage, "night", weight=2.0)  # named from now on, with what it had
    change(stage, "*", queued_tasks=0)
    assert (rows(stage)["night"].named, rows(stage)["night"].queued_tasks) == (True, 20)


def test_a_name_that_nobody_knows_is_refused_with_those_that_are_there() -> None:
    stage = stage_with(queued_tasks=8)
    stage.open(tenant="night")

    done = change(stage, "reserch", weight=2.0)

    assert done.outcome == 2
    assert done.text.startswith(
        "there is no tenant 'reserch'; those that are there: 'night', 'research'; '*' stands"
    )
    assert "reserch" not in rows(stage)
    assert change(stage, "reserch", weight=2.0, new=True).outcome == 0
    assert rows(stage)["reserch"].weight == 2.0


def test_nonsense_changes_nothing() -> None:
    stage = stage_with(queued_tasks=8)
    assert change(stage).text.startswith("nothing was to be changed of tenant research: weight, ")
    assert change(stage, queued_tasks=3, resources="cpu:16").outcome == 1
    assert change(stage, "x" * 300, new=True, weight=1.0).outcome == 1
    assert change(stage, "a\nb", new=True, weight=1.0).outcome == 1
    assert rows(stage)["research"].queued_tasks == 8


def test_a_row_shows_what_a_tenant_has_and_how_many_wait() -> None:
    stage = stage_with(2, queued_tasks=8, weight=3.0)
    stage.open(tenant="research")
    want(stage, 8)
    stage.submit(8)
    want(stage, 3)
    stage.wait(PATIENCE_SECONDS)
    stage.open(alias=2, tenant="night")

    found = rows(stage)

    assert list(found) == ["night", "research"]
    row = found["research"]
    assert (row.weight, row.queued_tasks, row.sessions, row.executors) == (3.0, 8, 1, 2)
    assert (row.tasks, row.bytes, row.named, row.asking) == (6, -1, True, 0)
    stage.submit(2)
    assert want(stage, 3) == []
    assert rows(stage)["research"].asking == 1


def test_rows_come_in_pages_by_name() -> None:
    stage = Stage(tenants={f"t{number:03}": Tenant(weight=2.0) for number in range(300)})
    stage.say(OTHER, m.AskTenants(1))
    (first,) = stage.heard(OTHER, m.Tenants)
    stage.say(OTHER, m.AskTenants(2, first.rows[-1].name))
    (second,) = stage.heard(OTHER, m.Tenants)

    assert [row.name for row in (*first.rows, *second.rows)] == [f"t{number:03}" for number in range(300)]
    assert (first.more, second.more) == (44, 0)


def test_a_weight_reaches_the_scheduler_and_the_events_of_sessions_say_who_has_changed_it() -> None:
    stage = Stage(4, tenants={})
    first = stage.open(tenant="research")
    second = stage.open(alias=2, tenant="night")
    stage.submit(50)
    stage.submit(50, alias=2)

    change(stage, weight=3.0)

    assert stage.broker.scheduler._tree.terms_of("research").weight == 3.0
    assert stage.broker.events[-1] == (
        "tenant-changed",
        {"tenant": "research", "by": "the boss", "weight": 3.0},
    )
    stage.say(OTHER, m.Ask(1, 6, first.id))
    (answer,) = stage.heard(OTHER, m.Answer)
    assert answer.events[-1].text == "tenant research: weight=3, by the boss"
    stage.say(OTHER, m.Ask(1, 6, second.id))
    assert "changed" not in [row.kind for row in stage.heard(OTHER, m.Answer)[0].events]
