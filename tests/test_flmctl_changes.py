"""flmctl suspend, resume, close --drain, set and events, and the same from the session's own program."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import flamezmq as flm
from tests.test_flmctl import COMMAND, LIMIT_SECONDS, environment, run
from tests.test_flmctl import ask as ask
from tests.test_flmctl import client as client
from tests.test_flmctl import session as session
from tests.waiting import until

pytestmark = pytest.mark.processes


def wait_for(path: Path, _needs: object = None) -> str:
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


# --- close --drain


def test_a_session_that_drains_takes_nothing_more_and_ends_what_it_has(
    ask: Callable[..., str], client: flm.Client, tmp_path: Path
) -> None:
    session = client.session("drained")
    futures = [session.submit(wait_for, tmp_path / "go") for _ in range(10)]
    until(lambda: session.status().running == 2)

    assert ask("close", "--drain", session.id).endswith("is closed when those that it has have ended: 10\n")
    until(lambda: session._calls.draining)  # its client hears of it a moment later
    with pytest.raises(flm.ClientClosed, match=r"being closed by flmctl .* is taken; open a new one"):
        session.submit(abs, 1)
    assert state_of(ask, session) == "Draining"
    with pytest.raises(flm.ClientClosed, match="being closed by flmctl"):
        session.map(abs, range(10)).__next__()

    (tmp_path / "go").write_text("gone")
    assert {future.result(LIMIT_SECONDS) for future in futures} == {"gone"}
    until(lambda: state_of(ask, session) == "Closed")
    assert json.loads(ask("view", session.id, "-o", "json"))["ending"].startswith("closed by flmctl")
    kinds = [event.kind for event in session.events()]
    assert (kinds.count("draining"), kinds[-1]) == (1, "closed")
    session.close()
    with pytest.raises(flm.ClientClosed):
        session.submit(abs, 1)


def test_an_idle_session_drains_at_once(ask: Callable[..., str], client: flm.Client) -> None:
    with client.session("idle") as session:
        ask("close", "--drain", session.id)
        until(lambda: state_of(ask, session) == "Closed")


# --- set


def test_the_share_of_a_session_is_changed_while_it_runs(
    ask: Callable[..., str], client: flm.Client, session: flm.Session, tmp_path: Path
) -> None:
    for number in range(10):
        session.submit(wait_for, tmp_path / ("first" if number < 2 else "others"))
    until(lambda: session.status().running == 2)

    assert ask("set", session.id, "--max", "1", "--weight", "3") == (
        f"session {session.id} has weight=3, max_executors=1 from now on\n"
    )
    (tmp_path / "first").write_text("gone")
    until(lambda: session.status().running == 1)
    found = json.loads(ask("view", session.id, "-o", "json"))
    assert (found["weight"], found["slots"]) == (3.0, 1)
    session.set(max_executors=0, priority=2)
    until(lambda: json.loads(ask("view", session.id, "-o", "json"))["priority"] == 2)
    assert ask("set", session.id, "--min", "1", "--max", "2")
    found = json.loads(ask("view", session.id, "-o", "json"))
    assert (found["min_executors"], found["max_executors"]) == (1, 2)
    shown = ask("view", session.id)
    assert re.search(r"^Min +1\nMax +2$", shown, re.MULTILINE)
    (tmp_path / "others").write_text("gone")


def test_what_can_not_be_set_is_said(client: flm.Client, session: flm.Session) -> None:
    for words, code, text in (
        ((), 2, "nothing was to be set"),
        (("--weight", "0"), 2, "a number above 0"),
        (("--min", "3", "--max", "1"), 1, "can't have min_executors=3, max_executors=1"),
    ):
        found = run("set", session.id, *words, address=client.address)
        assert (found.returncode, text in found.stderr) == (code, True), found
    with pytest.raises(flm.Refused, match="can't have min_executors=3"):
        session.set(min_executors=3, max_executors=1)
    for wrong in ({}, {"weight": -1}, {"min_executors": -1}, {"priority": 0.5}):
        with pytest.raises(ValueError, match=r"must be|nothing"):
            session.set(**wrong)


# --- events


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_has_happened_is_told_oldest_first(ask: Callable[..., str], client: flm.Client) -> None:
    with client.session("eventful", max_retries=0) as session:
        with pytest.raises(flm.TaskLost):
            session.submit(die).result(LIMIT_SECONDS)
        session.suspend()
        session.resume()
        seen = session.events()
        assert session.submit(abs, -1).result(LIMIT_SECONDS) == 1

    head, *lines = ask("events", session.id).splitlines()
    assert head.split() == ["Time", "Event", "What"]
    said = [line[10:] for line in lines]
    assert said[0].startswith("opened              opened by a client on ")
    assert "died while it ran task 0: SIGKILL" in said[2]
    assert said[3].startswith("task lost           task 0 is lost")
    assert said[4].startswith("suspended           suspended by its client")
    assert said[-1] == "closed              closed by its client"
    found = [json.loads(line) for line in ask("events", session.id, "-o", "json").splitlines()]
    assert [row["event"] for row in found][:6] == [event.kind for event in seen][:6]
    assert [row["event"] for row in found][:4] == ["opened", "bound", "executor died", "task lost"]
    assert found[2]["task"] == 0
    assert "Times" in ask("events", session.id, "-o", "wide").splitlines()[0]


def test_events_are_followed_until_the_session_is_closed(client: flm.Client) -> None:
    session = client.session("followed")
    following = subprocess.Popen(
        [*COMMAND, "events", "-f", session.id],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(client.address),
    )
    assert following.stdout is not None
    with following:
        assert following.stdout.readline().startswith("Time")
        assert " opened " in following.stdout.readline()
        session.suspend()
        assert " suspended by its client" in following.stdout.readline()
        session.close()
        assert " closed by its client" in following.stdout.readline()
        assert following.wait(LIMIT_SECONDS) == 0


def test_events_of_nobody_are_refused(client: flm.Client) -> None:
    found = run("events", "nobody", address=client.address)
    assert found.returncode == 4
    assert "there is no session 'nobody'" in found.stderr
