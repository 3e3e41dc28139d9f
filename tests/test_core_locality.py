"""Tasks go where their data is, and no executor is idle for longer than that takes to travel."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

import pytest

from flamezmq.client.controller import WHY
from flamezmq.client.reasons import sentences
from flamezmq.core.locality import BYTES_PER_SECOND, LOOK_TASKS, NEAR_BYTES, PASSED_PER_EXECUTOR
from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m
from flamezmq.wire.handles import Handle, pack
from tests.core_stage import CLIENT, FIRST, WORKER, Stage

#: Takes 64 ms to travel.
LARGE = 64_000_000
TRAVELS = LARGE / BYTES_PER_SECOND


def id_of(k: int) -> bytes:
    return k.to_bytes(16, "big")


class Farm(Stage):
    """Nodes "a", "b", ... with executors numbered through, each node's behind those of the one before it.

    Object k lies on the node that `lies[k]` says.
    """

    def __init__(self, *sizes: int, **limits: Any) -> None:
        super().__init__(0, **limits)
        self.lose(WORKER)
        self.lies: dict[int, str] = {}
        self.names = "abcdefgh"[: len(sizes)]
        self.node_of: dict[int, str] = {}  # number of an executor -> its node
        for name, size in zip(self.names, sizes, strict=True):
            register = m.Register(
                name, name, 1, 2.0, 1 << 30, size, store=f"{name}-0", store_at=f"tcp://{name}:1"
            )
            self.say(50 + ord(name), register)
            for _ in range(size):
                number = len(self.node_of) + 1
                self.node_of[number] = name
                self.ready(number, name)

    def has(self, node: str, *ks: int, size: int = LARGE, marks: int = 0) -> None:
        """The store of this node reports objects."""
        many = len(ks)
        for k in ks:
            self.lies.setdefault(k, node)
        columns = [id_of(k) for k in ks], [0] * many, [size] * many, [marks] * many
        self.say(50 + ord(node), m.Stocked(0, ["s1"], *columns))

    def put(self, takes: Iterable[Iterable[int]], size: int = LARGE, homes: str = "", alias: int = 1) -> None:
        """Submit a task for each, which takes these objects."""
        wanted = [list(ks) for ks in takes]
        session = self.broker.clients[CLIENT].sessions[alias]
        objects = list(dict.fromkeys(k for ks in wanted for k in ks))
        uses = [n for at, ks in enumerate(wanted) for k in ks for n in (at, objects.index(k))]
        new = [] if 1 in session.functions else [m.NewFunction(1, b"1", "f")]
        part = m.Slice(1, session.next_index, len(wanted), 1)
        message = m.Submit(alias, new, [], [part], [b""] * len(wanted), [], uses=uses)
        message.objects = [id_of(k) for k in objects]
        message.homes = [f"{homes or self.lies.get(k, 'z')}-0" for k in objects]
        message.sizes = [size] * len(objects)
        self.say(CLIENT, message)

    def runs(self) -> dict[int, int]:
        """Index of each task that an executor holds -> its number."""
        return {
            index: executor.number
            for executor in self.broker.executors.values()
            for run in executor.held
            for index in range(run.start, run.end)
        }

    def nodes(self) -> dict[int, str]:
        return {index: self.node_of[number] for index, number in sorted(self.runs().items())}

    def busy(self, seconds: float) -> None:
        """All executors run a task of the session that takes so long, and has no data; how long is known."""
        self.teach(seconds)
        self.submit(len(self.node_of))
        assert len(self.runs()) == len(self.node_of)


def farm(*sizes: int) -> Farm:
    farm = Farm(*sizes)
    farm.open()
    return farm


# --- who gets a task


@pytest.mark.parametrize("node", ["a", "b", "c"])
def test_a_task_goes_to_a_free_executor_of_the_node_that_has_its_data(node: str) -> None:
    f = farm(2, 2, 2)
    f.has(node, 1)
    f.put([[1]])
    assert f.nodes() == {0: node}


def test_it_does_so_although_the_store_has_not_reported_yet() -> None:
    f = farm(1, 1, 1)
    f.put([[1]], homes="b")
    assert f.nodes() == {0: "b"}


def test_of_several_objects_most_bytes_count_and_copies_do_as_well() -> None:
    f = farm(1, 1, 1)
    f.has("a", 1)
    f.has("b", 2)
    f.has("c", 3)
    f.has("c", 1, marks=1)
    f.put([[1, 2, 3]])
    assert f.nodes() == {0: "c"}


def test_each_executor_gets_what_is_near_it_whatever_the_order() -> None:
    f = farm(1, 1, 1)
    for k, node in enumerate("abc"):
        f.has(node, k)
    f.busy(1.0)
    f.put([[2], [1], [0]])
    for number in (1, 2, 3):
        f.finish(number)
    assert {index - 4: node for index, node in f.nodes().items()} == {0: "c", 1: "b", 2: "a"}


@pytest.mark.parametrize("learned", [1e-5, 1e-2])
def test_who_submits_one_by_one_has_each_run_where_its_data_is(learned: float) -> None:
    f = farm(2, 2, 2)
    for k, node in enumerate("abc"):
        f.has(node, k)
    f.teach(learned)
    for turn, k in enumerate([0, 0, 1, 2, 1, 1, 0], 1):
        f.put([[k]])
        assert f.nodes() == {turn: "abc"[k]}
        f.finish(f.runs()[turn], learned)  # its executor stays for one turn more


def test_the_value_of_another_task_counts_by_its_handle() -> None:
    f = farm(1, 1, 1)
    f.submit(1)
    (number,) = f.runs().values()
    f.submit(1, needs=(0, 1, 0))
    f.finish(number, outputs=[pack(Handle(id_of(7), "c-0", (LARGE,), "tcp://c:1"))])
    assert f.nodes() == {1: "c"}


def test_small_data_makes_no_difference() -> None:
    f = farm(1, 1)
    f.busy(1.0)
    f.has("b", 1, size=NEAR_BYTES - 1)
    f.put([[1]], size=NEAR_BYTES - 1)
    f.finish(1)
    assert f.nodes()[3] == "a"


# --- who waits, and for how long


def test_an_idle_executor_gets_a_task_at_once_if_the_one_near_the_data_is_due_later_than_that_travels() -> (
    None
):
    f = farm(1, 1)
    f.has("b", 1)
    f.busy(10 * TRAVELS)
    f.put([[1]])
    f.finish(1)
    assert f.nodes()[3] == "a"


def test_it_holds_out_if_that_is_due_sooner_and_the_task_goes_there() -> None:
    f = farm(1, 1)
    f.has("b", 1)
    f.busy(TRAVELS / 2)
    f.put([[1]])
    f.finish(1, TRAVELS / 2)
    assert 3 not in f.runs()
    f.now += TRAVELS / 4
    f.finish(2, TRAVELS / 2)
    assert f.nodes() == {3: "b"}
    f.wait(0.0)
    assert not f.broker.holding_out, "nothing is left that it could hold out for"


def test_it_holds_out_for_no_longer_than_the_data_travels() -> None:
    f = farm(1, 1)
    f.has("b", 1)
    f.busy(TRAVELS / 2)
    f.put([[1]])
    f.finish(1, TRAVELS / 2)
    due = f.broker.next_deadline(f.now)
    assert due == pytest.approx(f.now + TRAVELS), "the router looks again by itself"
    f.wait(0.9 * TRAVELS)
    assert 3 not in f.runs(), "the other one takes longer than was believed"
    f.wait(0.1 * TRAVELS)
    assert f.nodes()[3] == "a"


def test_what_one_has_found_holds_for_all_of_its_node_until_something_changes() -> None:
    f = farm(3, 1)
    f.has("b", 1)
    f.busy(TRAVELS / 2)
    f.put([[1]])
    looks = len(f.broker.sessions[1].far_only)
    for number in (1, 2, 3):
        f.finish(number, TRAVELS / 2)
    assert (looks, len(f.broker.sessions[1].far_only)) == (0, 1)
    assert len(f.broker.holding_out) == 3
    f.submit(1)  # without data
    assert len(f.broker.holding_out) == 2
    f.wait(TRAVELS)
    assert f.node_of[f.runs()[5]] == "a"
    f.wait(0.0)
    assert not f.broker.holding_out


def test_nobody_waits_for_an_executor_of_which_nobody_knows_when_it_is_due() -> None:
    f = farm(1, 1)
    f.submit(1, function=2)
    f.submit(1, function=3)
    first, second = (f.runs()[index] for index in (0, 1))
    f.has(f.node_of[second], 1)
    f.put([[1]])
    f.finish(first, 1e-3)
    assert f.runs()[2] == first


def test_what_is_more_than_the_near_executors_can_do_in_time_goes_elsewhere_at_once() -> None:
    f = farm(1, 1)
    f.has("b", *range(4))
    f.busy(0.75 * TRAVELS)
    f.put([[k] for k in range(4)])
    f.finish(1, 0.75 * TRAVELS)
    assert f.nodes()[4] == "a", (
        "the second of them: the first one alone is begun there before it could be here"
    )


def test_an_executor_that_holds_out_is_given_to_another_session_that_waits() -> None:
    f = farm(1, 1)
    f.has("b", 1)
    f.busy(TRAVELS / 2)
    f.put([[1]])
    f.finish(1, TRAVELS / 2)
    assert 3 not in f.runs()
    f.open(2)
    f.submit(1, alias=2)
    executor = f.executor(1)
    assert executor.session is not None
    assert (executor.session.alias, executor.tasks) == (2, 1)


def test_when_the_near_node_is_lost_its_tasks_are_anybodys() -> None:
    f = farm(1, 1)
    f.has("b", 1)
    f.busy(TRAVELS / 2)
    f.put([[1]])
    f.finish(1, TRAVELS / 2)
    assert 3 not in f.runs()
    f.lose(FIRST + 1)
    f.lose(50 + ord("b"))
    f.finish(1, TRAVELS / 2)  # what had been running there
    assert f.nodes() == {3: "a"}


def test_a_task_that_ends_or_is_cancelled_leaves_nothing() -> None:
    f = farm(1, 1)
    f.has("b", 1)
    f.put([[1], [1], [1], [1]])
    session = f.broker.sessions[1]
    f.say(CLIENT, m.Cancel(1, [3]))
    while f.runs():
        f.finish(next(iter(f.runs().values())))
    assert session.inputs == {}


def test_no_task_is_passed_over_for_ever() -> None:
    f = farm(1, 1)
    f.has("a", 1)
    f.has("b", 2)
    f.busy(1.0)
    f.put([[2], *[[1]] * 50])  # node b is busy with something long, and never takes the first
    turns = 0
    while f.nodes().get(3) != "a":
        f.finish(1, 1.0, 1)
        turns += 1
        assert turns <= 2 * PASSED_PER_EXECUTOR + 1


# --- who pays for it


def test_where_there_is_one_node_nobody_asks_where_anything_is() -> None:
    f = farm(3)
    f.put([[1], [2]])
    assert f.broker.sessions[1].inputs == {}
    assert not f.broker.scheduler.choosy


@pytest.mark.parametrize("spec", [{"gang": 2}, {"restarts": 0, "initializer": b"x"}])
def test_gangs_and_actors_do_not_look_for_data(spec: dict[str, Any]) -> None:
    f = Farm(1, 1)
    f.open(**spec)
    f.put([[1], [1]], homes="b")
    assert f.broker.sessions[1].inputs == {}


def test_columns_that_do_not_fit_are_refused() -> None:
    f = farm(1, 1)
    for columns in (
        {"uses": [0]},
        {"uses": [0, 0]},
        {"uses": [1, 0], "objects": [id_of(1)], "homes": ["b-0"], "sizes": [1]},
        {"uses": [0, 0], "objects": [id_of(1)], "homes": [], "sizes": [1]},
    ):
        function = m.NewFunction(1, b"1", "f")
        with pytest.raises(ProtocolError):
            f.say(CLIENT, m.Submit(1, [function], [], [m.Slice(1, 0, 1, 1)], [b""], [], **columns))
    assert f.broker.sessions[1].next_index == 0


# --- who asks


def explain(f: Farm, task: int) -> str:
    f.broker.on_client(3)
    f.say(3, m.Ask(1, WHY, session="s1", task=task))
    (answer,) = f.heard(3, m.Answer)
    return sentences(answer.why[0])


def test_explain_says_where_the_data_is_and_who_waits_for_it() -> None:
    f = farm(1, 1)
    f.has("b", 1)
    f.busy(TRAVELS / 2)
    f.put([[1]])
    f.finish(1, TRAVELS / 2)

    text = explain(f, 3)
    assert "An executor of node b, where most of its data is, is due sooner" in text
    assert "another one takes it in 0.064 s at most" in text
    assert "Of its data in stores, 61.0 MiB, all is on node b." in text

    f.wait(TRAVELS)
    assert "61.0 MiB, none is on this node." in explain(f, 3)


# --- at random


@pytest.mark.parametrize("seed", range(20))
def test_no_executor_is_idle_for_longer_than_its_data_travels_while_something_waits(seed: int) -> None:
    """Whatever is submitted, and whenever; and in the end all has run."""
    r = Random(seed)
    f = farm(*(r.randint(1, 3) for _ in range(r.randint(2, 4))))
    for k in range(12):
        f.has(r.choice(f.names), k)
    idle: dict[int, float] = {}
    ends: dict[int, float] = {}
    left = r.randint(20, 120)
    session = f.broker.sessions[1]
    while left or session.queued or session.held:
        if left and r.random() < 0.4:
            many = min(left, r.choice((1, 3, 20)))
            f.put([[r.randrange(12)] if r.random() < 0.8 else [] for _ in range(many)])
            left -= many
        for number in set(f.runs().values()) - ends.keys():
            ends[number] = f.now + r.choice((0.001, 0.01, 0.03, 0.2))
        due = f.broker.next_deadline(f.now)
        f.now = min([*ends.values(), f.now + 0.01, *([due] if due is not None else [])])
        f.turn()
        for number, at in list(ends.items()):
            if at <= f.now and f.executor(number).tasks:
                del ends[number]
                f.finish(number, r.choice((0.001, 0.01, 0.03)), 1)
        for executor in f.broker.executors.values():
            if executor.tasks or not session.queued:
                idle.pop(executor.number, None)
            else:
                since = idle.setdefault(executor.number, f.now)
                assert f.now - since <= TRAVELS + 1e-6, (executor.name, f.now, since)
    assert session.succeed == session.next_index
    assert session.inputs == {}


def test_in_a_farm_most_tasks_run_where_their_data_is_and_hardly_later_than_anywhere() -> None:
    r = Random(1)
    f = farm(4, 4, 4, 4)
    objects = range(64)
    for k in objects:
        f.has("abcd"[k % 4], k)
    f.teach(0.1)
    many = 800
    takes = [r.choice(objects) for _ in range(many)]
    f.put([[k] for k in takes])
    near, seconds, ends = 0, 0.1, dict[int, float]()
    seen: set[int] = set()
    while f.broker.sessions[1].succeed < many + 1:
        for index, number in f.runs().items():
            if index not in seen:
                seen.add(index)
                near += f.node_of[number] == f.lies[takes[index - 1]]
            ends.setdefault(number, f.now + seconds * (0.8 + 0.4 * r.random()))
        f.now = min(ends.values())
        for number in [number for number, at in ends.items() if at <= f.now]:
            del ends[number]
            f.finish(number, seconds, 1)
    assert near > 0.9 * many
    assert f.now < 1.1 * many * seconds / 16
    assert many > LOOK_TASKS, "so the queue was longer than what is looked at"
