"""Cancelling tasks that run, in real processes: whatever they do, they end, and nobody else suffers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path

import pytest

import flamezmq as flm
from tests.waiting import until
from tests.wasting import waste

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[1]
#: Generous: the machine may be busy.
WAIT_SECONDS = 30.0


@pytest.fixture(scope="module")
def client() -> Iterator[flm.Client]:
    with flm.Client(executors=1) as one:
        yield one


def begun_or_over(future: flm.Future) -> bool:
    return future.running() or future.done()


def begun(future: flm.Future, path: Path) -> flm.Future:
    until(lambda: path.exists())
    return future


@pytest.mark.parametrize("how", ["sleep", "busy", "nested", "thread", "stubborn", "in C"])
def test_a_task_that_runs_ends_whatever_it_does_and_its_neighbours_do_not_suffer(
    client: flm.Client, tmp_path: Path, how: str
) -> None:
    before = client.submit(os.getpid).result(WAIT_SECONDS)
    with client.session("neighbours", max_retries=0) as session:
        first = [session.submit(pow, n, 2) for n in range(5)]
        path = tmp_path / "outer"
        late = begun(session.submit(waste, how, path), path)
        rest = [session.submit(pow, n, 2) for n in range(5, 10)]

        assert not late.cancel(), "the standard's contract: what runs is left alone"
        assert late.cancel(running=True)

        assert late.cancelled()
        assert [future.result(WAIT_SECONDS) for future in first + rest] == [n * n for n in range(10)]
        assert session.status().cancelled == 1
    killed = client.submit(os.getpid).result(WAIT_SECONDS) != before
    assert killed == (how in ("stubborn", "in C"))


def test_a_builtin_is_interrupted_as_well(client: flm.Client) -> None:
    with client.session("builtin") as session:
        late = session.submit(time.sleep, 1000)
        until(late.running)
        assert late.cancel(running=True)


def test_the_task_may_clean_up_and_no_ordinary_except_stands_in_the_way(
    client: flm.Client, tmp_path: Path
) -> None:
    def tidy(folder: Path) -> None:
        try:
            try:
                waste("sleep", folder / "begun")
            except Exception:
                (folder / "swallowed").touch()
        except flm.TaskCancelled as error:
            (folder / "caught").write_text(str(error))
            raise
        finally:
            (folder / "tidied").touch()

    late = begun(client.submit(tidy, tmp_path), tmp_path / "begun")
    assert late.cancel(running=True)
    assert (tmp_path / "caught").read_text() == f"task {late.task_id} was cancelled while it ran"
    assert (tmp_path / "tidied").exists()
    assert not (tmp_path / "swallowed").exists()
    with pytest.raises(CancelledError):
        late.result()


def test_a_value_in_spite_of_it_counts_and_an_error_does_not(client: flm.Client, tmp_path: Path) -> None:
    def instead(how: str, path: Path) -> str:
        try:
            waste("sleep", path)
        except flm.TaskCancelled:
            if how == "value":
                return "the best so far"
        raise ValueError("what came of it")

    kept = begun(client.submit(instead, "value", tmp_path / "a"), tmp_path / "a")
    assert not kept.cancel(running=True)
    assert kept.result() == "the best so far"
    again = flm.options(retries=5)(instead)
    given_up = begun(client.submit(again, "error", tmp_path / "b"), tmp_path / "b")
    assert given_up.cancel(running=True), "and it does not run again"


def test_what_needs_it_fails(client: flm.Client, tmp_path: Path) -> None:
    late = client.submit(waste, "sleep", tmp_path / "begun")
    needy = client.submit(pow, late, 2)
    begun(late, tmp_path / "begun")
    assert late.cancel(running=True)
    error = needy.exception(WAIT_SECONDS)
    assert isinstance(error, flm.DependencyFailed)
    assert "was cancelled" in str(error)


def test_many_are_cancelled_at_once_those_that_run_and_those_that_wait(
    client: flm.Client, tmp_path: Path
) -> None:
    with client.session("many") as session:
        done = session.submit(pow, 2, 3)
        assert done.result(WAIT_SECONDS) == 8
        late = begun(session.submit(waste, "sleep", tmp_path / "begun"), tmp_path / "begun")
        rest = [session.submit(pow, n, 2) for n in range(1000)]
        assert session.cancel([done, *rest[:500]]) == 500
        assert not late.done()
        assert session.cancel(running=True) == 501
        assert late.cancelled()
        assert all(future.cancelled() for future in rest)
        with pytest.raises(ValueError, match="cancel it in its own"):
            session.cancel([client.submit(pow, 1, 1)])


# --- sessions and clients that end


@pytest.mark.parametrize("how", ["sleep", "stubborn"])
def test_what_runs_of_a_session_that_is_left_by_an_exception_ends(
    client: flm.Client, tmp_path: Path, how: str
) -> None:
    def noisy(how: str, folder: Path) -> None:
        try:
            waste(how, folder / "begun")
        finally:
            (folder / "tidied").touch()

    before = client.submit(os.getpid).result(WAIT_SECONDS)
    with pytest.raises(KeyError), client.session("left") as session:
        begun(session.submit(noisy, how, tmp_path), tmp_path / "begun")
        raise KeyError
    after = client.submit(os.getpid).result(WAIT_SECONDS)
    assert (after == before) == (tmp_path / "tidied").exists() == (how == "sleep")


def test_nested_tasks_of_a_task_that_is_cancelled_are_cancelled_where_they_run(tmp_path: Path) -> None:
    def inner(folder: Path, name: str) -> None:
        try:
            waste("sleep", folder / f"begun {name}")
        finally:
            (folder / f"tidied {name}").touch()

    def outer(folder: Path) -> None:
        futures = [flm.current().client.submit(inner, folder, name) for name in "ab"]
        flm.wait(futures)

    with flm.Client(executors=2) as client:
        late = client.submit(outer, tmp_path)
        until(lambda: len(list(tmp_path.glob("begun *"))) == 2)
        assert late.cancel(running=True)
        until(lambda: len(list(tmp_path.glob("tidied *"))) == 2)
        assert client.submit(pow, 2, 3).result(WAIT_SECONDS) == 8


def test_a_map_that_is_closed_interrupts_its_slices(client: flm.Client, tmp_path: Path) -> None:
    def item(folder: Path, number: int) -> int:
        if number:
            (folder / "begun").touch()
            try:
                time.sleep(1000)
            except ValueError:
                pass
            finally:
                (folder / f"tidied {number}").touch()
        return number

    before = client.submit(os.getpid).result(WAIT_SECONDS)
    results = client.map(item, [tmp_path] * 4, range(4), chunksize=2)
    until(lambda: (tmp_path / "begun").exists())
    results.close()
    assert client.submit(os.getpid).result(WAIT_SECONDS) == before
    assert [path.name for path in tmp_path.glob("tidied *")] == ["tidied 1"], "no item after it"


# --- races


def test_of_many_that_are_cancelled_as_they_end_each_has_one_outcome_and_the_next_is_never_hit(
    client: flm.Client,
) -> None:
    """Tasks that end about when the interrupt comes; between them tasks that nobody cancels."""

    def nap(seconds: float) -> str:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass
        return "done"

    outcomes: dict[str, int] = {"done": 0, "cancelled": 0}
    with client.session("races", max_retries=0) as session:
        pid = session.submit(os.getpid).result(WAIT_SECONDS)
        for round in range(60):
            late = session.submit(nap, 0.03 + 0.0005 * (round % 40))
            bystanders = [session.submit(nap, 0.002) for _ in range(3)]
            if round % 3:
                until(partial(begun_or_over, late))
            was = late.cancel(running=True)
            assert was == late.cancelled()
            outcomes["cancelled" if was else "done"] += 1
            if not was:
                assert late.result(WAIT_SECONDS) == "done"
            assert [one.result(WAIT_SECONDS) for one in bystanders] == ["done"] * 3
        assert session.submit(os.getpid).result(WAIT_SECONDS) == pid, "none had to be killed"
        status = session.status()
    assert (status.cancelled, status.failed) == (outcomes["cancelled"], 0)


def test_a_child_that_the_task_forks_is_not_interrupted(client: flm.Client, tmp_path: Path) -> None:
    def parent(folder: Path) -> None:
        pid = os.fork()
        if not pid:
            (folder / "child").write_text(str(os.getpid()))
            time.sleep(0.2)
            (folder / "child ended").touch()
            os._exit(0)
        os.waitpid(pid, 0)
        waste("sleep", folder / "begun")

    late = begun(client.submit(parent, tmp_path), tmp_path / "begun")
    assert late.cancel(running=True)
    assert (tmp_path / "child ended").exists()


def test_an_initializer_is_not_killed_because_the_first_task_is_cancelled(
    client: flm.Client, tmp_path: Path
) -> None:
    def prepare(folder: Path) -> None:
        with (folder / "preparing").open("a") as file:
            file.write("x")
        until(lambda: (folder / "go on").exists())

    with client.session("slow start", initializer=prepare, initargs=(tmp_path,)) as session:
        first = session.submit(pow, 2, 3)
        until(lambda: (tmp_path / "preparing").exists())
        late = threading.Timer(1.5, (tmp_path / "go on").touch)
        late.start()
        first.cancel(running=True)
        late.join()
        assert session.submit(pow, 2, 4).result(WAIT_SECONDS) == 16
    assert (tmp_path / "preparing").read_text() == "x"


# --- by others


def test_an_asyncio_task_that_is_cancelled_interrupts_the_remote_one(
    client: flm.Client, tmp_path: Path
) -> None:
    def noisy(folder: Path) -> None:
        try:
            waste("sleep", folder / "begun")
        finally:
            (folder / "tidied").touch()

    async def impatient() -> None:
        async with flm.aio.Client(client.address) as aclient:
            answer = aclient.submit(noisy, tmp_path)
            while not (tmp_path / "begun").exists():
                await asyncio.sleep(0.005)
            answer.cancel()
            with pytest.raises(asyncio.CancelledError):
                await answer

    asyncio.run(impatient())
    until((tmp_path / "tidied").exists)
    assert client.submit(pow, 2, 3).result(WAIT_SECONDS) == 8


def test_flmctl_interrupts_what_runs_if_it_is_told_to(client: flm.Client, tmp_path: Path) -> None:
    late = begun(client.submit(waste, "sleep", tmp_path / "begun"), tmp_path / "begun")
    words = [sys.executable, "-P", "-m", "flamezmq.cli.ctl", "cancel", "-a", client.address]

    def said(*more: str) -> str:
        done = subprocess.run(
            [*words, late.task_id, *more],
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        return done.stdout + done.stderr

    assert "has begun or ended" in said()
    assert said("--running") == f"task {late.task_id} is cancelled\n"
    with pytest.raises(CancelledError, match="cancelled by flmctl"):
        late.result(WAIT_SECONDS)


CLIENT = """
import sys, time
from pathlib import Path
import flamezmq as flm

def noisy(folder):
    try:
        (folder / "begun").touch()
        time.sleep(1000)
    finally:
        (folder / "tidied").touch()

flm.Client(sys.argv[1]).submit(noisy, Path(sys.argv[2])).result()
"""


def test_what_runs_for_a_client_that_is_killed_is_interrupted(client: flm.Client, tmp_path: Path) -> None:
    words = [sys.executable, "-P", "-c", CLIENT, client.address, str(tmp_path)]
    with subprocess.Popen(words, env={**os.environ, "PYTHONPATH": str(ROOT)}) as other:
        try:
            until((tmp_path / "begun").exists)
        finally:
            other.kill()
    until((tmp_path / "tidied").exists)
    assert client.submit(pow, 2, 3).result(WAIT_SECONDS) == 8
