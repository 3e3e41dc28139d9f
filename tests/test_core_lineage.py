"""What is made again, against a small model of a cluster that loses its nodes: no sockets, no time."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any
from weakref import WeakValueDictionary

import pytest

from flamezmq.client.arguments import on_wanted
from flamezmq.core import caller
from flamezmq.core.caller import CANCELLED, DONE, ERROR, FINISHED, UNMET, Calls, Dependent
from flamezmq.core.lineage import MOST_DEPTH, RECIPE_BYTES, CannotBeMade, Ledger, LineageCalls, Recipe
from flamezmq.errors import ObjectLost
from flamezmq.serialize.failures import dump_error, load_lost
from flamezmq.wire import codec
from flamezmq.wire import messages as m
from flamezmq.wire.composed import compose, decompose, is_composed
from flamezmq.wire.handles import Handle, is_handle, pack, unpack
from tests.core_calls import Future as PlainFuture
from tests.core_calls import Name, link_up, tell
from tests.test_core_restart import every_place

Key = tuple[int, int]


class Hold:
    """Keeps an object of the model, as long as it lives."""

    def __init__(self, cluster: Cluster, handle: Handle) -> None:
        self.cluster, self.handle = cluster, handle

    def __del__(self) -> None:
        self.cluster.objects.pop(self.handle.id, None)


class Future(PlainFuture):
    _recipe: Recipe | None = None
    _heir: Any = None
    _inflow = None
    _depth = _age = 0


class Cluster:
    """Client, router and executors in one.  A value is a text: the name of its task and what it was made of.

    homes     the stores that there are; one that is lost comes back with another name
    objects   id -> value, of those that are there
    tasks     (session, index) -> function label, call, needs: at the router, not run
    outcomes  of tasks that have ended: a payload, or None
    ran       how often each function was really called
    refused   how often a task has found an argument gone
    """

    def __init__(self, seed: int = 0, runs: int = 1000, most: int = 1 << 30) -> None:
        self.random = random.Random(seed)
        self.link, self.seen = link_up(), 0
        self.needed: WeakValueDictionary[Key, Any] = WeakValueDictionary()
        self.ledger = Ledger()
        self.sessions = {
            alias: LineageCalls(alias, f"s{alias}", self.needed, self.ledger, self, runs, most)
            for alias in (1, 2)
        }
        for calls in self.sessions.values():
            calls.take_over = self.own
        self.homes = ["a", "b", "c"]
        self.objects: dict[bytes, str] = {}
        self.where: dict[bytes, str] = {}
        self.tasks: dict[Key, tuple[Any, list[Key]]] = {}
        self.outcomes: dict[Key, Any] = {}
        self.asked: set[tuple[Key, Key]] = set()
        self.ran: dict[str, int] = {}
        self.count = self.refused = 0
        self.small = 0.0
        self.twice = False
        self.client: Any = SimpleNamespace(
            _needed=self.needed, _orders=SimpleNamespace(append=self.on_supply),
            _pump=SimpleNamespace(arm=lambda: None),
        )  # fmt: skip

    # --- as of Host

    def future(self, recipe: Recipe) -> Future:
        return Future()

    def lost(self, output: Any) -> ObjectLost | None:
        return load_lost(output)

    def due(self, calls: Calls) -> None:
        pass

    # --- the user

    def submit(self, name: str, *needs: Future, alias: int = 1) -> Future:
        future = Future()
        held = []
        for need in needs:
            if need._state is FINISHED and need._recipe is not None:
                need = need._recipe.calls.again(need._recipe)
            held.append((self.calls_of(need), need))
        call = b"\x80" + name.encode()
        payload: Any = Dependent(call, held) if held else call
        self.sessions[alias].outbox.append((future, Name(1), payload))
        future.calls = self.sessions[alias]  # type: ignore[attr-defined]
        return future

    def calls_of(self, future: Future) -> Calls:
        return future._recipe.calls if future._recipe is not None else future.calls  # type: ignore[attr-defined]

    def value(self, future: Future) -> str:
        """Look at it, as `Future.result` does."""
        while True:
            self.settle(partial(is_done, future))
            assert (future._state, future._form) == (FINISHED, caller.RAW), future.outcome
            if not is_handle(future._value):
                return self.text(future._value)
            handle = unpack(future._value)
            if handle.id in self.objects:
                return self.objects[handle.id]
            assert future._recipe is not None
            lost = ObjectLost(handle.id.hex(), 1, "", "" if handle.home in self.homes else handle.home)
            future._recipe.calls.lose(future, lost)
            heir = future._recipe.calls.again(future._recipe)
            assert heir is not future
            future = heir

    def text(self, payload: Any) -> str:
        return bytes(payload)[1:].decode()

    def own(self, future: Any, payload: Any) -> None:
        future._hold = Hold(self, unpack(payload))

    # --- the router

    def settle(self, done: Callable[[], bool] = lambda: False) -> None:
        """Until it is done, or nothing moves."""
        while not done():
            self.stage()
            if self.random.random() < 0.5:  # else something happens while it is on its way
                self.read()
            if not self.turn() and not self.read() and not self.turn():
                assert not self.tasks, f"tasks that wait for ever: {self.tasks}"
                for calls in self.sessions.values():
                    calls.check()
                    assert not calls.unfinished
                return

    def stage(self) -> None:
        moved = True
        while moved:
            moved = False
            for calls in self.sessions.values():
                calls.complete(self.link)
                while calls.outbox and calls.stage(self.link, self.random.choice((1, 3, 100)), tell):
                    moved = True

    def read(self) -> bool:
        """Take in what has been sent; whether there was anything."""
        before = self.seen
        for _, (frame, *frames), _ in list(self.link._kept)[self.seen :]:
            self.seen += 1
            message = codec.decode("client", frame)
            inputs = codec.split_payloads(message.inputs, message.parts, frames)
            first = message.slices[0].first
            for offset, payload in enumerate(inputs):
                needs = [
                    (alias, index)
                    for position, alias, index in zip(*(message.needs[k::3] for k in range(3)), strict=True)
                    if position == offset
                ]
                self.tasks[message.session, first + offset] = payload, needs
        return self.seen > before

    def turn(self) -> bool:
        """One thing of those that may happen next."""
        for key, (_, needs) in self.tasks.items():
            for need in needs:  # what had ended before it was needed is asked for, once
                if need not in self.tasks and need not in self.outcomes and (key, need) not in self.asked:
                    self.asked.add((key, need))
                    on_wanted(self.client, m.Wanted(need[0], [need[1]]))
            if any(need in self.outcomes and self.outcomes[need] is None for need in needs):
                return self.unmet(key, next(n for n in needs if self.outcomes.get(n, 0) is None))
        ready = [key for key, (_, needs) in self.tasks.items() if all(n in self.outcomes for n in needs)]
        if not ready:
            return False
        key = self.random.choice(ready)
        payload, needs = self.tasks.pop(key)
        if needs:
            payload = compose(payload, [self.outcomes[need] for need in needs])
        message = self.run(key, payload)
        for _ in range(2 if self.twice else 1):
            self.sessions[key[0]].on_results(message, [], tell)
        self.forget_outcomes()
        return True

    def unmet(self, key: Key, need: Key) -> bool:
        del self.tasks[key]
        self.outcomes[key] = None
        self.sessions[key[0]].on_unmet(key[1], need, tell)
        return True

    def on_supply(self, message: m.Supply, frames: list[Any]) -> None:
        (value,) = codec.split_payloads(message.value, message.parts, frames) or [None]
        self.outcomes[message.session, message.index] = value

    # --- an executor

    def run(self, key: Key, payload: Any) -> m.Results:
        call, *values = decompose(payload) if is_composed(payload) else [payload]
        gone = [unpack(v) for v in values if is_handle(v) and unpack(v).id not in self.objects]
        failed: list[int] = []
        stored: list[int] = []
        if gone:
            self.refused += 1
            output: Any = self.error(key, gone[0])
            failed = [0]
        else:
            name = self.text(call)
            self.ran[name] = self.ran.get(name, 0) + 1
            texts = [self.objects[unpack(v).id] if is_handle(v) else self.text(v) for v in values]
            text = f"{name}({','.join(texts)})" if texts else name
            if self.random.random() < self.small:
                output = b"\x80" + text.encode()
            else:
                self.count += 1
                handle = Handle(self.count.to_bytes(16, "big"), self.random.choice(self.homes), (70000,))
                self.objects[handle.id] = text
                self.where[handle.id] = handle.home
                output, stored = pack(handle), [0, 70000]
        self.outcomes[key] = None if failed else output
        return m.Results(key[0], [m.Slice(1, key[1], 1, 1)], failed, [0.1], [], [output], stored)

    def forget_outcomes(self) -> None:
        """The router keeps no values but for those that wait."""
        wanted = {need for _, needs in self.tasks.values() for need in needs}
        self.outcomes = {key: value for key, value in self.outcomes.items() if key in wanted}

    def error(self, key: Key, handle: Handle) -> bytes:
        node = "" if handle.home in self.homes else handle.home
        lost = ObjectLost(handle.id.hex(), 1, "", node)
        return dump_error(lost.of_task(f"s{key[0]}/{key[1]}"))

    def lose(self, *homes: str) -> None:
        """These nodes; without any, all."""
        for home in homes or list(self.homes):
            self.homes[self.homes.index(home)] = f"{home}+"
            for id in [id for id, where in self.where.items() if where == home]:
                self.objects.pop(id, None)


def is_done(future: Future) -> bool:
    return future._state in DONE


def test_a_value_that_is_lost_is_made_again_for_who_looks() -> None:
    cluster = Cluster()
    future = cluster.submit("f")
    assert cluster.value(future) == "f"
    cluster.lose()
    assert cluster.value(future) == "f"
    assert cluster.ran == {"f": 2}


def test_a_task_that_finds_its_argument_gone_goes_back_and_so_does_what_waits_for_it() -> None:
    cluster = Cluster()
    f = cluster.submit("f")
    cluster.settle()
    cluster.lose()
    g = cluster.submit("g", f)
    h = cluster.submit("h", g, f)
    other = cluster.submit("k", h, alias=2)
    assert cluster.value(other) == "k(h(g(f),f))"
    assert cluster.ran == {"f": 2, "g": 1, "h": 1, "k": 1}


def test_what_is_there_is_not_made_again() -> None:
    cluster = Cluster()
    f = cluster.submit("f")
    g = cluster.submit("g", f)
    cluster.settle()
    cluster.objects.pop(g._hold.handle.id)  # type: ignore[attr-defined]
    assert cluster.value(g) == "g(f)"
    assert cluster.ran == {"f": 1, "g": 2}


def test_in_a_diamond_nothing_is_made_twice() -> None:
    cluster = Cluster()
    f = cluster.submit("f")
    left, right = cluster.submit("l", f), cluster.submit("r", f)
    end = cluster.submit("e", left, right)
    del f, left, right
    assert cluster.value(end) == "e(l(f),r(f))"
    cluster.lose()
    assert cluster.value(end) == "e(l(f),r(f))"
    assert cluster.ran == {"f": 2, "l": 2, "r": 2, "e": 2}


@pytest.mark.parametrize("length", [MOST_DEPTH, MOST_DEPTH + 1])
def test_a_chain_is_made_again_as_far_as_its_bound(length: int) -> None:
    cluster = Cluster()
    future = cluster.submit("f")
    for _ in range(length - 1):
        future = cluster.submit("g", future)
    cluster.settle()
    cluster.lose()
    if length <= MOST_DEPTH:
        assert cluster.value(future).count("g") == length - 1
        assert cluster.ran == {"f": 2, "g": 2 * (length - 1)}
    else:
        with pytest.raises(CannotBeMade, match="more than 64 tasks"):
            cluster.value(future)


def test_it_is_made_again_so_often_and_no_more() -> None:
    cluster = Cluster(runs=2)
    future = cluster.submit("f")
    for _ in range(3):
        cluster.value(future)
        cluster.lose()
    with pytest.raises(CannotBeMade, match="2 times already"):
        cluster.value(future)
    needy = cluster.submit("g", cluster.submit("h"))
    cluster.settle()
    assert needy._state is FINISHED


def test_a_task_whose_argument_can_not_be_made_again_fails_and_says_why() -> None:
    cluster = Cluster(runs=1)
    f = cluster.submit("f")
    cluster.value(f)
    cluster.lose()
    cluster.value(f)
    cluster.lose()
    g = cluster.submit("g", f)
    h = cluster.submit("h", g)
    cluster.settle()
    assert (g._state, g._form) == (FINISHED, ERROR)
    assert "once already (max_retries)" in str(g._value)
    assert isinstance(g._value, ObjectLost)
    assert (h._form, h._value) == (UNMET, g)


def test_a_task_that_goes_back_does_not_run_any_more() -> None:
    cluster = Cluster()
    f = cluster.submit("f")
    cluster.settle()
    cluster.lose()
    g = cluster.submit("g", f)
    cluster.stage()
    cluster.read()
    g._state = caller.RUNNING
    cluster.sessions[1].on_results(cluster.run((1, 1), cluster.tasks.pop((1, 1))[0]), [], tell)
    assert (g._state, g._index) == (caller.PENDING, -1)
    assert cluster.value(g) == "g(f)"


def test_an_error_of_the_tasks_own_is_left_alone() -> None:
    cluster = Cluster()
    f = cluster.submit("f")
    cluster.settle()
    calls = cluster.sessions[1]
    g = cluster.submit("g", f)
    cluster.stage()
    for error in (ValueError("own"), ObjectLost("00" * 16, 1, task_id="s1/0"), ObjectLost("00" * 16, 1)):
        output = dump_error(error)
        calls.on_results(m.Results(1, [m.Slice(1, 1, 1, 1)], [0], [0.1], [], [output]), [], tell)
        assert (g._state, g._value) == (FINISHED, output)
        g._state = caller.PENDING
        calls.pending[1], calls.records[1] = g, (g, Name(1), Dependent(b"", [(calls, f)]))


def test_a_task_that_is_cancelled_does_not_come_back() -> None:
    cluster = Cluster()
    f = cluster.submit("f")
    cluster.settle()
    cluster.lose()
    g = cluster.submit("g", f)
    cluster.stage()
    cluster.sessions[1].on_cancelled(m.Cancelled(1, [1], []), tell)
    cluster.read()
    cluster.sessions[1].on_results(cluster.run((1, 1), cluster.tasks.pop((1, 1))[0]), [], tell)
    assert g._state is CANCELLED
    assert not cluster.sessions[1].outbox


def test_what_is_kept_goes_with_the_last_that_was_made_of_it() -> None:
    cluster = Cluster()
    calls = cluster.sessions[1]
    f = cluster.submit("f")
    g = cluster.submit("g", f)
    cluster.settle()
    assert cluster.ledger.bytes >= 2 * RECIPE_BYTES
    assert not calls.records
    del f
    assert len(cluster.ledger.recipes) == 2, "g may have to be made again"
    assert len(cluster.objects) == 1, "but the value of f is nobody's"
    del g
    assert (len(cluster.ledger.recipes), cluster.ledger.bytes) == (0, 0)


def test_the_oldest_calls_are_forgotten_when_they_are_too_many() -> None:
    cluster = Cluster(most=5 * RECIPE_BYTES)
    futures = [cluster.submit(f"f{k}") for k in range(10)]
    cluster.settle()
    assert cluster.ledger.bytes <= 5 * RECIPE_BYTES
    cluster.lose()
    forgotten = 0
    for number, future in enumerate(futures):
        if future._recipe.call is not None:  # type: ignore[union-attr]
            assert cluster.value(future) == f"f{number}"
            continue
        forgotten += 1
        with pytest.raises(CannotBeMade, match="kept no more"):
            cluster.value(future)
    assert forgotten == 6


def test_nothing_is_made_again_in_a_session_that_is_closed() -> None:
    cluster = Cluster()
    future = cluster.submit("f")
    cluster.settle()
    cluster.lose()
    cluster.sessions[1].closed = True
    with pytest.raises(CannotBeMade, match="closed"):
        cluster.value(future)


def test_what_has_lain_on_a_node_that_is_lost_is_not_asked_for_one_by_one() -> None:
    cluster = Cluster()
    f = cluster.submit("f")
    futures = [f, cluster.submit("g", f)]
    futures.append(cluster.submit("h", futures[-1]))
    cluster.homes = ["a"]
    cluster.settle()
    cluster.lose()
    assert cluster.value(futures[-1]) == "h(g(f))"
    assert cluster.refused == 0


def test_a_result_that_is_torn_anywhere_and_comes_again_puts_its_task_back_once() -> None:
    def gone() -> tuple[Any, Callable[[], Any]]:
        cluster = Cluster()
        f = cluster.submit("f")
        cluster.settle()
        cluster.lose()
        g = cluster.submit("g", f)
        cluster.stage()
        cluster.read()
        message = cluster.run((1, 1), cluster.tasks.pop((1, 1))[0])
        return (cluster, f, g, message), lambda: cluster.sessions[1].on_results(message, [], tell)

    for cluster, _f, g, message in every_place(gone):
        cluster.sessions[1].on_results(message, [], tell)
        cluster.settle()
        assert cluster.value(g) == "g(f)"
        assert cluster.ran["g"] == 1


@pytest.mark.parametrize("block", range(10))
def test_whatever_is_lost_and_whenever_every_value_is_had_in_the_end(block: int) -> None:
    for seed in range(20 * block, 20 * (block + 1)):
        cluster = Cluster(seed)
        choose = cluster.random
        cluster.twice = choose.random() < 0.3
        cluster.small = choose.choice((0.0, 0.3))
        futures: list[tuple[Future, str]] = []
        for step in range(choose.randrange(5, 60)):
            what = choose.random()
            if what < 0.5:
                needs = choose.sample(futures, min(len(futures), choose.randrange(4)))
                name = f"t{step}"
                text = f"{name}({','.join(text for _, text in needs)})" if needs else name
                future = cluster.submit(name, *(need for need, _ in needs), alias=choose.choice((1, 2)))
                futures.append((future, text if needs else name))
                del needs, future
            elif what < 0.6:
                cluster.lose(choose.choice(cluster.homes))
            elif what < 0.7 and futures:
                del futures[choose.randrange(len(futures))]
            elif what < 0.8 and futures:
                one, text = choose.choice(futures)
                assert cluster.value(one) == text, f"seed {seed}"
                del one
            else:
                for _ in range(choose.randrange(24)):
                    choose.choice((cluster.turn, cluster.stage, cluster.read))()
        cluster.settle()
        for one, text in futures:
            assert cluster.value(one) == text, f"seed {seed}"
