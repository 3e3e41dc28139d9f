"""flmctl suspend and resume, and the same from the session's own program."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import flamezmq as flm
from tests.test_flmctl import LIMIT_SECONDS, run, until

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def client() -> Iterator[flm.Client]:
    with flm.Client(executors=2, forward_output=False) as one:
        yield one


@pytest.fixture
def ask(client: flm.Client) -> Callable[..., str]:
    """Run a command that is to be done; what it says."""

    def done(*words: str) -> str:
        found = run(*words, address=client.address)
        assert (found.returncode, found.stderr) == (0, ""), found
        return found.stdout

    return done


@pytest.fixture
def session(client: flm.Client) -> Iterator[flm.Session]:
    one = client.session("demo")
    yield one
    one.close(cancel=True)


def wait_for(path: Path) -> str:
    """Runs until somebody writes the file."""
    until(path.exists)
    return path.read_text()


def state_of(ask: Callable[..., str], session: flm.Session) -> str:
    return str(json.loads(ask("view", session.id, "-o", "json"))["state"])


def test_a_suspended_session_ends_what_runs_and_begins_nothing(
    ask: Callable[..., str], client: flm.Client, session: flm.Session, tmp_path: Path
) -> None:
    running = [session.submit(wait_for, tmp_path / "go") for _ in range(2)]
    waiting = [session.submit(abs, -number) for number in range(10)]
    until(lambda: session.status().running == 2)

    assert ask("suspend", session.id) == f"session {session.id} is suspended; tasks that wait: 10\n"
    (tmp_path / "go").write_text("gone")
    assert [future.result(LIMIT_SECONDS) for future in running] == ["gone", "gone"]
    later = session.submit(abs, -10)
    with client.session("another") as another:
        assert another.submit(abs, -1).result(LIMIT_SECONDS) == 1, "executors serve others"

    assert state_of(ask, session) == "Suspended"
    status = session.status()
    assert (status.pending, status.running, status.succeed) == (11, 0, 2)
    assert status.suspended.startswith("flmctl (pid ")
    assert "suspended='flmctl" in repr(status)

    assert ask("resume", session.id) == f"session {session.id} is resumed; tasks that wait: 11\n"
    assert [future.result(LIMIT_SECONDS) for future in [*waiting, later]] == list(range(11))
    assert state_of(ask, session) == "Open"
    assert session.status().suspended == ""


def test_what_is_suspended_already_is_not_suspended_again(
    ask: Callable[..., str], client: flm.Client, session: flm.Session
) -> None:
    assert json.loads(ask("suspend", session.id, "-o", "json"))["done"] is True

    again = run("suspend", session.id, address=client.address)
    assert again.returncode == 1
    assert "is suspended already, by flmctl" in again.stderr
    assert run("resume", "nobody", address=client.address).returncode == 4


def test_a_program_suspends_its_own_session_and_resumes_what_others_have_suspended(
    ask: Callable[..., str], session: flm.Session
) -> None:
    assert session.suspend()
    assert not session.suspend()
    future = session.submit(abs, -3)
    with pytest.raises(TimeoutError):
        future.result(0.05)
    assert session.status().suspended == "its client"

    ask("resume", session.id)
    assert future.result(LIMIT_SECONDS) == 3
    ask("suspend", session.id)
    assert session.resume()
    assert not session.resume()
    assert session.submit(abs, -4).result(LIMIT_SECONDS) == 4


def test_a_suspended_session_can_be_closed(session: flm.Session) -> None:
    session.suspend()
    future = session.submit(abs, -1)

    session.close(cancel=True)

    assert future.cancelled()
