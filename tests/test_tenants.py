"""Tenants at run time, in real processes: clients that look at them and change them, and `flmctl tenants`."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import flamezmq as flm
from tests.daemons import LIMIT_SECONDS, daemons_in, environment, free_port, until
from tests.test_quotas import Gate

pytestmark = pytest.mark.processes

SETTINGS = """
[tenants.research]
queued_tasks = 10
weight = 2
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A router with these settings, and one worker of two executors."""
    folder = tmp_path_factory.mktemp("tenants")
    file = folder / "flamezmq.toml"
    file.write_text(SETTINGS)
    place = f"tcp://127.0.0.1:{free_port()}"
    with daemons_in(folder) as daemons:
        daemons.router(place, FLAMEZMQ_CONFIG=str(file))
        daemons.worker(place, executors=2).wait_for("registered")
        yield place


@pytest.fixture
def client(address: str) -> Iterator[flm.Client]:
    with flm.Client(address) as one:
        yield one


def flmctl(address: str, *words: str, code: int = 0) -> str:
    """What it says, on either stream."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "flamezmq.cli.ctl", "-a", address, *words],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        env=environment(),
    )
    assert done.returncode == code, done
    return done.stdout if code == 0 else done.stderr


def test_a_submit_that_waits_goes_on_when_the_quota_is_raised_and_waits_sooner_when_it_is_lowered(
    client: flm.Client, tmp_path: Path
) -> None:
    gate = Gate(tmp_path)
    futures: list[flm.Future] = []
    with client.session("many", tenant="research") as session:
        thread = threading.Thread(target=lambda: futures.extend(session.submit(gate, i) for i in range(60)))
        thread.start()
        until(lambda: "task waits in the client" in session.explain(), "the quota is used up")
        assert thread.is_alive()

        client.set_tenant("research", queued_tasks=100)
        thread.join(LIMIT_SECONDS)
        assert not thread.is_alive()

        client.set_tenant("research", queued_tasks=5)
        (status,) = [one for one in client.tenants() if one.name == "research"]
        assert (status.terms.queued_tasks, status.terms.weight, status.named) == (5, 2.0, True)
        assert status.tasks >= 50, "what is queued stays"
        late = threading.Thread(target=lambda: futures.append(session.submit(gate, 60)))
        late.start()
        until(lambda: "may have 5 tasks queued" in session.explain(), "what comes now waits")
        gate.open()
        late.join(LIMIT_SECONDS)
        assert [future.result(LIMIT_SECONDS) for future in futures] == list(range(61))
        client.set_tenant("research", queued_tasks=10)


def test_a_limit_on_executors_is_followed_while_tasks_run_and_when_it_is_taken_away(
    client: flm.Client, tmp_path: Path
) -> None:
    with client.session("bounded", tenant="bounded") as session:
        futures = [session.submit(time.sleep, 0.01) for _ in range(20)]
        client.set_tenant("bounded", max_executors=1)
        until(lambda: executors_of(client, "bounded") <= 1, "what is above the limit is given back")
        futures += [session.submit(time.sleep, 0.01) for _ in range(20)]
        for future in futures:
            assert executors_of(client, "bounded") <= 1
            future.result(LIMIT_SECONDS)

        client.set_tenant("bounded", max_executors=0)
        gate = Gate(tmp_path)
        futures = [session.submit(gate, i) for i in range(4)]
        until(lambda: executors_of(client, "bounded") == 2, "nothing is in its way any more")
        gate.open()
        assert [future.result(LIMIT_SECONDS) for future in futures] == [0, 1, 2, 3]


def executors_of(client: flm.Client, tenant: str) -> int:
    return next(one.executors for one in client.tenants() if one.name == tenant)


def test_a_first_quota_reaches_an_open_session_and_bytes_count_from_then_on(
    client: flm.Client, tmp_path: Path
) -> None:
    gate = Gate(tmp_path)
    with client.session("free", tenant="night", over_quota="fail") as session:
        first = [session.submit(gate, i) for i in range(20)]
        session.status()  # the router has them
        client.set_tenant("night", queued_bytes="64k")
        over = session.submit(gate, 20, bytes(100_000))
        assert isinstance(over.exception(LIMIT_SECONDS), flm.QuotaExceeded)
        client.set_tenant("night", queued_bytes=0)
        last = session.submit(gate, 21, bytes(100_000))
        gate.open()
        assert [future.result(LIMIT_SECONDS) for future in [*first, last]] == [*range(20), 21]


def test_what_makes_no_sense_is_refused_and_says_what_was_expected(client: flm.Client) -> None:
    with pytest.raises(flm.NotFound, match=r"no tenant 'reserch'; those that are there: .*'research'"):
        client.set_tenant("reserch", weight=2.0)
    for wrong, what in (
        ({"weight": 0.0}, "from 0.001"),
        ({"queued_tasks": -1}, "integer from 0"),
        ({"max_executors": True}, "integer from 0"),
        ({"queued_bytes": "much"}, "'64m' or '1g'"),
        ({"resources": "cpu:16"}, "cpu=1"),
        ({}, "nothing was to be set"),
    ):
        with pytest.raises(ValueError, match=what):
            client.set_tenant("research", **wrong)
    with pytest.raises(ValueError, match="a tenant is a text"):
        client.set_tenant("a\nb", weight=1.0)


def test_an_event_loop_looks_at_tenants_and_changes_them(address: str) -> None:
    async def main() -> None:
        async with flm.aio.Client(address) as client:
            await client.set_tenant("loop", weight=4.0, queued_tasks=7, new=True)
            (found,) = [one for one in await client.tenants() if one.name == "loop"]
            assert (found.terms.weight, found.terms.queued_tasks, found.sessions) == (4.0, 7, 0)
            with pytest.raises(flm.NotFound):
                await client.set_tenant("lop", weight=1.0)

    asyncio.run(main())


def test_flmctl_shows_tenants_and_changes_them(address: str, client: flm.Client) -> None:
    with client.session("shown", tenant="research") as session:
        assert session.submit(abs, -1).result(LIMIT_SECONDS) == 1
        said = flmctl(
            address, "tenants", "set", "research", "--weight", "3", "--max-executors", "2",
            "--resources", "cpu=16", "--queued-tasks", "1000", "--queued-bytes", "1g",
        )  # fmt: skip
        assert said == (
            "tenant research has weight=3, max_executors=2, resources=cpu=16, queued_tasks=1000, "
            "queued_bytes=1073741824 from now on, until the router ends\n"
        )
        head, *lines = flmctl(address, "tenants").splitlines()
        assert head.split() == ["Tenant", "Weight", "Sessions", "Executors", "Tasks", "Bytes", "Waiting"]
        (line,) = [one for one in lines if one.startswith("research")]
        assert all(part in line for part in (" 3 ", " / 2 ", "0 / 1,000", "0 B / 1.0 GiB"))
        (row,) = [
            one for one in json.loads(flmctl(address, "tenants", "-o", "json")) if one["tenant"] == "research"
        ]
        assert (row["weight"], row["max_executors"], row["resources"], row["queued_bytes"]) == (
            3,
            2,
            "cpu=16",
            1 << 30,
        )
        assert row["sessions"] == 1


def test_flmctl_says_what_was_wrong_and_changes_nothing(address: str) -> None:
    assert "no tenant 'reserch'" in flmctl(address, "tenants", "set", "reserch", "--weight", "2", code=4)
    assert "from 0.001" in flmctl(address, "tenants", "set", "research", "--weight", "-2", code=2)
    assert "'64m' or '1g'" in flmctl(address, "tenants", "set", "research", "--queued-bytes", "lots", code=2)
    assert "cpu=1" in flmctl(address, "tenants", "set", "research", "--resources", "cpu", code=2)
    assert "nothing was to be set" in flmctl(address, "tenants", "set", "research", code=2)
