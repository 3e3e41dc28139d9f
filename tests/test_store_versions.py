"""Versions of objects in the store of a node: real writers and readers, some of which are killed."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from flamezmq.errors import ObjectLost, StaleVersion
from flamezmq.serialize.values import dump_object, load_pieces
from flamezmq.store import amending, versions
from flamezmq.store.access import Access, Connection
from flamezmq.store.keeping import Kept
from flamezmq.store.versions import Change, Changing
from flamezmq.wire.handles import Handle
from tests.test_store import LIMIT, MIB, Store, child, kill, until
from tests.test_store import store as store

pytestmark = pytest.mark.processes

BIG = 3 * MIB


@pytest.fixture(autouse=True)
def quick_to_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was replaced is waited for in some of these."""
    monkeypatch.setattr(amending, "RETIRED_SECONDS", 0.1)


def put(store: Store, value: object) -> Handle:
    pieces: list[bytes] = []
    dump_object(value, Pieces(pieces))
    return store.put(*pieces)


class Pieces:
    """A keeper that takes pieces for somebody else."""

    least = 0

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    def keep(self, pieces: Sequence[Any], size: int, contains: Sequence[bytes] = ()) -> Kept:
        self.pieces += map(bytes, pieces)
        return Kept(b"")


def append(handle: Handle, item: object) -> int:
    return change(handle, item, Change(True, "list", "list of 0"))


def update(handle: Handle, value: object, expected: int = 0, kind: str = "list of 0") -> int:
    return change(handle, value, Change(False, kind, "list of 0", expected))


def change(handle: Handle, value: object, how: Change) -> int:
    changing = Changing(handle, "s", how)
    dump_object(value, changing)
    return changing.result().version


def items(news: versions.News) -> list[object]:
    """What the parts say."""
    return [load_pieces(*pieces) for pieces in news.parts]


@pytest.mark.parametrize("size", [3, 70_000, BIG])
def test_a_reader_gets_what_came_after_its_version_and_no_more(store: Store, size: int) -> None:
    handle = put(store, [])
    for k in range(1, 5):
        assert append(handle, bytes([k]) * size) == k + 1

    assert items(versions.read(handle, 3)) == [bytes([3]) * size, bytes([4]) * size]
    assert versions.read(handle, 5) == (5, False, "list", [])
    assert items(versions.read(handle)) == [[], *(bytes([k]) * size for k in range(1, 5))]


@pytest.mark.parametrize("size", [3, BIG])
def test_an_update_takes_the_place_of_all_and_what_it_replaced_is_freed(store: Store, size: int) -> None:
    handle = put(store, [])
    for k in range(3):
        append(handle, bytes([k]) * size)
    assert update(handle, b"new" * size, kind="bytes") == 5

    news = versions.read(handle, 4)

    assert (news.version, news.whole, news.kind, items(news)) == (5, True, "bytes", [b"new" * size])
    until(lambda: len(store.server.objects) == 2)  # its name, and its base
    assert update(handle, [], kind="list of 0") == 6


def test_what_is_replaced_before_anybody_has_heard_of_it_goes_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amending, "RETIRED_SECONDS", 3600.0)
    handle = put(store, b"")
    for k in range(50):
        update(handle, bytes([k]) * BIG)
    assert len(store.server.objects) == 2
    assert store.pool.total < 3 * BIG

    read = versions.read(handle)
    update(handle, b"new")

    assert len(store.server.objects) == 3, "somebody may be about to open it"
    assert items(read) == [bytes([49]) * BIG]


def test_a_home_that_has_ended_is_an_error_that_says_so(store: Store) -> None:
    handle = put(store, [])
    append(handle, 1)
    store.server.stop()
    store.thread.join(10)
    for deed in (lambda: append(handle, 1), lambda: versions.read(handle)):
        with pytest.raises(ObjectLost, match="its worker has ended"):
            deed()


def test_views_of_an_old_version_stay_as_they_are(store: Store) -> None:
    handle = put(store, b"a" * BIG)
    first = versions.read(handle).parts[0]
    update(handle, b"b" * BIG)
    second = versions.read(handle).parts[0]
    for k in range(100):  # many times what the store may have
        update(handle, bytes([k]) * BIG)

    assert load_pieces(*first) == b"a" * BIG
    assert load_pieces(*second) == b"b" * BIG
    assert store.pool.total <= LIMIT


def test_all_goes_with_the_object(store: Store) -> None:
    handle = put(store, [])
    for k in range(20):
        append(handle, bytes([k]) * 70_000)
    update(handle, [1])
    append(handle, b"x" * 70_000)
    store.access.drop([handle.id])

    until(lambda: not store.server.objects)
    with pytest.raises(ObjectLost):
        append(handle, 1)
    with pytest.raises(ObjectLost):
        versions.read(handle)
    assert not len(store.server.parts.amending.versions)
    store.server.lifetimes.holders.check()


def test_an_update_of_another_version_than_the_newest_is_refused_if_it_names_one(store: Store) -> None:
    handle = put(store, [])
    assert update(handle, [1], expected=1) == 2

    with pytest.raises(StaleVersion) as caught:
        update(handle, b"x" * BIG, expected=1)

    assert (caught.value.expected, caught.value.newest) == (1, 2)
    assert items(versions.read(handle)) == [[1]]
    until(lambda: len(store.server.objects) == 2)


def test_only_a_list_can_be_appended_to(store: Store) -> None:
    handle = put(store, {})
    with pytest.raises(TypeError, match=r"is a dict; put a list"):
        change(handle, 1, Change(True, "list", "dict of 0"))
    assert items(versions.read(handle)) == [{}]


def test_what_many_append_at_a_time_is_there_once_and_in_the_order_of_each(store: Store) -> None:
    handle = put(store, [])

    def work(writer: int) -> None:
        for k in range(50):
            append(handle, (writer, k, b"x" * (70_000 if k % 10 == 0 else 10)))

    threads = [threading.Thread(target=work, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    found: list[object] = []
    version = 0
    while version < 201:
        news = versions.read(handle, version)
        version = news.version
        found += items(news)
    for thread in threads:
        thread.join()

    whole = versions.read(handle)
    assert [item[:2] for item in items(whole)[1:]] == [item[:2] for item in found[1:]]  # type: ignore[index]
    for writer in range(4):
        assert [k for w, k, _ in found[1:] if w == writer] == list(range(50))  # type: ignore[misc, has-type]


def test_a_writer_that_is_killed_leaves_the_old_version_whole_and_no_memory_taken(store: Store) -> None:
    handle = put(store, [1])
    half = LIMIT // 2 + MIB

    def begin() -> object:
        connection = Connection(store.name)
        connection.filling.fill([b"a" * MIB], half)  # and dies before it says that this is a part
        return connection

    with child(begin) as pid:
        kill(pid)
        assert items(versions.read(handle)) == [[1]]
        until(partial(fits, handle, half))
    assert versions.read(handle).version == 2


def fits(handle: Handle, size: int) -> bool:
    try:
        return bool(append(handle, b"b" * size))
    except Exception:
        return False


def test_writers_that_are_killed_at_any_moment_leave_whole_versions(store: Store) -> None:
    handle = put(store, [])

    def forever() -> None:
        for k in range(1_000_000):
            append(handle, bytes([k % 251]) * 100_000)

    seen = 1
    for _ in range(5):
        pid = os.fork()
        if not pid:
            try:
                forever()
            finally:
                os._exit(1)
        until(lambda before=seen: versions.read(handle, before).version > before + 3)  # type: ignore[misc]
        kill(pid)
        news = versions.read(handle)
        seen = news.version
        assert all(item == item[:1] * 100_000 for item in items(news)[1:])  # type: ignore[index]
        seen = update(handle, [])


def test_an_appended_item_costs_the_same_however_long_the_list_is(store: Store) -> None:
    handle = put(store, [])
    for k in range(3000):
        append(handle, k)

    asked: list[int] = []
    real = Access.since
    version = 0
    while version < 3001:  # what one answer has of many small items is bounded, and all come in few answers
        came = real(store.access, handle.id, version)
        version = came.first + len(came.parts) - 1
        asked.append(len(came.parts))
    assert max(asked) <= 1000
    assert len(asked) <= 4
    assert len(real(store.access, handle.id, 3000).parts) == 1
    assert store.server.small_bytes < 3000 * 100


def test_a_part_that_is_lost_is_said_to_be(store: Store) -> None:
    handle = put(store, [])
    append(handle, b"x" * MIB)
    part = next(one for one in store.server.objects.values() if one.segment is not None)
    segment, part.segment, part.lost = part.segment, None, "its file is damaged"

    with pytest.raises(ObjectLost, match="a part of it is lost"):
        versions.read(handle)
    append(handle, 1)
    assert items(versions.read(handle, 2)) == [1]
    part.segment = segment
