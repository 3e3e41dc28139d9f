"""`flm.aio` offers what the synchronous client does; what it leaves out, it leaves out for a reason."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Iterator
from concurrent.futures import Future as StandardFuture
from pathlib import Path
from time import monotonic

import pytest

import flamezmq as flm
from flamezmq.client.joining import JoinedServiceSession, JoinedSession
from flamezmq.client.mapping import Mapped
from flamezmq.client.stream import Stream
from flamezmq.scripts import run_script
from tests.test_aio import LIMIT_SECONDS, address, opened, until

pytestmark = pytest.mark.processes
__all__ = ["address"]  # a fixture

#: What each class of the synchronous client is in event loops.
PAIRS: dict[type, type] = {
    flm.Client: flm.aio.Client,
    flm.Session: flm.aio.Session,
    flm.ServiceSession: flm.aio.ServiceSession,
    JoinedSession: flm.aio.Session,
    JoinedServiceSession: flm.aio.ServiceSession,
    flm.Actor: flm.aio.Actor,
    flm.Future: flm.aio.Answer,
    Mapped: flm.aio.Mapped,
    Stream: flm.aio.Stream,
}

#: Names that `flm.aio` has not, and why.
LEFT_OUT = {
    "close": "`aclose`, as asyncio's own things are closed",
    "ordered": "for the client itself",
    "application": "for the client itself",
    "call": "for the client itself",
    "serve": "for the client itself",
    "needy": "for the client itself",
    "submitted": "for the client itself",
    "future": "an Answer for which nobody awaits would be made for each stream",
    "set_running_or_notify_cancel": "of `concurrent.futures`; asyncio's futures have none",
}
#: Parameters that `flm.aio` has not, and why.
PARAMETERS_LEFT_OUT = {
    "timeout": "`asyncio.timeout`",
    "progress": "it would draw from within the event loop, between its turns",
    "future": "it is an Answer there",
    "futures": "they are Answers there",
}


def public(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


@pytest.mark.parametrize("sync", PAIRS, ids=lambda cls: cls.__name__)
def test_event_loops_have_every_public_name_that_is_not_left_out_on_purpose(sync: type) -> None:
    missing = public(sync) - public(PAIRS[sync]) - LEFT_OUT.keys()

    assert not missing, "add it to flm.aio, or say in LEFT_OUT why not"


@pytest.mark.parametrize("sync", PAIRS, ids=lambda cls: cls.__name__)
def test_event_loops_have_every_parameter_that_is_not_left_out_on_purpose(sync: type) -> None:
    missing = [
        f"{name}({parameter})"
        for name in sorted(public(sync) & public(PAIRS[sync]) - public(StandardFuture))
        if inspect.isfunction(inspect.getattr_static(sync, name))
        for parameter in inspect.signature(getattr(sync, name)).parameters
        if parameter not in inspect.signature(getattr(PAIRS[sync], name)).parameters
        and parameter not in PARAMETERS_LEFT_OUT
        and name != "session"  # takes all of them as `options`
    ]

    assert not missing


def test_nothing_is_said_to_be_left_out_that_is_there_or_never_was() -> None:
    everywhere = set().union(*map(public, PAIRS))

    assert LEFT_OUT.keys() <= everywhere
    assert not [
        name for sync, its in PAIRS.items() for name in LEFT_OUT if name in public(sync) & public(its)
    ]


def wait_for(path: Path) -> str:
    """Runs until somebody writes the file."""
    deadline = monotonic() + LIMIT_SECONDS
    while not path.exists() and monotonic() < deadline:
        time.sleep(0.005)
    return path.read_text()


def test_a_session_is_changed_explained_and_tells_its_story(address: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(address) as client, client.session("story", max_executors=1) as session:
            first, second = (session.submit(wait_for, tmp_path / "go") for _ in range(2))
            assert await session.explain(second)  # whatever it says, it was asked in time
            await until(first.running)
            assert (await session.explain(first)).startswith(f"task {first.task_id} runs on executor ")
            assert f"task {second.task_id} " in await session.explain(second)
            assert (await session.explain()).startswith(f"Of the tasks of session {session.id}, 1 run")

            await session.set(weight=2.5, max_executors=0)
            with pytest.raises(ValueError, match="weight is 0"):
                await session.set(weight=0)
            async with client.session("other") as other:
                with pytest.raises(ValueError, match="is not of session"):
                    await other.explain(first)
                with pytest.raises(ValueError, match="is not of session"):
                    await other.cancel([first])
                with pytest.raises(TypeError, match="is no Answer"):
                    await other.explain(3)  # type: ignore[arg-type]
                with pytest.raises(TypeError, match="put it into a list"):
                    await other.cancel(first)
            (tmp_path / "go").write_text("gone")
            assert [await first, await second] == ["gone", "gone"]
            kinds = [event.kind for event in await session.events()]
            assert kinds[0] == "opened"
            assert "changed" in kinds

    asyncio.run(main())


def test_many_tasks_are_cancelled_at_once_and_those_that_run_only_when_asked(
    address: str, tmp_path: Path
) -> None:
    async def main() -> None:
        async with opened(address) as client, client.session("many", max_executors=1) as session:
            runs, *waiting = (session.submit(wait_for, tmp_path / "never") for _ in range(20))
            await until(runs.running)
            assert await session.cancel() == 19
            assert not runs.done()
            assert await session.cancel([runs], running=True) == 1
            results = await asyncio.gather(runs, *waiting, return_exceptions=True)
            assert [type(result) for result in results] == [asyncio.CancelledError] * 20

    asyncio.run(main())


def test_applications_are_registered_changed_and_forgotten(address: str) -> None:
    async def main() -> None:
        async with opened(address) as client:
            echo = flm.Application(name="aio-echo", shim="stdio", command="/bin/cat")
            await client.register(echo)
            with pytest.raises(flm.Refused, match="aio-echo"):
                await client.register(flm.Application(name="aio-echo", shim="stdio", command="/bin/tac"))
            async with client.session("echo", app="aio-echo") as session:
                assert await session.submit("hello") == "hello"
            await client.update(flm.Application(name="aio-echo", shim="stdio", command="/bin/tac"))
            assert [one.name for one in await client.applications()] == ["aio-echo"]
            await client.unregister("aio-echo")
            with pytest.raises(flm.NotFound, match="aio-echo"):
                await client.unregister("aio-echo")

    asyncio.run(main())


def publish_some(count: int) -> int:
    for number in range(count):
        flm.current().publish(number)
    return count


def test_what_is_published_is_told_in_the_event_loop(address: str) -> None:
    async def main() -> None:
        async with opened(address) as client:
            loop, heard = asyncio.get_running_loop(), []

            def hear(value: int) -> None:
                assert asyncio.get_running_loop() is loop
                heard.append(value)

            answer = client.submit(publish_some, 5)
            answer.on_publish(hear)
            assert await answer == 5
            await until(lambda: heard == [0, 1, 2, 3, 4])

            heard.clear()
            mapped = client.map(publish_some, [3], chunksize=1)
            mapped.on_publish(hear)
            assert [value async for value in mapped] == [3]
            await until(lambda: heard == [0, 1, 2])

    asyncio.run(main())


def test_a_script_is_a_task_as_any_other(address: str) -> None:
    async def main() -> None:
        async with opened(address) as client:
            assert (await client.submit(run_script, "python", "print(6 * 7)")).stdout == "42\n"

    asyncio.run(main())


@pytest.fixture(autouse=True)
def _no_applications_are_left(address: str) -> Iterator[None]:
    yield
    with flm.Client(address) as client:
        for one in client.applications():
            client.unregister(one.name)
