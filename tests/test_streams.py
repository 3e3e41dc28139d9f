"""Streams, with real processes."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import psutil
import pytest

import flamezmq as flm
from flamezmq.shims.streaming import LEAST_VALUES, MOST_VALUES
from tests.test_faults import CuttingProxy
from tests.waiting import until

pytestmark = pytest.mark.processes

LIMIT_SECONDS = 20.0


@pytest.fixture(scope="module")
def client() -> Iterator[flm.Client]:
    with flm.Client(executors=2) as client:
        yield client


def count_to(n: int) -> Iterator[int]:
    yield from range(n)


def noted(folder: Path, n: int, size: int = 0) -> Iterator[Any]:
    """Notes how many were produced, and in the end that it was closed."""
    try:
        with open(folder / "produced", "ab", buffering=0) as file:
            for i in range(n):
                file.write(b".")
                yield bytes(size) if size else i
    finally:
        (folder / "closed").touch()


def produced(folder: Path) -> int:
    try:
        return (folder / "produced").stat().st_size
    except FileNotFoundError:
        return 0


def settled(folder: Path) -> int:
    """How many were produced when that rises no more."""
    before = -1
    deadline = time.monotonic() + LIMIT_SECONDS
    while (now := produced(folder)) != before or not now:
        assert time.monotonic() < deadline
        before = now
        time.sleep(0.2)
    return now


# --- values


def test_thousands_of_values_arrive_in_order_and_each_once(client: flm.Client) -> None:
    assert list(client.stream(count_to, 20_000)) == list(range(20_000))


def test_streams_of_several_tasks_do_not_mix(client: flm.Client) -> None:
    streams = [client.stream(count_to, n) for n in (50, 2000, 0, 1)]
    assert [list(stream) for stream in streams] == [list(range(n)) for n in (50, 2000, 0, 1)]


def test_what_the_generator_returns_is_the_value_of_the_loop_and_of_the_future(client: flm.Client) -> None:
    def squares(n: int, offset: int = 0) -> Generator[int, None, str]:
        for i in range(n):
            yield i * i + offset
        return "done"

    def whole() -> Iterator[int]:
        got.append((yield from stream))  # type: ignore[func-returns-value, arg-type]

    got: list[str] = []
    stream = client.stream(squares, 3, offset=1)
    assert list(whole()) == [1, 2, 5]
    assert got == ["done"] == [stream.future.result()]


def test_anything_that_can_be_iterated_over_will_do_and_nothing_else(client: flm.Client) -> None:
    assert list(client.stream(sorted, "cab")) == ["a", "b", "c"]
    with pytest.raises(TypeError, match=r"stream\(abs\) gave int"):
        next(client.stream(abs, -1))


def test_a_value_comes_before_the_next_one_is_there(client: flm.Client, tmp_path: Path) -> None:
    def steps() -> Iterator[int]:
        for i in range(3):
            yield i
            until((tmp_path / str(i)).exists)  # a generator that computes holds nothing back

    for i in client.stream(steps):
        (tmp_path / str(i)).touch()


def test_an_error_comes_behind_the_values_before_it_and_only_once(client: flm.Client) -> None:
    def some() -> Iterator[int]:
        yield from range(300)
        raise LookupError("no more")

    stream = client.stream(some)
    got = []
    with pytest.raises(LookupError, match="no more"):
        for value in stream:
            got.append(value)  # noqa: PERF402
    assert got == list(range(300))
    assert list(stream) == []


def test_a_value_that_can_not_travel_is_an_error_in_its_place(client: flm.Client) -> None:
    def some() -> Iterator[Any]:
        yield 1
        yield threading.Lock()

    stream = client.stream(some)
    assert next(stream) == 1
    with pytest.raises(flm.Unpicklable, match="a value of the stream"):
        next(stream)


def test_large_values_travel_and_no_process_piles_them_up(client: flm.Client, tmp_path: Path) -> None:
    size = 1 << 20
    router = psutil.Process(client.processes()["router"][0])
    stream = client.stream(noted, tmp_path, 200, size)
    assert len(next(stream)) == size
    before = router.memory_info().rss

    assert settled(tmp_path) <= 8  # a window of 4 MiB, and what was taken
    most = 0
    for value in stream:
        assert len(value) == size
        most = max(most, router.memory_info().rss)
    assert most < before + 64 * size


# --- credit


def test_a_slow_reader_holds_the_task_back(client: flm.Client, tmp_path: Path) -> None:
    stream = client.stream(noted, tmp_path, 1_000_000)
    next(stream)

    assert settled(tmp_path) <= MOST_VALUES + 1
    for _ in range(3000):
        next(stream)
    assert 3000 < settled(tmp_path) <= 3001 + MOST_VALUES
    stream.close()


def test_a_task_whose_values_take_long_is_few_of_them_ahead(client: flm.Client, tmp_path: Path) -> None:
    def slow() -> Iterator[int]:
        for i in range(1000):
            time.sleep(0.03)
            with open(tmp_path / "produced", "ab") as file:
                file.write(b".")
            yield i

    stream = client.stream(slow)
    for _ in range(20):  # it has learned by then
        next(stream)
    assert settled(tmp_path) <= 20 + 4 * LEAST_VALUES
    stream.close()


def test_a_task_that_waits_for_its_reader_leaves_its_place_to_another(tmp_path: Path) -> None:
    with flm.Client(executors=1) as client:
        stream = client.stream(noted, tmp_path, 1_000_000)
        next(stream)
        settled(tmp_path)
        assert client.submit(pow, 2, 3).result(LIMIT_SECONDS) == 8
        assert next(stream) == 1
        stream.close()
        assert client.submit(pow, 2, 3).result(LIMIT_SECONDS) == 8


def test_streams_that_nobody_reads_stop_no_other_session_and_are_named(tmp_path: Path) -> None:
    with flm.Client(executors=1) as client, client.session("quick") as quick:
        streams = [client.stream(noted, tmp_path, 40, 500_000) for _ in range(5)]
        until(lambda: "No more streams begin" in streams[4]._session.explain(), "they never stopped")

        assert quick.submit(pow, 2, 3).result(LIMIT_SECONDS) == 8
        said = streams[4]._session.explain()
        assert "2 streams wait for their readers and hold 2 executors, since " in said
        assert "close those that nobody reads (stream.close())" in said

        assert [len(list(stream)) for stream in streams] == [40] * 5


# --- the end, early


def test_close_runs_the_finally_blocks_and_frees_the_executor(client: flm.Client, tmp_path: Path) -> None:
    stream = client.stream(noted, tmp_path, 1_000_000)
    next(stream)
    stream.close()

    assert (tmp_path / "closed").exists()
    assert stream.future.done()
    assert list(stream) == []
    stream.close()


def test_leaving_the_loop_closes_the_generator(client: flm.Client, tmp_path: Path) -> None:
    for value in client.stream(noted, tmp_path, 1_000_000):
        if value == 5:
            break
    gc.collect()
    until((tmp_path / "closed").exists)


def test_a_with_block_closes_it_when_it_is_left_by_an_error(client: flm.Client, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), client.stream(noted, tmp_path, 1_000_000) as stream:
        next(stream)
        1 / 0  # noqa: B018
    assert (tmp_path / "closed").exists()


def test_what_has_not_begun_never_does_when_it_is_closed(client: flm.Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    busy = [client.submit(until, gate.exists) for _ in range(8)]
    stream = client.stream(noted, tmp_path, 10)
    stream.close()
    gate.touch()
    for future in busy:
        future.result(LIMIT_SECONDS)

    assert stream.future.cancelled()
    assert not produced(tmp_path)


def test_the_end_of_a_session_waits_for_no_stream_that_nobody_reads(
    client: flm.Client, tmp_path: Path
) -> None:
    with client.session("s") as session:
        stream = session.stream(noted, tmp_path, 1_000_000)
        next(stream)
        one = session.submit(pow, 2, 3)

    assert one.result() == 8
    assert (tmp_path / "closed").exists()
    with pytest.raises(CancelledError, match=f"session {session.id} was closed"):
        list(stream)


def test_a_session_that_ends_at_once_closes_the_generator_too(client: flm.Client, tmp_path: Path) -> None:
    session = client.session("s")
    stream = session.stream(noted, tmp_path, 1_000_000)
    next(stream)
    session.close(cancel=True)

    until((tmp_path / "closed").exists)
    with pytest.raises(CancelledError):
        list(stream)


def test_when_the_client_is_gone_its_streams_end(client: flm.Client, tmp_path: Path) -> None:
    other = flm.Client(client.address)
    stream = other.stream(noted, tmp_path, 1_000_000)
    next(stream)
    other.close()

    until((tmp_path / "closed").exists)


def test_ctrl_c_in_the_reader_loses_no_value(client: flm.Client) -> None:
    def slowly() -> Iterator[int]:
        for i in range(40):
            time.sleep(0.01)
            yield i

    got: list[int] = []
    interrupts = 0
    stream = client.stream(slowly)
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(0.15, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    while True:
        try:
            got.append(next(stream))
        except StopIteration:
            break
        except KeyboardInterrupt:
            interrupts += 1
    timer.join()
    assert (got, interrupts) == (list(range(40)), 1)


# --- options


def test_a_timeout_is_for_the_whole_run_and_ends_it_while_it_waits_for_its_reader(
    client: flm.Client, tmp_path: Path
) -> None:
    stream = client.stream(flm.options(timeout=0.5)(noted), tmp_path, 1_000_000)
    next(stream)
    until((tmp_path / "closed").exists)

    with pytest.raises(flm.TaskTimeout):
        list(stream)
    assert client.submit(pow, 2, 3).result(LIMIT_SECONDS) == 8


def flaky(folder: Path, before: int) -> Iterator[int]:
    """Fails in its first run when it has given so many values."""
    first = not (folder / "failed").exists()
    for i in range(5):
        if first and i == before:
            (folder / "failed").touch()
            raise OSError("flaky")
        yield i


def test_it_is_tried_again_after_an_error_before_its_first_value(client: flm.Client, tmp_path: Path) -> None:
    assert list(client.stream(flm.options(retries=1)(flaky), tmp_path, 0)) == list(range(5))


def test_it_is_not_tried_again_when_a_value_has_left(client: flm.Client, tmp_path: Path) -> None:
    stream = client.stream(flm.options(retries=1)(flaky), tmp_path, 3)
    got = []
    with pytest.raises(OSError, match="flaky"):
        for value in stream:
            got.append(value)  # noqa: PERF402
    assert got == [0, 1, 2]


def test_with_replay_it_is_tried_again_and_nothing_comes_twice(client: flm.Client, tmp_path: Path) -> None:
    stream = client.stream(flm.options(retries=1)(flaky), tmp_path, 3, replay=True)
    assert list(stream) == list(range(5))


# --- deaths and cuts


def killed_once(folder: Path, n: int, before: int) -> Iterator[int]:
    for i in range(n):
        if i == before and not (folder / "killed").exists():
            (folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        yield i


def test_when_its_executor_dies_after_values_came_it_is_lost_and_says_how_many(
    client: flm.Client, tmp_path: Path
) -> None:
    def some() -> Iterator[int]:
        yield from range(3)
        until((tmp_path / "read").exists)
        os.kill(os.getpid(), signal.SIGKILL)

    stream = client.stream(some)
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    (tmp_path / "read").touch()
    with pytest.raises(flm.TaskLost, match=r"3 values of its stream had come.*SIGKILL") as caught:
        next(stream)
    assert caught.value.values == 3


def test_when_its_executor_dies_before_a_value_came_it_runs_again(client: flm.Client, tmp_path: Path) -> None:
    assert list(client.stream(killed_once, tmp_path, 5, 0)) == list(range(5))
    assert (tmp_path / "killed").exists()


def test_with_replay_a_death_in_the_middle_is_not_seen(client: flm.Client, tmp_path: Path) -> None:
    stream = client.stream(killed_once, tmp_path, 20_000, 7000, replay=True)
    assert list(stream) == list(range(20_000))
    assert (tmp_path / "killed").exists()


@pytest.mark.parametrize("seed", range(2))
def test_cut_connections_lose_and_double_nothing(client: flm.Client, tmp_path: Path, seed: int) -> None:
    def large(n: int) -> Iterator[tuple[int, bytes]]:
        for i in range(n):
            yield i, bytes(300)

    proxy = CuttingProxy(str(tmp_path / "p"), client.address.removeprefix("ipc://"), seed)
    proxy.start()
    try:
        with flm.Client(proxy.address) as other:
            assert [i for i, _ in other.stream(large, 5000)] == list(range(5000))
        assert proxy.cuts > 2
    finally:
        proxy.stop()


# --- tasks in tasks


def test_a_task_can_not_read_a_stream_and_is_told_what_to_do(client: flm.Client) -> None:
    def nested() -> list[int]:
        return list(flm.current().client.stream(count_to, 3))

    with pytest.raises(RuntimeError, match="iterate over the generator itself"):
        client.submit(nested).result(LIMIT_SECONDS)


def test_a_generator_may_have_tasks_of_its_own(client: flm.Client) -> None:
    def sums(n: int) -> Iterator[int]:
        for i in range(n):
            yield flm.current().client.submit(sum, range(i)).result()

    assert list(client.stream(sums, 6)) == [0, 0, 1, 3, 6, 10]


# --- asyncio


def test_async_for_reads_a_stream(client: flm.Client, tmp_path: Path) -> None:
    async def main() -> None:
        async with asyncio.timeout(LIMIT_SECONDS), flm.aio.Client(client.address) as other:
            assert [value async for value in other.stream(count_to, 5000)] == list(range(5000))
            stream = other.stream(noted, tmp_path, 1_000_000)
            assert await anext(stream) == 0
            await stream.aclose()
            assert (tmp_path / "closed").exists()
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
            with pytest.raises(TypeError, match="gave int"):
                await anext(other.stream(abs, -1))

    asyncio.run(main())


def test_cancelling_who_awaits_a_value_closes_the_generator(client: flm.Client, tmp_path: Path) -> None:
    def slow() -> Iterator[int]:
        try:
            yield 1
            until((tmp_path / "go").exists)
            yield 2
        finally:
            (tmp_path / "closed").touch()

    async def read(client: flm.aio.Client) -> None:
        async for _ in client.stream(slow):
            (tmp_path / "begun").touch()

    async def main() -> None:
        async with asyncio.timeout(LIMIT_SECONDS), flm.aio.Client(client.address) as other:
            reader = asyncio.create_task(read(other))
            while not (tmp_path / "begun").exists():
                await asyncio.sleep(0.005)
            reader.cancel()
            await asyncio.wait([reader])
            (tmp_path / "go").touch()
            while not (tmp_path / "closed").exists():
                await asyncio.sleep(0.005)

    asyncio.run(main())
