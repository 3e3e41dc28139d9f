"""Quotas of tenants and sessions with an id: they count, and are held back, as all others are."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import flamezmq as flm
from tests.daemons import LIMIT_SECONDS, daemons_in, free_port
from tests.test_quotas import Gate
from tests.waiting import until

pytestmark = pytest.mark.processes

SETTINGS = """
[tenants.research]
queued_tasks = 10
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A router with this quota, and one worker of two executors."""
    folder = tmp_path_factory.mktemp("quotas")
    file = folder / "flamezmq.toml"
    file.write_text(SETTINGS)
    place = f"tcp://127.0.0.1:{free_port()}"
    with daemons_in(folder) as daemons:
        daemons.router(place, FLAMEZMQ_CONFIG=str(file))
        daemons.worker(place, executors=2).wait_for("registered")
        yield place


@pytest.fixture
def first(address: str) -> Iterator[flm.Client]:
    with flm.Client(address) as client:
        yield client


@pytest.fixture
def second(address: str) -> Iterator[flm.Client]:
    with flm.Client(address) as client:
        yield client


def refused(futures: list[flm.Future]) -> int:
    return sum(future.done() and future.exception() is not None for future in futures)


def test_members_share_a_quota_and_submit_waits_for_room_in_each(
    first: flm.Client, second: flm.Client, tmp_path: Path
) -> None:
    gate = Gate(tmp_path)
    mine: list[flm.Future] = []
    theirs: list[flm.Future] = []
    with (
        first.session("many", id="both", tenant="research") as session,
        second.session("many", id="both", tenant="research") as other,
    ):
        threads = [
            threading.Thread(target=lambda: mine.extend(session.submit(gate, i) for i in range(40))),
            threading.Thread(target=lambda: theirs.extend(other.submit(gate, -i) for i in range(40))),
        ]
        for thread in threads:
            thread.start()
        until(lambda: session.status().pending >= 9, "the quota is used up, but for what is handed out ahead")
        assert session.status().pending <= 14  # 10 are queued, two executors hold one or two
        assert all(thread.is_alive() for thread in threads)
        gate.open()
        for thread in threads:
            thread.join(LIMIT_SECONDS)
        assert [future.result(LIMIT_SECONDS) for future in mine] == list(range(40))
        assert [future.result(LIMIT_SECONDS) for future in theirs] == [-i for i in range(40)]


def test_what_a_detached_session_has_queued_counts_when_its_client_is_gone_and_who_attaches_is_bounded_too(
    address: str, second: flm.Client, tmp_path: Path
) -> None:
    gate = Gate(tmp_path)
    with flm.Client(address) as gone:
        night = gone.session("night", id="night", detached=True, tenant="research", over_quota="fail")
        futures = [night.submit(gate, i) for i in range(40)]
        until(lambda: refused(futures) >= 26, "what is over the quota has failed")
        error = next(f.exception() for f in futures if f.done() and f.exception() is not None)
        assert isinstance(error, flm.QuotaExceeded)
        night.leave()

    with second.session("day", tenant="research", over_quota="fail") as day:
        more = [day.submit(gate, i) for i in range(20)]
        until(lambda: refused(more) >= 10, "those that the detached session has queued count")
        attached = second.attach("night", over_quota="fail")
        assert isinstance(attached.submit(gate, 1).exception(LIMIT_SECONDS), flm.QuotaExceeded)
        gate.open()
        assert all(future.exception(LIMIT_SECONDS) is None for future in attached.futures())
        assert attached.submit(abs, -1).result(LIMIT_SECONDS) == 1
        attached.close()
    with pytest.raises(ValueError, match="'wait' or 'fail'"):
        second.attach("night", over_quota="never")


def test_the_block_of_a_detached_session_ends_when_the_router_has_taken_all(
    address: str, second: flm.Client
) -> None:
    with flm.Client(address) as gone:
        with gone.session("all", id="all", detached=True, tenant="research") as session:
            for i in range(100):
                session.submit(abs, -i)
    later = second.attach("all")
    assert sorted(future.result(LIMIT_SECONDS) for future in later.futures()) == list(range(100))
    later.close()


def test_an_event_loop_is_not_blocked_by_the_quota_of_a_session_that_it_has_joined(
    address: str, tmp_path: Path
) -> None:
    gate = Gate(tmp_path)

    async def main() -> None:
        async with flm.aio.Client(address) as client:
            async with client.session("loop", id="loop", detached=True, tenant="research") as session:
                answers = [session.submit(gate, i) for i in range(50)]
                assert "tenant research may have 10 tasks queued" in await session.explain(answers[49])
                async with client.attach("loop", over_quota="fail") as same:
                    more = [same.submit(gate, i) for i in range(50)]
                    ends = await asyncio.wait_for(
                        asyncio.gather(*more[20:], return_exceptions=True), LIMIT_SECONDS
                    )
                    assert {type(end) for end in ends} == {flm.QuotaExceeded}
                    gate.open()
                    assert list(await asyncio.gather(*answers)) == list(range(50))
                await session.aclose()

    asyncio.run(main())
