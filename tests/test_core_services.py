"""Applications and services: what the broker makes of registering, binding and unbinding."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from flamezmq.client.happened import sentence
from flamezmq.core import events
from flamezmq.core.members import Session
from flamezmq.core.services import SLOW_SECONDS
from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m
from tests.core_stage import CLIENT, FIRST, OTHER, WORKER, Stage

LONG = 0.01


def stage_with(executors: int = 1, **application: Any) -> Stage:
    stage = Stage(executors=executors)
    register(stage, **application)
    return stage


def register(stage: Stage, name: str = "model", **fields: Any) -> m.Done:
    stage.say(CLIENT, m.RegisterApplication(7, m.Application(name, service=b"class", **fields), "us"))
    return answer(stage)


def answer(stage: Stage, peer: int = CLIENT) -> m.Done:
    (done,) = stage.heard(peer, m.Done)
    return done


def services(stage: Stage, number: int = 1) -> list[m.Service | None]:
    return [bind.service for bind in stage.heard(FIRST + number - 1, m.Bind)]


def unbinds(stage: Stage) -> list[tuple[int, int]]:
    """(number of the executor, session)"""
    return [(peer - FIRST + 1, message.session) for peer, message in stage.said if type(message) is m.Unbind]


def exits(stage: Stage) -> list[int]:
    return [peer - FIRST + 1 for peer, message in stage.said if type(message) is m.Exit]


def grants(stage: Stage) -> list[int]:
    return [peer - FIRST + 1 for peer, message in stage.said if type(message) is m.Grant]


def happened(stage: Stage, session: Session) -> list[str]:
    """In words."""
    return [sentence(row) for row in events.rows(session, 0, stage.now)]


def fails(stage: Stage, number: int, session: int) -> None:
    stage.say(FIRST + number - 1, m.BindFailed(session, "ValueError: no", "Traceback ..."))


# --- the registry


def test_a_session_of_an_application_that_nobody_has_registered_is_refused_with_those_that_are_there() -> (
    None
):
    stage = stage_with()
    register(stage, "other")

    stage.say(CLIENT, m.Open(1, "s", m.SessionSpec("s", application="modell")))

    (opened,) = stage.heard(CLIENT, m.Opened)
    assert opened.error == "this router knows no application 'modell'; registered are model, other"
    assert not stage.broker.sessions


def test_the_same_application_may_be_registered_again_and_another_one_of_its_name_may_not() -> None:
    stage = stage_with()

    assert register(stage).outcome == 0
    other = register(stage, description="another")

    assert other.outcome == 1
    assert "another application model was registered by us" in other.text


@pytest.mark.parametrize("order", ["update", "unregister"])
def test_what_sessions_use_is_neither_changed_nor_forgotten_and_they_are_named(order: str) -> None:
    stage = stage_with()
    stage.open(application="model")
    wanted: Any = (
        m.UpdateApplication(1, m.Application("model"), "us")
        if order == "update"
        else m.UnregisterApplication(1, "model")
    )

    stage.say(OTHER, wanted)
    refused = answer(stage, OTHER)
    stage.say(CLIENT, m.Close(1))
    stage.say(OTHER, wanted)

    assert refused.outcome == 1
    assert refused.text.endswith("while sessions of it are open: s1")
    assert answer(stage, OTHER).outcome == 0
    assert list(stage.broker.registry.known) == (["model"] if order == "update" else [])


def test_what_is_not_there_is_not_found() -> None:
    stage = Stage()
    stage.say(CLIENT, m.UnregisterApplication(1, "model"))
    assert answer(stage).outcome == 2


def test_a_session_has_what_its_application_gives_where_it_says_nothing_itself() -> None:
    stage = stage_with(max_executors=3, delay_release=2.0)

    silent = stage.open(application="model")
    own = stage.open(alias=2, application="model", max_executors=1)

    assert (silent.spec.max_executors, silent.spec.delay_release) == (3, 2.0)
    assert (own.spec.max_executors, own.spec.delay_release) == (1, 2.0)


def test_a_row_shows_an_application_and_its_sessions_and_no_pickle() -> None:
    stage = stage_with()
    stage.open(application="model")
    stage.now = 5.0

    stage.say(OTHER, m.AskApplications(3))

    ((row,),) = [message.rows for message in stage.heard(OTHER, m.Applications)]
    assert (row.application.name, row.application.service, row.bytes) == ("model", b"", 5)
    assert (row.by, row.age, row.sessions, row.open) == ("us", 5.0, ["s1"], 1)


# --- binding


def test_an_executor_is_told_of_an_application_once_and_of_the_common_data_with_each_bind() -> None:
    stage = stage_with()
    stage.open(application="model", common_data=b"one")
    stage.open(alias=2, application="model", common_data=b"two")

    stage.submit(1)
    (first,) = services(stage)
    stage.finish(1, LONG)
    stage.submit(1, alias=2)
    stage.say(FIRST, m.Unbound(1))
    (second,) = services(stage)

    assert first is not None
    assert second is not None
    assert first.description is not None
    assert (first.common_data, second.common_data) == (b"one", b"two")
    assert second.description is None
    assert second.revision == first.revision


def test_a_service_stays_while_nobody_else_needs_its_executor() -> None:
    stage = stage_with()
    stage.open(application="model")
    for _ in range(3):
        stage.submit(1)
        assert not unbinds(stage)
        stage.finish(1, LONG)
        assert not unbinds(stage)
        assert not services(stage)


def test_another_session_gets_the_executor_when_the_service_has_gone() -> None:
    stage = stage_with()
    session = stage.open(application="model")
    stage.open(alias=2)
    stage.submit(1)
    stage.finish(1, LONG)

    stage.submit(1, alias=2)
    assert unbinds(stage) == [(1, session.number)]
    assert not grants(stage)

    stage.say(FIRST, m.Unbound(session.number))
    assert grants(stage) == [1]


def test_nobody_waits_for_a_slow_service_to_go_while_another_executor_is_free() -> None:
    stage = stage_with(executors=2)
    first = stage.open(application="model")
    second = stage.open(alias=2)
    stage.submit(2)
    stage.finish(1, LONG)
    stage.finish(2, LONG)

    stage.submit(1, alias=2)
    ((slow, _),) = unbinds(stage)
    stage.wait(SLOW_SECONDS)
    ((other, _),) = unbinds(stage)
    assert other == 3 - slow, "one that goes at once costs no other service"
    stage.say(FIRST + other - 1, m.Unbound(first.number))
    assert grants(stage) == [other]
    stage.finish(other, LONG)
    stage.say(FIRST + slow - 1, m.Unbound(first.number))

    assert second.succeed == 1
    stage.turn()
    assert stage.broker.scheduler.idle == 2


def test_an_executor_that_is_told_to_unbind_is_bound_anew_by_its_own_session_too() -> None:
    stage = stage_with()
    session = stage.open(application="model")
    stage.open(alias=2)
    stage.submit(1)
    stage.finish(1, LONG)
    stage.submit(1, alias=2)
    stage.say(CLIENT, m.Close(2))  # it needs it no more
    stage.submit(1)
    assert not grants(stage)

    stage.say(FIRST, m.Unbound(session.number))

    assert len(services(stage)) == 1
    assert grants(stage) == [1]


def test_a_client_hears_that_its_session_is_closed_when_its_services_have_gone() -> None:
    stage = stage_with(executors=2)
    session = stage.open(application="model", forward_output=False)
    stage.submit(2)
    stage.finish(1, LONG)
    stage.finish(2, LONG)

    stage.say(CLIENT, m.Close(1))
    assert sorted(unbinds(stage)) == [(1, session.number), (2, session.number)]
    stage.say(FIRST, m.Unbound(session.number))
    assert not stage.heard(CLIENT, m.Closed)
    stage.dies(2)

    assert stage.heard(CLIENT, m.Closed)
    assert not stage.broker.parting


def test_what_a_service_prints_as_it_goes_is_heard_before_the_session_is_closed() -> None:
    stage = stage_with()
    session = stage.open(application="model")
    stage.submit(1)
    stage.finish(1, LONG)
    stage.say(CLIENT, m.Close(1))

    stage.say(WORKER, m.Printed(1, 1, "bye", 0))
    assert [output.text for output in stage.heard(CLIENT, m.Output)] == ["bye"]
    stage.say(FIRST, m.Unbound(session.number))
    assert not stage.heard(CLIENT, m.Closed)
    stage.say(WORKER, m.Flushed(session.number))
    assert stage.heard(CLIENT, m.Closed)


def test_the_service_of_a_session_whose_client_is_gone_goes_too() -> None:
    stage = stage_with()
    session = stage.open(application="model")
    stage.submit(1)
    stage.finish(1, LONG)

    stage.lose(CLIENT)

    assert unbinds(stage) == [(1, session.number)]
    stage.say(FIRST, m.Unbound(session.number))
    assert not stage.broker.sessions


def test_who_runs_a_task_of_a_closed_session_unbinds_behind_it() -> None:
    stage = stage_with()
    session = stage.open(application="model", forward_output=False)
    stage.submit(1)

    stage.say(CLIENT, m.Close(1))
    assert stage.heard(CLIENT, m.Closed), "what runs is not waited for"
    stage.say(FIRST, m.Retracted(session.number, []))
    assert not unbinds(stage)
    stage.finish(1, LONG)

    assert unbinds(stage) == [(1, session.number)]


def test_a_service_whose_last_hook_fails_costs_its_executor_and_nothing_else() -> None:
    stage = stage_with()
    session = stage.open(application="model")
    stage.open(alias=2)
    stage.submit(1)
    stage.finish(1, LONG)
    stage.submit(1, alias=2)

    stage.say(FIRST, m.Unbound(session.number, "ValueError: no"))
    assert exits(stage) == [1]
    stage.dies(1, expected=True)
    stage.ready(2)

    assert grants(stage) == [2]
    assert "the last hook of the service failed on node/1: ValueError: no" in happened(stage, session)


def test_a_last_hook_that_was_ended_by_its_watch_is_told_with_the_place_where_it_hung() -> None:
    stage = stage_with()
    session = stage.open(application="model")
    stage.open(alias=2)
    stage.submit(1)
    stage.finish(1, LONG)
    stage.submit(1, alias=2)
    trace = ("Thread 0x1 (most recent call first):", '  File "a.py", line 3 in on_session_leave', "  File b")

    stage.dies(1, signal="", exit_code=1, stderr=trace)

    assert session.application is not None
    found = happened(stage, session)[-1]
    assert f'its grace of {session.application.application.grace:g} s: File "a.py", line 3' in found


def test_an_answer_that_nobody_asked_for_is_refused() -> None:
    stage = stage_with()
    session = stage.open(application="model")
    stage.submit(1)
    for message in (m.Unbound(session.number), m.BindFailed(99, "", "")):
        with pytest.raises(ProtocolError):
            stage.say(FIRST, message)


# --- binds that fail


def test_a_failed_bind_costs_the_tasks_nothing_and_they_go_elsewhere() -> None:
    stage = stage_with()
    session = stage.open(application="model", max_retries=0)
    stage.submit(1)

    fails(stage, 1, session.number)
    assert exits(stage) == [1]
    stage.dies(1, expected=True)
    stage.ready(2)

    assert stage.held() == [[(0, 1)]]
    assert services(stage, 2) != []


def test_a_process_that_dies_of_binding_has_failed_to_bind_and_no_task_is_charged() -> None:
    stage = stage_with(bind_retries=2)
    session = stage.open(application="model", max_retries=0)
    stage.submit(1)

    stage.dies(1, running=0, binding=True)
    assert not stage.heard(CLIENT, m.Lost)
    stage.ready(2)
    assert stage.held() == [[(0, 1)]]
    stage.dies(2, running=0, binding=True)

    (broken,) = stage.heard(CLIENT, m.Broken)
    assert broken.binds == 2
    assert "SIGKILL" in broken.text
    assert session.closed


def test_a_bind_that_was_not_done_in_time_has_failed_and_the_task_behind_it_has_not() -> None:
    stage = stage_with(bind_retries=2, options={"session_timeout": 2.5})
    session = stage.open(application="model", max_retries=0)
    stage.submit(1, timeout=1.0)

    stage.dies(1, running=0, binding=True, overdue=True)
    assert not stage.heard(CLIENT, m.Lost), "its own time had not begun"
    stage.ready(2)
    assert stage.held() == [[(0, 1)]]
    stage.dies(2, running=0, binding=True, overdue=True, stderr=("Timeout!", "in on_session_enter"))

    (broken,) = stage.heard(CLIENT, m.Broken)
    assert "not ready after 2.5 s" in broken.text
    assert "session_timeout" in broken.text
    assert broken.traceback == "Timeout!\nin on_session_enter"
    assert session.closed


def test_after_so_many_failed_binds_in_a_row_the_session_is_stopped_with_the_error() -> None:
    stage = stage_with(bind_retries=3)
    session = stage.open(application="model", forward_output=False)
    stage.submit(1)
    for number in (1, 2, 3):
        assert not stage.heard(CLIENT, m.Broken)
        fails(stage, number, session.number)
        said = list(stage.said)
        stage.dies(number, expected=True)
        stage.ready(number + 1)

    broken = [message for peer, message in said if type(message) is m.Broken]
    assert broken == [m.Broken(1, "node/3", "ValueError: no", "Traceback ...", binds=3)]
    assert session.closed
    assert session.ending == "its service could not be bound: ValueError: no"
    told = happened(stage, session)
    assert "the service could not be bound 3 times, the last time on node/3: ValueError: no" in told
    assert "the session was stopped: 3 binds in a row have failed" in told
    assert not stage.broker.sessions


def test_a_bind_that_succeeds_starts_the_count_anew() -> None:
    stage = stage_with(executors=1, bind_retries=2)
    session = stage.open(application="model")
    stage.submit(1)
    fails(stage, 1, session.number)
    stage.dies(1, expected=True)
    stage.ready(2)
    stage.finish(2, LONG)

    assert session.failed_binds == 0


def test_how_long_a_service_takes_to_be_entered_is_learned_and_known_to_the_next_session() -> None:
    stage = stage_with()
    session = stage.open(application="model")
    shares = stage.broker.scheduler._shares
    assert shares[session.number].enters < 0, "nobody knows"
    stage.submit(2)

    stage.now += 2.5
    stage.finish(1, 0.5, count=1)
    assert shares[session.number].enters == pytest.approx(2.0)
    stage.now += 7.0
    stage.finish(1, 0.5)
    assert shares[session.number].enters == pytest.approx(2.0), "the first results say it"

    other = stage.open(alias=2, application="model")
    plain = stage.open(alias=3)
    assert shares[other.number].enters == pytest.approx(2.0)
    assert shares[plain.number].enters == 0


def test_a_cancel_that_meets_a_failed_bind_is_kept() -> None:
    stage = stage_with()
    session = stage.open(application="model")
    stage.submit(1)
    stage.say(CLIENT, m.Cancel(1, [0]))

    fails(stage, 1, session.number)

    assert [c.indices for c in stage.heard(CLIENT, m.Cancelled)] == [[0]]
    stage.say(FIRST, m.Retracted(session.number, []))
    assert not [c for c in stage.heard(CLIENT, m.Cancelled) if c.refused]


# --- who may share a process


def test_sessions_of_different_tenants_never_share_an_executor() -> None:
    stage = Stage(executors=1)
    stage.open(tenant="a")
    stage.open(alias=2, tenant="b")
    stage.submit(1)
    stage.finish(1, LONG)

    stage.submit(1, alias=2)
    assert exits(stage) == [1]
    assert not grants(stage)
    stage.dies(1, expected=True)
    stage.ready(2)

    assert grants(stage) == [2]


def test_tasks_of_tasks_are_of_the_tenant_of_their_task() -> None:
    stage = Stage(executors=1)
    stage.open(tenant="a")
    stage.submit(1)

    inner = stage.open(alias=5, client=OTHER, within="token/1", tenant="b")

    assert inner.tenant == "a"


def test_an_isolated_session_gets_fresh_processes_and_leaves_none_to_others() -> None:
    stage = stage_with(isolation="session")
    stage.open(alias=2)
    stage.submit(1, alias=2)
    stage.finish(1, LONG)
    session = stage.open(application="model")

    stage.submit(1)
    assert exits(stage) == [1], "it has served another one"
    stage.dies(1, expected=True)
    stage.ready(2)
    assert grants(stage) == [2]
    stage.finish(2, LONG)
    stage.say(CLIENT, m.Close(1))
    stage.say(FIRST + 1, m.Unbound(session.number))

    assert exits(stage) == [2]


def test_with_isolation_app_the_next_session_gets_the_warm_process() -> None:
    stage = stage_with()
    session = stage.open(application="model")
    stage.submit(1)
    stage.finish(1, LONG)
    stage.say(CLIENT, m.Close(1))
    stage.say(FIRST, m.Unbound(session.number))

    stage.open(alias=2, application="model")
    stage.submit(1, alias=2)

    assert not exits(stage)
    assert grants(stage) == [1]


def test_an_updated_application_is_told_anew() -> None:
    stage = stage_with()
    session = stage.open(application="model")
    stage.submit(1)
    stage.finish(1, LONG)
    stage.say(CLIENT, m.Close(1))
    stage.say(FIRST, m.Unbound(session.number))
    newer = structs.replace(m.Application("model"), service=b"newer")
    stage.say(CLIENT, m.UpdateApplication(1, newer, "us"))

    stage.open(alias=2, application="model")
    stage.submit(1, alias=2)

    assert [service and service.description for service in services(stage)] == [newer]


def test_a_session_that_closes_does_not_wait_for_a_service_to_go_that_was_in_its_way() -> None:
    stage = stage_with()
    first = stage.open(application="model")
    second = stage.open(alias=2, forward_output=False)
    stage.submit(1)
    stage.finish(1, LONG)
    stage.submit(1, alias=2)
    assert unbinds(stage) == [(1, first.number)]

    stage.say(CLIENT, m.Close(2))

    assert stage.heard(CLIENT, m.Closed)
    assert second.number not in stage.broker.sessions


def test_what_a_failed_bind_gives_back_is_asked_for_also_where_its_executor_was_to_leave() -> None:
    stage = stage_with(executors=1)
    session = stage.open(application="model")
    stage.submit(1)
    stage.open(alias=2)
    stage.submit(1, alias=2)
    stage.wait(61.0)
    assert stage.executor(1).leaving

    fails(stage, 1, session.number)
    stage.dies(1, expected=True)
    stage.ready(2)
    stage.finish(2, LONG)
    for number in (stage.broker.executors[peer].number for peer in list(stage.broker.executors)):
        if stage.executor(number).unbinding:
            stage.say(FIRST + number - 1, m.Unbound(session.number))

    assert session.succeed + session.held == 1
