"""Event loops whose tasks are cancelled at random moments: nothing hangs, nothing is lost, nothing is left.

A failure names its seed; `SEED=7 python -m pytest tests/test_aio_chaos.py` runs that one.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import flamezmq as flm

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parent.parent
SEEDS = [int(os.environ["SEED"])] if "SEED" in os.environ else [1, 2, 3]
LIMIT_SECONDS = 40.0
DEEDS = 60
AT_A_TIME = 8


def nap(n: int) -> int:
    time.sleep(0.001 * (n % 3))
    return 2 * n


def fail(n: int) -> None:
    raise ValueError(n)


class Program:
    """What a user does in one event loop; `answers` is all that was ever submitted, with its value."""

    def __init__(self, client: flm.aio.Client, rng: random.Random) -> None:
        self.client, self.rng = client, rng
        self.answers: list[tuple[int, flm.aio.Answer]] = []
        self.deeds = [self.one, self.many, self.first, self.map, self.leave_a_map, self.session, self.error]

    def submit(self, where: Any) -> flm.aio.Answer:
        n = len(self.answers)
        answer: flm.aio.Answer = where.submit(nap, n)
        self.answers.append((2 * n, answer))
        return answer

    async def one(self) -> None:
        await self.submit(self.client)

    async def many(self) -> None:
        await asyncio.gather(*[self.submit(self.client) for _ in range(self.rng.randrange(300))])

    async def first(self) -> None:
        """As long as the first takes; the others are cancelled."""
        answers = [self.submit(self.client) for _ in range(20)]
        done, others = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
        assert done
        for answer in others:
            answer.cancel()

    async def map(self) -> None:
        size = self.rng.randrange(300)
        ordered = self.rng.random() < 0.5
        values = [value async for value in self.client.map(nap, range(size), ordered=ordered)]
        assert sorted(values) == [2 * n for n in range(size)]

    async def leave_a_map(self) -> None:
        async for _ in self.client.map(nap, count()):
            if self.rng.random() < 0.05:
                break

    async def session(self) -> None:
        async with self.client.session("brief") as session:
            answers = [self.submit(session) for _ in range(self.rng.randrange(50))]
        await asyncio.gather(*answers)

    async def error(self) -> None:
        with pytest.raises(ValueError):
            await self.client.submit(fail, 1)

    async def run(self) -> None:
        gate = asyncio.Semaphore(AT_A_TIME)

        async def guarded() -> None:
            async with gate:
                deed = asyncio.create_task(self.rng.choice(self.deeds)())
                if self.rng.random() < 0.5:
                    asyncio.get_running_loop().call_later(self.rng.random() * 0.05, deed.cancel)
                await asyncio.wait([deed])
                if not deed.cancelled():
                    deed.result()

        async with asyncio.timeout(LIMIT_SECONDS):
            await asyncio.gather(*[guarded() for _ in range(DEEDS)])


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_is_cancelled_every_answer_ends_and_those_that_were_not_cancelled_are_right(
    seed: int,
) -> None:
    programs: list[Program] = []

    async def main() -> None:
        async with flm.aio.Client(executors=2) as client:
            programs.extend(Program(client, random.Random(seed * 10 + n)) for n in range(2))
            other = threading.Thread(target=asyncio.run, args=(programs[1].run(),))
            other.start()
            await programs[0].run()
            await asyncio.to_thread(other.join, LIMIT_SECONDS)
            assert not other.is_alive()
            async with asyncio.timeout(LIMIT_SECONDS):
                while (status := await client._own.status()).pending or status.running:
                    await asyncio.sleep(0.005)
                while client.statistics()["unfinished"]:
                    await asyncio.sleep(0.005)

    asyncio.run(main())

    for program in programs:
        assert len(program.answers) > 100
        for value, answer in program.answers:
            assert answer.done(), seed
            assert answer.cancelled() or answer.result() == value, seed
        assert any(not answer.cancelled() for _, answer in program.answers)


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.15, 0.3, 0.5])
def test_ctrl_c_again_and_again_ends_the_program(delay: float) -> None:
    """While it opens, works, and closes."""
    program = f"""
import asyncio, os, signal, sys, threading, time
import flamezmq as flm

async def main():
    async with flm.aio.Client(executors=2) as client:
        async with client.session("x") as session:
            session.submit(time.sleep, 30)
            await asyncio.gather(*[client.submit(time.sleep, 30) for _ in range(10)])

def interrupt():
    time.sleep({delay})
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)

flm.aio.Client
threading.Thread(target=interrupt, daemon=True).start()
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )

    assert done.returncode in (-signal.SIGINT, 1), done.stderr
    assert "KeyboardInterrupt" in done.stderr
