"""Versions of objects whose home is on another node: read, made, and lost with it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from flamezmq.errors import ObjectLost, StaleVersion, StoreFull
from flamezmq.serialize.values import dump_object
from flamezmq.store import access, afar, gateway, outside, versions
from flamezmq.store.access import Access
from flamezmq.store.keeping import Holdings, Kept
from flamezmq.store.versions import Change, Changing
from flamezmq.wire import amendments as a
from tests.test_store import LIMIT, MIB, Store, another, until
from tests.test_store import store as store
from tests.test_store_versions import append, items, put, update
from tests.test_store_versions import quick_to_free as quick_to_free

pytestmark = pytest.mark.processes


@pytest.fixture(params=["a node", "no node"])
def far(store: Store, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store that this process, which is on the node of `store` or on none, can't reach but by ZeroMQ."""
    with another(store) as far:
        real = access.of

        def of(name: str) -> Access:
            return Access(f"none-{name}") if name == far.name else real(name)

        monkeypatch.setattr(access, "of", of)
        if request.param == "a node":
            monkeypatch.setattr(access, "own", store.name)
        try:
            yield far
        finally:
            gateway.close()
    outside.context().term()


@pytest.mark.parametrize("size", [3, 70_000, 3 * MIB])
def test_only_what_came_is_brought_from_another_node(far: Store, store: Store, size: int) -> None:
    handle = put(far, [])
    for k in range(1, 4):
        assert append(handle, bytes([k]) * size) == k + 1
    assert items(versions.read(handle)) == [[], *(bytes([k]) * size for k in range(1, 4))]

    before = set(store.server.objects)
    assert append(handle, b"d" * size) == 5

    assert items(versions.read(handle, 4)) == [b"d" * size]
    assert versions.read(handle, 5) == (5, False, "list", [])
    if access.own:
        assert len(set(store.server.objects) - before) == (size > 65_536), "small ones ride along"
    assert not versions.as_put(handle), "it is not here"


@pytest.mark.parametrize("size", [3, 3 * MIB])
def test_an_update_from_another_node_takes_the_place_of_all(far: Store, size: int) -> None:
    handle = put(far, b"old" * size)
    assert update(handle, b"new" * size, kind="bytes") == 2
    with pytest.raises(StaleVersion):
        update(handle, b"late" * size, expected=1)

    assert items(versions.read(handle)) == [b"new" * size]
    until(lambda: len(far.server.objects) == 2)  # its name, and its base
    far.server.lifetimes.holders.check()


def test_writers_here_and_there_make_one_history(far: Store) -> None:
    handle = put(far, [])

    def here() -> None:
        for k in range(20):
            append(handle, ("here", k))

    def there() -> None:
        for k in range(20):
            amend = a.Amend(handle.id, b"%016d" % k, [1], True, "", "list of 0", 0, b"N")
            assert not far.access.amend(amend, [b"N"]).refusal

    threads = [threading.Thread(target=deed) for deed in (here, here, there)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    news = versions.read(handle)
    assert news.version == 61
    ours = [item for item in items_but_theirs(news) if item]
    assert sorted(ours) == sorted([("here", k) for k in range(20)] * 2)


def items_but_theirs(news: versions.News) -> list[Any]:
    kept = [pieces for pieces in news.parts if bytes(pieces[0]) != b"N"]
    return items(news._replace(parts=kept))


def test_a_question_that_is_asked_again_makes_no_second_version(
    far: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(afar, "AGAIN_SECONDS", 0.0)  # again with each look, so mostly more than once
    monkeypatch.setattr(outside, "WAIT_MILLISECONDS", 1)
    handle = put(far, [])
    for k in range(20):
        assert append(handle, k) == k + 2

    assert items(versions.read(handle)) == [[], *range(20)]


def test_an_object_that_was_freed_is_lost_everywhere(far: Store) -> None:
    handle = put(far, [])
    append(handle, b"x" * MIB)
    far.access.drop([handle.id])
    until(lambda: not far.server.objects)

    for deed in (
        lambda: append(handle, 1),
        lambda: append(handle, b"x" * MIB),
        lambda: versions.read(handle),
    ):
        with pytest.raises(ObjectLost):
            deed()
    until(lambda: not far.server.objects)


def test_a_home_that_has_no_room_says_so_and_keeps_what_it_has(far: Store) -> None:
    handle = put(far, [])
    append(handle, 1)
    with pytest.raises(StoreFull, match="does not take it in"):
        append(handle, bytes(LIMIT))

    assert items(versions.read(handle)) == [[], 1]


def test_a_home_that_is_lost_is_an_error_that_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "own", store.name)
    monkeypatch.setattr(afar, "SILENCE_SECONDS", 2.0)
    try:
        with another(store) as far:
            handle = put(far, [])
            append(handle, 1)
        for deed in (lambda: append(handle, 1), lambda: versions.read(handle)):
            with pytest.raises(ObjectLost, match="its home, at tcp://"):
                deed()
    finally:
        gateway.close()
        outside.context().term()


def test_what_an_item_refers_to_in_another_store_than_its_own_stays(far: Store, store: Store) -> None:
    handle, inner = put(far, []), put(store, "inner")
    holdings = Holdings(lambda deed: deed())
    hold = holdings.hold(inner)
    changing = Changing(handle, "s", Change(True, "list", "list of 0"))
    dump_object("refers to it", Containing(changing, inner.id))
    assert changing.result().version == 2

    del hold
    holdings.drop()
    store.settle()

    assert not store.has_dropped(inner)


class Containing:
    """As if a reference to this object were in what is pickled."""

    least = 0

    def __init__(self, changing: Changing, name: bytes) -> None:
        self._changing, self._name = changing, name

    def keep(self, pieces: Sequence[Any], size: int, contains: Sequence[bytes] = ()) -> Kept:
        return self._changing.keep(pieces, size, [self._name])
