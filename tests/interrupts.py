"""A program that is interrupted at random moments: `python interrupts.py SEED`; says "nothing lost" if so.

In a process of its own: an interrupt may also land in a finalizer, which Python only prints.
"""

from __future__ import annotations

import random
import signal
import sys
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

import flamezmq as flm

SECONDS = 2.0
#: So many interrupts are due, however busy the machine is.
ENOUGH, LIMIT_SECONDS = 20, 30.0
WAIT_SECONDS = 10


class Program:
    """What a user does at a prompt, with Ctrl-C."""

    def __init__(self, client: flm.Client, rng: random.Random) -> None:
        self.client, self.rng = client, rng
        self.futures: list[tuple[int, Any]] = []  # all that `submit` has returned
        self.deeds: list[Callable[[], None]] = [
            self.result,
            self.wait,
            self.as_completed,
            self.map,
            self.cancel,
            self.futures_as_arguments,
            self.session,
            self.another_client,
        ]
        self.clients: list[flm.Client] = []

    def submit(self) -> None:
        for _ in range(self.rng.randrange(1, 300)):
            value = len(self.futures)
            self.futures.append((value, self.client.submit(abs, -value)))

    def recent(self) -> list[tuple[int, Any]]:
        return self.futures[-self.rng.randrange(1, 200) :]

    def result(self) -> None:
        for value, future in self.recent()[-3:]:
            assert future.result(WAIT_SECONDS) == value

    def wait(self) -> None:
        kind = self.rng.choice(["ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"])
        futures = [future for _, future in self.recent()]
        done, not_done = flm.wait(futures, WAIT_SECONDS, kind)
        assert done
        assert len(done) + len(not_done) == len(futures)

    def as_completed(self) -> None:
        futures = [future for _, future in self.recent()]
        assert len(list(flm.as_completed(futures, WAIT_SECONDS))) == len(futures)

    def map(self) -> None:
        count = self.rng.randrange(1, 2000)
        ordered = self.rng.random() < 0.5
        assert sorted(self.client.map(abs, range(count), ordered=ordered)) == list(range(count))

    def cancel(self) -> None:
        future = self.client.submit(abs, -1)
        assert future.cancel() == future.cancelled()

    def futures_as_arguments(self) -> None:
        for value, future in self.recent()[:50]:
            self.futures.append((value, self.client.submit(abs, self.client.submit(abs, future))))
        value, future = self.recent()[0]
        with self.client.session("brief") as session:
            assert session.submit(sum, [future, future]).result(WAIT_SECONDS) == 2 * value
        doomed = self.client.submit(abs, -1)
        needs_it = self.client.submit(abs, doomed)
        if doomed.cancel():
            assert isinstance(needs_it.exception(WAIT_SECONDS), flm.DependencyFailed)

    def session(self) -> None:
        with self.client.session("brief") as session:
            future = session.submit(abs, -3)
        assert future.result(0) == 3

    def another_client(self) -> None:
        client = flm.Client(self.client.address)
        self.clients.append(client)
        assert client.submit(abs, -4).result(WAIT_SECONDS) == 4
        client.close()

    def step(self) -> None:
        self.submit()
        self.rng.choice(self.deeds)()


def main(seed: int) -> None:
    rng = random.Random(seed)
    me = threading.get_ident()
    over = threading.Event()
    armed = False

    def interrupt(*_: Any) -> None:
        nonlocal armed
        if armed:  # else it would land in what this program does about the last one
            armed = False
            raise KeyboardInterrupt

    def nag() -> None:
        pauses = random.Random(seed)
        while not over.wait(pauses.uniform(0.0005, 0.02)):
            signal.pthread_kill(me, signal.SIGUSR1)

    with flm.Client(executors=2) as client:
        program = Program(client, rng)
        interrupts = 0
        signal.signal(signal.SIGUSR1, interrupt)
        nagger = threading.Thread(target=nag)
        nagger.start()
        began = monotonic()

        def goes_on() -> bool:
            seconds = monotonic() - began
            return seconds < SECONDS or (interrupts <= ENOUGH and seconds < LIMIT_SECONDS)

        while goes_on():
            try:
                while goes_on():
                    armed = True  # again and again: one that lands in a finalizer comes to nothing
                    program.step()
                armed = False
            except KeyboardInterrupt:
                interrupts += 1
        over.set()
        nagger.join()
        assert interrupts > ENOUGH, interrupts
        for value, future in program.futures:
            assert future.result(WAIT_SECONDS) == value
        assert client.submit(abs, -5).result(WAIT_SECONDS) == 5
        with client.session() as session:
            assert session.status().pending == 0
        for brief in list(client._sessions.values()):  # one that was opened, but came to no `with`
            if brief is not client._default:
                assert brief._calls.opened
                brief.close()
        for other in program.clients:
            other.close()
        left = [thread for thread in threading.enumerate() if thread.name.startswith("flm-")]
        assert set(left) == {client._pump.keeper, client._errands.thread}, left
    print("nothing lost")


if __name__ == "__main__":
    main(int(sys.argv[1]))
