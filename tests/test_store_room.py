"""The room of a node's store: its settings, a tmpfs that is full, files that are used up."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import flamezmq as flm
from flamezmq.errors import ConfigError, StoreFull
from flamezmq.store import access, segments
from flamezmq.store.names import ids
from flamezmq.store.pool import Files, Pool
from flamezmq.store.terms import terms_of
from tests.daemons import daemons_in
from tests.test_store import MIB, Store
from tests.test_store import store as store

pytestmark = pytest.mark.processes


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory that has 8 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", folder], check=True, timeout=10)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a tmpfs can't be mounted here: {error}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True, timeout=10)


def test_a_store_that_is_told_nothing_may_have_a_third_of_the_memory() -> None:
    assert terms_of({}).limit_of(9 << 30) == 3 << 30
    assert terms_of({"store_limit": 5}).limit_of(9 << 30) == 5


def test_a_folder_that_does_not_exist_is_refused_by_the_name_of_its_option() -> None:
    with pytest.raises(
        ConfigError, match=r"store_folder: no files can be made in '/no/where' \(No such file"
    ):
        terms_of({"store_folder": "/no/where"})


def test_a_full_tmpfs_is_an_error_and_no_bus_error_and_is_used_again(tmpfs: Path) -> None:
    files = Files(create=partial(segments.create, folder=str(tmpfs)))
    store = Store(pool=Pool(64 * MIB, 64 * MIB, files))
    try:
        kept = [store.put(bytes([k]) * (2 * MIB)) for k in range(3)]
        with pytest.raises(StoreFull):
            store.put(b"x" * (3 * MIB))
        assert [store.read(handle) for handle in kept] == [[bytes([k]) * (2 * MIB)] for k in range(3)]
        store.access.drop([handle.id for handle in kept])
        assert store.read(store.put(b"y" * (7 * MIB))) == [b"y" * (7 * MIB)]
        assert not os.listdir(tmpfs)
    finally:
        store.close()


def test_no_more_segments_than_the_process_may_have_files(store: Store) -> None:
    kept = [store.put(bytes(MIB)) for _ in range(3)]
    store.pool.most = store.pool.count
    with pytest.raises(StoreFull):
        store.put(bytes(2 * MIB))
    store.access.drop([kept[0].id])
    assert store.read(store.put(b"z" * (2 * MIB))) == [b"z" * (2 * MIB)]


def _has_the_limit_of_4_mib(client: flm.Client) -> None:
    assert client.submit(abs, -1).result(30) == 1  # the node is there
    name = client._objects.find()
    with pytest.raises(StoreFull, match="may have 4,194,304"):
        access.of(name).put(ids.next(), "s", [bytes(5 * MIB)])
    assert client.submit(len, bytes(5 * MIB)).result(30) == 5 * MIB  # it travels


def test_what_a_private_cluster_may_keep_is_set_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLAMEZMQ_WORKER_STORE_LIMIT", "4m")
    monkeypatch.setenv("FLAMEZMQ_WORKER_SPILL_FOLDER", str(tmp_path))
    with flm.Client("", executors=1) as client:
        _has_the_limit_of_4_mib(client)
        _keeps_more_than_memory_has(client)
    monkeypatch.setenv("FLAMEZMQ_WORKER_STORE_FOLDER", "/no/where")
    with pytest.raises(ConfigError, match="store_folder"):
        flm.Client("", executors=1)


def test_what_a_worker_may_keep_is_set_by_flags_and_a_killed_one_leaves_nothing(tmp_path: Path) -> None:
    address, disk = f"ipc://{tmp_path}/r", tmp_path / "disk"
    disk.mkdir()
    with daemons_in(tmp_path) as daemons:
        wrong = daemons.worker(address, "--spill-folder", "/no/where")
        assert wrong.wait() == 2
        assert "spill_folder: no files can be made in '/no/where'" in wrong.log.read_text()
        daemons.router(address)
        words = ("--store-limit", "4m", "--store-folder", "/dev/shm", "--spill-folder", str(disk))
        worker = daemons.worker(address, *words)
        worker.wait_for("registered")
        with flm.Client(address) as client:
            _has_the_limit_of_4_mib(client)
            kept = _keeps_more_than_memory_has(client)
            worker.signal(signal.SIGKILL)
            worker.wait()
            assert not os.listdir(disk)
            del kept


def _of_byte(number: int) -> bytes:
    return bytes([number]) * MIB


def _first(blob: bytes) -> int:
    return blob[0]


def _keeps_more_than_memory_has(client: flm.Client) -> list[flm.Future]:
    kept = [client.submit(_of_byte, number) for number in range(20)]
    assert [client.submit(_first, future).result(30) for future in kept] == list(range(20))
    assert all(future._hold is not None for future in kept), "they lie in the store"
    return kept


def test_where_neither_memory_nor_disk_has_room_results_travel_and_no_task_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLAMEZMQ_WORKER_STORE_LIMIT", "4m")
    monkeypatch.setenv("FLAMEZMQ_WORKER_SPILL_LIMIT", "0")
    with flm.Client("", executors=2) as client:
        kept = [client.submit(_of_byte, number) for number in range(20)]
        assert [future.result(30) for future in kept] == [_of_byte(number) for number in range(20)]


def test_a_worker_with_few_files_keeps_more_objects_than_it_may_have_files(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/r"
    with daemons_in(tmp_path) as daemons:
        daemons.router(address)
        daemons.worker(address, before=["prlimit", "--nofile=160:160"]).wait_for("registered")
        with flm.Client(address) as client:
            refs = [client.put(_of_byte(number)[:70_000]) for number in range(200)]
            assert [client.submit(_first, ref).result(30) for ref in refs] == list(range(200))
            assert client.submit(_first, _of_byte(7)).result(30) == 7
