"""Resources: what requests say, which node has room, and how room is made."""

from __future__ import annotations

from random import Random

import pytest

from flamezmq import waits
from flamezmq.resources import in_words, parse
from flamezmq.retracts import RETRY_SECONDS
from flamezmq.scheduler import Moves, Scheduler
from flamezmq.wire import messages as m
from tests.core_stage import CLIENT, OTHER, Stage

GIB = float(1 << 30)


def cluster(**nodes: tuple[dict[str, float], int]) -> Scheduler:
    """Nodes with what they have, and so many executors: of the first 101, 102, ..., of the second 201, ..."""
    scheduler = Scheduler()
    for place, (name, (has, executors)) in enumerate(nodes.items(), 1):
        scheduler.add_node(name, has, executors)
        for number in range(executors):
            scheduler.add_executor(100 * place + 1 + number, name)
    return scheduler


def decide(scheduler: Scheduler, now: float = 0.0) -> Moves:
    moves = scheduler.decide(now)
    scheduler.check()
    return moves


def add(scheduler: Scheduler, session: int, wanted: int, now: float = 0.0, **terms: object) -> None:
    scheduler.add_session(session, now, **terms)  # type: ignore[arg-type]
    scheduler.want(session, wanted)


# --- requests


def test_a_request_is_names_and_amounts() -> None:
    assert parse("cpu=1,mem=1g,gpu=0") == {"cpu": 1.0, "mem": GIB}
    assert parse(" cpu = 0.5 , license=2,mem=512M ") == {"cpu": 0.5, "license": 2.0, "mem": 512 * (1 << 20)}
    assert [in_words(parse(f"mem={text}")["mem"]) for text in ("2g", "512m", "3", "1.5t")] == [
        "2g", "512m", "3", "1.5t",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text", ["cpu", "cpu=", "=1", "cpu=-1", "cpu=1,,mem=1", "mem=1x", "cpu=1;mem=2", "cpu=1 2"]
)
def test_what_is_no_request_is_said_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"'cpu=1,mem=1g,gpu=0'"):
        parse(text)


def test_a_resource_can_be_named_once_only() -> None:
    with pytest.raises(ValueError, match="'cpu' twice"):
        parse("cpu=1,cpu=2")


# --- rooms


def test_executors_take_what_they_ask_for_and_leave_others_of_their_node_free() -> None:
    scheduler = cluster(one=({"cpu": 4.0}, 4))
    add(scheduler, 1, wanted=9, request={"cpu": 2.0})

    assert len(decide(scheduler).assign) == 2
    assert scheduler.idle == 2

    add(scheduler, 2, wanted=9, request={"cpu": 1.0})
    assert scheduler.idle == 2, "there are no cores for them"


def test_a_session_goes_where_the_gpus_are() -> None:
    scheduler = cluster(plain=({"cpu": 4.0}, 4), fast=({"cpu": 4.0, "gpu": 2.0}, 4))
    add(scheduler, 1, wanted=9, request={"gpu": 1.0})

    assert sorted(executor // 100 for executor, _ in decide(scheduler).assign) == [2, 2]


def test_a_session_that_fits_on_no_node_waits_and_says_what_is_missing() -> None:
    scheduler = cluster(one=({"cpu": 4.0, "mem": GIB}, 4))
    add(scheduler, 1, wanted=3, request={"mem": 2 * GIB, "license": 1.0, "cpu": 1.0})

    assert decide(scheduler) == Moves()
    assert not scheduler.waiting
    found = waits.explain(scheduler, 1)
    assert found.cause == "no node fits"
    assert found.missing == (("mem", 2 * GIB, GIB), ("license", 1.0, 0.0))

    scheduler.add_node("two", {"cpu": 1.0, "mem": 4 * GIB, "license": 1.0}, 1)
    scheduler.add_executor(201, "two")
    assert decide(scheduler).assign == [(201, 1)]


def test_room_is_made_on_one_node_at_the_ends_of_tasks() -> None:
    scheduler = cluster(one=({"cpu": 4.0}, 4), two=({"cpu": 2.0}, 2))
    add(scheduler, 1, wanted=9)
    assert len(decide(scheduler).assign) == 6
    add(scheduler, 2, wanted=1, now=1.0, request={"cpu": 3.0})

    reclaimed = decide(scheduler, 1.0).reclaim

    assert len(reclaimed) == 3
    assert all(executor < 200 for executor in reclaimed), "the other node is too small"
    for executor in reclaimed[:2]:
        scheduler.release(executor, 1.1)
        assert decide(scheduler, 1.1).assign == [], "nobody else gets what is gathered"
    assert waits.explain(scheduler, 2).cause == "no room"
    scheduler.release(reclaimed[2], 1.2)
    [(executor, session)] = decide(scheduler, 1.2).assign
    assert (executor in reclaimed, session) == (True, 2)


def test_one_gpu_goes_from_one_session_to_the_other_in_turns() -> None:
    scheduler = cluster(one=({"cpu": 4.0, "gpu": 1.0}, 4))
    served = {1: 0, 2: 0}
    now = 0.0
    for session in served:
        add(scheduler, session, wanted=9, request={"gpu": 1.0})
    held: list[int] = []
    for _ in range(4000):
        moves = decide(scheduler, now)
        for executor, session in moves.assign:
            served[session] += 1
            held.append(executor)
        assert len(held) <= 1
        for executor in moves.reclaim:
            held.remove(executor)
            scheduler.release(executor, now)
        now += 0.001
    assert min(served.values()) > 20, served


def test_where_no_room_can_be_made_it_is_tried_again_later() -> None:
    scheduler = cluster(one=({"cpu": 2.0}, 2))
    add(scheduler, 1, wanted=2, minimum=2)
    decide(scheduler)
    add(scheduler, 2, wanted=1, now=1.0, request={"cpu": 2.0})

    assert decide(scheduler, 1.0).reclaim == [], "they are the other's minimum"

    turn = scheduler.next_turn()
    assert turn is None or turn >= 1.0 + min(RETRY_SECONDS, 0.005)
    scheduler.set(1, minimum=0)
    assert len(decide(scheduler, 2.0).reclaim) == 2


def test_making_room_does_not_take_what_has_just_entered_a_service() -> None:
    scheduler = cluster(one=({"cpu": 2.0}, 2))
    add(scheduler, 1, wanted=1)
    decide(scheduler)
    add(scheduler, 2, wanted=1, now=5.0, enters=2.0)
    decide(scheduler, 5.0)
    add(scheduler, 3, wanted=1, now=5.1, request={"cpu": 2.0})
    for now in (5.2, 7.0, 24.9):
        assert decide(scheduler, now).reclaim == [], "ten times what it takes to load"

    assert sorted(decide(scheduler, 25.1).reclaim) == [101, 102]


def test_a_service_that_has_much_more_than_its_share_makes_room_at_once() -> None:
    scheduler = cluster(one=({"cpu": 4.0}, 4))
    add(scheduler, 1, wanted=4, enters=2.0)
    decide(scheduler)
    add(scheduler, 2, wanted=1, now=0.1, request={"cpu": 1.0})
    assert len(decide(scheduler, 0.2).reclaim) == 1


def test_what_rests_makes_room_at_once_though_it_has_loaded_a_service() -> None:
    scheduler = cluster(one=({"cpu": 2.0}, 2))
    for session in (1, 2):
        add(scheduler, session, wanted=1, enters=2.0)
    for executor, _ in decide(scheduler).assign:
        scheduler.rest(executor)

    add(scheduler, 3, wanted=1, now=0.1, request={"cpu": 2.0})

    assert sorted(decide(scheduler, 0.2).reclaim) == [101, 102]


def test_a_minimum_makes_room_at_once_also_where_a_service_has_just_been_entered() -> None:
    scheduler = cluster(one=({"cpu": 2.0}, 2))
    for session in (1, 2):
        add(scheduler, session, wanted=1, enters=2.0)
    decide(scheduler)

    add(scheduler, 3, wanted=1, now=0.1, request={"cpu": 2.0}, minimum=1)

    assert sorted(decide(scheduler, 0.2).reclaim) == [101, 102]


def test_the_dominant_resource_decides_how_much_a_session_has() -> None:
    """Each executor of the one takes a tenth of the memory, of the other a twentieth of the cores."""
    scheduler = cluster(one=({"cpu": 20.0, "mem": 10 * GIB}, 20))
    add(scheduler, 1, wanted=99, request={"mem": GIB})
    add(scheduler, 2, wanted=99)

    given = [session for _, session in decide(scheduler).assign]

    assert given.count(2) == pytest.approx(2 * given.count(1), abs=2)


def test_nodes_are_never_overtaken_and_nothing_is_stuck_whatever_comes() -> None:
    for seed in range(60):
        chance = Random(seed)
        scheduler = cluster(
            a=({"cpu": 4.0, "gpu": 1.0}, 4), b=({"cpu": 8.0, "mem": 8.0}, 4), c=({"cpu": 2.0}, 2)
        )
        requests = [{}, {}, {"cpu": 2.0}, {"gpu": 1.0}, {"mem": 3.0, "cpu": 1.0}, {"cpu": 9.0}]
        wants: dict[int, int] = {}
        serving: dict[int, int] = {}
        now = 0.0
        for step in range(1, 150):
            now += chance.random() * 0.02
            what = chance.random()
            if what < 0.2 and len(wants) < 6:
                add(scheduler, step, 0, now, request=chance.choice(requests))
                wants[step] = 0
            elif what < 0.5 and wants:
                session = chance.choice(list(wants))
                wants[session] = chance.choice((0, 1, 3, 9))
                scheduler.want(session, wants[session])
            elif what < 0.9 and serving:
                executor = chance.choice(list(serving))
                del serving[executor]
                scheduler.release(executor, now)
            elif what < 0.95 and serving:
                executor = chance.choice(list(serving))
                node = "abc"[executor // 100 % 10 - 1]
                del serving[executor]
                scheduler.remove_executor(executor, now)
                scheduler.add_executor(1000 * step + executor % 1000, node)
            serving.update(decide(scheduler, now).assign)
        for session in wants:
            scheduler.want(session, 1)
        for _ in range(300):  # all are served in the end, one after the other
            now += 0.1
            for executor, session in decide(scheduler, now).assign:
                serving[executor] = session
                wants[session] = -1
            for executor in [e for e in serving if scheduler._shares[serving[e]].leaving.get(e) is not None]:
                del serving[executor]
                scheduler.release(executor, now)
        done = ("", "no node fits")
        waiting = [s for s, n in wants.items() if n >= 0 and waits.explain(scheduler, s).cause not in done]
        assert not waiting, f"seed {seed}: {waiting}"


# --- in the broker


def test_what_a_worker_has_decides_and_whoever_asks_hears_what_is_missing() -> None:
    stage = Stage(executors=2)
    stage.open(resources=(m.Resource("gpu", 1.0),))
    stage.submit(3)
    assert not [message for _, message in stage.said if type(message) is m.Grant]

    stage.open(client=OTHER, resources=(m.Resource("cpu", 2.0), m.Resource("mem", float(1 << 29))))
    stage.submit(3, client=OTHER)
    grants = [peer for peer, message in stage.said if type(message) is m.Grant]
    assert len(grants) == 1, "it has both cores"
    session = stage.broker.clients[CLIENT].sessions[1]
    assert waits.explain(stage.broker.scheduler, session.number).missing == (("gpu", 1.0, 0.0),)
