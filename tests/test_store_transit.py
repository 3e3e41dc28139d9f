"""Objects between stores: who has a part serves it, who dies is replaced, who talks nonsense is not heard."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from flamezmq.errors import ObjectLost
from flamezmq.store import courier as couriers
from flamezmq.store import gateway, outside, uploads
from flamezmq.store import messages as s
from flamezmq.store.layout import chunks, extent, fill
from flamezmq.store.messages import Found
from flamezmq.store.names import ids
from flamezmq.wire import transfer as t
from flamezmq.wire.handles import Handle
from flamezmq.wire.objects import Holders, WhoHas
from tests.test_store import LIMIT, MIB, Store, until

pytestmark = pytest.mark.processes


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        stack.callback(outside.context().term)
        stack.callback(gateway.close)
        yield stack


def stores(stack: ExitStack, count: int) -> list[Store]:
    found = []
    for _ in range(count):
        store = Store("127.0.0.1")
        stack.callback(store.close)
        found.append(store)
    return found


class Reading:
    """A thread that reads an object; `value` when it has ended."""

    def __init__(self, read: Callable[[], Any]) -> None:
        self.value: Any = None
        self._read = read
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.value = self._read()
        except ObjectLost as error:
            self.value = error

    def result(self) -> Any:
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self.value


class Slow:
    """A peer that speaks as a store does, and does what a test says: a home that dies half-way."""

    def __init__(self, stack: ExitStack) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.socket: zmq.Socket[bytes] = self.context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.rcvtimeo = 10_000
        port = self.socket.bind_to_random_port("tcp://127.0.0.1")
        self.at = f"tcp://127.0.0.1:{port}"
        stack.callback(self.context.term)
        stack.callback(self.die)

    def receive(self) -> tuple[bytes, t.Question]:
        peer, question = self.socket.recv_multipart()
        return peer, t.decode_question(question)

    def answer(self, peer: bytes, answer: t.Answer, *data: Any) -> None:
        self.socket.send_multipart([peer, t.encode(answer), *data])

    def chunk(self, peer: bytes, want: t.Want, image: bytes, check: int | None = None) -> None:
        data = image[want.offset : want.offset + want.length]
        right = xxh3_64_intdigest(data)
        self.answer(peer, t.Chunk(want.id, want.offset, right if check is None else check), data)

    def die(self) -> None:
        self.socket.close(0)


def wants(slow: Slow, count: int) -> list[tuple[bytes, t.Want]]:
    """Of so many chunks, each by itself."""
    found: list[tuple[bytes, t.Want]] = []
    while len(found) < count:
        peer, question = slow.receive()
        if isinstance(question, t.Want):
            end = question.offset + question.length
            starts = range(question.offset, end, MIB)
            found += [(peer, t.Want(question.id, start, min(MIB, end - start))) for start in starts]
    return found


def of_slow(slow: Slow, size: int) -> Handle:
    return Handle(ids.next(), "slow", (size,), slow.at, "far")


def test_who_comes_second_is_served_by_the_first_while_that_fetches(stack: ExitStack) -> None:
    first, second = stores(stack, 2)
    home = Slow(stack)
    image = os.urandom(6 * MIB)
    handle = of_slow(home, len(image))

    one = Reading(lambda: first.read(handle))
    peer, seek = home.receive()
    assert isinstance(seek, t.Seek)
    home.answer(peer, t.Source(handle.id, ""))
    mine = wants(home, 6)
    two = Reading(lambda: second.read(handle))
    other, seek = home.receive()
    home.answer(other, t.Source(handle.id, first.server.doors.at))
    for peer, want in mine:
        home.chunk(peer, want, image)

    assert one.result() == [image]
    assert two.result() == [image]
    told = dict(home.receive() for _ in range(2))
    assert told == {peer: t.Have(handle.id), other: t.Have(handle.id)}  # and asked for no chunk


def test_when_the_home_dies_half_way_another_holder_goes_on(stack: ExitStack) -> None:
    (store,) = stores(stack, 1)
    home, holder = Slow(stack), Slow(stack)
    image = os.urandom(6 * MIB)
    handle = of_slow(home, len(image))

    reading = Reading(lambda: store.read(handle))
    peer, _ = home.receive()
    home.answer(peer, t.Source(handle.id, "", [holder.at]))
    for peer, want in wants(home, 6)[:2]:
        home.chunk(peer, want, image)
    until(lambda: sum(store.server._transit._courier.fetches[handle.id].here) == 2)  # type: ignore[union-attr]
    home.die()
    rest = wants(holder, 4)
    for peer, want in rest:
        holder.chunk(peer, want, image)

    assert reading.result() == [image]
    assert sorted(want.offset for _, want in rest) == [k * MIB for k in range(2, 6)]  # and nothing twice


def test_a_holder_that_dies_is_reported_to_the_home_which_names_another(stack: ExitStack) -> None:
    (store,) = stores(stack, 1)
    home, holder = Slow(stack), Slow(stack)
    image = os.urandom(5 * MIB)
    handle = of_slow(home, len(image))

    reading = Reading(lambda: store.read(handle))
    peer, _ = home.receive()
    home.answer(peer, t.Source(handle.id, holder.at))
    wants(holder, 5)
    holder.die()
    peer, seek = home.receive()
    assert seek == t.Seek(handle.id, store.server.doors.at, holder.at)
    home.answer(peer, t.Source(handle.id, ""))
    for peer, want in wants(home, 5):
        home.chunk(peer, want, image)

    assert reading.result() == [image]


@pytest.mark.parametrize("size", [70_000, 6 * MIB])
def test_what_only_a_dead_node_had_is_lost_and_the_error_says_which(
    stack: ExitStack, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(couriers, "ASK_SECONDS", 0.1)
    (store,) = stores(stack, 1)
    home = Slow(stack)
    handle = of_slow(home, size)
    home.die()
    whys: dict[bytes, Found] = {}
    assert store.access.open([handle], whys=whys) == [None]
    assert whys[handle.id].lost
    assert f"nobody listens at {home.at}" in whys[handle.id].why
    with pytest.raises(ObjectLost, match=f"{handle.id.hex()[:12]}.*node far.*{home.at}"):
        outside.fetch(handle)


def test_who_else_has_what_a_dead_node_had_is_asked_of_the_router(stack: ExitStack) -> None:
    (store,) = stores(stack, 1)
    home, holder = Slow(stack), Slow(stack)
    image = os.urandom(70_000)
    handles = [of_slow(home, len(image)) for _ in range(2)]
    home.die()
    readings = [Reading(partial(store.read, handle)) for handle in handles]
    until(lambda: all(WhoHas([handle.id]) in store.told for handle in handles))
    store.server.on_holders(Holders([handle.id for handle in handles], [[holder.at], []]))
    for peer, want in wants(holder, 1):
        holder.chunk(peer, want, image)
    assert [reading.result() for reading in readings] == [[image], None]


def test_a_home_that_says_nothing_is_given_up(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(couriers, "SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(couriers, "ASK_SECONDS", 0.2)
    (store,) = stores(stack, 1)
    handle = of_slow(Slow(stack), MIB)
    whys: dict[bytes, Found] = {}
    assert store.access.open([handle], whys=whys) == [None]
    assert "does not answer" in whys[handle.id].why


def test_a_damaged_chunk_is_asked_for_again_and_not_for_ever(stack: ExitStack) -> None:
    (store,) = stores(stack, 1)
    home = Slow(stack)
    image = os.urandom(MIB)
    for damages, outcome in ((couriers.MOST_REPEATS, [image]), (couriers.MOST_REPEATS + 1, None)):
        handle = of_slow(home, MIB)
        reading = Reading(lambda handle=handle: store.read(handle))  # type: ignore[misc]
        for _ in range(damages):
            for peer, want in wants(home, 1):
                home.chunk(peer, want, image, check=1)
        if outcome:
            for peer, want in wants(home, 1):
                home.chunk(peer, want, image)
        assert reading.result() == outcome


def test_many_stores_fetch_one_object_and_its_home_sends_it_once_or_twice(stack: ExitStack) -> None:
    home, *others = stores(stack, 6)
    image = os.urandom(8 * MIB)
    handle = home.put(image)
    readings = [Reading(partial(other.read, handle)) for other in others]
    assert all(reading.result() == [image] for reading in readings)
    until(lambda: len(home.server._transit._counter.spread.holders(handle.id)) == 5)  # type: ignore[union-attr]
    home.access.drop([handle.id])
    for other in others:
        until(partial(other.has_dropped, handle))


def test_many_objects_at_once_come_within_the_credit_of_one_line(stack: ExitStack) -> None:
    home, other = stores(stack, 2)
    handles = [home.put(bytes([k]) * 100_000) for k in range(200)]
    found = other.access.open(handles)
    assert all(bytes(pieces[0]) == bytes([k]) * 100_000 for k, pieces in enumerate(found) if pieces)
    assert None not in found


# --- through a gateway


@pytest.mark.parametrize("sizes", [(0,), (5,), (100, 70_000, 1, 0), (MIB,), (20 * MIB + 17, 3, 2 * MIB)])
def test_what_is_put_through_a_gateway_is_there(stack: ExitStack, sizes: tuple[int, ...]) -> None:
    (store,) = stores(stack, 1)
    pieces = [os.urandom(size) for size in sizes]
    gateways = gateway.Gateways()
    gateways.known = {store.name: store.server.doors.at}
    handle = gateways.put(ids.next(), "s", pieces)
    assert handle is not None
    assert store.read(handle) == pieces
    assert [bytes(piece) for piece in outside.fetch(handle)] == pieces
    gateway.discard(handle.at, [handle.id])
    until(partial(store.has_dropped, handle))


def test_what_another_node_may_have_a_reference_to_stays_until_it_is_freed(stack: ExitStack) -> None:
    (store,) = stores(stack, 1)
    gateways = gateway.Gateways()
    gateways.known = {store.name: store.server.doors.at}
    handle = gateways.put(ids.next(), "s", [b"x" * 100_000], s.PINNED, "weights")
    assert handle is not None
    assert store.server.objects[handle.id].name == "weights"
    other = store.put(b"x" * 100_000)
    gateway.stay(handle.at, [other.id])
    gateway.discard(handle.at, [other.id, handle.id])
    last = gateways.put(ids.next(), "s", [b"the last word"])
    assert last is not None
    gateway.discard(handle.at, [last.id])
    until(partial(store.has_dropped, last))
    assert not store.has_dropped(other)
    assert not store.has_dropped(handle), "it is pinned"
    gateway.discard(handle.at, [other.id, handle.id], free=True)
    until(lambda: store.has_dropped(other) and store.has_dropped(handle))


def test_a_dead_gateway_is_passed_over_and_left_alone(stack: ExitStack) -> None:
    (store,) = stores(stack, 1)
    dead = Slow(stack)
    dead.die()
    gateways = gateway.Gateways()
    gateways.known = {"dead": dead.at, store.name: store.server.doors.at}
    for _ in range(8):
        handle = gateways.put(ids.next(), "s", [b"x" * 100_000])
        assert handle is not None
        assert handle.home == store.name
    gateways.known = {"dead": dead.at}
    assert gateways.put(ids.next(), "s", [b"x" * 100_000]) is None


def test_a_gateway_without_room_says_so_at_once(stack: ExitStack) -> None:
    (store,) = stores(stack, 1)
    with pytest.raises(gateway.Refused, match="too much"):
        gateway.bring(store.server.doors.at, *brought(LIMIT // 2 + MIB))
    gateways = gateway.Gateways()
    gateways.known, gateways.nodes = {store.name: store.server.doors.at}, {store.name: "far"}
    assert gateways.put(ids.next(), "s", [bytes(LIMIT // 2 + MIB)]) is None
    handle = gateways.put(ids.next(), "s", [bytes(LIMIT // 4)])  # it is not left alone for that
    assert handle is not None
    assert handle.node == "far"


def brought(size: int) -> tuple[t.Offer, list[bytes]]:
    return t.Offer(ids.next(), "s", [size]), [bytes(size)]


def test_a_gateway_that_takes_nothing_is_given_up(stack: ExitStack) -> None:
    assert not gateway.bring(Slow(stack).at, *brought(MIB), patience=0.1)


def test_what_is_offered_and_not_brought_is_given_up(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "SILENCE_SECONDS", 0.1)
    (store,) = stores(stack, 1)
    line = couriers.Line(outside.context(), store.server.doors.at)
    stack.callback(line.close)
    line.socket.send(t.encode(t.Offer(ids.next(), "s", [MIB])))
    until(lambda: store.pool.total > 0)
    until(lambda: store.pool.free_bytes == store.pool.total)


# --- hostile peers

NUMBER = st.integers(-(1 << 63), (1 << 64) - 1) | st.integers(-2, 3) | st.just(MIB)
NAME = st.binary(max_size=20) | st.just(b"n" * 16) | st.just(b"m" * 16)
WORD = st.text(max_size=20)
FIELD = st.one_of(NUMBER, NAME, WORD, st.lists(NUMBER | NAME, max_size=4), st.none())
TAG = st.sampled_from(
    ["seek", "want", "have", "lack", "offer", "fill", "discard", "stay", "chunk", "gone", "x"]
)
RIGHT = st.one_of(
    st.builds(lambda *fields: ["seek", *fields], NAME, WORD, WORD),
    st.builds(lambda *fields: ["want", *fields], NAME, NUMBER, NUMBER),
    st.builds(lambda *fields: ["offer", *fields], NAME, WORD, st.lists(NUMBER, max_size=4)),
    st.builds(lambda *fields: ["fill", *fields], NAME, NUMBER, NUMBER),
    st.builds(lambda tag, names: [tag, names], TAG, st.lists(NAME, max_size=3)),
    st.builds(lambda tag, fields: [tag, *fields], TAG, st.lists(FIELD, max_size=5)),
)
FRAME = st.binary(max_size=200) | RIGHT.map(t.encode)


def test_nonsense_changes_nothing_and_the_store_goes_on(stack: ExitStack) -> None:
    (store,) = stores(stack, 1)
    handle = store.put(b"a" * MIB)
    line = couriers.Line(outside.context(), store.server.doors.at)
    stack.callback(line.close)

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.lists(FRAME, min_size=1, max_size=4), min_size=1, max_size=5))
    def hostile(messages: list[list[bytes]]) -> None:
        for frames in messages:
            line.socket.send_multipart(frames)
        mine = t.Want(handle.id, 0, 10)
        line.socket.send(t.encode(mine))
        while True:
            assert line.socket.poll(5000), "it does not answer any more"
            with suppress(Exception):
                answer = t.decode_answer(line.socket.recv_multipart()[0])
                if isinstance(answer, t.Chunk) and answer.id == handle.id:
                    break
        assert store.server._transit._uploads.bytes <= LIMIT // 2  # type: ignore[union-attr]

    hostile()
    assert store.read(handle) == [b"a" * MIB]
    assert store.pool.total <= LIMIT


def test_who_asks_and_takes_nothing_is_kept_a_bounded_part_for(stack: ExitStack) -> None:
    (store,) = stores(stack, 1)
    handle = store.put(b"a" * (4 * MIB))
    line = couriers.Line(outside.context(), store.server.doors.at)
    line.socket.close(0)
    line.socket = outside.context().socket(zmq.DEALER)
    line.socket.rcvhwm = 1
    line.socket.linger = 0
    line.socket.connect(line.address)
    stack.callback(lambda: (line.monitor.close(0), line.socket.close(0)))
    for _ in range(500):
        line.socket.send(t.encode(t.Want(handle.id, 0, MIB)), zmq.DONTWAIT)
    assert store.read(handle) == [b"a" * (4 * MIB)]
    assert store.pool.total <= LIMIT


# --- without sockets


@given(st.lists(st.integers(0, 300), min_size=1, max_size=20), st.integers(1, 200))
def test_chunks_are_what_filling_makes(sizes: list[int], length: int) -> None:
    pieces = [os.urandom(size) for size in sizes]
    target = bytearray(extent(sizes))
    fill(memoryview(target), pieces)
    found = bytearray()
    for offset, chunk in chunks(pieces, length):
        assert offset == len(found)
        found += chunk
    assert found == target
