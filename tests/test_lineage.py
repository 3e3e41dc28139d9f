"""Sessions with lineage: what is lost with a node is made again."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import flamezmq as flm
from flamezmq.errors import ObjectLost
from tests.daemons import daemons_in
from tests.two_nodes import SIZE, TwoNodes
from tests.waiting import LIMIT_SECONDS, until

pytestmark = pytest.mark.processes


def note(folder: Path, what: str) -> None:
    """That it has run."""
    with (folder / what).open("a") as out:
        out.write(".")


def runs(folder: Path, what: str) -> int:
    return len((folder / what).read_text()) if (folder / what).exists() else 0


def first(folder: Path) -> bytes:
    note(folder, "first")
    return b"1" * SIZE


def grown(folder: Path, what: str, *values: bytes) -> bytes:
    note(folder, what)
    return b"".join(values) + b"2" * SIZE


def digest(*values: bytes) -> str:
    return hashlib.sha256(b"".join(values)).hexdigest()


ONE = b"1" * SIZE
TWO = ONE + b"2" * SIZE


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[TwoNodes]:
    with daemons_in(tmp_path) as daemons:
        nodes = TwoNodes(daemons)
        with nodes.client:
            yield nodes


def test_a_result_that_was_lost_is_there_again_for_who_asks(nodes: TwoNodes, tmp_path: Path) -> None:
    with nodes.client.session(lineage=True) as session:
        future = nodes.made_on(session, "a", first, tmp_path)
        before = runs(tmp_path, "first")
        nodes.lose("a")
        assert future.done()
        assert future.result(LIMIT_SECONDS) == ONE
        assert runs(tmp_path, "first") == before + 1
        assert future.result() is future.result()
        assert session.submit(digest, future).result(LIMIT_SECONDS) == digest(ONE)
        assert runs(tmp_path, "first") == before + 1, "what was made again is what others get"


def test_a_task_whose_argument_was_lost_has_it_made_again(nodes: TwoNodes, tmp_path: Path) -> None:
    with nodes.client.session(lineage=True) as session:
        future = nodes.made_on(session, "a", first, tmp_path)
        before = runs(tmp_path, "first")
        nodes.lose("a")
        assert session.submit(digest, future).result(LIMIT_SECONDS) == digest(ONE)
        assert runs(tmp_path, "first") == before + 1
        assert future.result(LIMIT_SECONDS) == ONE
        assert runs(tmp_path, "first") == before + 1
        status = session.status()
        assert (status.failed, status.pending) == (0, 0)


@pytest.mark.slow
def test_tasks_that_wait_at_the_router_get_what_is_made_again(nodes: TwoNodes, tmp_path: Path) -> None:
    go = tmp_path / "go"

    def slow() -> bytes:
        until(go.exists, "the word to go on")
        return b""

    with nodes.client.session(lineage=True) as session:
        lost = nodes.made_on(session, "a", first, tmp_path)
        both = session.submit(grown, tmp_path, "both", lost, session.submit(slow))
        behind = session.submit(digest, both)
        last = session.submit(len, behind)
        nodes.lose("a")
        go.touch()
        assert behind.result(LIMIT_SECONDS) == digest(TWO)
        assert last.result(LIMIT_SECONDS) == 64
        assert runs(tmp_path, "both") == 1, "it has begun only when all was there"


@pytest.mark.slow
def test_what_it_was_made_of_is_made_again_first(nodes: TwoNodes, tmp_path: Path) -> None:
    with nodes.client.session(lineage=True) as session:
        start = nodes.made_on(session, "a", first, tmp_path)
        made = nodes.made_on(session, "a", grown, tmp_path, "second", start)
        del start  # nobody has it any more
        before = runs(tmp_path, "first"), runs(tmp_path, "second")
        nodes.lose("a")
        assert made.result(LIMIT_SECONDS) == TWO
        assert (runs(tmp_path, "first"), runs(tmp_path, "second")) == (before[0] + 1, before[1] + 1)


@pytest.mark.slow
def test_it_is_made_again_as_often_as_max_retries_says(nodes: TwoNodes, tmp_path: Path) -> None:
    with nodes.client.session(lineage=True, max_retries=1) as session:
        future = nodes.made_on(session, "a", first, tmp_path)
        nodes.lose("a")
        assert session.submit(digest, future).result(LIMIT_SECONDS) == digest(ONE)
        nodes.gain("a")
        nodes.lose("b")
        with pytest.raises(ObjectLost, match=r"node b.*max_retries"):
            future.result(LIMIT_SECONDS)


@pytest.mark.slow
def test_what_can_not_be_made_again_says_why(nodes: TwoNodes, tmp_path: Path) -> None:
    def once() -> bytes:
        note(tmp_path, "once")
        if runs(tmp_path, "once") > 4:
            raise ValueError("no more")
        return b"1" * SIZE

    with nodes.client.session(lineage=True) as session:
        future = nodes.made_on(session, "a", lambda _: once())
        plain = nodes.made_on(nodes.client, "a", first, tmp_path)
        nodes.lose("a")
        for _ in range(5 - runs(tmp_path, "once")):
            note(tmp_path, "once")
        with pytest.raises(ObjectLost, match=r"its task was run again, and failed with ValueError: no more"):
            future.result(LIMIT_SECONDS)
        error = session.submit(digest, plain).exception(LIMIT_SECONDS)
        assert isinstance(error, ObjectLost), "the session of the task that has made it has no lineage"
        needy = session.submit(digest, future).exception(LIMIT_SECONDS)
        assert isinstance(needy, flm.DependencyFailed)


def all_done(futures: list[Any]) -> bool:
    return all(future.done() for future in futures)


def has_been_on(node: str, futures: list[Any]) -> bool:
    """Whether a value of theirs lies in the store of this node."""
    return any(future._hold is not None and future._hold.handle.node == node for future in futures)


@pytest.mark.slow
def test_event_loops_get_it_again_too(nodes: TwoNodes, tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            flm.aio.Client(nodes.address) as client,
            client.session("loop", lineage=True) as session,
        ):
            for _ in range(50):  # until the node that is to be lost has had something of both
                answers = [session.submit(first, tmp_path) for _ in range(6)]
                mapped = session.map(grown, [tmp_path] * 6, ["mapped"] * 6, chunksize=1)
                slices = list(mapped._slices.on_way)
                lights = [answer._light for answer in answers]
                # The loop hears of nothing before the node is lost.
                until(partial(all_done, [*slices, *lights]))
                if has_been_on("a", slices) and has_been_on("a", lights):
                    break
            before = runs(tmp_path, "first")
            nodes.lose("a")
            assert [await answer for answer in answers] == [ONE] * 6
            assert [value async for value in mapped] == [b"2" * SIZE] * 6
            assert runs(tmp_path, "first") > before

    asyncio.run(asyncio.wait_for(main(), 2 * LIMIT_SECONDS))


def test_sessions_that_can_not_have_lineage_say_so(nodes: TwoNodes) -> None:
    client: Any = nodes.client
    for options, words in (
        ({"id": "x"}, "one client"),
        ({"detached": True}, "one client"),
        ({"max_retries": 0}, "max_retries=0"),
    ):
        with pytest.raises(ValueError, match=words):
            client.session(lineage=True, **options)
    with pytest.raises(TypeError, match="True or False"):
        client.session(lineage=1)
    nested = client.submit(lambda: flm.current().client.session(lineage=True))
    with pytest.raises(ValueError, match="nested"):
        nested.result(LIMIT_SECONDS)
