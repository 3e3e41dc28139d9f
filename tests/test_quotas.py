"""Quotas of tenants in a real cluster: `submit` waits or fails, and nothing is lost on the way."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flamezmq as flm
from tests.test_faults import CuttingProxy
from tests.waiting import until

pytestmark = pytest.mark.processes

SETTINGS = """
[tenants.research]
queued_tasks = 10

[tenants.heavy]
queued_bytes = "1m"
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[flm.Client]:
    file = tmp_path_factory.mktemp("settings") / "flamezmq.toml"
    file.write_text(SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAMEZMQ_CONFIG", str(file))
        one = flm.Client("", executors=2)
    with one:
        yield one


class Gate:
    """Tasks wait until it opens."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "open")

    def __call__(self, value: Any, *_: Any) -> Any:
        while not os.path.exists(self.path):
            time.sleep(0.005)
        return value

    def open(self) -> None:
        Path(self.path).touch()


def test_submit_waits_until_others_have_begun_and_all_get_done(client: flm.Client, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    futures: list[flm.Future] = []
    with client.session("many", tenant="research") as session:
        thread = threading.Thread(target=lambda: futures.extend(session.submit(gate, i) for i in range(60)))
        thread.start()
        until(lambda: session.status().pending >= 11, "the quota is used up")
        time.sleep(0.05)  # more would have come by now

        assert (
            session.status().pending <= 13
        )  # 10 are queued, two executors hold one or two, one is in submit
        assert thread.is_alive()
        gate.open()
        thread.join(30)
        assert [future.result(30) for future in futures] == list(range(60))


def test_what_is_over_the_quota_fails_at_once_where_that_was_asked_for(
    client: flm.Client, tmp_path: Path
) -> None:
    gate = Gate(tmp_path)
    with client.session("first", tenant="research", over_quota="fail") as session:
        futures = [session.submit(gate, i) for i in range(40)]
        until(lambda: sum(future.done() for future in futures) >= 26, "what is over it has failed")
        gate.open()

        ends = [future.exception(30) for future in futures]
        errors = [error for error in ends if error is not None]
        assert 26 <= len(errors) < 40
        assert {type(error) for error in errors} == {flm.QuotaExceeded}
        error = errors[0]
        assert isinstance(error, flm.QuotaExceeded)
        assert (error.tenant, error.quota, error.limit) == ("research", "queued_tasks", 10)
        assert "tenant research may have no more than 10 queued tasks" in str(error)
        assert session.submit(abs, -1).result(30) == 1


def test_large_arguments_wait_too_and_one_that_is_larger_than_the_quota_goes_alone(
    client: flm.Client,
) -> None:
    with client.session("heavy", tenant="heavy") as session:
        futures = [session.submit(len, bytes(100_000 + i)) for i in range(50)]
        futures.append(session.submit(len, bytes(3_000_000)))

        assert [future.result(30) for future in futures] == [*(100_000 + i for i in range(50)), 3_000_000]


def test_map_nested_tasks_actors_and_needs_get_done_with_little_room(client: flm.Client) -> None:
    def nested(count: int) -> int:
        inner = flm.current().client
        return sum(future.result() for future in [inner.submit(abs, i) for i in range(count)])

    class Adder:
        total = 0

        def add(self, x: int) -> int:
            self.total += x
            return self.total

    with client.session("all", tenant="research") as session:
        assert list(session.map(abs, range(500), chunksize=2)) == list(range(500))
        assert [f.result(30) for f in [session.submit(nested, 30) for _ in range(20)]] == [435] * 20
        chain = session.submit(int, 0)
        for _ in range(30):
            chain = session.submit(lambda x: x + 1, chain)
        assert chain.result(30) == 30
        adder = session.actor(Adder)
        assert [call.result(30) for call in [adder.add(1) for _ in range(30)]] == list(range(1, 31))


def test_an_event_loop_is_never_blocked(client: flm.Client, tmp_path: Path) -> None:
    gate = Gate(tmp_path)

    async def main() -> list[int]:
        async with (
            flm.aio.Client(client.address) as other,
            other.session("loop", tenant="research") as session,
        ):
            answers = [session.submit(gate, i) for i in range(50)]
            gate.open()
            return list(await asyncio.gather(*answers))

    assert asyncio.run(main()) == list(range(50))


def test_a_connection_that_is_cut_loses_no_room(client: flm.Client, tmp_path: Path) -> None:
    proxy = CuttingProxy(str(tmp_path / "p"), client.address.removeprefix("ipc://"), 7)
    proxy.start()
    try:
        with flm.Client(proxy.address) as other, other.session("cut", tenant="research") as session:
            futures = [session.submit(bytes, 5000) for _ in range(500)]
            assert all(future.result(30) == bytes(5000) for future in futures)
        assert proxy.cuts > 2
    finally:
        proxy.stop()


def test_a_client_that_is_gone_gives_its_share_back(client: flm.Client, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    other = flm.Client(client.address)
    hog = other.session("hog", tenant="research", over_quota="fail")
    futures = [hog.submit(gate, i) for i in range(40)]
    until(lambda: sum(future.done() for future in futures) >= 26, "the quota is used up")
    other.close()
    gate.open()

    with client.session("next", tenant="research") as session:
        assert [f.result(30) for f in [session.submit(abs, i) for i in range(20)]] == list(range(20))


def test_what_is_submitted_in_vain_says_so() -> None:
    with flm.Client("", executors=1) as client, pytest.raises(ValueError, match="must be 'wait' or 'fail'"):
        client.session(over_quota="block")


def test_a_client_says_what_tenants_of_its_own_cluster_may_have_and_no_more_executors_serve_them() -> None:
    limits = {"labs": flm.Tenant(max_executors=1, weight=3.0)}
    with (
        flm.Client("", executors=3, tenants=limits) as client,
        client.session("one", tenant="labs", min_executors=2) as one,
        client.session("free") as free,
    ):
        pids = {future.result(30) for future in [one.submit(work) for _ in range(20)]}
        others = {future.result(30) for future in [free.submit(work) for _ in range(60)]}

        assert len(pids) == 1
        assert len(others | pids) == 3, "what the tenant leaves serves others"


def work() -> int:
    time.sleep(0.02)
    return os.getpid()


@pytest.mark.parametrize(
    ("tenants", "address", "error", "complaint"),
    [
        ({}, "tcp://127.0.0.1:1", ValueError, "`tenants` is for an embedded cluster"),
        ({"labs": 3}, "", TypeError, "flm.Tenant"),
        (
            {"labs": flm.Tenant(weight=0.0)},
            "",
            ValueError,
            "weight of 'labs': 0.0 is not a number",
        ),
        (
            {"labs": flm.Tenant(resources="cpu")},
            "",
            ValueError,
            "resources of 'labs': resources are",
        ),
    ],
)
def test_what_a_client_says_of_tenants_that_makes_no_sense_is_refused(
    tenants: Any, address: str, error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        flm.Client(address, tenants=tenants)
