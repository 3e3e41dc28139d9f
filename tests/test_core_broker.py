"""The router's mind: sessions, results, cancelling, closing; what comes late changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m
from tests.core_stage import CLIENT, FIRST, OTHER, WORKER, Stage, results

# --- opening and submitting


def test_opened_is_the_answer_to_open() -> None:
    stage = Stage()
    assert stage.say(CLIENT, m.Open(7, "seven", m.SessionSpec("s"))) == [(CLIENT, m.Opened(7))]


def test_a_task_goes_to_a_free_executor_with_its_function_and_its_session() -> None:
    stage = Stage(executors=1)
    session = stage.open()

    said = stage.say(
        CLIENT, m.Submit(1, [m.NewFunction(5, b"code", "f")], [], [m.Slice(5, 0, 1, 1)], [b"in"], [])
    )

    (bind_to, bind), (grant_to, grant) = said
    assert bind_to == grant_to == FIRST
    assert bind == m.Bind(session.number, session.spec.environment, session.id)
    assert (grant.session, grant.inputs) == (session.number, [b"in"])
    (new,) = grant.functions
    assert (new.blob, new.label) == (b"code", "f")
    assert grant.slices == [m.Slice(new.number, 0, 1, 1)]


def test_a_function_travels_to_an_executor_once_whoever_names_it() -> None:
    stage = Stage(executors=1)
    stage.open(1)
    stage.open(2, client=OTHER)
    stage.submit(alias=1)
    stage.finish(1)

    stage.submit(alias=2, client=OTHER)

    (grant,) = stage.heard(FIRST, m.Grant)
    assert grant.functions == [], "the same blob is the same function"


def test_inputs_keep_their_buffers() -> None:
    stage = Stage(executors=1)
    stage.open()
    new = [m.NewFunction(1, b"code", "f")]
    message = m.Submit(1, new, [], [m.Slice(1, 0, 1, 1)], [b"pickle"], [0, 2])
    out: list[Any] = []
    stage.broker.on_message(CLIENT, message, [b"one", b"two"], 0.0, out)
    stage.broker.on_turn_end(0.0, out)

    ((_, grant, frames),) = [effect for effect in out if type(effect[1]) is m.Grant]
    assert (grant.inputs, grant.parts, frames) == ([b"pickle"], [0, 2], [b"one", b"two"])


def test_tasks_wait_while_there_is_no_executor_and_go_when_one_comes() -> None:
    stage = Stage()
    stage.open()
    assert stage.submit(2) == []

    stage.ready(1)

    assert stage.holds() == [1]


# --- results


def test_results_go_to_their_client_under_its_own_number_of_the_session() -> None:
    stage = Stage(executors=1)
    session = stage.open(alias=7)
    stage.submit(alias=7)

    stage.finish(1)

    (answer,) = stage.heard(CLIENT, m.RoutedResults)
    assert (answer.session, [part.first for part in answer.slices]) == (7, [0])
    assert (session.succeed, session.failed, session.held) == (1, 0, 0)
    stage.turn()
    assert stage.broker.scheduler.idle == 1


def test_failed_ones_are_counted_as_failed() -> None:
    stage = Stage(executors=1)
    session = stage.open()
    stage.submit(2)
    stage.finish(1, count=1)
    grant = m.Slice(0, 1, 1, 1)

    stage.say(FIRST, results(session.number, [grant], [0.1], failed=[0]))

    assert (session.succeed, session.failed) == (1, 1)


@pytest.mark.parametrize(
    ("slices", "why"),
    [
        ([m.Slice(1, 0, 1, 2)], "another attempt"),
        ([m.Slice(1, 5, 1, 1)], "never granted"),
        ([m.Slice(1, 0, 3, 1)], "one more than it holds"),
        ([m.Slice(1, 0, 1 << 62, 1)], "very many more"),
    ],
)
def test_stale_results_are_passed_over_and_the_task_stays_where_it_is(
    slices: list[m.Slice], why: str
) -> None:
    stage = Stage(executors=1)
    session = stage.open()
    stage.teach(1e-6)
    stage.submit(2)
    before = stage.held()

    stage.say(FIRST, results(session.number, slices, [0.1]))

    assert stage.held() == before, why
    assert stage.heard(CLIENT, m.RoutedResults) == []
    assert session.succeed == 1


def test_a_stale_slice_beside_good_ones_is_marked_for_the_client() -> None:
    stage = Stage(executors=1)
    session = stage.open()
    stage.submit()

    stage.say(FIRST, results(session.number, [m.Slice(1, 9, 1, 1), m.Slice(1, 0, 1, 1)], [0.1, 0.1]))

    (answer,) = stage.heard(CLIENT, m.RoutedResults)
    assert [part.attempt for part in answer.slices] == [0, 1]


def test_results_may_come_in_any_order_and_cut_in_any_way() -> None:
    stage = Stage(executors=1)
    session = stage.open()
    stage.teach(1e-6)
    stage.submit(6)
    assert stage.held() == [[(i, 1) for i in range(1, 7)]]

    for first, count in ((3, 2), (6, 1), (1, 2), (5, 1)):
        stage.say(FIRST, results(session.number, [m.Slice(1, first, count, 1)], [0.1]))

    assert session.succeed == 7
    assert stage.holds() == [0]


def test_results_for_a_session_that_it_does_not_serve_change_nothing() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.submit()
    before = stage.state()

    assert stage.say(FIRST, results(99, [m.Slice(1, 0, 1, 1)], [0.1])) == []

    assert stage.state() == before


def test_a_task_that_has_begun_is_announced_only_while_it_is_held() -> None:
    stage = Stage(executors=1)
    session = stage.open()
    stage.submit()

    assert stage.say(FIRST, m.Begun(session.number, 0, 1)) == [(CLIENT, m.Begun(1, 0, 1))]
    assert stage.say(FIRST, m.Begun(session.number, 0, 2)) == []
    stage.finish(1)
    assert stage.say(FIRST, m.Begun(session.number, 0, 1)) == []


# --- cancelling


def test_what_waits_is_cancelled_at_once_and_what_has_ended_is_refused() -> None:
    stage = Stage(executors=1)
    session = stage.open()
    stage.submit(3)
    stage.finish(1, seconds=1.0)

    said = stage.say(CLIENT, m.Cancel(1, [0, 2, 77]))

    assert said == [(CLIENT, m.Cancelled(1, [2], [0, 77]))]
    assert (session.cancelled, session.queued) == (1, 0)


def test_what_an_executor_holds_is_asked_back_and_its_answer_is_the_answer() -> None:
    stage = Stage(executors=1)
    session = stage.open()
    stage.teach(1e-6)
    stage.submit(3)

    assert stage.say(CLIENT, m.Cancel(1, [1, 3])) == [(FIRST, m.Drop(session.number, [1, 3]))]
    said = stage.say(FIRST, m.Retracted(session.number, [m.Slice(1, 3, 1, 1)]))

    assert said == [(CLIENT, m.Cancelled(1, [3], [1]))]
    assert stage.held() == [[(1, 1), (2, 1)]]
    assert session.cancelled == 1


def test_an_executor_that_holds_nothing_is_free_although_it_owes_an_answer() -> None:
    stage = Stage(executors=1)
    session = stage.open()
    stage.submit()
    stage.say(CLIENT, m.Cancel(1, [0]))
    stage.finish(1)  # it was too late
    stage.open(2)
    stage.submit(alias=2)
    assert stage.holds() == [1], "it works for another one already"

    said = stage.say(FIRST, m.Retracted(session.number, []))

    assert said == [(CLIENT, m.Cancelled(1, [], [0]))]
    assert stage.holds() == [1]


def test_an_answer_that_dies_with_its_executor_is_given_by_the_router() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.submit()
    stage.say(CLIENT, m.Cancel(1, [0]))

    said = stage.dies(1, running=-1)

    assert said == [(CLIENT, m.Cancelled(1, [0], []))]


# --- closing


def test_closing_cancels_what_waits_and_asks_back_what_is_held() -> None:
    stage = Stage(executors=1)
    session = stage.open(forward_output=False)
    stage.teach(1e-6)
    stage.submit(2)
    stage.submit(3, function=2)

    said = stage.say(CLIENT, m.Close(1))

    interrupt = m.Interrupt(session.number, [])
    assert said == [(FIRST, m.Retract(session.number, 0)), (FIRST, interrupt), (CLIENT, m.Closed(1))]
    assert stage.say(FIRST, m.Retracted(session.number, [m.Slice(1, 2, 1, 1)])) == []
    assert session.number in stage.broker.sessions, "a task runs"
    stage.finish(1)
    assert stage.heard(CLIENT, m.RoutedResults) == [], "nobody waits for it"
    assert stage.broker.sessions == {}
    assert stage.broker.scheduler.idle == 1


def test_what_comes_for_a_closed_session_changes_nothing_but_close_is_answered() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.say(CLIENT, m.Close(1))
    before = stage.state()

    late = m.Submit(1, [m.NewFunction(1, b"", "f")], [], [m.Slice(1, 0, 1, 1)], [b""], [])
    for message in (late, m.Cancel(1, [0]), m.Query(1, 5)):
        assert stage.say(CLIENT, message) == []
    assert stage.say(CLIENT, m.Close(1)) == [(CLIENT, m.Closed(1))]

    assert stage.state() == before


def test_the_number_of_a_closed_session_can_be_used_again() -> None:
    stage = Stage()
    first = stage.open()
    stage.say(CLIENT, m.Close(1))
    assert stage.open().number != first.number


# --- counting


def test_query_counts_tasks_by_state() -> None:
    stage = Stage(executors=1)
    session = stage.open()
    stage.submit(9)
    stage.finish(1, seconds=1.0)
    stage.say(CLIENT, m.Cancel(1, [8]))
    running = [index for index, _ in stage.held()[0]]

    stage.say(FIRST, results(session.number, [m.Slice(1, running[0], 1, 1)], [1.0], failed=[0]))

    assert stage.say(CLIENT, m.Query(1, 5)) == [(CLIENT, m.Counts(1, 5, 5, 1, 1, 1, 1))]


# --- a client that takes nothing


def test_nothing_more_is_run_for_a_client_that_does_not_take_its_results() -> None:
    stage = Stage(executors=2)
    stage.open()
    stage.broker.on_backlog(CLIENT, True)
    assert stage.submit(2) == []
    assert stage.broker.scheduler.idle == 2

    stage.broker.on_backlog(CLIENT, False)
    stage.turn()

    assert stage.holds() == [1, 1]
    stage.broker.on_backlog(99, True)  # it has gone: no harm


# --- printing


def test_what_a_task_prints_goes_to_its_client_unless_it_does_not_want_it() -> None:
    stage = Stage(executors=1)
    stage.open(1)
    stage.open(2, forward_output=False)
    stage.submit(alias=1)
    said = stage.say(WORKER, m.Printed(1, 1, "hello\n", 3))
    assert said == [(CLIENT, m.Output(1, "node/1", 1, "hello\n", 3))]
    stage.finish(1)

    stage.submit(alias=2)
    assert stage.say(WORKER, m.Printed(1, 1, "hello\n", 0)) == []
    assert stage.say(WORKER, m.Printed(99, 1, "who?\n", 0)) == []


# --- peers that misbehave


def submit(*slices: m.Slice, **fields: Any) -> m.Submit:
    whole: dict[str, Any] = {
        "functions": [m.NewFunction(1, b"f", "f")],
        "forget": [],
        "slices": list(slices),
        "inputs": [b""] * sum(part.count for part in slices),
        "parts": [],
        **fields,
    }
    return m.Submit(1, **whole)


SPEC = m.SessionSpec("s")
BAD = {
    "a session that is open already": (CLIENT, m.Open(1, "again", SPEC)),
    "a gap in the indices": (CLIENT, submit(m.Slice(1, 4, 1, 1))),
    "an index twice": (CLIENT, submit(m.Slice(1, 2, 1, 1), m.Slice(1, 2, 1, 1))),
    "a function that nobody knows": (CLIENT, submit(m.Slice(9, 2, 1, 1))),
    "more tasks than inputs": (CLIENT, submit(m.Slice(1, 2, 2, 1), inputs=[b""])),
    "more inputs than tasks": (CLIENT, submit(m.Slice(1, 2, 1, 1), inputs=[b"", b""])),
    "buffers without frames": (CLIENT, submit(m.Slice(1, 2, 1, 1), parts=[0, 1])),
    "a flood": (CLIENT, submit(m.Slice(1, 2, 1000, 1))),
    "a client as an executor": (CLIENT, m.Ready("node", "token", 9, 1)),
    "a client as a worker": (CLIENT, m.Register("node", "token", 1, 1.0, 1, 1)),
    "a client that has results": (CLIENT, results(1, [m.Slice(1, 0, 1, 1)], [1.0])),
    "an executor as a worker": (FIRST, m.Register("node", "token", 1, 1.0, 1, 1)),
    "an executor twice": (FIRST, m.Ready("node", "token", 1, 101)),
    "the name of another executor": (50, m.Ready("node", "token", 1, 101)),
    "an executor that opens": (FIRST, m.Open(1, "s", SPEC)),
    "results without run times": (FIRST, results(1, [m.Slice(1, 0, 1, 1)], [])),
    "an answer without a question": (FIRST, m.Retracted(1, [])),
    "a stranger that has results": (50, results(1, [m.Slice(1, 0, 1, 1)], [1.0])),
    "a stranger that has begun": (50, m.Begun(1, 0, 1)),
    "a stranger that reports a death": (50, m.Died(1, 1, "n", 0, -1, 0, "", 0, False, 0, ())),
    "a stranger that prints": (50, m.Printed(1, 1, "x", 0)),
    "a worker that has results": (WORKER, results(1, [m.Slice(1, 0, 1, 1)], [1.0])),
    "a worker as an executor": (WORKER, m.Ready("node", "token", 9, 1)),
}


@pytest.mark.parametrize("what", BAD)
def test_a_peer_that_says_what_it_must_not_is_told_so_and_nothing_changes(what: str) -> None:
    peer, message = BAD[what]
    stage = Stage(executors=1, max_tasks=100)
    stage.open()
    stage.submit(2)
    before = stage.state()
    out: list[Any] = []

    with pytest.raises(ProtocolError):
        stage.broker.on_message(peer, message, [], 0.0, out)

    assert out == []
    stage.turn()
    assert stage.state() == before


@pytest.mark.parametrize(
    ("session", "given"), [(1, [m.Slice(1, 0, 1 << 62, 1)]), (2, []), (1, [m.Slice(1, 0, 1, 1)] * 3)]
)
def test_an_answer_that_does_not_fit_its_question_is_told_so_and_stays_due(
    session: int, given: list[m.Slice]
) -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.teach(1e-6)
    stage.submit(2)
    stage.say(CLIENT, m.Cancel(1, [2]))
    before = stage.state()

    with pytest.raises(ProtocolError):
        stage.say(FIRST, m.Retracted(session, given))

    assert stage.state() == before
    assert stage.say(FIRST, m.Retracted(1, [m.Slice(1, 2, 1, 1)])) == [(CLIENT, m.Cancelled(1, [2], []))]


def test_a_function_that_was_forgotten_must_be_sent_again() -> None:
    stage = Stage()
    session = stage.open()
    stage.submit()
    stage.say(CLIENT, m.Submit(1, [], [1], [m.Slice(1, 1, 1, 1)], [b""], []))
    assert session.functions == {}
    with pytest.raises(ProtocolError):
        stage.say(CLIENT, m.Submit(1, [], [], [m.Slice(1, 2, 1, 1)], [b""], []))
