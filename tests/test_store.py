"""The store of a node, alone: real segments, real processes that put, read and are killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from uuid import uuid4

import pytest

from flamezmq.errors import ObjectLost, StoreFull, StoreLost
from flamezmq.store import messages as s
from flamezmq.store import outside
from flamezmq.store.access import About, Access, Connection
from flamezmq.store.doors import open_doors
from flamezmq.store.names import ids
from flamezmq.store.pool import Pool
from flamezmq.store.server import Server
from flamezmq.store.terms import Terms
from flamezmq.wire.handles import Handle
from flamezmq.wire.objects import COPY, News, Stocked, Stocks

pytestmark = pytest.mark.processes

MIB = 1 << 20
LIMIT = 64 * MIB


class Store:
    """A server in a thread of the test, and the test's access to it."""

    def __init__(self, host: str = "", pool: Pool | None = None, terms: Terms | None = None) -> None:
        self.name = f"test-{uuid4().hex}"
        self.pool = pool or Pool(LIMIT, LIMIT)
        self.told: list[News] = []  # what its router would hear
        doors = open_doors(self.name, host, "far" if host else "near")
        self.server = Server(doors, self.pool, self.told.append, terms or Terms(spill_limit=0))
        self.thread = threading.Thread(target=self.server.serve, name="flm-store")
        self.thread.start()
        self.access = Access(self.name)

    def put(self, *pieces: bytes, session: str = "s") -> Handle:
        return self.access.put(ids.next(), session, pieces)

    def read(self, handle: Handle) -> list[bytes] | None:
        pieces = self.access.open([handle])[0]
        return None if pieces is None else [bytes(piece) for piece in pieces]

    def known(self) -> dict[bytes, tuple[str, int, int]]:
        """What a router knows that has heard all of it: id -> session, size, marks."""
        known: dict[bytes, tuple[str, int, int]] = {}
        for report in list(self.told):
            if isinstance(report, Stocked):
                columns = report.ids, report.owners, report.sizes, report.marks
                for id, owner, size, marks in zip(*columns, strict=True):
                    known[id] = (report.sessions[owner] if owner >= 0 else "", size, marks)
                for id in report.gone:
                    del known[id]
        return known

    def has_dropped(self, handle: Handle) -> bool:
        return handle.id not in self.server.objects

    def settle(self) -> None:
        """What was said by now has been read, and what was to go has gone."""
        said = self.put(b"the last word")
        assert self.read(said)
        self.access.drop([said.id])
        until(partial(self.has_dropped, said))

    def close(self) -> None:
        self.access.close()
        self.server.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store()
    try:
        yield store
    finally:
        store.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.005)


@contextmanager
def child(work: Callable[[], object]) -> Iterator[int]:
    """A process that does `work`, says so, and stays until it is killed."""
    ready, done = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            kept = work()
            os.write(done, b".")
            signal.pause()
            del kept
        finally:
            os._exit(1)
    os.close(done)
    try:
        assert os.read(ready, 1) == b"."
        yield pid
    finally:
        os.close(ready)
        kill(pid)


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


@pytest.mark.parametrize("sizes", [(0,), (5,), (5, 0, 70), (65536,), (100, 65536, 1, 0, MIB), (MIB + 1, 63)])
def test_what_was_put_is_read_again_in_its_pieces(store: Store, sizes: tuple[int, ...]) -> None:
    pieces = [os.urandom(size) for size in sizes]
    assert store.read(store.put(*pieces)) == pieces


def test_a_view_outlives_its_object_and_nobody_writes_over_it(store: Store) -> None:
    handle = store.put(b"a" * MIB)
    (view,) = store.access.open([handle])[0] or []
    store.access.drop([handle.id])
    until(partial(store.has_dropped, handle))
    others = [store.put(bytes([k]) * MIB) for k in range(60)]
    assert bytes(view) == b"a" * MIB
    assert all(store.read(other) == [bytes([k]) * MIB] for k, other in enumerate(others))


def test_memory_is_used_again_once_nobody_has_a_view_of_it(store: Store) -> None:
    for k in range(200):  # more than three times the limit
        handle = store.put(bytes([k]) * MIB)
        assert store.read(handle) == [bytes([k]) * MIB]
        store.access.drop([handle.id])
    assert store.pool.total <= LIMIT


def test_a_private_view_is_written_to_and_nobody_else_sees_it(store: Store) -> None:
    handle = store.put(b"a" * MIB)
    (mine,) = store.access.open([handle], private=True)[0] or []
    mine[:5] = b"12345"
    assert store.read(handle) == [b"a" * MIB]
    store.access.drop([handle.id])
    until(partial(store.has_dropped, handle))
    for k in range(60):
        store.put(bytes([k]) * MIB)
    assert bytes(mine[:6]) == b"12345a"
    assert bytes(mine[6:]) == b"a" * (MIB - 6)


def test_a_shared_view_is_read_only(store: Store) -> None:
    for size in (10, MIB):
        (view,) = store.access.open([store.put(b"a" * size)])[0] or []
        with pytest.raises(TypeError):
            view[0] = 1


def test_a_forked_child_keeps_what_its_parent_had_mapped(store: Store) -> None:
    handle = store.put(b"a" * MIB)
    view = (store.access.open([handle])[0] or [])[0]
    with child(lambda: None) as pid:
        del view
        store.access.drop([handle.id])
        until(lambda: store.pool.lingers == 1)
        kill(pid)
        until(lambda: store.pool.lingers == 0)


def test_what_a_killed_reader_had_mapped_is_used_again(store: Store) -> None:
    handle = store.put(b"a" * MIB)

    def read() -> object:
        return Access(store.name).open([handle])

    with child(read) as pid:
        store.access.drop([handle.id])
        until(lambda: store.pool.lingers == 1)
        kill(pid)
        until(lambda: store.pool.lingers == 0)


def test_what_a_killed_writer_had_leased_is_free_again(store: Store) -> None:
    half = LIMIT // 2 + MIB

    def lease() -> object:
        leaser = Connection(store.name)
        leaser.filling.fill([b"a" * MIB], half)
        return leaser

    def fits() -> bool:
        try:
            return bool(store.put(b"b" * half))
        except StoreFull:
            return False

    with child(lease):
        assert not fits()
    until(fits)


def test_a_full_store_says_who_holds_it(store: Store) -> None:
    kept = [store.put(b"a" * (20 * MIB), session="greedy") for _ in range(3)]
    with pytest.raises(StoreFull) as caught:
        store.put(b"a" * (20 * MIB))
    assert "session greedy has" in str(caught.value)
    assert all(store.read(handle) for handle in kept)


def test_the_objects_of_a_session_go_with_it_when_their_room_is_needed(store: Store) -> None:
    for _ in range(3):
        store.put(b"a" * (20 * MIB), session="over")
    other = store.put(b"b", session="open")
    store.server.end_session("over")
    until(lambda: bool(store.server._ended))
    store.put(b"a" * (60 * MIB), session="open")
    assert store.read(other) == [b"b"]


def test_who_holds_an_object_keeps_it_when_its_owner_lets_go(store: Store) -> None:
    for size in (10, MIB):
        handle = store.put(b"a" * size)
        with child(partial(hold, store, handle)) as pid:
            store.access.drop([handle.id])
            store.settle()
            assert store.read(handle) == [b"a" * size]
            kill(pid)
            until(partial(store.has_dropped, handle))


def hold(store: Store, *handles: Handle) -> object:
    access = Access(store.name)
    access.tell(s.Hold, [handle.id for handle in handles])
    access.close()  # it is the process that holds, not the connection
    return access


def test_what_is_held_twice_is_to_be_let_go_twice(store: Store) -> None:
    handle = store.put(b"a")
    for _ in range(2):
        store.access.tell(s.Hold, [handle.id])
    for _ in range(2):
        store.access.drop([handle.id])
        store.settle()
        assert not store.has_dropped(handle)
    store.access.drop([handle.id])  # as its owner
    until(partial(store.has_dropped, handle))


def test_letting_go_never_overtakes_who_has_held_on_before(store: Store) -> None:
    """Each of many threads says `Hold` on one connection, and then `Drop` on another one."""
    writers = [Access(store.name) for _ in range(8)]

    def work(access: Access) -> None:
        for k in range(100):
            handle = access.put(ids.next(), "s", [b"x" * (70_000 if k % 2 else 10)])
            with access._connection() as one, access._connection() as other:
                one.tell(s.Hold([handle.id]))
                other.tell(s.Drop([handle.id]))
                other.tell(s.Drop([handle.id, handle.id]))
            left.append(handle)

    left: list[Handle] = []
    threads = [threading.Thread(target=work, args=[access]) for access in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(left) == 800
    until(lambda: all(map(store.has_dropped, left)))
    for access in writers:
        access.close()
    until(lambda: store.pool.total == store.pool.free_bytes)
    until(lambda: not store.server.lifetimes.holders._claims)


def test_what_contains_references_holds_their_objects(store: Store) -> None:
    inner, outer = store.put(b"inner"), ids.next()
    middle = store.access.put(ids.next(), "s", [b"m" * MIB], About(contains=[inner.id]))
    store.access.put(outer, "s", [b"outer"], About(contains=[middle.id]))
    store.access.drop([inner.id, middle.id])
    store.settle()
    assert store.read(inner) == [b"inner"]
    store.access.drop([outer])
    until(lambda: store.has_dropped(inner) and store.has_dropped(middle))


def test_what_is_pinned_stays_when_its_session_ends_until_it_is_freed(store: Store) -> None:
    pinned = store.access.put(ids.next(), "s", [b"pinned"], About(s.PINNED))
    other = store.put(b"other")
    store.access.drop([pinned.id])
    store.server.end_session("s")
    until(partial(store.has_dropped, other))
    assert store.read(pinned) == [b"pinned"]
    store.access.free([pinned.id])
    assert store.has_dropped(pinned)


def test_what_was_said_to_stay_goes_with_its_session(store: Store) -> None:
    handle = store.put(b"a")
    store.access.tell(s.Stay, [handle.id])
    store.access.drop([handle.id])
    store.settle()
    assert not store.has_dropped(handle)
    store.server.end_session("s")
    until(partial(store.has_dropped, handle))


def test_what_a_process_has_put_for_itself_goes_with_it(store: Store) -> None:
    name = ids.next()

    def put() -> object:
        access = Access(store.name)
        access.put(name, "s", [b"a" * MIB], About(s.OF_PROCESS))
        return access

    with child(put) as pid:
        until(lambda: name in store.server.objects)
        store.settle()
        assert name in store.server.objects
        kill(pid)
        until(lambda: name not in store.server.objects)


def test_results_that_have_reached_nobody_go_and_no_others(store: Store) -> None:
    sent, lost = (store.access.put(ids.next(), "s", [b"a"], About(s.RESULT)) for _ in range(2))
    other = store.put(b"no result")
    store.settle()
    store.server.lose((os.getpid(), sent.id))
    until(partial(store.has_dropped, lost))
    assert not store.has_dropped(sent)
    assert not store.has_dropped(other)


def test_what_is_let_go_of_makes_room_at_once(store: Store) -> None:
    for k in range(40):
        handle = store.put(bytes([k]) * (40 * MIB))
        with store.access._connection() as one, store.access._connection():
            one.tell(s.Drop([handle.id]))


def test_an_object_with_the_bytes_of_another_one_shares_its_memory_and_nothing_else(store: Store) -> None:
    one = store.put(b"a" * MIB)
    used = store.server.used
    other = store.access.share(ids.next(), "other", one)
    assert other is not None
    assert store.server.used == used
    store.access.free([one.id])
    others = [store.put(bytes([k]) * MIB) for k in range(50)]
    assert store.read(other) == [b"a" * MIB]
    assert all(store.read(each) == [bytes([k]) * MIB] for k, each in enumerate(others))
    store.access.free([other.id, *(each.id for each in others)])
    assert store.access.share(ids.next(), "s", one) is None, "it is gone"
    assert store.access.share(ids.next(), "s", store.put(b"small")) is None, "it has no segment"
    store.access.close()
    until(lambda: store.pool.total == store.pool.free_bytes)


def test_an_object_is_found_by_who_hears_of_it_before_its_put_is_read(store: Store) -> None:
    writers = [Access(store.name) for _ in range(4)]
    try:
        for k in range(200):
            handle = writers[k % 4].put(ids.next(), "s", [b"x" * 70000])
            assert store.access.open([handle])[0] is not None
    finally:
        for writer in writers:
            writer.close()


def test_nonsense_ends_its_connection_and_no_other(store: Store) -> None:
    handle = store.put(b"a" * MIB)
    with store.access._connection() as connection:
        for nonsense in (b"\xff\xff", b"\x93\xa5lease", b"\x92\xa6return\xcd\x27\x0f"):
            other = Access(store.name)
            with pytest.raises(StoreLost), other._connection() as its:
                its.socket.send(nonsense)
                its.ask(s.Lease(10))
        assert connection.socket.fileno() >= 0
    assert store.read(handle) == [b"a" * MIB]


def test_a_store_that_has_ended_is_an_error_that_says_so(store: Store) -> None:
    store.server.stop()
    store.thread.join(10)
    with pytest.raises(StoreLost, match="worker has ended"):
        store.put(b"a")
        store.put(b"a")


def test_an_object_of_another_node_is_fetched_once_and_kept_as_a_copy(store: Store) -> None:
    with another(store) as far:
        for sizes in ((5, 0, 7), (3 * MIB + 17, 100), (70000,)):
            pieces = [os.urandom(size) for size in sizes]
            handle = far.put(*pieces)
            assert store.read(handle) == pieces
            assert store.read(handle._replace(at="")) == pieces  # of the copy: it can't be fetched


def test_a_copy_goes_with_the_object_of_its_home(store: Store) -> None:
    with another(store) as far:
        handle = far.put(b"a" * MIB)
        (view,) = store.access.open([handle])[0] or []
        far.access.drop([handle.id])
        until(partial(store.has_dropped, handle))
        assert not store.server.copies
        assert bytes(view) == b"a" * MIB  # who has it keeps it


def test_what_another_node_has_no_more_is_not_waited_for(store: Store) -> None:
    with another(store) as far:
        handle = far.put(b"a" * MIB)
        far.access.drop([handle.id])
        assert store.read(handle) is None


def test_an_object_of_a_node_that_has_ended_is_lost_and_that_is_not_waited_for_long(store: Store) -> None:
    with another(store) as far:
        handle = far.put(b"a" * MIB)
    whys: dict[bytes, s.Found] = {}
    assert store.access.open([handle], whys=whys) == [None]
    assert whys[handle.id].lost
    assert "nobody listens" in whys[handle.id].why
    with pytest.raises(ObjectLost, match="nobody listens") as caught:
        outside.fetch(handle)
    assert caught.value.node == "far"
    outside.context().term()


def test_a_process_on_no_node_reads_by_chunks(store: Store) -> None:
    with another(store) as far:
        pieces = [os.urandom(3 * MIB + 17), b"", b"abc"]
        handle = far.put(*pieces)
        assert [bytes(piece) for piece in outside.fetch(handle)] == pieces
        far.access.drop([handle.id])
        until(partial(far.has_dropped, handle))
        with pytest.raises(ObjectLost):
            outside.fetch(handle)
    outside.context().term()


def test_a_store_tells_in_batches_what_it_has(store: Store) -> None:
    handles = [store.put(b"x" * size, session="s") for size in (5, MIB, *[70_000] * 20)]
    until(lambda: len(store.known()) == len(handles))
    assert store.known() == {handle.id: ("s", handle.size, 0) for handle in handles}
    reports = [message for message in store.told if isinstance(message, Stocked)]
    assert store.told[0] == Stocks("s")
    assert reports[-1].used >= MIB + 20 * 70_000
    store.access.drop([handle.id for handle in handles])
    until(lambda: store.known() == {})
    until(lambda: isinstance(store.told[-1], Stocked) and store.told[-1].used == 0)


def test_a_copy_is_told_as_one(store: Store) -> None:
    with another(store) as far:
        handle = far.put(b"a" * MIB)
        assert store.read(handle) is not None
        until(lambda: handle.id in store.known())
        assert store.known()[handle.id] == ("", MIB, COPY)
        until(lambda: handle.id in far.known())
        assert far.known()[handle.id] == ("s", MIB, 0)


@contextmanager
def another(store: Store) -> Iterator[Store]:
    far = Store("127.0.0.1")
    try:
        yield far
    finally:
        far.close()


def test_small_objects_count_into_the_limit(store: Store) -> None:
    small = [store.put(b"a" * 60_000) for _ in range(20)]
    with pytest.raises(StoreFull):
        store.put(b"b" * (LIMIT - MIB))
    store.access.drop([handle.id for handle in small])
    until(lambda: not store.server.small_bytes)
    assert store.put(b"b" * (LIMIT - MIB))
