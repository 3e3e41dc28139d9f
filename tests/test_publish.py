"""What tasks publish while they run, with real processes."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flamezmq as flm
from flamezmq.shims.streaming import KEPT_VALUES
from tests.waiting import until

pytestmark = pytest.mark.processes

LIMIT_SECONDS = 20.0


@pytest.fixture(scope="module")
def client() -> Iterator[flm.Client]:
    with flm.Client(executors=2) as client:
        yield client


def in_steps(folder: Path, n: int) -> int:
    """Publishes 0, 1, ...; goes on when the file of that name is there."""
    for i in range(n):
        flm.current().publish(i)
        until((folder / str(i)).exists)
    return n


def test_what_a_task_publishes_comes_while_it_runs(client: flm.Client, tmp_path: Path) -> None:
    future = client.submit(in_steps, tmp_path, 4)
    got = []
    for value in future.published():
        got.append(value)
        assert future.last_published == value
        assert not future.done()
        (tmp_path / str(value)).touch()
    assert got == [0, 1, 2, 3]
    assert future.result() == 4
    assert list(future.published()) == got


def test_a_callback_is_called_with_what_is_published_and_its_errors_are_logged(
    client: flm.Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def note(value: int) -> None:
        got.append(value)
        (tmp_path / str(value)).touch()
        if value == 1:
            raise ValueError("in the callback")

    got: list[int] = []
    future = client.submit(in_steps, tmp_path, 4)
    future.on_publish(note)
    assert future.result(LIMIT_SECONDS) == 4
    until(lambda: len(got) == 4)
    assert got == [0, 1, 2, 3]
    assert "in the callback" in caplog.text
    late: list[int] = []
    future.on_publish(late.append)
    with pytest.raises(TypeError, match="needs a function that takes a value, not 3"):
        future.on_publish(3)  # type: ignore[arg-type]
    until(lambda: late == got)


def test_who_publishes_faster_than_anybody_reads_loses_the_oldest_and_never_the_last(
    client: flm.Client,
) -> None:
    def flood() -> int:
        for i in range(50_000):
            flm.current().publish(i)
        return i

    future = client.submit(flood)
    assert future.result(LIMIT_SECONDS) == 49_999
    kept = list(future.published())
    assert len(kept) == KEPT_VALUES
    assert kept == sorted(kept)
    assert kept[-1] == 49_999 == future.last_published


def test_short_tasks_may_publish_and_each_has_its_own(client: flm.Client) -> None:
    def short(i: int) -> None:
        flm.current().publish((i, os.getpid()))

    futures = [client.submit(short, i) for i in range(500)]
    for i, future in enumerate(futures):
        future.result(LIMIT_SECONDS)
        assert [value[0] for value in future.published()] == [i]


def test_a_thread_of_the_task_may_publish(client: flm.Client) -> None:
    def with_thread() -> None:
        here = flm.current()
        thread = threading.Thread(target=here.publish, args=("from a thread",))
        thread.start()
        thread.join()

    future = client.submit(with_thread)
    assert list(future.published()) == ["from a thread"]


def test_items_of_a_map_publish_through_it(client: flm.Client) -> None:
    def item(i: int) -> int:
        flm.current().publish(i)
        return i

    got: list[int] = []
    mapped = client.map(item, range(50), chunksize=5)
    mapped.on_publish(got.append)
    assert list(mapped) == list(range(50))
    until(lambda: len(got) == 50)
    assert sorted(got) == list(range(50))


def test_nested_tasks_publish_to_the_task_that_has_them(client: flm.Client) -> None:
    def inner(i: int) -> int:
        flm.current().publish(10 * i)
        return i

    def outer() -> list[Any]:
        futures = [flm.current().client.submit(inner, i) for i in range(4)]
        return [(future.result(), future.last_published) for future in futures]

    assert client.submit(outer).result(LIMIT_SECONDS) == [(i, 10 * i) for i in range(4)]


def test_nothing_can_be_published_for_a_task_that_has_ended(client: flm.Client) -> None:
    def leak() -> flm.TaskError | str:
        import builtins

        before = getattr(builtins, "flm_leaked", None)
        builtins.flm_leaked = flm.current()  # type: ignore[attr-defined]
        try:
            return before.publish(1) if before else "first"
        except flm.NoTask as error:
            return str(error)

    with client.session("one", max_executors=1) as session:
        assert session.submit(leak).result(LIMIT_SECONDS) == "first"
        assert "here none runs" in session.submit(leak).result(LIMIT_SECONDS)


def test_a_generator_may_publish_too(client: flm.Client) -> None:
    def both() -> Iterator[int]:
        for i in range(3):
            flm.current().publish(f"step {i}")
            yield i

    stream = client.stream(both)
    assert list(stream) == [0, 1, 2]
    assert list(stream.future.published()) == ["step 0", "step 1", "step 2"]


def test_an_event_loop_reads_what_is_published(client: flm.Client, tmp_path: Path) -> None:
    async def main() -> None:
        async with asyncio.timeout(LIMIT_SECONDS), flm.aio.Client(client.address) as other:
            answer = other.submit(in_steps, tmp_path, 4)
            got = []
            async for value in answer.published():
                got.append(value)
                (tmp_path / str(value)).touch()
            assert got == [0, 1, 2, 3]
            assert answer.last_published == 3
            assert await answer == 4

    asyncio.run(main())
