"""What lies in the stores, as clients and `flmctl objects` show it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

import flamezmq as flm
from flamezmq.client.inventory import ObjectStatus
from tests.daemons import LIMIT_SECONDS, environment
from tests.waiting import until

pytestmark = pytest.mark.processes
SIZE = 100_000


@pytest.fixture(scope="module")
def client() -> Iterator[flm.Client]:
    with flm.Client(executors=2) as client:
        client.submit(abs, 1).result(20)  # before that there may be no node, and no store
        yield client


def make(byte: int) -> bytearray:
    return bytearray([byte]) * SIZE


def flmctl(client: flm.Client, *words: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "flamezmq.cli.ctl", "-a", str(client.address), *words],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        env=environment(),
        check=False,
    )
    assert done.returncode == code, done
    return done.stdout if code == 0 else done.stderr


def shown(look: Callable[[], list[ObjectStatus]], count: int) -> list[ObjectStatus]:
    """The objects, once there are so many."""
    found: list[ObjectStatus] = []

    def are_there() -> bool:
        found[:] = look()
        return len(found) == count

    until(are_there, f"{count} objects")
    return found


def test_results_are_shown_as_long_as_their_futures_live(client: flm.Client) -> None:
    with client.session() as session, client.session() as other:
        futures = [session.submit(make, k) for k in range(3)]
        lone = other.submit(make, 9)
        flm.wait([*futures, lone])

        found = shown(lambda: client.objects(session), 3)

        assert all(one.size > SIZE and len(one.nodes) == 1 and not one.copies for one in found)
        assert {one.session for one in found} == {session.id}
        assert len(shown(client.objects, 4)) == 4
        assert [one.session for one in client.objects(other.id)] == [other.id]
        del futures, lone
        session.submit(abs, 1).result(20)  # so that those who held them are done with them
        shown(client.objects, 0)


def test_the_objects_of_a_session_are_not_shown_once_it_has_ended(client: flm.Client) -> None:
    with client.session() as session:
        future = session.submit(make, 1)
        future.exception(20)
        shown(lambda: client.objects(session), 1)
    shown(client.objects, 0)
    assert future.result(20)[:1] == b"\1"


def test_a_session_that_is_none_is_refused(client: flm.Client) -> None:
    with pytest.raises(flm.NotFound, match="no session 'nobodys'"):
        client.objects("nobodys")


def test_event_loops_see_the_same(client: flm.Client) -> None:
    async def look() -> tuple[int, int]:
        async with flm.aio.Client(client.address) as looker:
            return len(await looker.objects()), len(await looker.objects(session.id))

    with client.session() as session:
        future = session.submit(make, 1)
        future.exception(20)
        shown(client.objects, 1)
        assert asyncio.run(look()) == (1, 1)


def test_flmctl_lists_objects_and_how_full_the_stores_are(client: flm.Client) -> None:
    assert "no object is in any store" in flmctl_err(client, "objects")
    with client.session() as session:
        future = session.submit(make, 1)
        future.exception(20)
        (one,) = shown(client.objects, 1)

        (row,) = json.loads(flmctl(client, "objects", session.id, "-o", "json"))
        assert (row["id"], row["session"], row["size"]) == (one.id, session.id, one.size)
        assert row["nodes"] == list(one.nodes)
        head, line = flmctl(client, "objects", "-o", "wide").splitlines()
        assert head.split()[:4] == ["Object", "Session", "Size", "Nodes"]
        assert one.id in line
        (node,) = json.loads(flmctl(client, "list", "-n", "-o", "json"))
        assert (node["objects"], node["name"]) == (1, one.nodes[0])
        assert SIZE < node["store_used"] < node["store_limit"]
        assert f"Objects    1, {SIZE / 1024:.1f} KiB" in flmctl(client, "view", session.id)
        assert "KiB / " in flmctl(client, "list", "-n")
    assert "no session 'nobodys'" in flmctl(client, "objects", "nobodys", code=4)


def flmctl_err(client: flm.Client, *words: str) -> str:
    """What it says on stderr."""
    shown(client.objects, 0)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "flamezmq.cli.ctl", "-a", str(client.address), *words],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        env=environment(),
        check=True,
    )
    return done.stderr


def test_an_object_with_versions_is_one_object_of_the_size_of_all_its_parts(client: flm.Client) -> None:
    with client.session() as session:
        ref = session.put([], name="buffer")
        for _ in range(3):
            ref.append(bytes(SIZE))

        def rows() -> list[ObjectStatus]:
            return client.objects(session.id)

        until(lambda: [row.size > 3 * SIZE for row in rows()] == [True], "all parts in one row")
        assert rows()[0].name == "buffer"
        ref.update([])
        until(lambda: [row.size < SIZE for row in rows()] == [True], "what was replaced has gone")
