"""Who gets which executors: evenly, none idle that a session could use, in turns where they are too few."""

from __future__ import annotations

from random import Random

from flamezmq.scheduler import QUANTUM_SECONDS, Moves, Scheduler


def scheduler_with(executors: int, sessions: int = 0, wanted: int = 0) -> Scheduler:
    """Executors 101, 102, ...; sessions 1, 2, ..., each of which wants so many."""
    scheduler = Scheduler()
    for number in range(1, sessions + 1):
        scheduler.add_session(number, 0.0)
        scheduler.want(number, wanted)
    for number in range(101, 101 + executors):
        scheduler.add_executor(number)
    return scheduler


def decide(scheduler: Scheduler, now: float = 0.0) -> Moves:
    moves = scheduler.decide(now)
    scheduler.check()
    return moves


def counts(moves: Moves) -> dict[int, int]:
    """How many executors each session was given."""
    given: dict[int, int] = {}
    for _, session in moves.assign:
        given[session] = given.get(session, 0) + 1
    return given


# --- sharing


def test_one_session_gets_all_that_it_can_use_and_no_more() -> None:
    scheduler = scheduler_with(executors=4, sessions=1, wanted=3)

    assert counts(decide(scheduler)) == {1: 3}
    assert scheduler.idle == 1
    assert not scheduler.waiting
    assert decide(scheduler) == Moves()


def test_sessions_share_evenly() -> None:
    scheduler = scheduler_with(executors=6, sessions=3, wanted=10)
    assert counts(decide(scheduler)) == {1: 2, 2: 2, 3: 2}


def test_what_one_session_leaves_the_others_get() -> None:
    scheduler = scheduler_with(executors=6, sessions=3, wanted=10)
    scheduler.want(2, 1)
    given = counts(decide(scheduler))
    assert given[2] == 1
    assert sorted(given.values()) == [1, 2, 3]


def test_a_session_of_twice_the_weight_gets_twice_as_many() -> None:
    scheduler = scheduler_with(executors=6)
    scheduler.add_session(1, 0.0, weight=2.0)
    scheduler.add_session(2, 0.0)
    scheduler.want(1, 9)
    scheduler.want(2, 9)
    assert counts(decide(scheduler)) == {1: 4, 2: 2}


def test_an_executor_goes_back_to_the_session_that_it_has_served() -> None:
    scheduler = scheduler_with(executors=3, sessions=2, wanted=1)
    served = {session: executor for executor, session in decide(scheduler).assign}
    for session, executor in served.items():
        scheduler.want(session, 0)
        scheduler.release(executor, 0.1)

    for session in (2, 1):
        scheduler.want(session, 1)
        assert decide(scheduler, 0.2).assign == [(served[session], session)]


def test_the_executor_of_a_session_that_is_gone_is_as_good_as_any() -> None:
    scheduler = scheduler_with(executors=1, sessions=2, wanted=1)
    scheduler.want(2, 0)
    assert decide(scheduler).assign == [(101, 1)]
    scheduler.want(1, 0)
    scheduler.release(101, 0.1)
    scheduler.remove_session(1)
    scheduler.check()

    scheduler.want(2, 1)
    assert decide(scheduler, 0.1).assign == [(101, 2)]


# --- reclaim


def test_a_session_with_less_gets_one_back_from_the_session_with_most() -> None:
    scheduler = scheduler_with(executors=4, sessions=1, wanted=9)
    last = decide(scheduler).assign[-1][0]
    scheduler.add_session(2, 0.0)
    scheduler.want(2, 1)

    moves = decide(scheduler, 0.001)

    assert moves.reclaim == [last], "the one it has got last"
    assert decide(scheduler, 0.002).reclaim == [], "one is on its way"
    scheduler.release(last, 0.003)
    assert decide(scheduler, 0.003).assign == [(last, 2)]


def test_reclaim_ends_when_all_have_the_same() -> None:
    scheduler = scheduler_with(executors=4, sessions=1, wanted=9)
    decide(scheduler)
    scheduler.add_session(2, 0.0)
    scheduler.want(2, 9)
    now = 0.0
    for _ in range(10):
        now += 1.0
        for executor in decide(scheduler, now).reclaim:
            scheduler.release(executor, now)
    serving = [scheduler._serves[executor] for executor in sorted(scheduler._serves)]
    assert sorted(serving) == [1, 1, 2, 2]
    assert decide(scheduler, now).reclaim == []


def test_what_is_to_be_given_back_counts_no_longer() -> None:
    """The session that loses it waits for another one, and takes it as soon as one is free."""
    scheduler = scheduler_with(executors=2, sessions=1, wanted=2)
    decide(scheduler)
    scheduler.add_session(2, 0.0)
    scheduler.want(2, 1)
    assert decide(scheduler, 0.001).reclaim
    assert scheduler.waiting

    scheduler.add_executor(103)
    scheduler.add_executor(104)

    assert counts(decide(scheduler, 0.002)) == {1: 1, 2: 1}


def test_a_retired_executor_is_replaced_at_once_if_another_is_free() -> None:
    scheduler = scheduler_with(executors=2, sessions=1, wanted=1)
    (first, _), *_ = decide(scheduler).assign
    assert not scheduler.waiting

    scheduler.retire(first)

    ((other, session),) = decide(scheduler, 0.1).assign
    assert (other != first, session) == (True, 1)
    scheduler.remove_executor(first, 0.2)
    scheduler.check()


# --- turns


def test_where_sessions_outnumber_executors_they_take_turns() -> None:
    scheduler = scheduler_with(executors=1, sessions=3, wanted=1)
    now, served = 0.0, []
    for _ in range(9):
        moves = decide(scheduler, now)
        if not moves.assign:
            when = scheduler.next_turn()
            assert when is not None
            assert decide(scheduler, when - 1e-6).reclaim == [], "not before its turn ends"
            now = when + 1e-6
            assert decide(scheduler, now).reclaim == [101]
            scheduler.release(101, now)
            moves = decide(scheduler, now)
        ((_, session),) = moves.assign
        served.append(session)
    assert [sorted(served[i : i + 3]) for i in (0, 3, 6)] == [[1, 2, 3]] * 3
    assert now <= 9 * (QUANTUM_SECONDS + 1e-5)


def test_nobody_waits_for_time_to_pass_where_nobody_waits() -> None:
    scheduler = scheduler_with(executors=1, sessions=1, wanted=5)
    decide(scheduler)
    assert scheduler.next_turn() is None, "it has all there is"
    scheduler.add_session(2, 0.0)
    scheduler.want(2, 1)
    decide(scheduler, 0.001)
    assert scheduler.next_turn() is not None
    assert decide(scheduler, 1.0).reclaim == [101]
    assert scheduler.next_turn() is None, "it is promised: only its release can change something"


def test_a_long_turn_is_paid_back_with_as_long_a_one() -> None:
    scheduler = scheduler_with(executors=1, sessions=2, wanted=1)
    ((_, first),) = decide(scheduler).assign
    assert decide(scheduler, 0.0).reclaim == [], "from now on one waits for the other"
    assert decide(scheduler, 0.01).reclaim == [101]
    scheduler.release(101, 1.0)  # its task took so long

    ((_, second),) = decide(scheduler, 1.0).assign

    assert second != first
    assert decide(scheduler, 1.5).reclaim == []
    when = scheduler.next_turn()
    assert when is not None
    assert abs(when - 2.0) < 1e-9


def test_what_a_session_did_not_use_in_the_past_is_no_claim() -> None:
    """One worked for an hour, one slept: when both want the only executor, neither starves."""
    scheduler = scheduler_with(executors=1, sessions=2)
    now = 0.0
    for _ in range(60):
        scheduler.want(1, 1)
        ((_, session),) = decide(scheduler, now).assign
        assert session == 1
        now += 60.0
        scheduler.want(1, 0)
        scheduler.release(101, now)
    for session in (2, 1):
        scheduler.want(session, 1)

    got: dict[int, float] = {1: 0.0, 2: 0.0}
    end = now + 1.0
    while now < end:
        ((_, session),) = decide(scheduler, now).assign
        since, now = now, now + QUANTUM_SECONDS
        while not decide(scheduler, now).reclaim:
            now = max(now + 1e-6, scheduler.next_turn() or 0.0)
        scheduler.release(101, now)
        got[session] += now - since
    assert min(got.values()) > 0.4, got


def test_what_was_used_while_nobody_waited_does_not_count() -> None:
    """One has worked for a minute beside the other; when its executor dies it need not wait a minute."""
    scheduler = scheduler_with(executors=2, sessions=1, wanted=1)
    ((first, _),) = decide(scheduler).assign
    scheduler.add_session(2, 60.0)
    scheduler.want(2, 1)
    assert decide(scheduler, 60.0).assign
    assert not scheduler.waiting

    scheduler.remove_executor(first, 60.0)
    assert decide(scheduler, 60.0).reclaim == []

    when = scheduler.next_turn()
    assert when is not None
    assert when <= 60.0 + QUANTUM_SECONDS


# --- executors that suit not everybody


def test_an_executor_that_does_not_suit_is_replaced_once_and_not_all_of_them() -> None:
    scheduler = Scheduler(lambda executor, session: False)
    scheduler.add_session(1, 0.0)
    for executor in (101, 102, 103):
        scheduler.add_executor(executor)
    scheduler.want(1, 1)

    assert decide(scheduler) == Moves(replace=[(101, 1)])
    assert decide(scheduler) == Moves(), "one is coming"
    scheduler.remove_executor(101, 0.1)
    assert decide(scheduler, 0.1) == Moves(), "it has ended, its successor is still to come"
    scheduler.want(1, 2)
    assert decide(scheduler, 0.1) == Moves(replace=[(102, 1)])


def test_if_no_successor_can_be_expected_another_one_is_replaced() -> None:
    scheduler = Scheduler(lambda executor, session: executor > 150)
    scheduler.add_session(1, 0.0)
    for executor in (101, 102):
        scheduler.add_executor(executor)
    scheduler.want(1, 1)
    decide(scheduler)
    scheduler.remove_executor(101, 0.1)

    scheduler.expect_none()

    assert decide(scheduler, 0.1).replace == [(102, 1)]
    scheduler.remove_session(1)
    scheduler.remove_executor(102, 0.2)
    scheduler.add_executor(151)
    scheduler.check()
    assert scheduler.coming == 0


def test_a_successor_may_come_before_the_end_of_its_predecessor_is_known() -> None:
    scheduler = Scheduler(lambda executor, session: executor > 102)
    scheduler.add_session(1, 0.0)
    for executor in (101, 102):
        scheduler.add_executor(executor)
    scheduler.want(1, 2)
    assert decide(scheduler).replace == [(101, 1), (102, 1)]

    scheduler.add_executor(103)
    scheduler.remove_executor(101, 0.1)
    scheduler.add_executor(104)
    scheduler.remove_executor(102, 0.1)

    assert scheduler.coming == 0, "or the session would wait for ever for one that is here"
    assert decide(scheduler, 0.1).assign == [(104, 1), (103, 1)]


def test_while_a_replacement_is_coming_one_that_suits_is_taken() -> None:
    scheduler = Scheduler(lambda executor, session: executor > 150)
    scheduler.add_session(1, 0.0)
    scheduler.add_executor(101)
    scheduler.want(1, 1)
    assert decide(scheduler).replace == [(101, 1)]

    scheduler.add_executor(151)

    assert decide(scheduler).assign == [(151, 1)]
    scheduler.remove_executor(101, 0.1)
    assert decide(scheduler) == Moves()


def test_one_that_suits_only_another_session_goes_there() -> None:
    scheduler = Scheduler(lambda executor, session: session == 2)
    for session in (1, 2):
        scheduler.add_session(session, 0.0)
        scheduler.want(session, 2)
    for executor in (101, 102, 103, 104):
        scheduler.add_executor(executor)

    moves = decide(scheduler)

    assert [session for _, session in moves.replace] == [1, 1]
    assert [session for _, session in moves.assign] == [2, 2]


# --- at random


def test_no_executor_idles_and_nobody_is_far_ahead_whatever_happens() -> None:
    for seed in range(150):
        chance = Random(seed)
        scheduler = Scheduler()
        now = 0.0
        serving: dict[int, int] = {}
        wants: dict[int, int] = {}
        for step in range(1, 201):
            now += chance.random() * 0.004
            what = chance.random()
            if what < 0.15:
                scheduler.add_executor(1000 + step)
            elif what < 0.3 and len(wants) < 5:
                scheduler.add_session(step, now)
                wants[step] = 0
            elif what < 0.7 and wants:
                session = chance.choice(list(wants))
                wants[session] = chance.choice((0, 1, 2, 9))
                scheduler.want(session, wants[session])
            elif what < 0.9 and serving:
                executor = chance.choice(list(serving))
                del serving[executor]
                scheduler.release(executor, now)
            elif serving:
                executor = chance.choice(list(serving))
                del serving[executor]
                scheduler.remove_executor(executor, now)
            moves = scheduler.decide(now)
            for executor, session in moves.assign:
                assert executor not in serving
                serving[executor] = session
            for executor in moves.reclaim:
                assert executor in serving
            scheduler.check()
            assert not (scheduler.idle and scheduler.waiting), f"seed {seed}, step {step}"


# --- limits


def limited(scheduler: Scheduler, session: int, limit: int, wanted: int = 10) -> None:
    scheduler.add_session(session, 0.0, limit=limit)
    scheduler.want(session, wanted)


def test_a_session_gets_no_more_than_its_limit_and_does_not_wait_for_more() -> None:
    scheduler = scheduler_with(executors=4)
    limited(scheduler, 1, limit=2)

    assert counts(decide(scheduler)) == {1: 2}
    assert scheduler.idle == 2
    assert not scheduler.waiting
    assert decide(scheduler) == Moves()


def test_what_a_limit_leaves_the_others_get() -> None:
    scheduler = scheduler_with(executors=6, sessions=1, wanted=10)
    limited(scheduler, 2, limit=1)

    assert counts(decide(scheduler)) == {1: 5, 2: 1}


def test_an_executor_that_is_to_be_given_back_counts_for_the_limit_until_it_is() -> None:
    scheduler = scheduler_with(executors=3)
    limited(scheduler, 1, limit=1)
    [(executor, _)] = decide(scheduler).assign

    scheduler.retire(executor)
    assert decide(scheduler, 0.1) == Moves(), "two would serve it at a time"

    scheduler.release(executor, 0.2)
    assert counts(decide(scheduler, 0.2)) == {1: 1}


def test_sessions_with_limits_take_turns_like_any_other() -> None:
    scheduler = scheduler_with(executors=1)
    for session in (1, 2, 3):
        limited(scheduler, session, limit=1)
    assert scheduler.crowded
    turns = []
    now = 0.0
    for _ in range(9):
        moves = decide(scheduler, now)
        turns += [session for _, session in moves.assign]
        for executor in moves.reclaim:
            assert scheduler.crowded, "that one is leaving makes no room"
            scheduler.release(executor, now)
            turns += [session for _, session in decide(scheduler, now).assign]
        now += QUANTUM_SECONDS
    assert len(turns) >= 8
    assert {turns.count(session) for session in (1, 2, 3)} <= {len(turns) // 3, len(turns) // 3 + 1}


def test_a_worn_executor_ends_and_its_session_waits_for_the_fresh_one_only() -> None:
    scheduler = Scheduler(suits=lambda executor, session: executor != 102)
    scheduler.add_executor(101)
    scheduler.add_session(1, 0.0)
    scheduler.want(1, 1)
    decide(scheduler)
    scheduler.add_executor(102)

    scheduler.wear_out(101, 0.1)

    assert scheduler.waiting
    assert scheduler.coming == 1
    assert decide(scheduler, 0.1) == Moves(), "nor is the other one replaced: one is enough"
    scheduler.remove_executor(101, 0.2)
    scheduler.add_executor(103)
    assert decide(scheduler, 0.2).assign == [(103, 1)]
    assert not scheduler.coming


def test_a_worn_executor_whose_session_needs_no_other_is_replaced_for_nobody() -> None:
    scheduler = scheduler_with(executors=1, sessions=1, wanted=1)
    decide(scheduler)
    scheduler.want(1, 0)

    scheduler.wear_out(101, 0.1)
    scheduler.check()
    scheduler.remove_session(1)
    scheduler.remove_executor(101, 0.2)
    scheduler.check()

    assert not scheduler.waiting
