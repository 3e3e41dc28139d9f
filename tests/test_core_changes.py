"""Sessions that are changed while they run: suspended and resumed."""

from __future__ import annotations

from flamezmq.states import SessionState
from flamezmq.wire import messages as m
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
