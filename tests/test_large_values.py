"""Large arguments and results: they lie in the node's store, and nobody notices but by the clock."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

import flamezmq as flm
from flamezmq.store import access

numpy = pytest.importorskip("numpy")

pytestmark = pytest.mark.processes
MIB = 1 << 20


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with flm.Client(executors=2) as client:
        client.submit(abs, 1).result(20)  # before that there may be no node, and no store
        yield client


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def ones(size: int) -> Any:
    return numpy.ones(size)


def total(*arrays: Any) -> float:
    return float(sum(array.sum() for array in arrays))


def test_an_array_goes_to_a_task_and_comes_back(client: Any) -> None:
    array = numpy.arange(100_000)
    back = client.submit(lambda x: x * 2, array).result(20)
    assert (back == array * 2).all()
    assert client._objects.store, "it went by the store"


def test_what_comes_is_writable_there_and_here_and_changes_nothing_elsewhere(client: Any) -> None:
    array = numpy.zeros(100_000)

    def write(x: Any) -> Any:
        x += 1
        return x

    futures = [client.submit(write, array) for _ in range(3)]
    results = [future.result(20) for future in futures]
    results[0] += 10
    assert [float(result[0]) for result in results] == [11.0, 1.0, 1.0]
    assert array[0] == 0


def test_a_future_as_an_argument_is_never_copied_through_the_client(client: Any) -> None:
    made = [client.submit(ones, 100_000) for _ in range(3)]
    assert client.submit(total, *made).result(20) == 300_000
    assert client.submit(total, *made).result(20) == 300_000  # all of them had ended
    first = made[0].result(20)
    first[:] = 5  # of what is here, not of what the task had made
    assert client.submit(total, made[0]).result(20) == 100_000


@pytest.mark.parametrize("size", [0, 1, 8191, 8192, 8193, 300_000])
def test_sizes_around_the_border_of_the_store(client: Any, size: int) -> None:
    assert len(client.submit(lambda x: x, numpy.zeros(size)).result(20)) == size
    assert client.submit(lambda x: x, "x" * (8 * size)).result(20) == "x" * (8 * size)
    assert client.submit(lambda x: x, b"x" * (8 * size)).result(20) == b"x" * (8 * size)


def test_values_outlive_their_session_and_their_client() -> None:
    with flm.Client(executors=1) as client:
        with client.session() as session:
            seen, unseen = session.submit(ones, 100_000), session.submit(ones, 100_001)
            seen_array = seen.result(20)
        assert total(unseen.result(20)) == 100_001
        other = client.submit(ones, 100_002)
        other.exception(20)
    assert total(seen_array, other.result(0)) == 200_002


def test_memory_comes_back_when_futures_and_arrays_are_gone(client: Any) -> None:
    def segments() -> int:
        (worker,) = client.processes()["worker"]
        found = 0
        for name in os.listdir(f"/proc/{worker}/fd"):
            with suppress(OSError):
                found += "flamezmq-object" in os.readlink(f"/proc/{worker}/fd/{name}")
        return found

    before = segments()
    for _ in range(5):
        arrays = [future.result(20) for future in [client.submit(ones, 2 * MIB // 8) for _ in range(10)]]
        assert total(*arrays) == 10 * MIB // 4
        del arrays
    gc.collect()
    assert segments() - before <= 25, "segments were used again"


def test_a_map_of_large_items(client: Any) -> None:
    arrays = [numpy.full(20_000, number) for number in range(20)]
    assert list(client.map(total, arrays, chunksize=4)) == [20_000.0 * number for number in range(20)]
    assert [len(array) for array in client.map(ones, [20_000] * 6, chunksize=2)] == [20_000] * 6


def test_nested_tasks_pass_large_values(client: Any) -> None:
    def outer(array: Any) -> Any:
        inner = flm.current().client
        futures = [inner.submit(lambda x, k: x + k, array, k) for k in range(3)]
        return sum(future.result() for future in futures)

    result = client.submit(outer, numpy.zeros(50_000)).result(30)
    assert (result == 3).all()


def test_a_task_that_kills_its_executor_finds_its_argument_again(client: Any, tmp_path: Any) -> None:
    marker = tmp_path / "was-here"

    def once(array: Any) -> float:
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return total(array)

    assert client.submit(once, numpy.ones(100_000)).result(30) == 100_000


def test_what_the_store_has_no_room_for_travels(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise flm.errors.StoreFull(1, 1, "")

    monkeypatch.setattr(access.Access, "put", full)
    assert client.submit(total, numpy.ones(100_000)).result(20) == 100_000


def test_a_dead_session_leaves_no_objects(client: Any) -> None:
    with client.session() as session:
        session.submit(ones, 100_000).result(20)
        future = session.submit(ones, 100_000)
        future.exception(20)
        held = future._hold.handle
    until(lambda: access.of(held.home).open([held])[0] is None, "the objects of a session go with it")


def test_the_error_of_a_value_that_is_gone_says_so(client: Any) -> None:
    future = client.submit(ones, 100_000)
    client.submit(total, future).result(20)  # so it has come, and nobody has looked at it here
    handle = future._hold.handle
    access.of(handle.home).drop([handle.id])
    until(lambda: access.of(handle.home).open([handle])[0] is None, "it is dropped")
    with pytest.raises(flm.errors.ObjectLost, match="of 800,"):
        future.result(20)
