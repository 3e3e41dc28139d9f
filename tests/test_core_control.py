"""Sessions that somebody else closes, tasks that somebody else cancels; and who is told what."""

from __future__ import annotations

import msgspec

from flamezmq.core import caller
from flamezmq.wire import messages as m
from tests.core_calls import Future, calls_with, link_up, tell
from tests.core_stage import CLIENT, FIRST, OTHER, WORKER, Stage

BOSS = "flmctl (pid 7, boss@here)"


def done(stage: Stage, peer: int = OTHER) -> list[tuple[int, int]]:
    """(request, outcome) of what the controller was told in the last turn."""
    return [(message.request, message.outcome) for message in stage.heard(peer, m.Done)]


def test_a_session_that_is_closed_by_somebody_else_ends_and_its_client_is_told_by_whom() -> None:
    stage = Stage(executors=1)
    stage.open(forward_output=False)
    stage.submit(5)

    stage.say(OTHER, m.CloseSession(3, "s1", BOSS))

    assert stage.heard(CLIENT, m.ClosedBy) == [m.ClosedBy(1, BOSS)]
    assert stage.heard(CLIENT, m.Closed) == [m.Closed(1)]
    assert stage.heard(FIRST, m.Retract) == [m.Retract(1, 0)]
    assert done(stage) == [(3, 0)]
    assert not stage.broker.clients[CLIENT].sessions
    assert stage.broker.sessions[1].ending == f"closed by {BOSS}"


def test_its_client_hears_closed_when_all_that_was_printed_has_been_sent_on() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.submit(1)

    stage.say(OTHER, m.CloseSession(3, "s1", BOSS))
    assert stage.heard(CLIENT, m.Closed) == []
    stage.say(WORKER, m.Printed(1, 1, "late\n", 0))
    assert [output.text for output in stage.heard(CLIENT, m.Output)] == ["late\n"]
    stage.say(WORKER, m.Flushed(1))
    assert stage.heard(CLIENT, m.Closed) == [m.Closed(1)]


def test_a_worker_that_comes_later_than_its_executor_is_asked_for_what_was_printed() -> None:
    stage = Stage()
    stage.open()
    stage.ready(1, token="early")
    stage.submit(1)
    stage.finish(1)

    stage.say(CLIENT, m.Close(1))
    assert stage.heard(CLIENT, m.Closed) == []
    stage.say(WORKER + 1, m.Register("late", "early", 2, 1.0, 1 << 30, 1))
    assert stage.heard(WORKER + 1, m.Flush) == [m.Flush(1)]
    stage.say(WORKER + 1, m.Printed(1, 1, "hello\n", 0))
    assert [output.text for output in stage.heard(CLIENT, m.Output)] == ["hello\n"]
    stage.say(WORKER + 1, m.Flushed(1))
    assert stage.heard(CLIENT, m.Closed) == [m.Closed(1)]


def test_a_worker_that_never_comes_is_waited_for_as_long_as_its_executor_lives() -> None:
    stage = Stage(drain_seconds=1.0)
    stage.open()
    stage.ready(1, token="early")
    stage.submit(1)
    stage.finish(1)
    stage.say(CLIENT, m.Close(1))
    assert stage.heard(CLIENT, m.Closed) == []

    stage.lose(FIRST)
    for _ in range(3):
        if stage.broker.executors:
            stage.wait(60.0)

    assert stage.heard(CLIENT, m.Closed) == [m.Closed(1)]
    assert not stage.broker.flushing


def test_what_still_runs_of_it_ends_with_its_executor_after_a_moment() -> None:
    stage = Stage(executors=2, orphan_seconds=1.0)
    stage.open()
    stage.submit(2)
    stage.say(OTHER, m.CloseSession(3, "s1", BOSS))
    for number in (1, 2):
        stage.say(FIRST + number - 1, m.Retracted(1, []))
    stage.finish(1)
    stage.open(2)
    stage.submit(1, alias=2)
    assert stage.holds() == [1, 1], "one serves another session already"

    assert stage.heard(WORKER, m.Kill) == []
    stage.wait(1.1)
    assert stage.heard(WORKER, m.Kill) == [m.Kill(2)]


def test_what_its_client_still_says_changes_nothing() -> None:
    stage = Stage()
    session = stage.open()
    stage.say(OTHER, m.CloseSession(3, "s1", BOSS))

    stage.say(CLIENT, m.Submit(1, [m.NewFunction(1, b"f")], [], [m.Slice(1, 0, 1, 1)], [b""], []))
    assert (session.queued, stage.said) == (0, [])
    stage.say(CLIENT, m.Close(1))
    assert stage.heard(CLIENT, m.Closed) == [m.Closed(1)]


def test_a_session_is_closed_once() -> None:
    stage = Stage()
    stage.open()
    stage.say(OTHER, m.CloseSession(1, "s1", BOSS))

    stage.say(OTHER, m.CloseSession(2, "s1", BOSS))
    assert done(stage) == [(2, 1)]
    stage.say(OTHER, m.CloseSession(3, "s2", BOSS))
    assert done(stage) == [(3, 2)]


def test_a_task_that_waits_is_cancelled_and_its_client_is_told_by_whom() -> None:
    stage = Stage()
    session = stage.open()
    stage.submit(3)

    stage.say(OTHER, m.CancelTask(1, "s1", 1, BOSS))

    assert stage.heard(CLIENT, m.Cancelled) == [m.Cancelled(1, [1], [], f"cancelled by {BOSS}")]
    assert done(stage) == [(1, 0)]
    assert (session.queued, session.cancelled) == (2, 1)


def test_a_task_that_an_executor_holds_is_asked_back_and_the_answer_waits_for_that() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.teach(0.001)
    stage.submit(3)

    stage.say(OTHER, m.CancelTask(1, "s1", 3, BOSS))
    assert done(stage) == []
    assert stage.heard(FIRST, m.Drop) == [m.Drop(1, [3])]
    function = stage.executor(1).held[0].function.number
    stage.say(FIRST, m.Retracted(1, [m.Slice(function, 3, 1, 1)]))

    assert stage.heard(CLIENT, m.Cancelled) == [m.Cancelled(1, [3], [], f"cancelled by {BOSS}")]
    assert done(stage) == [(1, 0)]


def test_a_task_that_has_begun_is_not_cancelled_and_its_client_hears_nothing() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.submit(1)

    stage.say(OTHER, m.CancelTask(1, "s1", 0, BOSS))
    stage.say(FIRST, m.Retracted(1, []))

    assert done(stage) == [(1, 1)]
    assert stage.heard(CLIENT, m.Cancelled) == []


def test_a_task_that_has_ended_is_not_cancelled() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.teach(0.1)

    stage.say(OTHER, m.CancelTask(1, "s1", 0, BOSS))
    assert done(stage) == [(1, 1)]


def test_two_who_want_the_same_are_answered_both() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.submit(1)
    stage.broker.on_client(3)

    stage.say(OTHER, m.CancelTask(1, "s1", 0, BOSS))
    stage.say(3, m.CancelTask(9, "s1", 0, "another"))
    assert stage.heard(FIRST, m.Drop) == [], "it is asked for once"
    stage.say(FIRST, m.Retracted(1, []))

    assert done(stage) == [(1, 1)]
    assert done(stage, 3) == [(9, 1)]


def test_who_asks_twice_is_answered_twice() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.submit(1)

    stage.say(OTHER, m.CancelTask(1, "s1", 0, BOSS))
    stage.say(OTHER, m.CancelTask(2, "s1", 0, BOSS))
    assert done(stage) == [(1, 1)]
    stage.say(FIRST, m.Retracted(1, []))
    assert done(stage) == [(2, 1)]


def test_the_clients_own_cancel_is_answered_as_ever_beside_a_controllers() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.submit(1)

    stage.say(CLIENT, m.Cancel(1, [0]))
    stage.say(OTHER, m.CancelTask(1, "s1", 0, BOSS))
    stage.say(FIRST, m.Retracted(1, []))
    stage.say(FIRST, m.Retracted(1, []))

    assert stage.heard(CLIENT, m.Cancelled) == [m.Cancelled(1, [], [0])]


def test_who_waits_for_a_task_is_answered_when_its_session_is_closed() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.submit(1)
    stage.say(OTHER, m.CancelTask(1, "s1", 0, BOSS))

    stage.say(CLIENT, m.Close(1))
    assert done(stage) == [(1, 1)]


def test_who_waits_for_a_task_of_a_dead_executor_is_answered() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.submit(1)
    stage.say(OTHER, m.CancelTask(1, "s1", 0, BOSS))

    stage.dies(1, running=0)

    assert done(stage) == [(1, 0)], "it is back in the queue, and cancelled there"


def test_who_waits_for_a_task_of_an_executor_that_dies_after_it_is_answered() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.submit(1)
    stage.say(OTHER, m.CancelTask(1, "s1", 0, BOSS))
    stage.say(CLIENT, m.Cancel(1, [0]))
    stage.finish(1)
    stage.turn()
    assert stage.executor(1).session is None

    stage.lose(FIRST)

    assert done(stage) == [(1, 1)]
    assert stage.heard(CLIENT, m.Cancelled) == [m.Cancelled(1, [], [0])]


def test_tasks_that_are_not_there_are_named() -> None:
    stage = Stage()
    stage.open()
    stage.submit(2)
    for session, index in (("s1", 2), ("s1", -1), ("s9", 0)):
        stage.say(OTHER, m.CancelTask(1, session, index, BOSS))
        assert done(stage) == [(1, 2)]
    stage.say(CLIENT, m.Close(1))
    stage.say(OTHER, m.CancelTask(1, "s1", 0, BOSS))
    assert done(stage) == [(1, 1)]


def test_a_long_name_of_who_it_was_is_cut() -> None:
    stage = Stage()
    stage.open()
    stage.say(OTHER, m.CloseSession(1, "s1", "x" * 1_000_000))

    assert len(msgspec.msgpack.encode(stage.heard(CLIENT, m.ClosedBy))) < 300


# --- the client's side


def outcomes(futures: list[Future]) -> list[tuple[str, int, object]]:
    return [future.outcome for future in futures]


def test_futures_of_a_session_closed_by_somebody_else_are_cancelled_with_the_reason() -> None:
    calls, futures = calls_with([b"a", b"b", b"c"])
    calls.stage(link_up(), 2, tell)

    calls.on_closed_by(m.ClosedBy(1, BOSS), tell)
    calls.on_closed_by(m.ClosedBy(1, BOSS), tell)

    reason = f"session s was closed by {BOSS}"
    assert outcomes(futures) == [(caller.CANCELLED, caller.ERROR, reason)] * 3
    assert calls.closed
    assert not calls.unfinished
    calls.check()


def test_a_future_cancelled_by_somebody_else_has_the_reason() -> None:
    calls, futures = calls_with([b"a", b"b"])
    calls.stage(link_up(), 2, tell)

    calls.on_cancelled(m.Cancelled(1, [1], [], "cancelled by the boss"), tell)

    assert futures[1].outcome == (caller.CANCELLED, caller.ERROR, "cancelled by the boss")
    assert futures[0].outcome[0] == caller.PENDING
