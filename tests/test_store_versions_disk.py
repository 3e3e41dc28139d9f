"""Versions in a store whose memory is full: parts go to the disk, and come back, like any object."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flamezmq.errors import StoreFull
from flamezmq.store import versions
from tests.test_store import MIB, Store, until
from tests.test_store_disk import LIMIT, away, put_some, some, store_on
from tests.test_store_versions import append, items, put, update

pytestmark = pytest.mark.processes


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with store_on(tmp_path) as store:
        yield store


def test_a_list_of_more_than_fits_into_memory_is_read_part_by_part(store: Store) -> None:
    handle = put(store, [])
    for number in range(20):
        append(handle, some(number))
    assert store.pool.total <= LIMIT

    for version in range(1, 21):
        came = versions.read(handle, version)
        assert items(came)[0] == some(version - 1)
        del came
    store.server.lifetimes.holders.check()


def test_an_object_that_is_on_the_disk_gets_its_first_amendment_there(store: Store) -> None:
    handle = put(store, [some(1, 4 * MIB)])
    others = put_some(store, 14, MIB)
    until(lambda: away(store, handle))

    assert append(handle, 1) == 2

    (base, item) = items(versions.read(handle))
    assert base == [some(1, 4 * MIB)]
    assert item == 1
    assert [store.read(other) for other in others] == [[some(number, MIB)] for number in range(14)]
    store.server.room.space.check()


def test_objects_that_are_on_their_way_to_the_disk_or_back_are_amended_all_the_same(store: Store) -> None:
    choice = random.Random(1)
    handles = [put(store, [some(number)]) for number in range(16)]
    made = [0] * 16

    def read() -> None:
        for _ in range(60):
            versions.as_put(handles[choice.randrange(16)])

    reader = threading.Thread(target=read)
    reader.start()
    for number in choice.choices(range(16), k=60):
        append(handles[number], made[number])
        made[number] += 1
    reader.join()

    for number, handle in enumerate(handles):
        base, *rest = items(versions.read(handle))
        assert base == [some(number)]
        assert rest == list(range(made[number]))
    store.server.room.space.check()
    store.server.lifetimes.holders.check()


def test_a_version_for_which_there_is_no_room_is_refused_and_the_old_one_stays(tmp_path: Path) -> None:
    with store_on(tmp_path, spill=0, wait=0.1) as store:
        handle = put(store, [])
        append(handle, 1)
        kept = put_some(store, 7)
        with pytest.raises(StoreFull):
            append(handle, some(9, 4 * MIB))
        with pytest.raises(StoreFull):
            update(handle, some(9, 4 * MIB))

        assert items(versions.read(handle)) == [[], 1]
        assert all(store.read(one) for one in kept)


def test_what_an_update_replaced_makes_room_at_once_when_it_is_needed(tmp_path: Path) -> None:
    with store_on(tmp_path, spill=0, wait=0.1) as store:
        handle = put(store, b"")
        for number in range(30):
            update(handle, some(number, 6 * MIB), kind="bytes")
        assert items(versions.read(handle)) == [some(29, 6 * MIB)]
