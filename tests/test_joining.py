"""Sessions with an id, in real processes: joined, left, detached, and attached to from elsewhere."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

import flamezmq as flm
from flamezmq.client.controller import Controller
from flamezmq.client.joining import JoinedServiceSession
from tests.daemons import LIMIT_SECONDS, ROOT, daemons_in, environment, free_port
from tests.waiting import until


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A router with one worker of two executors, for all tests here."""
    place = f"tcp://127.0.0.1:{free_port()}"
    with daemons_in(tmp_path_factory.mktemp("joining")) as daemons:
        daemons.router(place)
        daemons.worker(place, executors=2).wait_for("registered")
        yield place


@pytest.fixture
def first(address: str) -> Iterator[flm.Client]:
    with flm.Client(address) as client:
        yield client


@pytest.fixture
def second(address: str) -> Iterator[flm.Client]:
    with flm.Client(address) as client:
        yield client


def double(x: int) -> int:
    return 2 * x


def wait_for(path: str) -> str:
    end = time.monotonic() + LIMIT_SECONDS
    while not os.path.exists(path):
        assert time.monotonic() < end
        time.sleep(0.005)
    return path


def touch(path: str) -> int:
    Path(path).touch()
    return os.getpid()


def fail(x: int) -> None:
    raise ValueError(f"no {x}")


def run_elsewhere(address: str, program: str, *words: str) -> subprocess.Popen[str]:
    """Another client process."""
    head = f"import os, sys, time\nimport flamezmq as flm\nclient = flm.Client({address!r})\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + program, *words],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}"),
    )


def state_of(address: str, id: str) -> str:
    with Controller(address) as controller:
        row = controller.session(id)
    return "closed" if row.closed >= 0 else "open"


# --- joining


def test_the_same_id_and_spec_join_a_session_and_each_client_has_its_own_results(
    address: str, first: flm.Client, second: flm.Client
) -> None:
    with first.session("model", id="shared", weight=2.0) as mine:
        with second.session("model", id="shared", weight=2.0) as theirs:
            assert mine.id == theirs.id == "shared"
            a = [mine.submit(double, x) for x in range(300)]
            b = [theirs.submit(double, -x) for x in range(300)]
            assert [f.result(LIMIT_SECONDS) for f in b] == [-2 * x for x in range(300)]
            assert [f.result(LIMIT_SECONDS) for f in a] == [2 * x for x in range(300)]
            assert list(theirs.map(double, range(2000))) == [2 * x for x in range(2000)]
            assert not {f.task_id for f in a} & {f.task_id for f in b}
            with Controller(address) as controller:
                found, _ = controller.sessions()
            assert [row.id for row in found].count("shared") == 1
        assert state_of(address, "shared") == "open"
        assert mine.submit(double, 4).result(LIMIT_SECONDS) == 8
    assert state_of(address, "shared") == "closed"


def test_another_spec_is_refused_and_the_error_names_what_differs(
    first: flm.Client, second: flm.Client
) -> None:
    with first.session("model", id="differs", weight=2.0, resources="cpu=1"):
        with pytest.raises(flm.SessionMismatch) as caught:
            second.session("model", id="differs", weight=3.0, resources="cpu=1", max_retries=1)
        assert caught.value.differs == (("weight", "3.0", "2.0"), ("max_retries", "1", "3"))
        assert "weight is 2.0, not 3.0; max_retries is 3, not 1" in str(caught.value)


def test_a_closed_id_says_when_it_was_closed_and_by_whom(first: flm.Client, second: flm.Client) -> None:
    with first.session(id="over"):
        pass
    with pytest.raises(flm.SessionClosed) as caught:
        second.session(id="over")
    assert 0 <= caught.value.seconds < LIMIT_SECONDS
    assert f"pid {os.getpid()}" in caught.value.ending
    with pytest.raises(flm.SessionClosed, match="its last member"):
        second.attach("over")


def test_what_no_other_client_may_join_is_refused_in_a_sentence(
    first: flm.Client, second: flm.Client
) -> None:
    alone = first.session("alone")
    with pytest.raises(flm.Refused, match="one client's alone"):
        second.attach(alone.id)
    with pytest.raises(flm.NotFound, match="no session 'nowhere'"):
        second.attach("nowhere")
    with pytest.raises(ValueError, match="without '/'"):
        second.session(id="a/b")


@pytest.mark.slow  # the router gives a peer that is gone some seconds to come back
def test_a_member_that_is_killed_takes_only_its_own_tasks_along(
    address: str, first: flm.Client, tmp_path: Path
) -> None:
    with first.session(id="killed", max_executors=1) as session:
        begun, never, gate = (str(tmp_path / name) for name in ("begun", "never", "gate"))
        program = """
from test_joining import touch, wait_for
session = client.session(id="killed", max_executors=1)
session.submit(touch, sys.argv[1])
session.submit(wait_for, sys.argv[3])
session.submit(touch, sys.argv[2]); session.status()
print("there", flush=True); time.sleep(60)
"""
        other = run_elsewhere(address, program, begun, never, gate)
        assert other.stdout is not None
        assert other.stdout.readline() == "there\n"
        until(lambda: os.path.exists(begun), "the other member's task has run")
        mine = session.submit(double, 21)
        other.kill()
        other.communicate(timeout=LIMIT_SECONDS)
        assert mine.result(LIMIT_SECONDS) == 42
        until(lambda: session.status().cancelled == 2, "what it had waiting is cancelled")
        assert not os.path.exists(never)


def test_a_task_may_need_one_of_its_own_member_and_no_other(first: flm.Client, second: flm.Client) -> None:
    with first.session(id="needs") as mine, second.session(id="needs") as theirs:
        assert theirs.submit(double, theirs.submit(double, 1)).result(LIMIT_SECONDS) == 4
        assert mine.submit(double, mine.submit(double, 2)).result(LIMIT_SECONDS) == 8
        with pytest.raises(ValueError, match="no 3"):
            theirs.submit(fail, 3).result(LIMIT_SECONDS)
        with pytest.raises(flm.DependencyFailed):
            theirs.submit(double, theirs.submit(fail, 4)).result(LIMIT_SECONDS)
        apart = first.session("apart")
        pending = apart.submit(time.sleep, 0.2)
        with pytest.raises(flm.Refused, match=r"pass its result\(\)"):
            mine.submit(double, pending).result(LIMIT_SECONDS)


class Warm:
    """Tells how often it was entered, and by which session."""

    def on_session_enter(self, ctx: flm.Context) -> None:
        self.entered = time.monotonic()

    def on_task_invoke(self, ctx: flm.Context, x: int) -> tuple[int, float, int]:
        return os.getpid(), self.entered, ctx.common_data * x


def test_members_of_a_session_with_an_application_share_its_warm_services(
    first: flm.Client, second: flm.Client
) -> None:
    first.register(flm.Application(name="warm", service=Warm))
    asked: dict[str, Any] = {"id": "warm", "app": "warm", "common_data": 10, "max_executors": 1}
    with first.session(**asked) as mine, second.session(**asked) as theirs:
        pid, entered, value = mine.submit(3).result(LIMIT_SECONDS)
        assert value == 30
        assert theirs.submit(4).result(LIMIT_SECONDS) == (pid, entered, 40)
        assert [row[2] for row in theirs.map(range(50))] == [10 * x for x in range(50)]
        attached = second.attach("warm")
        assert isinstance(attached, JoinedServiceSession)
        assert attached.submit(5).result(LIMIT_SECONDS) == (pid, entered, 50)
        attached.leave()


# --- detached


def test_results_of_a_killed_client_are_fetched_by_another_process(
    address: str, first: flm.Client, tmp_path: Path
) -> None:
    gate = str(tmp_path / "gate")
    program = """
from test_joining import double, fail, wait_for
session = client.session("job", id="detached", detached=True)
seen = [session.submit(double, x) for x in range(100)]
assert seen[-1].result() == 198
session.submit(wait_for, sys.argv[1]); session.submit(fail, 7); session.submit(double, 50); session.status()
print("there", flush=True); time.sleep(60)
"""
    other = run_elsewhere(address, program, gate)
    assert other.stdout is not None
    assert other.stdout.readline() == "there\n"
    other.kill()
    other.communicate(timeout=LIMIT_SECONDS)

    session = first.attach("detached")
    futures = session.futures()
    assert [f.task_id for f in futures] == [f"detached/{i}" for i in range(103)]
    assert [f.result(LIMIT_SECONDS) for f in futures[:100]] == [2 * x for x in range(100)]
    assert not futures[100].done()
    Path(gate).touch()
    done, waiting = flm.wait(futures, timeout=LIMIT_SECONDS)
    assert not waiting
    assert len(done) == 103
    assert futures[100].result() == gate
    assert isinstance(futures[101].exception(), ValueError)
    assert futures[102].result() == 100
    assert session.submit(double, 5).result(LIMIT_SECONDS) == 10
    assert len(session.futures()) == 103, "those that were fetched are there as long as there is room"
    session.close()
    with pytest.raises(flm.SessionClosed, match=f"pid {os.getpid()}"):
        first.attach("detached")


def test_leaving_a_detached_session_neither_waits_nor_cancels(
    first: flm.Client, second: flm.Client, tmp_path: Path
) -> None:
    gate = str(tmp_path / "gate")
    with first.session(detached=True) as session:
        left = session.submit(wait_for, gate)
    with pytest.raises(CancelledError, match="attach to it"):
        left.result(0)
    with pytest.raises(flm.ClientClosed, match=f"has left .*attach.'{session.id}'"):
        session.submit(double, 1)
    again = second.attach(session.id)
    (future,) = again.futures()
    assert future.task_id == left.task_id
    Path(gate).touch()
    assert future.result(LIMIT_SECONDS) == gate
    again.close()


def test_a_private_cluster_refuses_what_would_outlive_it() -> None:
    with flm.Client("", executors=1) as client:
        with pytest.raises(ValueError, match="flmrouter"):
            client.session(detached=True)
        with pytest.raises(TypeError, match="True or False"):
            client.session(detached="no")  # type: ignore[call-overload]
        assert client.submit(double, 1).result(LIMIT_SECONDS) == 2, "the client goes on"


def test_what_ends_with_its_client_is_refused_in_a_detached_session(first: flm.Client) -> None:
    session = first.session(detached=True)
    with pytest.raises(flm.Refused, match="a stream ends with who reads it"):
        session.stream(range, 3)
    with pytest.raises(flm.Refused, match="an actor ends with its client"):
        session.actor(dict)
    late = session.submit(double, session.submit(time.sleep, 0.1))
    with pytest.raises(flm.Refused, match=r"pass their result\(\)"):
        late.result(LIMIT_SECONDS)
    session.close()


def megabyte(path: str) -> bytes:
    return b"x" * (1 << 20)


def test_a_session_with_all_room_taken_is_held_back_says_so_and_goes_on_when_it_is_fetched(
    tmp_path: Path,
) -> None:
    place = f"tcp://127.0.0.1:{free_port()}"
    program = """
from test_joining import megabyte
session = client.session("full", id="full", detached=True)
for _ in range(20): session.submit(megabyte, "")
session.leave(); print("left", flush=True)
"""
    with daemons_in(tmp_path) as daemons:
        daemons.router(place, "--max-kept-bytes", str(5 << 20))
        daemons.worker(place)
        other = run_elsewhere(place, program)
        assert other.communicate(timeout=LIMIT_SECONDS)[0] == "left\n"
        with Controller(place) as controller:
            until(lambda: controller.session("full").kept_bytes > 5 << 20, "all room is taken")
            row = controller.session("full")
            assert (row.clients, row.detached) == (0, True)
            assert row.kept < 20
        command = [sys.executable, "-P", "-m", "flamezmq.cli.ctl"]
        end = ["--address", place]

        def flmctl(*words: str) -> str:
            return subprocess.run(
                [*command, *words, *end], capture_output=True, text=True, check=True, env=environment()
            ).stdout

        why = until(
            lambda: w if "take all the room" in (w := flmctl("explain", "full")) else "", "it says why"
        )
        assert "--max-kept-bytes" in why
        shown = flmctl("view", "full")
        assert re.search(r"^Detached +True$", shown, re.M), shown
        assert re.search(r"^Kept +[5-9]$", shown, re.M), shown
        with flm.Client(place) as client:
            futures = client.attach("full").futures()
            assert len(futures) == 20
            assert all(f.result(LIMIT_SECONDS) == b"x" * (1 << 20) for f in flm.as_completed(futures))
        flmctl("close", "full")
        with flm.Client(place) as client, pytest.raises(flm.SessionClosed, match="flmctl"):
            client.attach("full")


def test_what_others_submitted_can_be_cancelled_and_a_session_that_is_closed_ends_it(
    first: flm.Client, second: flm.Client, tmp_path: Path
) -> None:
    session = first.session(id="cancelled", detached=True, max_executors=1)
    runs = session.submit(wait_for, str(tmp_path / "never"))
    waits, last = session.submit(double, 1), session.submit(double, 2)
    session.status()
    with second.attach("cancelled") as again:
        ours = again.futures()
        assert ours[1].cancel()
        with pytest.raises(CancelledError):
            waits.result(LIMIT_SECONDS)
        assert again.explain(ours[2]).startswith("task cancelled/2 is queued as the next")
        assert again.cancel(ours[2:]) == 1, "those of others, too"
        with pytest.raises(CancelledError):
            last.result(LIMIT_SECONDS)
        assert not ours[0].done()
        session.close(cancel=True)
        with pytest.raises(CancelledError, match=f"pid {os.getpid()}"):
            ours[0].result(LIMIT_SECONDS)
        assert runs.cancelled()


# --- in event loops


def test_event_loops_leave_attach_and_fetch(address: str, tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")

    async def main() -> None:
        async with flm.aio.Client(address) as client:
            async with client.session("loop", id="loop", detached=True) as session:
                assert session.detached
                assert await session.submit(double, 1) == 2
                left = session.submit(wait_for, gate)
            assert left.cancelled()
            async with client.attach("loop") as again:
                first, second = await again.futures()
                assert await first == 2
                Path(gate).touch()
                assert await second == gate
                await again.aclose()
            with pytest.raises(flm.SessionClosed):
                await client.attach("loop").open()

    asyncio.run(main())
