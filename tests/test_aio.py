"""`flm.aio`: the client in event loops.  Real clusters; each test has its own event loops."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count, pairwise
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

import flamezmq as flm
from flamezmq.aio.hub import TURN_FUTURES, Hub
from flamezmq.client.controller import Controller

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parent.parent
LIMIT_SECONDS = 20.0


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A router that many clients use, one after the other."""
    with flm.Client(executors=2) as client:
        assert client.address is not None
        yield client.address


@contextlib.asynccontextmanager
async def opened(address: str) -> AsyncIterator[flm.aio.Client]:
    async with asyncio.timeout(LIMIT_SECONDS), flm.aio.Client(address) as client:
        yield client


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while not holds():
            await asyncio.sleep(0.005)


def double(x: int) -> int:
    return 2 * x


def fail(x: object) -> None:
    raise ValueError(f"no {x}")


def leave_a_mark(path: str) -> None:
    Path(path).touch()


def wait_for(path: str) -> None:
    """Keep an executor until the file is there."""
    deadline = monotonic() + LIMIT_SECONDS
    while not os.path.exists(path) and monotonic() < deadline:
        time.sleep(0.005)


# --- submit


def test_the_module_is_there_without_an_import_of_its_own() -> None:
    program = (
        "import flamezmq as flm, sys; assert 'asyncio' not in sys.modules; print(flm.aio.Client.__name__)"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )

    assert done.stdout == "Client\n", done.stderr


def test_a_client_with_a_cluster_of_its_own_leaves_nothing_behind() -> None:
    async def main() -> tuple[int, int]:
        async with flm.aio.Client(executors=1) as client:
            assert len(client.processes()["launcher"]) == 1
            return await client.submit(double, 21), await client.submit(os.getpid)

    answer, pid = asyncio.run(main())

    assert answer == 42
    assert pid != os.getpid()


def test_an_answer_is_a_future_of_the_loop_and_may_be_awaited_again(address: str) -> None:
    async def main() -> None:
        async with opened(address) as client:
            answer = client.submit(double, 1)
            assert isinstance(answer, asyncio.Future)
            assert await answer == 2
            assert await answer == 2
            assert answer.result() == 2

    asyncio.run(main())


def test_an_answer_is_an_argument_of_other_tasks(address: str) -> None:
    async def main() -> None:
        async with opened(address) as client:
            first = client.submit(double, 1)
            assert await client.submit(double, client.submit(double, first)) == 8
            assert await client.submit(sum, [await first, first, client.submit(double, first)]) == 8
            failed = client.submit(double, client.submit(int, "no number"))
            with pytest.raises(flm.DependencyFailed):
                await failed

    asyncio.run(main())


def test_ten_thousand_results_wake_the_loop_a_few_times_only(address: str) -> None:
    async def main() -> int:
        async with opened(address) as client:
            answers = [client.submit(double, n) for n in range(10_000)]
            assert await asyncio.gather(*answers) == [2 * n for n in range(10_000)]
            return client.statistics()["wake_ups"]

    assert asyncio.run(main()) < 500


def test_as_completed_task_groups_and_timeouts_take_answers(address: str, tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")

    async def main() -> None:
        async with opened(address) as client:
            answers = [client.submit(double, n) for n in range(50)]
            assert sorted([await one for one in asyncio.as_completed(answers)]) == [2 * n for n in range(50)]

            async def doubled(n: int) -> Any:
                return await client.submit(double, n)

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(doubled(n)) for n in range(10)]
            assert [task.result() for task in tasks] == [2 * n for n in range(10)]

            held = client.submit(wait_for, gate)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await held
            assert held.cancelled()
            Path(gate).touch()

    asyncio.run(main())


def test_an_error_comes_with_its_remote_traceback(address: str) -> None:
    async def main() -> None:
        async with opened(address) as client:
            with pytest.raises(ValueError, match="no luck") as caught:
                await client.submit(fail, "luck")
            assert "in fail" in str(caught.value.__cause__)
            with pytest.raises(flm.Unpicklable):
                await client.submit(double, threading.Lock())
            with pytest.raises(RuntimeError, match="StopIteration"):
                await client.submit(next, iter(()))

    asyncio.run(main())


def test_without_a_running_loop_nothing_is_submitted(address: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    async def main() -> flm.aio.Client:
        async with opened(address) as client:
            with pytest.raises(RuntimeError, match="no running event loop"):
                await asyncio.to_thread(client.submit, leave_a_mark, str(mark))
            assert (await client._own.status()).succeed == 0
        return client

    client = asyncio.run(main())

    with pytest.raises(RuntimeError, match="no running event loop"):
        client.submit(double, 1)
    assert not mark.exists()


def test_a_client_that_is_not_open_or_closed_says_so(address: str) -> None:
    async def main() -> None:
        client = flm.aio.Client(address)
        with pytest.raises(flm.ClientClosed, match="not open"):
            client.submit(double, 1)
        async with client:
            with pytest.raises(RuntimeError, match="already"):
                await client.open()
            session = client.session("x")
            with pytest.raises(flm.ClientClosed, match="not open"):
                session.submit(double, 1)
            await asyncio.gather(*[client.aclose() for _ in range(5)])
        await client.aclose()
        with pytest.raises(flm.ClientClosed, match="was closed"):
            client.submit(double, 1)

    asyncio.run(main())
    with pytest.raises(ValueError, match="not an address"):
        flm.aio.Client("here")


def test_the_loop_runs_on_while_a_client_opens_and_closes() -> None:
    """In the thread of the loop nothing waits: it may be looked at from outside."""
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def main() -> None:
        ticking = asyncio.create_task(tick())
        client = flm.aio.Client(executors=1)
        await client.open()
        opened_at = turns
        await client.aclose()
        ticking.cancel()
        assert opened_at > 100
        assert turns - opened_at > 10

    asyncio.run(main())


def test_what_was_awaited_is_freed_at_once_and_not_by_the_garbage_collector(address: str) -> None:
    async def main() -> None:
        async with opened(address) as client:
            gc.disable()
            try:
                answers = [client.submit(double, n) for n in range(10)]
                await asyncio.gather(*answers)
                seen = [weakref.ref(answer) for answer in answers]
                del answers
                await asyncio.sleep(0)
                assert [ref() for ref in seen] == [None] * 10
            finally:
                gc.enable()

    asyncio.run(main())


def test_a_session_that_somebody_else_closes_says_who_it_was(address: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(address) as client:
            session = await client.session("mine").open()
            answer = session.submit(wait_for, str(tmp_path / "gate"))

            def close() -> None:
                with Controller(address) as controller:
                    assert controller.close_session(session.id, "the operator")[0]

            await asyncio.to_thread(close)
            with pytest.raises(asyncio.CancelledError, match="closed by the operator"):
                await answer
            (tmp_path / "gate").touch()
            await session.aclose()

    asyncio.run(main())


# --- cancel


def test_cancelling_the_task_that_awaits_cancels_the_remote_one(address: str, tmp_path: Path) -> None:
    gate, mark = str(tmp_path / "gate"), tmp_path / "mark"

    async def main() -> None:
        async with opened(address) as client, client.session("held") as session:
            held = [session.submit(wait_for, gate) for _ in range(2)]
            await asyncio.sleep(0)

            async def waits() -> None:
                await session.submit(leave_a_mark, str(mark))

            waiting = asyncio.create_task(waits())
            many = asyncio.gather(*[session.submit(leave_a_mark, str(mark)) for _ in range(500)])
            await asyncio.sleep(0)
            waiting.cancel()
            many.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            with pytest.raises(asyncio.CancelledError):
                await many
            while (await session.status()).cancelled < 501:
                await asyncio.sleep(0.005)
            Path(gate).touch()
            await asyncio.gather(*held)

    asyncio.run(main())

    assert not mark.exists()


def test_leaving_a_session_by_an_exception_cancels_what_has_not_begun(address: str, tmp_path: Path) -> None:
    async def main() -> list[Any]:
        async with opened(address) as client:
            with pytest.raises(KeyError):
                async with client.session("left") as session:
                    answers = [session.submit(wait_for, str(tmp_path / "never")) for _ in range(20)]
                    raise KeyError
            assert session.id.startswith("left-")
            (tmp_path / "never").touch()
            return [answer.cancelled() for answer in answers]

    assert all(asyncio.run(main()))


def test_leaving_a_session_waits_for_its_tasks_and_can_be_given_up(address: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    async def main() -> None:
        async with opened(address) as client:
            async with client.session("waits") as session:
                answers = [session.submit(double, n) for n in range(100)]
            await asyncio.sleep(0)
            await until(lambda: all(answer.done() for answer in answers))

            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    async with client.session("hangs") as session:
                        held = session.submit(wait_for, str(gate))
            gate.touch()
            await until(held.cancelled)

    asyncio.run(main())


def test_an_opening_that_is_given_up_is_undone() -> None:
    before = set(threading.enumerate())

    async def main() -> None:
        for turns in (0, 1, 5):
            opening = asyncio.create_task(flm.aio.Client(executors=1).open())
            for _ in range(turns):
                await asyncio.sleep(0.02)
            if opening.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await opening
            else:  # it was quicker
                await (await opening).aclose()

    asyncio.run(main())

    for thread in set(threading.enumerate()) - before:
        thread.join(LIMIT_SECONDS)
    assert set(threading.enumerate()) <= before
    # Processes and files that it may have left are looked for by conftest.py.


def test_ctrl_c_in_asyncio_run_ends_the_program_and_its_cluster(tmp_path: Path) -> None:
    program = """
import asyncio, os, signal, sys, time
import flamezmq as flm

async def main():
    async with flm.aio.Client(executors=2) as client:
        await client.submit(abs, 1)
        asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGINT)
        await asyncio.gather(*[client.submit(time.sleep, 30) for _ in range(10)])

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )

    assert done.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in done.stderr
    assert "never retrieved" not in done.stderr


# --- map


def test_map_streams_in_order_and_as_they_come(address: str) -> None:
    async def main() -> None:
        async with opened(address) as client:
            assert [x async for x in client.map(double, range(5000))] == [2 * n for n in range(5000)]
            unordered = [x async for x in client.map(double, range(500), ordered=False, chunksize=7)]
            assert sorted(unordered) == [2 * n for n in range(500)]
            assert [x async for x in client.map(pow, [2, 3], [3, 2])] == [8, 9]
            assert [x async for x in client.map(double, [])] == []
            with pytest.raises(TypeError):
                client.map(double)
            with pytest.raises(ValueError):
                client.map(double, [1], chunksize=0)

    asyncio.run(main())


def test_map_looks_ahead_a_bounded_way_and_leaving_it_cancels_the_rest(address: str, tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")

    async def main() -> None:
        async with opened(address) as client, client.session("endless") as session:
            pulled = count()
            async for value in session.map(double, pulled):
                if value >= 20:
                    break
            before = next(pulled)
            async with asyncio.timeout(LIMIT_SECONDS):
                while (status := await session.status()).pending or status.running:
                    await asyncio.sleep(0.005)
            assert next(pulled) == before + 1

            held = session.map(wait_for, [gate] * 100, chunksize=1)
            await held.aclose()
            with pytest.raises(StopAsyncIteration):
                await anext(held)
            Path(gate).touch()

            waits = session.map(wait_for, [str(tmp_path / "other")] * 100, chunksize=1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await anext(waits)
            with pytest.raises(StopAsyncIteration):
                await anext(waits)
            (tmp_path / "other").touch()

    asyncio.run(main())


def test_an_item_that_fails_raises_in_its_place_and_the_others_come(address: str) -> None:
    async def main() -> None:
        async with opened(address) as client:
            results = client.map(lambda x: 12 // x, [3, 0, 4])
            assert await anext(results) == 4
            with pytest.raises(ZeroDivisionError):
                await anext(results)
            assert await anext(results) == 3

    asyncio.run(main())


def test_others_have_their_turn_while_results_are_there(address: str) -> None:
    async def main() -> int:
        turns = 0

        async def tick() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with opened(address) as client:
            ticking = asyncio.create_task(tick())
            async for _ in client.map(double, range(400), chunksize=10):
                pass
            ticking.cancel()
        return turns

    assert asyncio.run(main()) >= 40


# --- several loops, loops that end


def test_several_event_loops_use_one_client_at_once(address: str) -> None:
    results: list[list[int]] = []

    async def work(client: flm.aio.Client) -> None:
        results.append(await asyncio.gather(*[client.submit(double, n) for n in range(2000)]))

    async def main() -> None:
        async with opened(address) as client:
            threads = [threading.Thread(target=asyncio.run, args=(work(client),)) for _ in range(3)]
            for thread in threads:
                thread.start()
            await work(client)
            for thread in threads:
                await asyncio.to_thread(thread.join, LIMIT_SECONDS)

    asyncio.run(main())

    assert results == [[2 * n for n in range(2000)]] * 4


def test_a_loop_that_is_closed_before_its_results_come_disturbs_nobody(address: str, tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")

    async def main() -> None:
        async with opened(address) as client:
            left: list[flm.aio.Answer] = []

            def brief() -> None:
                async def submit() -> None:
                    left.extend(client.submit(wait_for, gate) for _ in range(20))

                loop = asyncio.new_event_loop()
                loop.run_until_complete(submit())
                loop.close()

            await asyncio.to_thread(brief)
            Path(gate).touch()
            assert await client.submit(double, 4) == 8
            assert client._behind is not None
            await until(lambda: client._behind is not None and not client._behind._unfinished())
            assert not any(answer.done() for answer in left)
            assert all(not hub.finished_futures for hub in client._behind._hubs.values())

    asyncio.run(main())


def test_a_router_that_dies_fails_what_is_awaited() -> None:
    async def main() -> None:
        async with flm.aio.Client(executors=1) as client:
            answer = client.submit(time.sleep, 30)
            os.kill(client.processes()["router"][0], signal.SIGKILL)
            with pytest.raises(flm.RouterLost):
                async with asyncio.timeout(LIMIT_SECONDS):
                    await answer
            with pytest.raises(flm.RouterLost):
                client.submit(abs, 1)

    asyncio.run(main())


def test_a_hub_gives_a_loop_so_many_futures_a_turn_and_loses_none() -> None:
    class Light:
        _state = "FINISHED"
        _more: Any = None

    async def main() -> list[int]:
        hub = Hub(asyncio.get_running_loop())
        told: list[Any] = []
        turns: list[int] = []

        class Target:
            def _on_end(self, future: Any) -> None:
                told.append(future)
                if future is lights[3]:
                    raise KeyError("a target's mistake")

        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        lights: list[Any] = [Light() for _ in range(2 * TURN_FUTURES + 1)]
        for light in lights:
            hub.watch(light, Target())
        while len(told) < len(lights):
            await asyncio.sleep(0)
            turns.append(len(told))
        assert told == lights
        assert hub.wake_ups == 1
        return turns

    turns = asyncio.run(main())

    assert turns[0] <= 4
    assert max(b - a for a, b in pairwise(turns)) == TURN_FUTURES


# --- the synchronous client in asyncio


def test_wrap_future_takes_the_futures_of_the_synchronous_client(address: str) -> None:
    async def main() -> None:
        with flm.Client(address) as client:
            assert await asyncio.wrap_future(client.submit(double, 4)) == 8
            with pytest.raises(ValueError):
                await asyncio.wrap_future(client.submit(fail, 1))
            wrapped = [asyncio.wrap_future(client.submit(double, n)) for n in range(200)]
            assert await asyncio.gather(*wrapped) == [2 * n for n in range(200)]

    asyncio.run(main())
