"""Segments ahead, objects opened ahead: fewer questions to the store, and the same values."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

import flamezmq as flm
from flamezmq.store import access, filling, mapping
from flamezmq.store import messages as s
from flamezmq.store.access import Connection
from flamezmq.store.ahead import MOST, Ahead
from flamezmq.wire.handles import Handle, pack
from tests.test_store import MIB, Store
from tests.waiting import until

pytestmark = pytest.mark.processes

PIECE = 100_000


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store()
    try:
        yield store
    finally:
        store.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the questions that this process asks."""
    found: list[str] = []
    ask = Connection.ask

    def counted(self: Connection, question: Any) -> Any:
        found.append(type(question).__name__)
        return ask(self, question)

    monkeypatch.setattr(Connection, "ask", counted)
    return found


def drop_all(store: Store, handles: list[Handle]) -> None:
    store.access.drop([handle.id for handle in handles])
    until(lambda: all(store.has_dropped(handle) for handle in handles), "all are dropped")


def bytes_in(store: Store, handles: list[Handle]) -> int:
    """Of the segments of these objects, when all have arrived."""
    found = store.server.objects
    until(lambda: all(handle.id in found for handle in handles), "all are there")
    return sum(one.segment.size for handle in handles if (one := found[handle.id]).segment is not None)


def test_who_puts_one_after_the_other_is_lent_what_lies_about_and_asks_seldom(
    store: Store, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "SOON_SECONDS", 60.0)
    bodies = [bytes([k]) * PIECE for k in range(40)]
    drop_all(store, [store.put(body) for body in bodies])
    asked.clear()

    handles = [store.put(body) for body in bodies]

    assert asked.count("Lease") < 20
    assert [store.read(handle) for handle in handles] == [[body] for body in bodies]


def test_nothing_is_lent_ahead_that_has_to_be_made(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "SOON_SECONDS", 60.0)
    handles = [store.put(os.urandom(PIECE)) for _ in range(20)]

    assert store.pool.total == bytes_in(store, handles)


def test_what_was_lent_ahead_goes_back_when_another_size_is_wanted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "SOON_SECONDS", 60.0)
    drop_all(store, [store.put(bytes(PIECE)) for _ in range(20)])
    kept = [store.put(bytes(PIECE)) for _ in range(3)]

    kept.append(store.put(bytes(MIB)))

    held = bytes_in(store, kept)
    until(lambda: store.pool.free_bytes == store.pool.total - held, "what holds no object is free")


def test_a_fresh_segment_is_written_and_one_that_was_used_is_mapped(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped: list[int] = []
    real = mapping.writable

    def noted(fd: int, size: int) -> memoryview:
        mapped.append(size)
        return real(fd, size)

    monkeypatch.setattr(mapping, "writable", noted)
    for k in range(3):
        body = os.urandom(5 * MIB + k)
        handle = store.put(b"head", body, b"")
        assert store.read(handle) == [b"head", body, b""]
        drop_all(store, [handle])
        assert len(mapped) == min(k, 1)


@pytest.fixture
def executor(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """This process is an executor of the store's node."""
    monkeypatch.setattr(access, "own", store.name)
    yield store
    access.of(store.name).close()


def reading(store: Store, ahead: Ahead, handles: list[Handle], tasks: list[Any]) -> Iterator[bytes]:
    """What tasks read that take their arguments from the front of `tasks`, as `Ahead` sees it."""
    for handle in handles:
        tasks.pop(0)
        pieces = ahead.take(handle) or store.access.open([handle])[0] or []
        yield b"".join(pieces)


def test_the_arguments_of_the_next_tasks_are_opened_by_one_question(
    executor: Store, asked: list[str]
) -> None:
    bodies = [os.urandom(PIECE) for _ in range(60)]
    handles = [executor.put(body) for body in bodies]
    tasks: list[Any] = [pack(handle) for handle in handles]
    ahead = Ahead(lambda: tasks)
    asked.clear()

    assert list(reading(executor, ahead, handles, tasks)) == bodies

    assert asked.count("Open") < 10
    assert not ahead.opened


def test_who_reads_nothing_of_what_was_opened_ahead_gets_less_of_it(executor: Store) -> None:
    handles = [executor.put(bytes(PIECE)) for _ in range(40)]
    others = [executor.put(bytes(PIECE)) for _ in range(40)]
    ahead = Ahead(lambda: map(pack, others))
    sizes = []
    for handle in handles:
        ahead.take(handle)
        sizes.append(len(ahead.opened))

    assert sum(sizes) <= len(handles) / 2
    assert max(sizes) < MOST


def test_what_is_of_another_node_or_small_is_not_waited_for_ahead(executor: Store) -> None:
    first, last = (executor.put(bytes(PIECE)) for _ in range(2))
    foreign = Handle(bytes(16), "another-node", (PIECE,), "tcp://127.0.0.1:1")
    for between in (pack(foreign), b"\x80small"):
        ahead = Ahead(lambda between=between: [between, pack(last)])  # type: ignore[misc]
        ahead.take(first)
        assert set(ahead.opened) <= {last.id}
    assert Ahead(lambda: [pack(last)]).take(foreign) is None


@pytest.mark.timeout(60)
def test_hundreds_of_large_arguments_and_results_are_each_their_own(tmp_path: Any) -> None:
    sizes = [70_000, 70_000, 300_000, 1_000_000]
    with flm.Client(executors=2) as client:
        calls = [(bytes([k % 251]) * sizes[k % 4], k % 7 == 0) for k in range(200)]
        futures = [client.submit(_flipped, *call) for call in calls]
        for (body, _), future in zip(calls, futures, strict=True):
            assert future.result(30) == body[:10] + bytes([255 - body[0]]) * len(body)
        del futures, future
        many: Callable[[], Any] = partial(client.map, len, [bytes(100_000)] * 20)
        assert list(many()) == [100_000] * 20


def _flipped(body: bytes, twice: bool) -> bytes:
    return body[:10] + bytes([255 - body[0]]) * len(body)


def test_the_store_lends_ahead_a_small_part_of_its_room_at_most(store: Store) -> None:
    drop_all(store, [store.put(bytes(MIB)) for _ in range(8)])
    with store.access._connection() as connection:
        answer, fds = connection.ask(s.Lease(MIB, 100))
        for fd in fds:
            os.close(fd)

    assert len(answer.lent) == 1 + store.pool.limit // 64 // MIB
