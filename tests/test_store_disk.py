"""A store whose memory is full: objects go to the disk and come back, or are refused, and never changed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from flamezmq.errors import ObjectLost, StoreFull
from flamezmq.store import access, checked, mapping, outside
from flamezmq.store import messages as s
from flamezmq.store.access import About, Access
from flamezmq.store.disk import VOLUME_BYTES
from flamezmq.store.names import ids
from flamezmq.store.pool import Pool
from flamezmq.store.terms import Terms
from flamezmq.wire.handles import Handle
from flamezmq.wire.objects import SPILLED
from tests.test_store import MIB, Store, child, until
from tests.test_store_room import tmpfs as tmpfs

pytestmark = pytest.mark.processes

LIMIT = 16 * MIB


@contextmanager
def store_on(
    folder: Path, spill: int | None = 64 * MIB, host: str = "", wait: float = 20.0
) -> Iterator[Store]:
    """A store with room for 16 MiB in memory."""
    terms = Terms(LIMIT, spill_folder=str(folder), spill_limit=spill, wait_seconds=wait)
    store = Store(host, Pool(LIMIT, LIMIT), terms)
    try:
        yield store
    finally:
        store.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with store_on(tmp_path) as store:
        yield store


def some(number: int, size: int = 2 * MIB) -> bytes:
    """Bytes that are nobody else's."""
    return (b"%08d" % number) * (size // 8)


def put_some(store: Store, count: int, size: int = 2 * MIB) -> list[Handle]:
    return [store.put(some(number, size)) for number in range(count)]


def away(store: Store, handle: Handle) -> bool:
    """Whether it is only on the disk; not if its Put has yet to be read."""
    one = store.server.objects.get(handle.id)
    return one is not None and one.is_away


def an_away_one(store: Store, handles: list[Handle]) -> int:
    until(lambda: any(away(store, handle) for handle in handles))
    return next(number for number, handle in enumerate(handles) if away(store, handle))


def test_more_than_fits_into_memory_is_kept_and_read_again(store: Store, tmp_path: Path) -> None:
    handles = put_some(store, 24)
    assert store.pool.total <= LIMIT
    for _ in range(2):
        for number, handle in enumerate(handles):
            assert store.read(handle) == [some(number)]
    assert store.pool.total <= LIMIT
    assert not os.listdir(tmp_path), "a file with a name"


def test_the_router_is_told_which_are_on_the_disk(store: Store) -> None:
    handles = put_some(store, 12)

    def are_there() -> set[bytes]:
        return {id for id, (_, _, marks) in store.known().items() if marks & SPILLED}

    until(lambda: len(store.known()) == 12 and len(are_there()) >= 4)
    away = next(handle for handle in handles if handle.id in are_there())
    assert store.read(away) is not None
    until(lambda: away.id not in are_there())


def test_many_at_a_time_are_read_whose_room_is_not_enough_for_all(store: Store) -> None:
    handles = put_some(store, 24)
    pieces = store.access.open(handles)
    assert [bytes(found[0]) for found in pieces if found] == [some(number) for number in range(24)]


def test_what_is_used_stays_and_what_is_not_goes(store: Store) -> None:
    handles = put_some(store, 7)
    store.read(handles[0])
    store.put(some(8, 4 * MIB))
    assert away(store, handles[1])
    assert not away(store, handles[0])


def test_what_is_pinned_stays(store: Store) -> None:
    pinned = [store.access.put(ids.next(), "s", [some(n)], About(s.PINNED)) for n in range(3)]
    others = put_some(store, 12)
    assert not any(away(store, handle) for handle in pinned)
    assert sum(away(store, handle) for handle in others) >= 7


def test_at_the_end_of_a_session_only_what_has_room_comes_from_the_disk(store: Store) -> None:
    handles = put_some(store, 20)
    until(lambda: not store.server.room.space.leaving)
    were_away = [away(store, handle) for handle in handles]
    pieces = store.access.open(handles, modest=True)
    assert [found is None for found in pieces] == were_away
    assert [bytes(found[0]) for found in pieces if found] == [
        some(number) for number, was_away in enumerate(were_away) if not was_away
    ]
    store.access.drop([handle.id for handle, found in zip(handles, pieces, strict=True) if found])
    del pieces
    until(lambda: store.pool.total == store.pool.free_bytes)
    (found,) = store.access.open([handles[were_away.index(True)]], modest=True)
    assert found


def test_what_somebody_has_mapped_stays(store: Store) -> None:
    first, *_ = handles = put_some(store, 7)
    (view,) = store.access.open([first])[0] or []
    handles += put_some(store, 7)
    assert not away(store, first)
    assert bytes(view) == some(0)


def test_the_disk_gives_room_back_when_objects_go(store: Store) -> None:
    for _ in range(8):  # four times what memory and disk have
        handles = put_some(store, 20)
        store.access.drop([handle.id for handle in handles])
        until(lambda: not store.server.objects)
    until(lambda: not store.server.room.disk._volumes)
    assert store.server.room.space.disk_used == 0


def test_an_object_that_is_dropped_while_it_is_written_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    handles = put_some(store, 7)
    with writing_stopped(store, monkeypatch):
        store.access.drop([handle.id for handle in handles])
        until(lambda: all(handle.id not in store.server.objects for handle in handles))
        assert store.pool.total > store.pool.free_bytes, "memory was given away that is still read"
    until(lambda: len(store.server.objects) == 1)
    store.access.drop(list(store.server.objects))
    until(lambda: not store.server.room.disk._volumes)
    until(lambda: store.pool.total == store.pool.free_bytes)


@contextmanager
def writing_stopped(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Somebody puts what has no room, and the disk hangs."""
    goes_on = threading.Event()
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda *words: (goes_on.wait(20), real(*words))[1])
    writer = Access(store.name)
    thread = threading.Thread(target=partial(writer.put, ids.next(), "s", [some(8, 4 * MIB)]))
    thread.start()
    try:
        until(lambda: bool(store.server.room.space.leaving))
        yield
    finally:
        goes_on.set()
        thread.join()
        writer.close()


def test_a_hole_is_made_where_an_object_was(store: Store) -> None:
    handles = put_some(store, 24)
    until(lambda: not store.server.room.space.leaving)
    (volume,) = store.server.room.disk._volumes
    full = os.fstat(volume.fd).st_blocks * 512
    gone = [handle for handle in handles if away(store, handle)][1:-1]
    store.access.drop([handle.id for handle in gone])
    until(lambda: os.fstat(volume.fd).st_blocks * 512 <= full - len(gone) * 2 * MIB)
    assert volume.end <= VOLUME_BYTES


@pytest.mark.parametrize("what", ["its file was cut short|its checksum", "its checksum"])
def test_a_damaged_file_is_an_error_and_never_a_wrong_value(store: Store, what: str) -> None:
    handles = put_some(store, 12)
    number = an_away_one(store, handles)
    piece = store.server.objects[handles[number].id].piece
    assert piece is not None
    if what == "its checksum":
        os.pwrite(piece.volume.fd, b"x", piece.offset + piece.size - 1)
    else:
        os.ftruncate(piece.volume.fd, piece.offset + 5)
    for _ in range(2):
        with pytest.raises(ObjectLost, match=rf"it lay on the disk, in .*, where ({what})"):
            access.fetch(handles[number])
    assert store.put(b"a" * MIB)  # it serves on


def test_a_full_disk_is_said_and_what_is_in_memory_stays(tmpfs: Path) -> None:
    with store_on(tmpfs) as store:
        handles: list[Handle] = []
        with pytest.raises(StoreFull, match=r"session s has .* writing to .*: No space left on device"):
            while True:
                handles.append(store.put(some(len(handles))))
        assert len(handles) >= 7 + 3  # memory, and most of the file system's 8 MiB
        assert [store.read(handle) for handle in handles] == [[some(n)] for n in range(len(handles))]


def test_a_put_waits_for_room_and_is_served_when_something_goes(store: Store) -> None:
    handles = put_some(store, 7, 2 * MIB) + put_some(store, 30)
    done = threading.Event()
    patient = Access(store.name)
    with pytest.raises(StoreFull):
        while True:
            handles.append(store.put(some(0)))

    def put() -> None:
        patient.put(ids.next(), "s", [some(1)], patient=True)
        done.set()

    thread = threading.Thread(target=put)
    thread.start()
    until(lambda: store.server.room.waits)
    assert not done.is_set()
    store.access.drop([handle.id for handle in handles[:3]])
    assert done.wait(10)
    thread.join()
    patient.close()


def test_a_put_waits_no_longer_than_it_is_told_and_names_who_holds_the_room(tmp_path: Path) -> None:
    with store_on(tmp_path, spill=0, wait=0.2) as store:
        put_some(store, 7)
        with pytest.raises(StoreFull, match=r"session s has 14,680,064 bytes; free objects"):
            store.access.put(ids.next(), "s", [some(9, 4 * MIB)], patient=True)


PATIENT = """
import sys
from flamezmq.store.access import Access
from flamezmq.store.names import ids
print("waits", flush=True)
try:
    Access(sys.argv[1]).put(ids.next(), "s", [bytes(4 << 20)], patient=True)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_ends_a_wait_for_room_and_the_store_forgets_it(tmp_path: Path) -> None:
    with store_on(tmp_path, spill=0) as store:
        put_some(store, 7)
        waiter = subprocess.Popen(
            [sys.executable, "-c", PATIENT, store.name],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        try:
            until(lambda: store.server.room.waits)
            waiter.send_signal(signal.SIGINT)
            out, _ = waiter.communicate(timeout=10)
        finally:
            waiter.kill()
        assert (waiter.returncode, out) == (0, "waits\ninterrupted\n")
        until(lambda: not store.server.room.waits)


def test_who_waits_and_is_killed_is_forgotten_and_others_are_served(store: Store) -> None:
    handles: list[Handle] = []
    with pytest.raises(StoreFull):
        while True:
            handles.append(store.put(some(len(handles))))

    def wait() -> object:
        mine = Access(store.name)
        thread = threading.Thread(target=partial(mine.put, ids.next(), "s", [some(0)], patient=True))
        thread.start()
        return thread

    with child(wait):
        until(lambda: store.server.room.waits)
    until(lambda: not store.server.room.waits)
    store.access.drop([handles[0].id, handles[-1].id])
    assert store.put(some(99))


def test_without_room_to_bring_it_back_it_is_read_from_the_disk(store: Store) -> None:
    handles = put_some(store, 14)
    number = an_away_one(store, handles)
    kept = [store.access.open([handle])[0] for handle in handles if not away(store, handle)]
    while store.pool.total + 2 * MIB <= LIMIT:
        kept.append(store.access.open([store.put(some(50))])[0])
    assert store.read(handles[number]) == [some(number)]
    assert away(store, handles[number])
    piece = store.server.objects[handles[number].id].piece
    assert piece is not None
    os.pwrite(piece.volume.fd, b"x", piece.offset)
    with pytest.raises(ObjectLost, match="it lay on the disk of its node, where its checksum"):
        access.fetch(handles[number])
    del kept


def test_small_objects_press_large_ones_out_of_memory_and_are_refused_at_last(store: Store) -> None:
    large = put_some(store, 7)
    small: list[Handle] = []
    with pytest.raises(StoreFull):
        while True:
            small.append(store.put(some(len(small), 50_000)))
    assert len(small) * 50_000 > LIMIT - 2 * MIB
    assert store.server.small_bytes <= LIMIT
    assert [store.read(handle) for handle in large] == [[some(number)] for number in range(7)]
    assert store.read(small[7]) == [some(7, 50_000)]


def test_what_is_on_the_disk_is_served_to_other_nodes(store: Store, tmp_path: Path) -> None:
    with store_on(tmp_path, host="127.0.0.1") as far:
        handles = put_some(far, 14, 3 * MIB)
        number = an_away_one(far, handles)
        assert [bytes(piece) for piece in outside.fetch(handles[number])] == [some(number, 3 * MIB)]
        assert store.read(handles[number]) == [some(number, 3 * MIB)]
        assert away(far, handles[number])
        other = next(n for n, handle in enumerate(handles) if away(far, handle) and n != number)
        piece = far.server.objects[handles[other].id].piece
        assert piece is not None
        os.pwrite(piece.volume.fd, b"x", piece.offset + 2 * MIB)
        with pytest.raises(ObjectLost):
            outside.fetch(handles[other])
    outside.context().term()


def test_what_comes_from_other_nodes_has_room_made_for_it_or_is_read_there(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "own", store.name)
    with store_on(tmp_path, host="127.0.0.1") as far:
        mine = put_some(store, 7)
        first, second = put_some(far, 2, 3 * MIB)
        assert store.read(first) == [some(0, 3 * MIB)]
        until(lambda: any(away(store, handle) for handle in mine))
        kept = [store.access.open([handle])[0] for handle in [*mine, first]]  # no room can be made
        while store.pool.total + 3 * MIB <= LIMIT:
            kept.append(store.access.open([store.put(some(9))])[0])
        far.access.close()
        there = Handle(second.id, "far away", second.sizes, second.at, second.node)
        assert [bytes(piece) for piece in access.fetch(there)] == [some(1, 3 * MIB)]
        assert second.id not in store.server.objects
        del kept
    access.of(store.name).close()
    outside.context().term()


def test_a_process_without_room_for_mappings_reads_and_writes_by_copy(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object) -> memoryview:
        raise OSError(12, "mapping: Cannot allocate memory")

    monkeypatch.setattr(mapping, "_map", none_left)
    pieces = [os.urandom(100), b"", os.urandom(3 * MIB)]
    handle = store.put(*pieces)
    assert store.read(handle) == pieces
    monkeypatch.undo()
    assert store.read(handle) == pieces
    store.access.drop([handle.id])
    other = store.put(*pieces[::-1])
    assert store.read(other) == pieces[::-1]


def test_a_disk_that_hangs_keeps_nobody_from_reading_what_is_in_memory(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    handles = put_some(store, 7)
    with writing_stopped(store, monkeypatch):
        assert [store.read(handle) for handle in handles] == [[some(number)] for number in range(7)]


def test_what_the_process_has_no_more_files_for_goes_to_the_disk(store: Store) -> None:
    handles = put_some(store, 3)
    store.pool.most = store.pool.count
    handles += [store.put(some(number, MIB + number * 4096 * 32)) for number in range(3, 6)]
    assert store.pool.count <= store.pool.most
    assert all(store.read(handle) for handle in handles)


LITTLE = """
import os, resource, sys
from flamezmq.errors import StoreFull
from flamezmq.store.access import Access
from flamezmq.store.names import ids

store = Access(sys.argv[1])
pieces = [[bytes([k]) * 100_000] for k in range(12)]
handles = [store.put(ids.next(), "s", piece) for piece in pieces]
most = len(os.listdir("/proc/self/fd")) + 20
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
taken = []

def take_all_files():
    while True:
        try:
            taken.append(os.dup(0))
        except OSError:
            return

def leave_some():
    for _ in range(3):
        os.close(taken.pop())

take_all_files()
leave_some()
assert [[bytes(view) for view in views] for views in store.open(handles)] == pieces
take_all_files()
try:
    store.open(handles)
except OSError as error:
    print(error.strerror)
try:
    store.put(ids.next(), "s", [bytes(200_000)])
except StoreFull as error:
    print(error)
leave_some()
assert store.put(ids.next(), "s", [bytes(200_000)])
"""


def test_a_process_with_few_files_left_opens_a_few_at_a_time_and_is_told_when_it_has_none(
    store: Store,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LITTLE, store.name],
        capture_output=True,
        text=True,
        timeout=20,
        cwd=Path(__file__).parents[1],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    opened, put = done.stdout.splitlines()
    assert "too many open files" in opened
    assert "this process has too many open files" in put


def test_the_parts_of_an_object_are_compared_one_by_one() -> None:
    fd = os.memfd_create("x")
    try:
        os.pwrite(fd, b"abc", 0)
        with pytest.raises(checked.Damaged, match="cut short"):
            checked.checked_copy(fd, 0, 4, [0])
    finally:
        os.close(fd)


@pytest.mark.parametrize("seed", range(2))
def test_many_who_put_read_and_drop_at_a_time_get_what_was_put_or_are_refused(
    store: Store, seed: int
) -> None:
    """With far less memory than that takes, and a disk that is full now and then."""
    failures: list[str] = []

    def work(number: int) -> None:
        chance = random.Random(seed * 100 + number)
        mine = Access(store.name)
        kept: list[tuple[Handle, bytes]] = []
        views: list[tuple[memoryview, bytes]] = []
        for _ in range(150):
            try:
                step(chance, mine, kept, views)
            except StoreFull:
                mine.drop([kept.pop(0)[0].id for _ in range(len(kept) // 2)])
                views.clear()
        failures.extend("a view has changed" for view, value in views if view != value)
        mine.close()

    def step(
        chance: random.Random,
        mine: Access,
        kept: list[tuple[Handle, bytes]],
        views: list[tuple[memoryview, bytes]],
    ) -> None:
        deed = chance.random()
        if deed < 0.4 or not kept:
            value = chance.randbytes(8) * chance.choice([100, 10_000, 100_000, 400_000])
            kept.append((mine.put(ids.next(), "s", [value], patient=chance.random() < 0.1), value))
        elif deed < 0.85:
            handle, value = chance.choice(kept)
            (found,) = mine.open([handle], private=chance.random() < 0.5)
            if found is None or found[0] != value:
                failures.append(f"{handle} was {None if found is None else bytes(found[0][:16])!r}")
            elif chance.random() < 0.1:
                views.append((found[0], value))
        else:
            mine.drop([kept.pop(chance.randrange(len(kept)))[0].id])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert store.thread.is_alive()

    def is_empty() -> bool:  # the last puts may not have been read yet
        store.access.drop(list(store.server.objects))
        return not store.server.objects and not store.server.room.disk._volumes

    until(is_empty)
    until(lambda: store.pool.total == store.pool.free_bytes)
    assert store.server.small_bytes == store.server.room.space.disk_used == 0
    store.server.room.space.check()
