"""Two workers with stores of their own: tasks run where their data is, and people are told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

import flamezmq as flm
from tests.daemons import daemons_in, free_port

pytestmark = pytest.mark.processes
SIZE = 4 << 20


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[flm.Client]:
    address = f"tcp://127.0.0.1:{free_port()}"
    with daemons_in(tmp_path_factory.mktemp("locality")) as daemons:
        daemons.router(address)
        for name in "ab":
            daemons.worker(address, "--node", name, executors=2).wait_for("registered")
        with flm.Client(address) as client:
            yield client


def node() -> bytes:
    """The zygote of this executor: each node has one."""
    return os.getppid().to_bytes(8, "big")


def make(_: int) -> bytes:
    return node() * (SIZE // 8)


def is_here(*data: Any) -> list[bool]:
    return [one[:8] == node() for one in data]


def test_tasks_go_to_the_node_of_the_results_that_they_take(client: flm.Client) -> None:
    made = [client.submit(make, k) for k in range(8)]
    flm.wait(made)
    used = [client.submit(is_here, one).result(30) for one in made for _ in range(3)]
    assert used == [[True]] * 24


def test_a_chain_stays_where_it_began(client: flm.Client) -> None:
    for _ in range(4):
        link: Any = client.submit(make, 1)
        for _ in range(5):
            link = client.submit(same_place, link)
        assert link.result(30)[:8] != b"elsewhere"[:8]


def same_place(data: bytes) -> bytes:
    return data if data[:8] == node() else b"elsewhere" * SIZE


def test_of_several_the_larger_ones_decide(client: flm.Client) -> None:
    made = [client.submit(make, k) for k in range(16)]
    flm.wait(made)
    by_node: dict[bytes, list[Any]] = {}
    for one in made:
        by_node.setdefault(client.submit(bytes.__getitem__, one, slice(0, 8)).result(30), []).append(one)
    few, many = sorted(by_node.values(), key=len)
    assert sum(client.submit(is_here, few[0], *many[:3]).result(30)) == 3


def test_the_objects_are_seen_on_their_nodes(client: flm.Client) -> None:
    with client.session() as session:
        made = [session.submit(make, k) for k in range(8)]
        flm.wait(made)
        homes = {one.nodes[0] for one in client.objects(session)}
        assert homes <= {"a", "b"}
