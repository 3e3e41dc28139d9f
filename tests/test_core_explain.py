"""Explanations: why a task waits, as facts and in words; and that a task is cancelled already."""

from __future__ import annotations

from typing import Any

import pytest

from flamezmq.client.reasons import sentences, span
from flamezmq.core import departures
from flamezmq.core.members import Tenant
from flamezmq.states import TaskState
from flamezmq.wire import messages as m
from tests.core_stage import CLIENT, FIRST, OTHER, WORKER, Stage


def why(stage: Stage, task: int = -1, id: str = "s1") -> m.Why:
    stage.turn()  # whoever had something to do until now may be free
    before = stage.state()
    stage.say(OTHER, m.Ask(1, 7, id, task))
    (answer,) = stage.heard(OTHER, m.Answer)
    assert not answer.error, answer.error
    assert stage.state() == before, "to ask changes nothing"
    (found,) = answer.why
    return found


def words(stage: Stage, task: int = -1, id: str = "s1") -> str:
    return sentences(why(stage, task, id))


def busy(executors: int = 1, tasks: int = 3, **spec: Any) -> Stage:
    """Each executor runs a task of session s1; the others wait, 5 seconds after they were submitted."""
    stage = Stage(executors)
    stage.open(**spec)
    stage.submit(tasks)
    stage.wait(5.0)
    return stage


# --- where a task stands


def test_a_task_that_runs_says_where_and_since_when() -> None:
    stage = busy()
    assert words(stage, 0) == "task s1/0 runs on executor node/1, since 5 s."
    assert why(stage, 0).state == TaskState.RUNNING


def test_a_task_that_an_executor_holds_waits_behind_another_one_there() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.teach(0.001)
    stage.submit(3)
    stage.wait(0.001)
    assert stage.holds() == [3]
    assert words(stage, 3) == (
        "task s1/3 was given to executor node/1, where it waits behind 2 others; "
        "task 1 runs there, since an instant."
    )


def test_a_task_that_is_to_run_again_says_when() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.submit(1, retries=2)
    stage.retry(1, 30.0)
    stage.wait(10.0)
    assert words(stage, 0) == "task s1/0 has failed and is to run again in 20 s, as attempt 2."
    stage.say(OTHER, m.ChangeSession(1, "s1", "the boss", True))
    assert " as attempt 2. The session is suspended, " in words(stage, 0)


def test_a_task_that_needs_others_names_them_and_how_far_they_are() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.submit(2)
    stage.submit(1, needs=(0, 1, 0, 0, 1, 1))
    stage.wait(3.0)
    assert words(stage, 2) == (
        "task s1/2 waits for the values of 2 other tasks: s1/0 (it runs), s1/1 (it waits), since 3 s."
    )


def test_a_task_that_has_ended_says_how() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.submit(1)
    stage.finish(1)
    stage.submit(1)
    stage.finish(1, failed=[0])
    stage.wait(4.0)
    assert words(stage, 0) == "task s1/0 has ended with a value on executor node/1, 4 s ago."
    assert words(stage, 1) == "task s1/1 has failed on executor node/1, 4 s ago."


def test_what_has_ended_long_ago_is_not_remembered() -> None:
    stage = Stage(executors=1)
    stage.open()
    for _ in range(100):
        stage.submit(1)
        stage.finish(1)
    assert "the router does not remember" in words(stage, 0)


def test_a_task_of_a_closed_session_says_by_whom_it_was_closed() -> None:
    stage = busy(executors=0, forward_output=False)
    stage.say(CLIENT, m.Close(1))
    stage.wait(2.0)
    assert words(stage, 0) == (
        "task s1/0 has ended, or was cancelled when its session was closed, 2 s ago (closed by its client)."
    )
    assert words(stage) == "session s1 is closed, since 2 s: closed by its client."


def test_a_cancelled_task_says_by_whom() -> None:
    stage = Stage()
    stage.open()
    stage.submit(4)
    stage.say(CLIENT, m.Cancel(1, [0, 1]))
    stage.say(OTHER, m.CancelTask(1, "s1", 3, "the boss"))
    assert words(stage, 1) == "task s1/1 is cancelled, by its client."
    assert words(stage, 3) == "task s1/3 is cancelled, by the boss."


def test_who_cancels_what_is_cancelled_is_told_by_whom_it_was() -> None:
    stage = Stage()
    stage.open()
    stage.submit(1)
    stage.say(OTHER, m.CancelTask(1, "s1", 0, "the boss"))
    stage.say(OTHER, m.CancelTask(2, "s1", 0, "another boss"))
    assert stage.heard(OTHER, m.Done) == [m.Done(2, 1, "task s1/0 was cancelled before, by the boss")]


# --- why nothing is handed out


def test_a_queued_task_of_a_suspended_session() -> None:
    stage = busy(executors=0)
    stage.say(OTHER, m.ChangeSession(1, "s1", "the boss", True))
    stage.wait(60.0)
    assert words(stage, 2) == (
        "task s1/2 is queued behind 2 others of its session, since 65 s. "
        "The session is suspended, since 60 s, by the boss; flmctl resume s1 lets it go on."
    )


def test_a_session_whose_client_takes_no_results() -> None:
    stage = busy(executors=0)
    stage.broker.on_backlog(CLIENT, True)
    stage.wait(7.0)
    assert words(stage, 0) == (
        "task s1/0 is queued as the next of its session, since 12 s. "
        "Nothing is handed out, since 7 s: its client does not take the results that wait for it."
    )


def test_a_router_that_stops() -> None:
    stage = busy(executors=0)
    departures.drain(stage.broker, [], stage.now)
    stage.wait(3.0)
    assert words(stage, 0).endswith("Nothing is handed out, since 3 s: the router is stopping.")


def test_no_worker_and_no_executor() -> None:
    stage = busy(executors=0)
    assert words(stage, 0).endswith(
        "There are no executors, since 5 s: 1 worker with the router, and none has one."
    )
    stage.lose(WORKER)
    stage.wait(2.0)
    assert words(stage, 0).endswith("There are no executors, since 2 s: no worker is with the router.")


def test_executors_that_die_as_they_start() -> None:
    stage = busy(executors=0)
    stage.dies(1, signal="", exit_code=3, stderr=("Traceback", "ImportError: no numpy"))
    stage.wait(2.0)
    assert words(stage, 0).endswith(
        "There are no executors: they die, the last one on node node 2 s ago: "
        "exit code 3: ImportError: no numpy."
    )
    stage.wait(60.0)
    assert why(stage, 0).cause == "no executors", "that was long ago"


def test_a_session_that_has_as_many_executors_as_it_may() -> None:
    stage = busy(executors=3, tasks=5, max_executors=2)
    assert words(stage, 4) == (
        "task s1/4 is queued behind 2 others of its session, since 5 s. "
        "The session has the 2 that it may have at a time (max_executors), since 5 s."
    )


def test_a_session_that_has_all_executors() -> None:
    stage = busy(executors=2, tasks=5)
    assert words(stage, 2).endswith("All executors serve its session, 2 of 2, since 5 s, and are busy.")


def test_a_session_that_shares_executors_with_others() -> None:
    stage = Stage(executors=2)
    for alias in (1, 2):
        stage.open(alias)
        stage.submit(4, alias=alias)
    stage.finish(1, seconds=0.5)
    stage.wait(1.0)
    found = why(stage, 3)
    assert (found.cause, found.have, found.executors) == ("share", 1, 2)
    assert words(stage, 3).endswith(
        "The session has 1 of 2 executors, since 1 s; "
        "1 other session has the others, and tasks wait in 1 of the others."
    )


def test_executors_that_have_served_another_program() -> None:
    stage = Stage(executors=1)
    stage.open(home="ada")
    stage.submit(1)
    stage.finish(1)
    stage.open(2, client=OTHER, home="bob", max_executors=0)
    stage.submit(1, alias=2, client=OTHER)
    assert stage.heard(FIRST, m.Exit) == [m.Exit()]
    assert why(stage, 0, "s2").cause == "no executors"


def test_executors_that_die_as_they_start_time_after_time_say_since_when() -> None:
    stage = busy(executors=0)
    for number in range(1, 5):
        stage.dies(number, signal="", exit_code=3)
        stage.wait(1.0)
    assert words(stage, 0).endswith(
        "There are no executors: they die as they start, 4 in a row, since 4 s, "
        "the last one on node node 1 s ago: exit code 3."
    )


def test_a_node_that_keeps_failing_beside_one_that_serves_is_named_until_one_of_it_lives() -> None:
    stage = busy(executors=1)
    stage.say(WORKER + 1, m.Register("other", "more", 1, 2.0, 1 << 30, 2))
    for number in range(1, 5):
        died = m.Died(number, 1, "other", 0, -1, 0, "", 3, False, 0, ("ImportError: no numpy",))
        stage.say(WORKER + 1, died)
        stage.wait(1.0)
    assert words(stage, 1).endswith(
        "All executors serve its session, 1 of 1, since 9 s, and are busy. Node other gives no executors: "
        "they die as they start, 4 in a row, since 4 s, the last one by exit code 3: ImportError: no numpy."
    )
    stage.say(90, m.Ready("other", "more", 9, 200))
    stage.submit(1)
    assert not why(stage, 3).failing


def test_a_session_that_no_node_fits_says_since_when_none_does() -> None:
    stage = Stage(executors=1)
    stage.say(WORKER + 1, m.Register("other", "more", 1, 2.0, 1 << 30, 2, 1))
    stage.open(resources=(m.Resource("gpu", 1.0),))
    stage.submit(1)
    stage.wait(50.0)
    stage.lose(WORKER + 1)
    stage.wait(3.0)
    assert words(stage, 0).endswith(
        "No node has what an executor of the session needs, since 3 s: gpu=1 (at most 0)."
    )


def test_a_request_of_which_each_part_is_somewhere_but_not_together_says_so() -> None:
    stage = Stage(executors=1)
    stage.say(WORKER + 1, m.Register("other", "more", 1, 1.0, 1 << 30, 1, 1))
    stage.open(resources=(m.Resource("gpu", 1.0), m.Resource("cpu", 2.0)))
    stage.submit(1)
    stage.wait(3.0)
    assert words(stage, 0).endswith(
        "No node has what an executor of the session needs, since 3 s: gpu=1, cpu=2, all of it on one node."
    )


def test_a_task_that_waits_for_its_own_says_so() -> None:
    stage = busy(executors=1)
    stage.say(FIRST, m.Waiting(stage.broker.clients[CLIENT].sessions[1].number, True))
    stage.wait(2.0)
    assert words(stage, 0) == (
        "task s1/0 runs on executor node/1, since 7 s; it waits for its own tasks, since 2 s."
    )


def test_streams_that_wait_for_their_readers_are_said_to_hold_executors() -> None:
    stage = busy(executors=2, tasks=6)
    for number in (1, 2, 3, 4):
        if number > 2:
            stage.ready(number)
        stage.streams(number)
        stage.wait(1.0)

    assert words(stage, 0).endswith(
        "; its stream waits for its reader, since 3 s: read it on, or close it if nobody reads it "
        "(stream.close())."
    )
    assert words(stage, 5).endswith(
        "No more streams begin, since 1 s, nor what its session has queued behind them: as many wait for "
        "their readers as may, two for each executor of a node. 4 streams wait for their readers and hold "
        "4 executors, since 4 s the first of them: read them on, or close those that nobody reads "
        "(stream.close())."
    )
    stage.open(alias=2)
    stage.submit(1, alias=2)
    assert words(stage, 0, "s2").endswith(
        "4 streams wait for their readers and hold 4 executors, since 4 s the first of them: read them on, "
        "or close those that nobody reads (stream.close())."
    ), "nor can others run, before their spare executors are here"


def test_a_session_says_how_many_of_its_streams_wait() -> None:
    stage = busy(executors=1, tasks=1)
    stage.streams(1)
    stage.wait(2.0)
    assert words(stage) == (
        "Of the tasks of session s1, 1 runs. "
        "1 stream waits for its reader and holds 1 executor, since 2 s: read it on, or close it "
        "(stream.close())."
    )


def test_a_need_that_has_ended_is_on_its_way() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.submit(1)
    stage.finish(1)
    stage.submit(1, needs=(0, 1, 0))
    stage.wait(1.0)
    assert "s1/0 (it has ended, and its value is on its way), since 1 s." in words(stage, 1)


# --- of a session


def test_a_session_says_where_its_tasks_are() -> None:
    stage = busy(executors=2, tasks=5)
    stage.submit(1, needs=(0, 1, 0))
    assert words(stage) == (
        "Of the tasks of session s1, 2 run, 3 are queued, 1 waits for values of others. "
        "The next one was submitted 5 s ago. "
        "All executors serve its session, 2 of 2, since 5 s, and are busy."
    )


def test_a_session_without_tasks_says_so() -> None:
    stage = Stage(executors=1)
    stage.open()
    assert words(stage) == "session s1 has no task that has not ended."


def test_who_asks_for_what_is_not_there_is_told() -> None:
    stage = Stage()
    stage.open()
    for ask, text in ((m.Ask(1, 7, "nobody"), "nobody"), (m.Ask(1, 7, "s1", 0), "has no task 0")):
        stage.say(OTHER, ask)
        (answer,) = stage.heard(OTHER, m.Answer)
        assert text in answer.error


def test_a_place_that_only_a_newer_router_knows_is_named() -> None:
    assert "'limbo'" in sentences(m.Why("s", 1, "limbo"))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "an instant"), (0.31, "0.31 s"), (12.3, "12 s"), (180, "3 min"), (18_000, "5 h"), (2e5, "2 days")],
)
def test_times_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_calls_of_an_actor_wait_for_its_process_or_behind_others_there() -> None:
    stage = Stage()
    stage.open(initializer=b"make", restarts=0)
    stage.submit(2)
    assert words(stage, 1).endswith("Its actor has no process: it gets the next one that is free.")
    stage.ready(1)
    stage.wait(0.01)
    assert words(stage, 0).startswith("task s1/0 runs on executor node/1")


def test_a_call_says_which_one_holds_it_back() -> None:
    stage = Stage(executors=2)
    stage.open(initializer=b"make", restarts=0, max_retries=0)
    stage.open(2)
    stage.submit(1, alias=2)
    stage.submit(3, needs=(0, 2, 0))
    stage.wait(2.0)
    assert words(stage, 2).endswith(
        "Its actor's calls keep their order; call 0, before it, waits for values of others, since 2 s."
    )


def test_an_actor_that_is_one_too_many_says_so() -> None:
    stage = Stage(executors=3, actors_per_worker=1)
    for alias in (1, 2):
        stage.open(alias, initializer=b"make", restarts=0, max_retries=0)
        stage.submit(1, alias=alias)
    assert "as many live as may, 1 for each of 1 node." in words(stage, 0, "s2")


# --- what waits in clients for room under a quota


def test_what_waits_in_its_client_for_a_quota_says_which_since_when_and_what_to_do() -> None:
    stage = Stage(tenants={"research": Tenant(queued_tasks=4)})
    stage.open(tenant="research")
    stage.say(CLIENT, m.WantRoom(1, 4, 0, 0))
    stage.submit(4)
    stage.open(alias=2, tenant="research")
    stage.say(CLIENT, m.WantRoom(2, 3, 0, 0))
    stage.wait(12.0)
    quota = (
        "At least 3 tasks wait in the client, since 12 s: tenant research may have 4 tasks queued "
        "(queued_tasks); 4 are. They go out as those begin, or when the quota is raised: "
        "flmctl tenants set research --queued-tasks N."
    )
    assert words(stage, id="s2") == f"No task of session s2 is with the router. {quota}"
    assert words(stage, 2, id="s2") == f"task s2/2 waits in its client to be submitted. {quota}"
    assert "in the client" not in words(stage)
    stage.say(OTHER, m.Ask(1, 7, "s2", 3))
    assert stage.heard(OTHER, m.Answer)[0].error == "session s2 has no task 3"


def test_a_quota_of_bytes_is_told_in_bytes_and_what_is_queued_beside_it() -> None:
    stage = Stage(tenants={"": Tenant(queued_bytes=1 << 20)})
    stage.open()
    stage.say(CLIENT, m.WantRoom(1, 1, 1 << 20, 1 << 20))
    part = m.Slice(1, 0, 1, 1)
    stage.say(CLIENT, m.Submit(1, [m.NewFunction(1, b"f", "f")], [], [part], [b"x" * (1 << 20)], []))
    stage.say(CLIENT, m.WantRoom(1, 1, 600_000, 600_000))
    stage.wait(2.0)
    said = words(stage)
    assert said.startswith("Of the tasks of session s1, 1 is queued.")
    assert (
        "At least 1 task waits in the client, since 2 s: the tenant without a name may have 1m bytes of "
        "arguments queued (queued_bytes); 1m are. They go out as those begin, or when the quota is raised: "
        "flmctl tenants set '' --queued-bytes N."
    ) in said
