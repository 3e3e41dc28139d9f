"""flmctl explain, and `session.explain`, about tasks of a cluster that runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import flamezmq as flm
from tests.test_flmctl import LIMIT_SECONDS, run
from tests.test_flmctl_changes import wait_for
from tests.waiting import until

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def client() -> Iterator[flm.Client]:
    with flm.Client(executors=2, forward_output=False) as one:
        yield one


@pytest.fixture
def go(tmp_path: Path) -> Iterator[Path]:
    """A file that tasks wait for; it is there when the test is over."""
    path = tmp_path / "go"
    yield path
    path.write_text("gone")


@pytest.fixture
def explain(client: flm.Client) -> Callable[[str], str]:
    def explained(name: str) -> str:
        found = run("explain", name, address=client.address)
        assert (found.returncode, found.stderr) == (0, ""), found
        return found.stdout.rstrip("\n")

    return explained


def fails() -> None:
    raise ValueError("no")


def test_tasks_that_run_wait_and_have_ended_are_explained(
    client: flm.Client, explain: Callable[[str], str], go: Path
) -> None:
    with client.session("demo") as session, client.session("quick") as quick:
        ended = quick.submit(abs, -1)
        assert ended.result(LIMIT_SECONDS) == 1
        futures = [session.submit(wait_for, go) for _ in range(5)]
        until(lambda: session.status().running == 2)

        assert f"task {ended.task_id} has ended with a value on executor " in explain(ended.task_id)
        assert f"task {futures[0].task_id} runs on executor " in explain(futures[0].task_id)
        waiting = explain(futures[4].task_id)
        assert f"task {futures[4].task_id} is queued behind 2 others of its session, since " in waiting
        assert "All executors serve its session, 2 of 2" in waiting
        assert f"Of the tasks of session {session.id}, 2 run, 3 are queued." in explain(session.id)
        assert session.explain(futures[0]).startswith(f"task {futures[0].task_id} runs on executor ")
        assert session.explain().startswith(f"Of the tasks of session {session.id}, 2 run")

        found = json.loads(run("explain", futures[4].task_id, "-o", "json", address=client.address).stdout)
        assert (found["where"], found["state"], found["ahead"], found["cause"]) == (
            "queue",
            "Pending",
            2,
            "all",
        )
        assert found["text"].startswith("task ")
        assert found["since"] > 0

        assert futures[4].cancel()
        assert explain(futures[4].task_id) == f"task {futures[4].task_id} is cancelled, by its client."
        again = run("cancel", futures[4].task_id, address=client.address)
        assert (again.returncode, "was cancelled before, by its client" in again.stderr) == (1, True)
        go.write_text("gone")
    assert explain(session.id).endswith("closed by its client.")


def test_a_task_that_needs_others_and_one_that_is_to_run_again(
    client: flm.Client, explain: Callable[[str], str], go: Path
) -> None:
    with client.session("demo") as session:
        first = session.submit(wait_for, go)
        second = session.submit(wait_for, go, first)
        again = session.submit(flm.options(retries=3, backoff=100.0)(fails))
        until(lambda: "is to run again in" in session.explain(again))
        until(lambda: "it runs" in session.explain(second))

        assert f"waits for the value of 1 other task: {first.task_id} (it runs)" in explain(second.task_id)
        assert explain(again.task_id).endswith(", as attempt 2.")
        assert again.cancel()
        go.write_text("gone")
        assert second.result(LIMIT_SECONDS) == "gone"


def test_a_suspended_session_and_one_at_its_limit(
    client: flm.Client, explain: Callable[[str], str], go: Path
) -> None:
    with client.session("demo", max_executors=1) as session:
        futures = [session.submit(wait_for, go) for _ in range(2)]
        until(lambda: session.status().running == 1)
        assert "the one executor that it may have at a time (max_executors)" in explain(futures[1].task_id)
        session.suspend()
        assert "The session is suspended, since " in explain(futures[1].task_id)
        assert f"by its client; flmctl resume {session.id} lets it go on." in session.explain(futures[1])
        session.resume()
        go.write_text("gone")


def test_sessions_that_share_the_executors(
    client: flm.Client, explain: Callable[[str], str], go: Path
) -> None:
    with client.session("one") as one, client.session("two") as two:
        running = [one.submit(wait_for, go) for _ in range(2)]
        until(lambda: one.status().running == 2)
        waiting = two.submit(abs, -1)
        said = two.explain(waiting)
        assert "The session has 0 of 2 executors" in said
        assert said.endswith("; 1 other session has the others.")
        go.write_text("gone")
        assert [future.result(LIMIT_SECONDS) for future in running] == ["gone", "gone"]


def test_what_nobody_knows_is_not_explained(client: flm.Client) -> None:
    with client.session("demo") as session, client.session("other") as other:
        future = session.submit(abs, -1)
        assert future.result(LIMIT_SECONDS) == 1
        for name, words in (
            (f"{session.id}/7", "has no task 7"),
            ("nobody", "no session"),
            ("a/1", "no session"),
        ):
            found = run("explain", name, address=client.address)
            assert (found.returncode, words in found.stderr) == (4, True), found
        with pytest.raises(ValueError, match="is not of session"):
            other.explain(future)
        with pytest.raises(TypeError, match="3 is no future of session"):
            session.explain(3)  # type: ignore[arg-type]
