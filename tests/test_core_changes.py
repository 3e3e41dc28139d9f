"""Sessions that are changed while they run: suspended, resumed, drained, given another share."""

from __future__ import annotations

from flamezmq.client.happened import sentence
from flamezmq.core import caller
from flamezmq.states import SessionState
from flamezmq.wire import messages as m
from tests.core_calls import calls_with, link_up, tell
from tests.core_stage import CLIENT, FIRST, OTHER, Stage

BOSS = "flmctl (pid 7, boss@here)"


def change(stage: Stage, id: str = "s1", peer: int = OTHER, **what: object) -> tuple[int, str]:
    """(outcome, sentence) of an order to change a session."""
    stage.say(peer, m.ChangeSession(7, id, BOSS, **what))  # type: ignore[arg-type]
    (done,) = stage.heard(peer, m.Done)
    assert done.request == 7
    return done.outcome, done.text


def test_nothing_of_a_suspended_session_is_handed_out() -> None:
    stage = Stage(executors=2)
    session = stage.open()

    outcome, text = change(stage, suspended=True)
    stage.submit(5)

    assert (outcome, text) == (0, "session s1 is suspended; tasks that wait: 0")
    assert (stage.holds(), session.queued) == ([0, 0], 5)
    assert stage.broker.next_deadline(stage.now) is None, "nobody has to look"


def test_what_has_not_begun_is_asked_back_and_what_runs_ends() -> None:
    stage = Stage(executors=1)
    session = stage.open()
    stage.teach(0.001)
    stage.submit(3)
    assert stage.holds() == [3]

    change(stage, suspended=True)
    assert stage.heard(FIRST, m.Retract) == [m.Retract(1, 0)]
    function = stage.executor(1).held[0].function.number
    stage.say(FIRST, m.Retracted(1, [m.Slice(function, 2, 2, 1)]))

    assert stage.held() == [[(1, 1)]]
    assert Stage.tasks(session.queue) == [(2, 1), (3, 1)]
    stage.finish(1)
    assert stage.heard(CLIENT, m.RoutedResults) != []
    assert stage.executor(1).session is None, "it may serve others"


def test_its_executors_serve_others_meanwhile() -> None:
    stage = Stage(executors=1)
    stage.open()
    stage.open(2)
    stage.submit(3)
    stage.submit(1, alias=2)
    change(stage, suspended=True)
    stage.say(FIRST, m.Retracted(1, []))
    stage.finish(1)

    assert stage.executor(1).session is stage.broker.clients[CLIENT].sessions[2]


def test_what_waits_is_handed_out_when_it_is_resumed() -> None:
    stage = Stage(executors=2)
    stage.open()
    change(stage, suspended=True)
    stage.submit(2)

    outcome, text = change(stage, suspended=False)

    assert (outcome, text) == (0, "session s1 is resumed; tasks that wait: 2")
    assert stage.holds() == [1, 1]


def test_what_comes_back_waits_too() -> None:
    stage = Stage(executors=2)
    session = stage.open()
    stage.submit(2)
    change(stage, suspended=True)
    for number in (1, 2):
        stage.say(FIRST + number - 1, m.Retracted(1, []))

    stage.dies(1, running=0)
    stage.retry(2, 0.5)
    stage.wait(1.0)

    assert (stage.holds(), session.queued) == ([0], 2)


def test_a_value_that_a_task_of_it_has_waited_for_starts_nothing() -> None:
    stage = Stage(executors=1)
    session = stage.open()
    stage.submit(2, needs=(1, 1, 0))
    change(stage, suspended=True)
    stage.say(FIRST, m.Retracted(1, []))
    stage.finish(1, outputs=[b"value"])

    assert (session.queued, stage.holds()) == (1, [0])
    change(stage, suspended=False)
    assert stage.holds() == [1]


def test_cancelling_and_closing_go_on_while_it_is_suspended() -> None:
    stage = Stage(executors=1)
    session = stage.open(forward_output=False)
    change(stage, suspended=True)
    stage.submit(3)

    stage.say(CLIENT, m.Cancel(1, [1]))
    assert stage.heard(CLIENT, m.Cancelled) == [m.Cancelled(1, [1], [])]
    stage.say(CLIENT, m.Close(1))
    assert stage.heard(CLIENT, m.Closed) == [m.Closed(1)]
    assert session.cancelled == 3


def test_a_session_is_suspended_and_resumed_once() -> None:
    stage = Stage()
    stage.open()

    assert change(stage, suspended=False) == (1, "session s1 is not suspended")
    change(stage, suspended=True)
    assert change(stage, suspended=True) == (1, f"session s1 is suspended already, by {BOSS}")
    assert change(stage) == (1, "nothing was to be changed in session s1")
    assert change(stage, "s9", suspended=True) == (2, "there is no session 's9'")
    stage.say(CLIENT, m.Close(1))
    assert change(stage, suspended=False) == (1, "session s1 is closed already")


def test_that_it_is_suspended_is_seen_from_outside_and_by_its_client() -> None:
    stage = Stage()
    stage.open()
    change(stage, suspended=True)

    stage.say(OTHER, m.Ask(1, 0))
    (answer,) = stage.heard(OTHER, m.Answer)
    assert answer.sessions[0].state == SessionState.SUSPENDED
    stage.say(CLIENT, m.Query(1, 2))
    assert stage.heard(CLIENT, m.Counts) == [m.Counts(1, 2, 0, 0, 0, 0, 0, BOSS)]


def test_a_suspended_actor_keeps_its_process_and_goes_on_in_order() -> None:
    stage = Stage(executors=1)
    actor = stage.open(initializer=b"make", restarts=0)
    stage.submit(4)
    stage.finish(1, 1.0, count=1)
    before = [index for index, _ in stage.held()[0]]
    change(stage, suspended=True)
    function = stage.executor(1).held[0].function.number
    back = before[1:]
    stage.say(FIRST, m.Retracted(1, [m.Slice(function, back[0], len(back), 1)] if back else []))
    stage.finish(1, 1.0)

    assert list(actor.executors) == [FIRST]
    assert stage.holds() == [0]
    change(stage, suspended=False)
    assert stage.held()[0][0] == (2, 1)


# --- drained


def test_a_session_is_closed_when_what_it_has_has_ended() -> None:
    stage = Stage(executors=1)
    session = stage.open(forward_output=False)
    stage.submit(2)

    outcome, text = change(stage, drain=True)
    assert (outcome, text) == (
        0,
        "session s1 takes no more tasks, and is closed when those that it has have ended: 2",
    )
    assert stage.heard(CLIENT, m.ClosedBy) == [m.ClosedBy(1, BOSS, True)]
    stage.submit(1)  # it was on its way
    stage.say(CLIENT, m.Close(1, True))
    assert not session.closed
    while stage.holds() != [0]:
        stage.finish(1, 1.0)

    assert (session.closed, session.ending, session.succeed) == (True, f"closed by {BOSS}", 3)
    assert stage.heard(CLIENT, m.Closed) == [m.Closed(1)]
    assert not stage.broker.drained


def test_nothing_is_closed_before_the_client_has_said_that_nothing_more_comes() -> None:
    stage = Stage()
    session = stage.open(forward_output=False)
    change(stage, drain=True)
    stage.wait(10.0)
    assert not session.closed

    stage.say(CLIENT, m.Close(1, True))
    assert session.closed


def test_what_waits_to_run_again_or_for_others_is_waited_for() -> None:
    stage = Stage(executors=1)
    session = stage.open(forward_output=False)
    stage.submit(1, retries=1)
    stage.submit(1, function=2, needs=(0, 1, 0))
    change(stage, drain=True)
    stage.say(CLIENT, m.Close(1, True))
    stage.retry(1, 1.0)
    assert (session.closed, stage.holds()) == (False, [0])
    stage.wait(1.5)
    stage.finish(1, outputs=[b"value"])
    assert not session.closed
    stage.finish(1)
    assert session.closed


def test_that_it_drains_is_seen_and_it_can_still_be_closed_at_once() -> None:
    stage = Stage(executors=1)
    session = stage.open(forward_output=False)
    stage.submit(2)
    change(stage, drain=True)
    stage.say(CLIENT, m.Close(1, True))
    stage.say(OTHER, m.Ask(1, 0))
    (answer,) = stage.heard(OTHER, m.Answer)
    assert answer.sessions[0].state == SessionState.DRAINING
    assert change(stage, drain=True) == (1, f"session s1 is being closed already, by {BOSS}")

    stage.say(OTHER, m.CloseSession(2, "s1", "another boss"))
    assert session.ending == "closed by another boss"
    assert not stage.broker.drained


def test_who_drains_what_is_suspended_is_told_so() -> None:
    stage = Stage()
    stage.open()
    change(stage, suspended=True)
    assert change(stage, drain=True)[1].endswith(
        f"; it is suspended, by {BOSS}: resume it, or they never end"
    )


def test_actors_and_sessions_of_tasks_are_not_drained() -> None:
    stage = Stage()
    stage.open(initializer=b"make", restarts=0)
    stage.open(2, within="token/1")
    assert change(stage, drain=True) == (1, "session s1 is that of an actor: it can be closed, not drained")
    assert change(stage, "s2", drain=True) == (
        1,
        "session s2 is that of a task: it can be closed, not drained",
    )


def test_a_client_that_nobody_asked_to_drain_closes_at_once() -> None:
    stage = Stage()
    session = stage.open(forward_output=False)
    stage.submit(1)
    stage.say(CLIENT, m.Close(1, True))
    assert session.closed


def test_futures_of_a_session_that_drains_end_as_ever_and_those_that_came_too_late_are_cancelled() -> None:
    calls, futures = calls_with([b"a", b"b"])
    calls.stage(link_up(), 1, tell)
    calls.on_closed_by(m.ClosedBy(1, BOSS, True), tell)
    assert not calls.closed
    assert [future.outcome[0] for future in futures] == [caller.PENDING] * 2

    calls.on_drained(tell)
    why = f"session s is being closed by {BOSS}: what was submitted runs, and nothing more is taken"
    assert [future.outcome for future in futures] == [(caller.CANCELLED, caller.ERROR, why)] * 2
    assert calls.closed
    calls.check()


# --- shares


def test_a_session_with_more_weight_gets_more_executors() -> None:
    stage = Stage(executors=6)
    sessions = [stage.open(alias) for alias in (1, 2)]
    for alias in (1, 2):
        stage.submit(30, alias=alias)

    def go_on() -> list[int]:
        for _ in range(6):
            for number in range(1, 7):
                if stage.executor(number).tasks:
                    stage.finish(number, 0.5, count=1)
            stage.wait(0.5)
            for alias in (1, 2):
                stage.submit(6, alias=alias)
        return [len(session.executors) for session in sessions]

    assert go_on() == [3, 3]
    outcome, text = change(stage, weight=2.0)
    assert (outcome, text) == (0, "session s1 has weight=2 from now on")
    assert go_on() == [4, 2]
    assert sessions[0].spec.weight == 2.0, "as it is listed"


def test_a_lower_limit_is_kept_as_soon_as_tasks_end_and_a_higher_one_at_once() -> None:
    stage = Stage(executors=4)
    session = stage.open()
    stage.submit(20)
    assert len(session.executors) == 4

    change(stage, max_executors=1)
    for number in range(1, 5):
        stage.finish(number, 0.5)
    assert len(session.executors) == 1
    change(stage, max_executors=3)
    assert len(session.executors) == 3
    change(stage, max_executors=0)
    assert len(session.executors) == 4


def test_a_minimum_is_bound_at_once_and_let_go_when_it_is_taken_back() -> None:
    stage = Stage(executors=3)
    session = stage.open()
    change(stage, min_executors=2)
    assert len(session.executors) == 2
    change(stage, min_executors=0)
    assert len(session.executors) == 0


def test_what_can_not_be_is_not_set() -> None:
    stage = Stage()
    session = stage.open(max_executors=2)
    stage.open(2, initializer=b"make", restarts=0)
    assert change(stage, min_executors=3) == (1, "session s1 can't have min_executors=3, max_executors=2")
    assert session.spec.min_executors == 0
    assert change(stage, "s2", weight=2.0) == (
        1,
        "session s2 is that of an actor: it has no share of its own",
    )


def test_what_was_set_is_an_event() -> None:
    stage = Stage()
    stage.open()
    change(stage, weight=2.5, priority=-1)
    stage.say(OTHER, m.Ask(1, 6, "s1"))
    (answer,) = stage.heard(OTHER, m.Answer)
    assert sentence(answer.events[-1]) == f"changed: weight=2.5, priority=-1, by {BOSS}"
