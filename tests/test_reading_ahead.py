"""Results that lie in a store are opened several at a time, and each future has its own value."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

import flamezmq as flm
from flamezmq.client.reading import OPENED
from flamezmq.store.access import Connection

pytestmark = pytest.mark.processes

SIZE = 100_000
LIMIT_SECONDS = 30


@pytest.fixture(scope="module")
def client() -> Iterator[flm.Client]:
    with flm.Client("", executors=2) as client:
        yield client


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many objects each question has asked for."""
    found: list[int] = []
    ask = Connection.ask

    def counted(self: Connection, question: Any) -> Any:
        if type(question).__name__ == "Open":
            found.append(len(question.ids))
        return ask(self, question)

    monkeypatch.setattr(Connection, "ask", counted)
    return found


def body(number: int) -> bytes:
    return number.to_bytes(4, "big") * (SIZE // 4)


def finished(session: flm.Session, count: int) -> list[flm.Future]:
    futures = [session.submit(body, number) for number in range(count)]
    flm.wait(futures, LIMIT_SECONDS)
    return futures


def test_who_takes_results_in_their_order_asks_seldom(client: flm.Client, opened: list[int]) -> None:
    with client.session() as session:
        futures = finished(session, 60)
        assert [future.result() for future in futures] == [body(number) for number in range(60)]

    assert sum(opened) == 60
    assert len(opened) < 12


def test_who_takes_them_in_another_order_opens_few_that_he_does_not_take(
    client: flm.Client, opened: list[int]
) -> None:
    with client.session() as session:
        futures = finished(session, 60)
        for number in reversed(range(60)):
            assert futures[number].result() == body(number)

    assert len(opened) == 60
    assert sum(opened) < 100


def test_a_value_that_was_opened_ahead_is_the_readers_own_and_goes_with_its_future(
    client: flm.Client,
) -> None:
    with client.session() as session:
        futures = [session.submit(bytearray, body(number)) for number in range(8)]
        flm.wait(futures, LIMIT_SECONDS)
        values = [future.result() for future in futures[:4]]
        assert any(OPENED in future.__dict__ for future in futures[4:])
        for number, value in enumerate(values):
            value[:4] = b"mine"
            assert value[4:] == body(number)[4:]
        passed_on = session.submit(bytes, futures[0]).result(LIMIT_SECONDS)
        assert passed_on == body(0), "what was done to it here has not reached the object"
        del futures
        gc.collect()
        assert session.submit(len, b"next").result(LIMIT_SECONDS) == 4


def test_results_that_were_opened_ahead_outlive_their_session(client: flm.Client) -> None:
    with client.session() as session:
        futures = finished(session, 20)
        assert futures[0].result() == body(0)
        assert futures[1].result() == body(1)

    assert [future.result() for future in futures] == [body(number) for number in range(20)]
