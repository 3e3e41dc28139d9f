"""The client's core inside a task: what is sent, what is kept, what comes back."""

from __future__ import annotations

from typing import Any

from flamezmq.core.caller import CANCELLED, FINISHED, Dependent
from flamezmq.core.link import Link
from flamezmq.core.nested import MOST_WINDOW, NestedCalls
from flamezmq.wire import messages as m
from tests.core_calls import Future, Name, link_up, submits, tell


def nest(count: int) -> tuple[NestedCalls, list[Any], Link]:
    calls = NestedCalls(1, "s")
    name = Name(1)
    futures = [Future(silent=False) for _ in range(count)]
    for position, future in enumerate(futures):
        calls.outbox.append((future, name, b"%d" % position))
    return calls, futures, link_up()


def send(calls: NestedCalls, link: Link) -> None:
    while calls.room() > 0 and calls.stage(link, calls.room(), tell):
        pass
    calls.check()


def results(first: int, count: int = 1) -> m.Results:
    return m.Results(1, [m.Slice(1, first, count, 1)], [], [0.1], [], [b"v"] * count)


def test_the_oldest_task_lies_with_the_router_and_the_newest_is_run_here() -> None:
    calls, futures, link = nest(5)
    send(calls, link)
    assert [message.inputs for message in submits(link)] == [[b"0"]]

    newest = calls.take_newest()
    assert newest is not None
    assert newest[0] is futures[4]
    assert len(calls.outbox) == 3


def test_more_lie_there_the_sooner_they_are_taken_but_never_more_than_so_many() -> None:
    calls, _, link = nest(5000)
    sent = 0
    for _ in range(12):
        send(calls, link)
        here = calls.committed - sent
        assert len(calls.untaken) <= MOST_WINDOW
        calls.on_taken(m.Taken(1, list(range(sent, sent + here))))
        sent += here
    assert calls.window == MOST_WINDOW
    assert sent > 1000


def test_what_is_taken_back_lies_in_the_outbox_again_and_can_be_sent_anew() -> None:
    calls, futures, link = nest(2)
    calls.window = 2
    send(calls, link)
    assert calls.ask_back() == [0, 1]
    assert calls.ask_back() == [], "once"

    calls.on_cancelled(m.Cancelled(1, [1], [0]), tell)
    calls.check()

    assert [record[0] for record in calls.outbox] == [futures[1]]
    assert futures[1].told == []
    assert calls.ask_back() == [], "the other one has begun"
    calls.on_results(results(0), [], tell)
    assert futures[0].told == [FINISHED]
    calls.check()
    send(calls, link)
    assert futures[1]._index == 2
    calls.on_results(results(2), [], tell)
    assert futures[1].told == [FINISHED]
    assert not calls.kept
    assert not calls.unfinished


def test_what_the_user_has_cancelled_is_cancelled() -> None:
    calls, futures, link = nest(1)
    send(calls, link)
    calls.on_cancelled(m.Cancelled(1, [0], []), tell)
    assert futures[0].told == [CANCELLED]
    assert not calls.outbox
    calls.check()


def test_a_message_that_is_applied_twice_changes_nothing_the_second_time() -> None:
    calls, futures, link = nest(1)
    send(calls, link)
    calls.ask_back()
    message = m.Cancelled(1, [0], [])
    calls.on_cancelled(message, tell)
    calls.on_cancelled(m.Cancelled(1, [0], []), tell)
    assert [record[0] for record in calls.outbox] == [futures[0]]
    assert futures[0].told == []


def test_when_its_task_has_ended_all_goes_out() -> None:
    calls, _, link = nest(50)
    calls.free = True
    send(calls, link)
    assert calls.committed == 50
    assert not calls.kept


def test_what_is_being_taken_back_when_its_task_ends_goes_out_again() -> None:
    calls, futures, link = nest(2)
    calls.window = 2
    send(calls, link)
    assert calls.ask_back() == [0, 1]

    calls.let_go(failed=False)
    calls.check()
    calls.on_cancelled(m.Cancelled(1, [0, 1], []), tell)
    assert [record[0] for record in calls.outbox] == futures
    send(calls, link)
    calls.on_results(results(2, 2), [], tell)
    assert [future.told for future in futures] == [[FINISHED], [FINISHED]]
    assert not calls.unfinished
    assert not calls.kept


def test_what_is_being_taken_back_when_its_task_fails_does_not_go_out_again() -> None:
    calls, futures, link = nest(1)
    send(calls, link)
    assert calls.ask_back() == [0]

    calls.cancel_all(tell)
    calls.let_go(failed=True)
    calls.check()
    calls.on_cancelled(m.Cancelled(1, [0], []), tell)
    assert futures[0].told == [CANCELLED]
    assert not calls.unfinished
    assert not calls.outbox


class Watched(Future):
    """Counts how often somebody asks whether one has ended."""

    looks = 0

    @property
    def _state(self) -> str:
        Watched.looks += 1
        return self.__dict__.get("state", "PENDING")

    @_state.setter
    def _state(self, state: str) -> None:
        self.__dict__["state"] = state


def line_of(count: int) -> tuple[NestedCalls, list[Any]]:
    """Each call but the first needs the one before it."""
    calls, futures, _ = nest(1)
    for position in range(1, count):
        futures.append(Watched(silent=False))
        needs = [(calls, futures[position - 1])]
        calls.put_aside((futures[position], Name(1), Dependent(b"%d" % position, needs)))
    return calls, futures


def test_of_a_long_line_of_calls_only_those_are_looked_at_whose_need_has_ended() -> None:
    calls, futures = line_of(1000)
    Watched.looks = 0
    for future in futures:
        record = calls.take_newest()
        assert record is not None
        assert record[0] is future
        future._state = FINISHED
        calls.promote(lambda _: b"value", tell, future)
    assert not calls.aside
    assert not calls.waiting
    assert Watched.looks < 20_000


def test_calls_that_were_kept_aside_are_cancelled_with_the_others() -> None:
    calls, futures = line_of(4)
    calls.cancel_unsent({futures[2]: None}, tell)
    assert list(calls.aside) == [futures[1], futures[3]]
    calls.cancel_unsent(None, tell)
    assert [future.told for future in futures] == [[CANCELLED]] * 4
    assert not calls.unfinished
    assert calls.cancelled == 4
