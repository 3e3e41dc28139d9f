"""What the router tells those who look from outside: right, and in bounded messages."""

from __future__ import annotations

from typing import Any

import pytest

from flamezmq.client.controller import EXECUTORS, LOGS, NODES, OBJECTS, SESSIONS, TASKS
from flamezmq.core import overview, records
from flamezmq.core.members import RECENT_MESSAGES, RECENT_SLICES
from flamezmq.errors import ProtocolError
from flamezmq.states import ExecutorState, NodeState, SessionState, TaskState
from flamezmq.wire import codec
from flamezmq.wire import messages as m
from flamezmq.wire.objects import COPY, MOST_OBJECTS, PINNED
from tests.core_stage import CLIENT, FIRST, OTHER, WORKER, Stage, results

#: Somebody who looks from outside.
LOOKER = 3


def stage_with(executors: int = 0, **limits: Any) -> Stage:
    stage = Stage(executors, **limits)
    stage.broker.on_client(LOOKER)
    return stage


def ask(stage: Stage, kind: int, **question: Any) -> m.Answer:
    stage.say(LOOKER, m.Ask(7, kind, **question))
    (answer,) = stage.heard(LOOKER, m.Answer)
    assert answer.request == 7
    return answer


def flood(stage: Stage, slices: list[m.Slice]) -> None:
    """Submit these, a message each, without a look at the whole broker after each."""
    for part in slices:
        message = m.Submit(1, [], [], [part], [b""] * part.count, [])
        stage.broker.on_message(CLIENT, message, [], stage.now, [])


def tasks(answer: m.Answer) -> list[tuple[int, int, str, str]]:
    """(first, count, state, executor) of each row."""
    return [(row.first, row.count, TaskState(row.state).name, row.executor) for row in answer.tasks]


# --- sessions


def test_a_session_is_counted_and_has_an_age() -> None:
    stage = stage_with(executors=1)
    stage.now = 5.0
    stage.open(max_retries=2)
    stage.teach(1.0)
    stage.submit(5)
    stage.now = 12.0

    (row,) = ask(stage, SESSIONS).sessions

    assert (row.id, row.state, row.name, row.max_retries) == ("s1", SessionState.OPEN, "s", 2)
    assert (row.slots, row.pending, row.running, row.succeed) == (1, 4, 1, 1)
    assert (row.age, row.closed, row.ending) == (7.0, -1.0, "")
    assert row.seconds == 1.0


def test_sessions_come_in_pages_of_bounded_size() -> None:
    stage = stage_with()
    for alias in range(1, 601):
        stage.open(alias)

    first = ask(stage, SESSIONS, limit=100_000)
    assert len(first.sessions) == overview.MOST_ROWS
    assert first.more == 600 - overview.MOST_ROWS
    rest: list[m.SessionRow] = []
    answer = first
    while answer.more:
        answer = ask(stage, SESSIONS, after=(rest or first.sessions)[-1].number)
        rest += answer.sessions

    assert [row.id for row in [*first.sessions, *rest]] == [f"s{alias}" for alias in range(1, 601)]


@pytest.mark.parametrize(("limit", "rows", "more"), [(0, 0, 3), (-5, 0, 3), (2, 2, 1), (3, 3, 0)])
def test_the_limit_is_kept_whatever_it_is(limit: int, rows: int, more: int) -> None:
    stage = stage_with()
    for alias in (1, 2, 3):
        stage.open(alias)

    answer = ask(stage, SESSIONS, limit=limit)

    assert (len(answer.sessions), answer.more) == (rows, more)


def test_a_session_that_has_ended_is_remembered_with_its_counts_and_the_reason() -> None:
    stage = stage_with(executors=1)
    stage.open()
    stage.submit(3)
    stage.finish(1, count=1)
    stage.now = 2.0
    stage.say(CLIENT, m.Close(1))
    stage.say(FIRST, m.Retracted(1, [run.slice() for run in stage.executor(1).held]))
    stage.now = 10.0

    assert ask(stage, SESSIONS).sessions == [], "only those that are open, unless asked for"
    (row,) = ask(stage, SESSIONS, closed=True).sessions
    assert (row.state, row.succeed, row.cancelled, row.pending) == (SessionState.CLOSED, 1, 2, 0)
    assert (row.closed, row.ending) == (8.0, "closed by its client")
    assert ask(stage, SESSIONS, session="s1").sessions == [row]


def test_open_and_ended_sessions_come_in_the_order_of_their_opening() -> None:
    stage = stage_with()
    for alias in (1, 2, 3, 4):
        stage.open(alias)
    for alias in (3, 1):
        stage.say(CLIENT, m.Close(alias))

    assert [row.id for row in ask(stage, SESSIONS, closed=True).sessions] == ["s1", "s2", "s3", "s4"]
    assert [row.id for row in ask(stage, SESSIONS, closed=True, after=2).sessions] == ["s3", "s4"]


def test_the_sessions_of_a_client_that_is_gone_say_so() -> None:
    stage = stage_with()
    stage.open()
    stage.lose(CLIENT)

    (row,) = ask(stage, SESSIONS, closed=True).sessions
    assert row.ending == "its client is gone"


def test_only_the_last_few_hundred_are_remembered() -> None:
    stage = stage_with()
    for alias in range(1, records.ENDED_SESSIONS + 11):
        stage.open(alias)
        stage.say(CLIENT, m.Close(alias))

    assert "no session 's10'" in ask(stage, SESSIONS, session="s10").error
    assert ask(stage, SESSIONS, session="s11").error == ""
    assert len(stage.broker.records.ended) == records.ENDED_SESSIONS


def test_of_two_sessions_of_one_id_the_later_one_is_meant() -> None:
    stage = stage_with()
    stage.open(client=CLIENT)
    stage.open(client=OTHER)
    stage.say(CLIENT, m.Close(1))

    (row,) = ask(stage, SESSIONS, session="s1").sessions
    assert (row.number, row.state) == (2, SessionState.OPEN)


def test_names_of_any_length_make_no_message_long() -> None:
    stage = stage_with(executors=1)
    long = "x" * 1_000_000
    stage.say(CLIENT, m.Open(1, long, m.SessionSpec(long, tenant=long)))
    stage.say(CLIENT, m.Submit(1, [m.NewFunction(1, b"f", long)], [], [m.Slice(1, 0, 2, 1)], [b""] * 2, []))

    for kind in (SESSIONS, EXECUTORS):
        assert len(codec.encode(ask(stage, kind))) < 2000
    answer = ask(stage, TASKS, session=long)
    assert not answer.error, "it is found by what was cut off, too"
    assert len(codec.encode(answer)) < 2000


# --- executors and nodes


def test_executors_say_what_they_do_and_for_how_long() -> None:
    stage = stage_with(executors=3)
    stage.open()
    stage.teach(1.0)
    stage.now = 3.0
    stage.submit(2)
    stage.now = 4.5

    rows = ask(stage, EXECUTORS).executors

    assert [ExecutorState(row.state).name for row in rows].count("BOUND") == 2
    assert [(r.name, r.node, r.pid) for r in rows] == [(f"node/{n}", "node", 100 + n) for n in (1, 2, 3)]
    assert sorted((row.session, row.tasks, row.running, row.since) for row in rows) == [
        ("", 0, -1, -1.0),
        ("s1", 1, 1, 1.5),
        ("s1", 1, 2, 1.5),
    ]
    assert [row.name for row in ask(stage, EXECUTORS, executor="node/2").executors] == ["node/2"]
    assert "no executor 'node/9'" in ask(stage, EXECUTORS, executor="node/9").error


def test_a_dead_executor_whose_results_are_awaited_is_dead() -> None:
    stage = stage_with(executors=1)
    stage.open()
    stage.submit(1)
    stage.dies(1, running=0, finished=5)

    assert [row.state for row in ask(stage, EXECUTORS).executors] == [ExecutorState.DEAD]


def test_a_node_is_ready_when_an_executor_of_it_is_there() -> None:
    stage = stage_with()
    stage.now = 1.0
    stage.say(WORKER, m.Register("big", "token", 9, 8.0, 1 << 34, 4, gpus=2))
    stage.now = 3.0
    (row,) = ask(stage, NODES).nodes
    assert (row.name, row.cores, row.memory, row.gpus, row.pid) == ("big", 8.0, 1 << 34, 2, 9)
    assert (row.state, row.executors, row.wanted, row.age) == (NodeState.STARTING, 0, 4, 2.0)

    stage.ready(1)
    (row,) = ask(stage, NODES).nodes
    assert (row.state, row.executors, row.busy) == (NodeState.READY, 1, 0)


# --- tasks


def test_tasks_run_wait_on_an_executor_or_in_the_queue_or_have_ended() -> None:
    stage = stage_with(executors=1)
    stage.open()
    stage.teach(0.002)
    stage.submit(200)
    held = stage.executor(1).tasks
    assert 1 < held < 200

    answer = ask(stage, TASKS, session="s1")

    assert tasks(answer) == [
        (0, 1, "SUCCEED", "node/1"),
        (1, 1, "RUNNING", "node/1"),
        (2, held - 1, "PENDING", "node/1"),
        (1 + held, 200 - held, "PENDING", ""),
    ]
    assert answer.more == 0
    assert {row.function for row in answer.tasks} == {"f"}
    assert answer.tasks[0].seconds == pytest.approx(0.002)


@pytest.mark.parametrize(
    ("state", "rows"), [("RUNNING", [(1, 1)]), ("SUCCEED", [(0, 1)]), ("FAILED", []), ("PENDING", [(2, 8)])]
)
def test_only_those_in_one_state_are_shown_if_asked_for(state: str, rows: list[tuple[int, int]]) -> None:
    stage = stage_with(executors=1)
    stage.open()
    stage.teach(1.0)
    stage.submit(9)

    answer = ask(stage, TASKS, session="s1", state=TaskState[state])

    assert [(row.first, row.count) for row in answer.tasks] == rows
    assert answer.more == 0


def test_failures_stand_apart_from_their_neighbours() -> None:
    stage = stage_with(executors=1)
    stage.open()
    stage.teach(1e-5)
    stage.submit(10)
    number = stage.broker.sessions[1].queue[0].function.number if stage.broker.sessions[1].queued else 1
    parts = [m.Slice(number, 1, 5, 1), m.Slice(number, 6, 5, 1)]
    stage.say(FIRST, results(1, parts, [0.1, 0.2], failed=[0, 4, 5, 7]))

    answer = ask(stage, TASKS, session="s1")

    assert [(first, count, state) for first, count, state, _ in tasks(answer)] == [
        (0, 1, "SUCCEED"),
        (1, 1, "FAILED"),
        (2, 3, "SUCCEED"),
        (5, 1, "FAILED"),
        (6, 1, "FAILED"),
        (7, 1, "SUCCEED"),
        (8, 1, "FAILED"),
        (9, 2, "SUCCEED"),
    ]


def test_a_task_that_is_given_up_has_failed_where_it_ran() -> None:
    stage = stage_with(executors=1)
    stage.open(max_retries=0)
    stage.submit(1)
    stage.dies(1, running=0)

    assert tasks(ask(stage, TASKS, session="s1")) == [(0, 1, "FAILED", "node/1")]


def test_a_stale_slice_has_not_ended() -> None:
    stage = stage_with(executors=1)
    stage.open()
    stage.submit(2)
    function = stage.executor(1).held[0].function.number
    stage.say(FIRST, results(1, [m.Slice(function, 0, 1, 1), m.Slice(function, 7, 1, 1)], [0.1, 0.1]))

    assert [row[:3] for row in tasks(ask(stage, TASKS, session="s1", state=TaskState.SUCCEED))] == [
        (0, 1, "SUCCEED")
    ]


def test_of_what_has_ended_only_the_last_is_remembered_and_the_rest_is_counted() -> None:
    stage = stage_with(executors=1)
    stage.open()
    stage.teach(1.0)
    for _ in range(100):
        stage.submit(1)
        stage.finish(1, 1.0)

    answer = ask(stage, TASKS, session="s1")

    assert len(answer.tasks) == RECENT_MESSAGES
    assert answer.tasks[-1].first == 100
    assert answer.more == 101 - RECENT_MESSAGES


def test_a_message_of_many_slices_is_remembered_by_its_last_ones() -> None:
    stage = stage_with(executors=1, batch_tasks=1000)
    stage.open()
    stage.teach(1e-6)
    stage.submit(100)
    function = stage.executor(1).held[0].function.number
    assert stage.holds() == [100]
    parts = [m.Slice(function, index, 1, 1) for index in range(1, 101)]
    stage.say(FIRST, results(1, parts, [1e-6] * 100, failed=[0, 99]))

    rows = tasks(ask(stage, TASKS, session="s1"))

    assert rows[-1][:3] == (100, 1, "FAILED")
    assert [row[0] for row in rows[1:]] == list(range(101 - RECENT_SLICES, 101))


def test_a_long_queue_of_short_runs_is_cut_and_leaves_room_for_what_has_ended() -> None:
    stage = stage_with(executors=1)
    stage.open()
    stage.teach(1.0)
    new = [m.NewFunction(2, b"2", "g")]
    stage.say(CLIENT, m.Submit(1, new, [], [m.Slice(2, 1, 1, 1)], [b""], []))
    flood(stage, [m.Slice(1 + index % 2, index, 1, 1) for index in range(2, 20_001)])

    answer = ask(stage, TASKS, session="s1", limit=10_000)

    assert len(answer.tasks) == overview.MOST_ROWS
    assert {TaskState(row.state).name for row in answer.tasks} == {"SUCCEED", "RUNNING", "PENDING"}
    assert answer.more == 20_001 - sum(row.count for row in answer.tasks)
    assert len(codec.encode(answer)) < 50_000


def test_a_million_like_tasks_are_one_row() -> None:
    stage = stage_with(max_tasks=1 << 20)
    stage.open()
    stage.submit(1)
    flood(stage, [m.Slice(1, 1 + 1000 * number, 1000, 1) for number in range(1000)])

    assert tasks(ask(stage, TASKS, session="s1")) == [(0, 1_000_001, "PENDING", "")]


def test_who_is_not_there_is_named() -> None:
    stage = stage_with()

    assert "no session 'nobody'" in ask(stage, TASKS, session="nobody").error
    assert "no session 'nobody'" in ask(stage, SESSIONS, session="nobody").error
    assert "no session 'nobody'" in ask(stage, LOGS, session="nobody").error


def test_who_does_not_take_its_answers_gets_no_more() -> None:
    stage = stage_with()
    stage.broker.on_backlog(LOOKER, True)

    with pytest.raises(ProtocolError, match="take the answers"):
        stage.say(LOOKER, m.Ask(1, SESSIONS))


# --- objects


def stocked(first: int, count: int, session: str = "s1", marks: int = 0, **more: Any) -> m.Stocked:
    ids = [k.to_bytes(16, "big") for k in range(first, first + count)]
    owners = [0 if session else -1] * count
    return m.Stocked(100, [session] if session else [], ids, owners, [7] * count, [marks] * count, **more)


def test_an_object_is_shown_with_all_that_stores_have_said_of_it() -> None:
    stage = stage_with()
    stage.open()
    stage.say(6, m.Register("far", "other", 1, 1.0, 1 << 30, 0, store="far", store_limit=500))
    stage.say(6, stocked(1, 1, "", COPY, readers={0: 2}))
    stage.say(WORKER, stocked(1, 1, "s1", PINNED, names={0: "weights"}, readers={0: 1}))

    (row,) = ask(stage, OBJECTS, session="s1").objects

    assert (row.name, row.session, row.size, row.nodes) == ("weights", "s1", 7, ["node", "far"])
    assert (row.copies, row.pinned, row.spilled, row.readers) == (1, True, False, 3)
    far = ask(stage, NODES).nodes[1]
    assert (far.name, far.objects, far.store_used, far.store_limit) == ("far", 1, 100, 500)


def test_many_objects_are_told_in_pages_and_those_of_one_session_alone() -> None:
    stage = stage_with()
    stage.open(1)
    stage.open(2)
    stage.say(WORKER, stocked(0, MOST_OBJECTS, "s1"))
    stage.say(WORKER, stocked(MOST_OBJECTS, 10, "s2"))
    found: list[m.ObjectRow] = []
    more = 1
    while more:
        answer = ask(stage, OBJECTS, after=found[-1].number if found else 0)
        assert len(answer.objects) <= overview.MOST_ROWS
        found, more = found + answer.objects, answer.more
    assert [row.id for row in found] == [k.to_bytes(16, "big") for k in range(MOST_OBJECTS + 10)]
    assert len(ask(stage, OBJECTS, session="s2").objects) == 10
    assert [(row.objects, row.object_bytes) for row in ask(stage, SESSIONS).sessions] == [
        (MOST_OBJECTS, 7 * MOST_OBJECTS),
        (10, 70),
    ]
    assert "no session 's3'" in ask(stage, OBJECTS, session="s3").error
