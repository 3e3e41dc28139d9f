"""Services in real executors: their hooks, and what becomes of those that fail."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import flamezmq as flm
from tests.services import Diary, register, service_session
from tests.waiting import until

pytestmark = pytest.mark.processes

LIMIT_SECONDS = 30.0


@pytest.fixture
def cluster() -> Iterator[flm.Client]:
    with flm.testing.cluster(executors=2, forward_output=False) as client:
        yield client


@pytest.fixture
def diary(tmp_path: Path) -> Path:
    path = tmp_path / "diary.txt"
    path.touch()
    return path


def lines(diary: Path, pid: int | None = None) -> list[list[str]]:
    """[hook, session, process], of one process or of all."""
    found = [line.split() for line in diary.read_text().splitlines()]
    return [line for line in found if pid in (None, int(line[2]))]


def processes_of(diary: Path) -> dict[int, list[str]]:
    """Process -> "hook session" in order."""
    found: dict[int, list[str]] = {}
    for hook, session, pid in lines(diary):
        found.setdefault(int(pid), []).append(f"{hook} {session}")
    return found


def open_session(client: flm.Client, diary: Path, app: str = "diary", **more: Any) -> Any:
    return service_session(client, "s", app=app, common_data={"diary": str(diary)}, **more)


# --- hooks


def test_each_executor_enters_and_leaves_a_session_once(cluster: flm.Client, diary: Path) -> None:
    register(cluster)

    with open_session(cluster, diary) as session:
        answers = [session.submit(n) for n in range(200)]
        answers += [session.submit(n) for n in range(200)]
        pids = {future.result(LIMIT_SECONDS)[1] for future in answers}
        assert [x for x, _, _ in session.map(range(100))] == list(range(100))
        assert session.submit(x=5).result(LIMIT_SECONDS)[0] == 5

    hooks = processes_of(diary)
    assert pids <= hooks.keys()
    for calls in hooks.values():
        assert calls == [f"enter {session.id}", f"leave {session.id}"], (
            "when the session is closed, all is done"
        )


def test_a_service_stays_bound_while_its_executor_is_not_needed(cluster: flm.Client, diary: Path) -> None:
    register(cluster)
    with open_session(cluster, diary, max_executors=1) as session:
        tasks = [session.submit(n).result(LIMIT_SECONDS)[2] for n in range(5)]
        assert tasks == [1, 2, 3, 4, 5], "the same instance"
        assert [hook for hook, _, _ in lines(diary)] == ["enter"]


def test_sessions_in_turn_have_an_instance_each_in_the_same_process(diary: Path) -> None:
    with flm.testing.cluster(executors=1) as client:
        register(client)
        with open_session(client, diary) as first, open_session(client, diary) as second:
            answers = [s.submit(0).result(LIMIT_SECONDS) for s in (first, second, first)]

        assert len({pid for _, pid, _ in answers}) == 1
        assert [tasks for _, _, tasks in answers] == [1, 1, 1]
        a, b = first.id, second.id
        (calls,) = processes_of(diary).values()
        assert calls[:5] == [f"enter {a}", f"leave {a}", f"enter {b}", f"leave {b}", f"enter {a}"]
        assert calls[5:] == [f"leave {a}"]


def test_a_session_that_is_left_by_an_error_or_never_closed_is_left_by_its_services(diary: Path) -> None:
    with flm.testing.cluster(executors=1) as client:
        register(client)
        with pytest.raises(ZeroDivisionError), open_session(client, diary) as session:
            session.submit(1).result(LIMIT_SECONDS)
            raise ZeroDivisionError
        forgotten = open_session(client, diary)
        forgotten.submit(1).result(LIMIT_SECONDS)

    assert [hook for hook, _, _ in lines(diary)] == ["enter", "leave", "enter", "leave"]


def test_an_executor_that_gets_sigterm_calls_the_last_hook(cluster: flm.Client, diary: Path) -> None:
    register(cluster)
    with open_session(cluster, diary) as session:
        _, pid, _ = session.submit(1).result(LIMIT_SECONDS)
        os.kill(pid, signal.SIGTERM)
        until(lambda: len(lines(diary, pid)) == 2, "it has left")
        assert session.submit(2).result(LIMIT_SECONDS)[0] == 2


def test_the_hooks_see_who_they_are_and_what_they_log_is_the_task_s_output(
    capfd: pytest.CaptureFixture[str],
) -> None:
    class Mirror:
        def on_session_enter(self, ctx: flm.Context) -> None:
            self.entered = ctx.task_id, ctx.common_data

        def on_task_invoke(self, ctx: flm.Context) -> tuple[Any, ...]:
            ctx.log.info("hello from %s", ctx.application)
            assert flm.current().task_id == ctx.task_id
            return ctx.session_id, ctx.task_id, ctx.attempt, ctx.executor_id, ctx.node, self.entered

    with flm.testing.cluster(executors=1) as client:
        register(client, Mirror, "mirror")
        with service_session(client, "m", app="mirror") as session:
            about = session.submit().result(LIMIT_SECONDS)

    node = about[3].rpartition("/")[0]
    assert about == (session.id, f"{session.id}/0", 1, f"{node}/1", node, ("", None))
    assert f"({node}/1) INFO hello from mirror" in capfd.readouterr().err


@pytest.mark.parametrize("seed", range(2))
def test_hooks_are_called_once_for_each_bind_while_executors_are_killed(diary: Path, seed: int) -> None:
    killed = []
    with flm.testing.cluster(executors=2) as client:
        register(client, bind_retries=1000)
        kills = 8  # all of which may hit the same task
        with (
            open_session(client, diary, max_retries=kills) as session,
            client.session(max_retries=kills) as plain,
        ):
            futures = [(session.submit(n), plain.submit(abs, -n)) for n in range(1500)]
            for round in range(kills):
                until(lambda: sum(a.done() for a, _ in futures) >= 100 * round, "some are done")  # noqa: B023
                executors = client.processes()["executors"]
                if executors:
                    killed.append(executors[(round + seed) % len(executors)])
                    with suppress(ProcessLookupError):  # it was replaced just now
                        os.kill(killed[-1], signal.SIGKILL)
            assert [a.result(LIMIT_SECONDS)[0] for a, _ in futures] == list(range(1500))
            assert [b.result(LIMIT_SECONDS) for _, b in futures] == list(range(1500))

    for pid, calls in processes_of(diary).items():
        hooks = [call.split()[0] for call in calls]
        whole = ["enter", "leave"] * (len(hooks) // 2)
        assert hooks == whole or (pid in killed and hooks == [*whole, "enter"]), f"{pid}: {hooks}"


class Counting:
    def on_task_invoke(self, ctx: flm.Context, n: int) -> Iterator[int]:
        for number in range(n):
            ctx.publish(number)
            yield number


def test_a_service_streams_what_it_yields_and_publishes_how_far_it_is(cluster: flm.Client) -> None:
    register(cluster, Counting, "counting")
    with service_session(cluster, app="counting") as session:
        with session.stream(5) as values:
            assert list(values) == [0, 1, 2, 3, 4]


class Telling:
    def on_task_invoke(self, ctx: flm.Context, text: str) -> str:
        ctx.publish(text)
        return text


class Eager(Telling):
    def on_session_enter(self, ctx: flm.Context) -> None:
        ctx.publish("loading")


def test_what_is_published_while_no_task_runs_is_refused_in_the_words_of_who_did_it(
    cluster: flm.Client,
) -> None:
    register(cluster, Eager, "Eager", bind_retries=1)
    with service_session(cluster, app="Eager") as session:
        error = session.submit(1).exception(LIMIT_SECONDS)
    assert "ctx.publish(...) is for the code of a running task" in str(error)
    assert "ctx.log" in str(error)


def test_what_a_service_publishes_comes_out_of_the_future(cluster: flm.Client) -> None:
    register(cluster, Telling, "telling")
    with service_session(cluster, app="telling") as session:
        future = session.submit("half done")
        assert future.result(LIMIT_SECONDS) == "half done"
        until(lambda: future.last_published == "half done", "it was published")


# --- hooks that fail


def failing_until(marker: str, times: int) -> type:
    class Flaky(Diary):
        def on_session_enter(self, ctx: flm.Context) -> None:
            self.note(ctx, "enter")
            if len(Path(ctx.common_data["diary"]).read_text().splitlines()) <= times:
                raise RuntimeError(marker)

    return Flaky


def test_a_bind_that_fails_is_tried_again_in_a_fresh_process(cluster: flm.Client, diary: Path) -> None:
    register(cluster, failing_until("no model", 3))
    with open_session(cluster, diary, max_executors=1, max_retries=0) as session:
        _, pid, _ = session.submit(7).result(LIMIT_SECONDS)

    hooks = processes_of(diary)
    assert len(hooks) == 4
    assert [call.split()[0] for call in hooks[pid]] == ["enter", "leave"]
    assert all(len(calls) == 1 for other, calls in hooks.items() if other != pid), "what failed is not left"


def test_a_service_that_can_not_be_bound_stops_its_session_and_nothing_else(
    cluster: flm.Client, diary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    register(cluster, failing_until("no model", 1000), bind_retries=3)
    session = open_session(cluster, diary)
    futures = [session.submit(n) for n in range(10)]

    for future in futures:
        error = future.exception(LIMIT_SECONDS)
        assert isinstance(error, flm.BrokenSession)
        assert error.binds == 3
        assert "could not be bound, 3 times in a row" in str(error)
        assert "RuntimeError: no model" in str(error)
        assert "on_session_enter" in error.traceback
    with pytest.raises(flm.BrokenSession):
        session.submit(1)
    assert [cluster.submit(abs, -n).result(LIMIT_SECONDS) for n in range(10)] == list(range(10))
    until(lambda: "binding a service" in caplog.text, "it is logged")


def test_a_service_that_takes_its_process_down_stops_its_session_too(
    cluster: flm.Client, diary: Path
) -> None:
    class Deadly(Diary):
        def on_session_enter(self, ctx: flm.Context) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

    register(cluster, Deadly, bind_retries=2)
    with open_session(cluster, diary, max_retries=0) as session:
        error = session.submit(1).exception(LIMIT_SECONDS)

    assert isinstance(error, flm.BrokenSession)
    assert "SIGKILL" in str(error)
    assert cluster.submit(abs, -1).result(LIMIT_SECONDS) == 1


@pytest.fixture
def warmed_up(diary: Path) -> Iterator[flm.Client]:
    """One executor, which has imported what the services of this file need."""
    with flm.testing.cluster(executors=1, forward_output=False) as client:
        register(client)
        with open_session(client, diary) as session:
            session.submit(1).result(LIMIT_SECONDS)
        yield client


def test_a_service_that_hangs_as_it_is_entered_fails_its_bind_and_says_where(
    warmed_up: flm.Client, diary: Path
) -> None:
    class Hanging(Diary):
        def on_session_enter(self, ctx: flm.Context) -> None:
            time.sleep(600)

    register(warmed_up, Hanging, "hanging", bind_retries=1, options={"session_timeout": 0.3})
    with open_session(warmed_up, diary, "hanging", max_retries=0) as session:
        error = session.submit(1).exception(LIMIT_SECONDS)

    assert isinstance(error, flm.BrokenSession)
    assert "it was not ready after 0.3 s" in str(error)
    assert "on_session_enter" in error.traceback, "where it hung"
    assert warmed_up.submit(abs, -1).result(LIMIT_SECONDS) == 1


def test_a_service_that_was_entered_in_time_may_work_for_longer(warmed_up: flm.Client, diary: Path) -> None:
    class Slow(Diary):
        def on_task_invoke(self, ctx: flm.Context, x: float) -> float:
            time.sleep(x)
            return x

    register(warmed_up, Slow, "slow", bind_retries=1, options={"session_timeout": 1.0})
    with open_session(warmed_up, diary, "slow", max_retries=0) as session:
        assert session.submit(1.2).result(LIMIT_SECONDS) == 1.2


def test_a_last_hook_that_fails_costs_its_process_and_is_printed(
    diary: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    class Careless(Diary):
        def on_session_leave(self, ctx: flm.Context) -> None:
            self.note(ctx, "leave")
            raise RuntimeError("I have left the gas on")

    with flm.testing.cluster(executors=1) as client:
        register(client, Careless)
        with open_session(client, diary) as session:
            _, pid, _ = session.submit(1).result(LIMIT_SECONDS)

        assert client.submit(os.getpid).result(LIMIT_SECONDS) != pid
    assert [hook for hook, _, _ in lines(diary)] == ["enter", "leave"]
    assert "RuntimeError: I have left the gas on" in capfd.readouterr().err


def test_a_last_hook_that_hangs_is_bounded_by_its_grace(
    diary: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    class Lingering(Diary):
        def on_session_leave(self, ctx: flm.Context) -> None:
            self.note(ctx, "leave")
            time.sleep(600)

    with flm.testing.cluster(executors=1) as client:
        register(client, Lingering, grace=0.2)
        begin = time.monotonic()
        with open_session(client, diary) as session:
            _, pid, _ = session.submit(1).result(LIMIT_SECONDS)
        took = time.monotonic() - begin

        assert client.submit(os.getpid).result(LIMIT_SECONDS) != pid
    assert took < LIMIT_SECONDS, "not 600 s"
    assert [hook for hook, _, _ in lines(diary)] == ["enter", "leave"]
    assert "on_session_leave" in capfd.readouterr().err, "where it hung"


# --- turns


class Weighty(Diary):
    def on_session_enter(self, ctx: flm.Context) -> None:
        time.sleep(0.05)
        self.note(ctx, "enter")

    def on_task_invoke(self, ctx: flm.Context, x: float) -> None:
        time.sleep(x)
        self.note(ctx, "task")


def test_two_services_on_one_executor_load_seldom_and_both_go_on(warmed_up: flm.Client, diary: Path) -> None:
    register(warmed_up, Weighty, "weighty")
    sessions = [open_session(warmed_up, diary, "weighty") for _ in range(2)]
    for session in sessions:
        for _ in range(2000):
            session.submit(0.005)

    def entered(session: Any) -> int:
        return diary.read_text().count(f"enter {session.id}")

    until(lambda: all(entered(session) >= 2 for session in sessions), "each has had a second turn")
    for session in sessions:
        session.close(cancel=True)

    text = diary.read_text()
    assert text.count("task") >= 10 * text.count("enter")
