"""How actors end, in real processes: closed, forgotten, killed, in an event loop, by Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

import flamezmq as flm
from flamezmq.client.controller import Controller
from tests.stateful import WAIT_SECONDS, Counter, WithClose, is_gone, square
from tests.waiting import until

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def client() -> Iterator[flm.Client]:
    with flm.Client(executors=2) as one:
        yield one


# --- the end


@pytest.mark.parametrize("how", ["close", "block", "session", "client", "handle"])
def test_the_instances_own_close_is_its_last_call(how: str, tmp_path: Path) -> None:
    path = tmp_path / "closed"
    with flm.Client(executors=1) as client, client.session() as session:
        actor = (
            session.actor(WithClose, str(path)) if how == "session" else client.actor(WithClose, str(path))
        )
        for _ in range(5):
            actor.work()
        if how == "close":
            actor.close()
            actor.close()
        elif how == "block":
            with actor:
                pass
        elif how == "session":
            session.close()
        elif how == "handle":
            del actor
            until(path.exists)
    until(lambda: path.exists() and bool(path.read_text()))
    assert path.read_text() == "5 calls"


def test_a_call_of_an_actor_that_is_closed_says_by_whom_it_was_and_when(client: flm.Client) -> None:
    actor = client.actor(Counter)
    actor.close()
    said = (
        rf"^actor {actor.actor_id} \(of class Counter\) was closed by its own program \(close\(\), "
        r"or the end of its `with` block\) \(.* ago\); make a new actor for further calls$"
    )
    with pytest.raises(flm.ClientClosed, match=said):
        actor.add(1)

    with client.session() as session:
        actor = session.actor(Counter)
    with pytest.raises(flm.ClientClosed, match=rf"was closed with session {session.id}, which it belongs to"):
        actor.add(1)

    actor = client.actor(Counter)
    waits = actor.wait_for("/nowhere")
    with Controller(client.address) as boss:
        assert boss.close_session(actor.actor_id, "ann@node")[0]
    with pytest.raises(CancelledError, match=r"of class Counter\) was closed by ann@node"):
        waits.result(WAIT_SECONDS)
    with pytest.raises(flm.ClientClosed, match=r"of class Counter\) was closed by ann@node \(.* ago\)"):
        actor.add(1)


class Counting:
    def __init__(self) -> None:
        self.given = 0

    def up_to(self, most: int) -> Iterator[int]:
        for number in range(most):
            self.given += 1
            yield number

    def how_many(self) -> int:
        return self.given


def test_a_generator_method_streams_with_credit_and_the_calls_behind_it_wait(client: flm.Client) -> None:
    with client.actor(Counting) as actor:
        assert list(actor.up_to.stream(1000)) == list(range(1000))
        with actor.up_to.stream(1_000_000) as stream:
            assert [next(stream) for _ in range(3)] == [0, 1, 2]
            behind = actor.how_many()
            assert not behind.done()
        assert 1003 <= behind.result(WAIT_SECONDS) < 500_000, "it was closed, and held back before"
    with pytest.raises(flm.ClientClosed, match="of class Counting"):
        actor.up_to.stream(1)


def test_streams_of_actors_hold_back_nobody_and_are_never_held_back() -> None:
    with flm.Client(executors=1) as client:
        actors = [client.actor(Counting) for _ in range(3)]
        streams = [actor.up_to.stream(200_000) for actor in actors]
        assert [next(stream) for stream in streams] == [0, 0, 0]
        assert client.submit(abs, -1).result(WAIT_SECONDS) == 1
        for stream in streams:
            stream.close()


def test_a_generator_method_streams_in_an_event_loop() -> None:
    async def main() -> list[int]:
        async with flm.aio.Client(executors=1) as client, await client.actor(Counting) as actor:
            return [number async for number in actor.up_to.stream(100)]

    assert asyncio.run(main()) == list(range(100))


def test_what_the_instances_close_raises_is_raised_by_ours(client: flm.Client, tmp_path: Path) -> None:
    actor = client.actor(WithClose, str(tmp_path / "closed"), fail=True)
    with pytest.raises(OSError, match="can't close"):
        actor.close()
    actor.close()


def test_closing_ends_the_process_and_gives_the_executor_back(client: flm.Client) -> None:
    counters = [client.actor(Counter) for _ in range(3)]
    pids = [counter.pid().result() for counter in counters]
    assert len(set(pids)) == 3, "more than there are executors without them"
    for counter in counters:
        counter.close()
        with pytest.raises(flm.ClientClosed):
            counter.add()
    until(lambda: all(map(is_gone, pids)))
    until(lambda: len(client.processes()["executors"]) == 2)


def test_an_actor_that_is_gone_before_the_worker_hears_of_it_leaves_no_executor_too_many(
    client: flm.Client,
) -> None:
    counter = client.actor(Counter)
    pid = counter.pid().result()
    until(lambda: len(client.processes()["executors"]) == 3)
    (worker,) = client.processes()["worker"]
    os.kill(worker, signal.SIGSTOP)
    try:
        counter.close(cancel=True)
        until(lambda: is_gone(pid))
    finally:
        os.kill(worker, signal.SIGCONT)
    until(lambda: len(client.processes()["executors"]) == 3)  # it forks one in its place, and then hears
    until(lambda: len(client.processes()["executors"]) == 2)


def test_a_block_that_is_left_by_an_exception_cancels_the_calls(client: flm.Client, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), client.actor(Counter) as counter:
        pid = counter.pid().result()
        counter.wait_for(str(tmp_path / "never"))
        waiting = counter.add()
        raise ZeroDivisionError
    assert waiting.cancelled()
    until(lambda: is_gone(pid))


def test_an_actor_ends_with_its_session(client: flm.Client) -> None:
    with client.session() as session:
        counter = session.actor(Counter)
        last = counter.add()
    assert last.result() == 1
    with pytest.raises(flm.ClientClosed):
        counter.add()


def test_tasks_and_two_actors_share_two_executors(client: flm.Client) -> None:
    with client.actor(Counter) as one, client.actor(Counter) as two:
        for number in range(300):
            one.add(), two.add(2)
            client.submit(square, number)
        assert sum(client.map(square, range(1000))) == sum(x * x for x in range(1000))
        assert one.add().result() == 301
        assert two.add().result() == 601


# --- deaths


def test_a_death_fails_the_call_that_ran_and_all_that_follow(client: flm.Client) -> None:
    counter = client.actor(Counter)
    pid = counter.pid().result()
    ran, behind = counter.die(), counter.add()

    for future in (ran, behind):
        with pytest.raises(flm.ActorDied) as raised:
            future.result(WAIT_SECONDS)
        assert raised.value.certificate.signal == "SIGKILL"
        assert raised.value.certificate.pid == pid
        assert isinstance(raised.value, flm.TaskLost)
        assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
    assert "Counter.die" in str(ran.exception())
    with pytest.raises(flm.ActorDied, match="make a new one"):
        counter.add()
    counter.close()


def test_an_idle_actor_that_is_killed_is_missed_by_the_next_call(client: flm.Client) -> None:
    counter = client.actor(Counter)
    os.kill(counter.pid().result(), signal.SIGKILL)

    def is_dead() -> bool:
        try:
            return isinstance(counter.add().exception(), flm.ActorDied)
        except flm.ActorDied:
            return True

    until(is_dead)


def test_a_fresh_instance_takes_over_what_had_not_begun(client: flm.Client, tmp_path: Path) -> None:
    counter = client.actor(Counter, 100, max_restarts=1)
    assert counter.add().result() == 101
    counter.wait_for(str(tmp_path / "go"))
    lost = counter.die()
    behind = [counter.add() for _ in range(5)]
    (tmp_path / "go").touch()

    with pytest.raises(flm.ActorDied):
        lost.result(WAIT_SECONDS)
    assert [future.result(WAIT_SECONDS) for future in behind] == [101, 102, 103, 104, 105]
    last, behind_it = counter.die(), counter.add()
    with pytest.raises(flm.ActorDied, match=r"Counter\.die"):
        last.result(WAIT_SECONDS)
    with pytest.raises(flm.ActorDied, match="after 1 restart:"):
        behind_it.result(WAIT_SECONDS)
    counter.close()


def test_a_call_may_be_started_again_on_the_next_instance(client: flm.Client, tmp_path: Path) -> None:
    class Once:
        def die_once(self, path: str) -> str:
            if not os.path.exists(path):
                Path(path).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return "done"

    with client.actor(Once, max_restarts=1, max_retries=1) as once:
        assert once.die_once(str(tmp_path / "died")).result(WAIT_SECONDS) == "done"


def test_a_constructor_that_fails_fails_all_calls_and_is_named(client: flm.Client) -> None:
    class Bad:
        def __init__(self) -> None:
            raise RuntimeError("no model here")

        def work(self) -> None: ...

    bad = client.actor(Bad)
    future = bad.work()
    with pytest.raises(flm.BrokenActor, match=r"constructor of actor Bad.*no model here"):
        future.result(WAIT_SECONDS)
    with pytest.raises(flm.BrokenActor):
        bad.work()
    assert client.submit(square, 2).result() == 4
    until(lambda: len(client.processes()["executors"]) == 2)


def test_a_constructor_that_kills_its_process_does_not_do_so_for_ever(client: flm.Client) -> None:
    class Killer:
        def __init__(self) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        def work(self) -> None: ...

    killer = client.actor(Killer, max_restarts=2)
    futures = []
    with contextlib.suppress(flm.ActorDied):
        for _ in range(5):
            futures.append(killer.work())  # noqa: PERF401 - the last one may not come to be
    for future in futures:
        with pytest.raises(flm.ActorDied):
            future.result(WAIT_SECONDS)


def test_actors_survive_executors_of_others_that_are_killed(client: flm.Client) -> None:
    with client.actor(Counter) as counter:
        mine = counter.pid().result()
        for _ in range(3):
            other = next(pid for pid in client.processes()["executors"] if pid != mine)
            with contextlib.suppress(ProcessLookupError):
                os.kill(other, signal.SIGKILL)
            assert client.submit(square, 3).result(WAIT_SECONDS) == 9
            counter.add().result(WAIT_SECONDS)
        assert counter.add().result() == 4


# --- event loops


def test_actors_on_an_event_loop() -> None:
    async def main() -> None:
        async with flm.aio.Client(executors=2) as client:
            async with await client.actor(Counter, 1) as counter:
                assert await counter.add() == 2
                assert await asyncio.gather(*(counter.add() for _ in range(50))) == list(range(3, 53))
                with pytest.raises(ValueError, match="on purpose"):
                    await counter.fail()
                assert await counter.add.options(name="plus")(2) == 55
                with pytest.raises(AttributeError, match="aclose"):
                    counter.close()
                with pytest.raises(AttributeError):
                    counter.nothing()
            with pytest.raises(flm.ClientClosed):
                counter.add()
            async with client.session() as session:
                other = await session.actor(Counter)
                last = other.add()
            assert await last == 1

    asyncio.run(asyncio.wait_for(main(), WAIT_SECONDS))


def test_an_event_loop_that_closes_an_actor_has_its_close_called(tmp_path: Path) -> None:
    async def main() -> None:
        async with flm.aio.Client(executors=1) as client:
            async with await client.actor(WithClose, str(tmp_path / "one")) as actor:
                actor.work()
            await client.actor(WithClose, str(tmp_path / "two"))
            async with client.session() as session:
                kept = await session.actor(WithClose, str(tmp_path / "three"))
                kept.work()

    asyncio.run(asyncio.wait_for(main(), WAIT_SECONDS))
    assert (tmp_path / "one").read_text() == "1 calls"
    assert (tmp_path / "three").read_text() == "1 calls"


# --- Ctrl-C


def test_ctrl_c_ends_a_wait_for_a_call_and_the_program(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys, time
            import flamezmq as flm

            class Slow:
                def work(self):
                    print("begun", flush=True)
                    time.sleep(60)

            with flm.Client(executors=1) as client, client.actor(Slow) as slow:
                slow.work().result()
            """
        )
    )
    program = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    try:
        assert program.stdout is not None
        assert "begun" in program.stdout.readline()
        program.send_signal(signal.SIGINT)
        _, said = program.communicate(timeout=WAIT_SECONDS)
    finally:
        program.kill()
        program.wait()
    assert program.returncode != 0
    assert "KeyboardInterrupt" in said
