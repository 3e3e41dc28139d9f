"""What the soak of objects does: values that can be made again from a seed, tasks that check them, clients.

As a program, `python -m tests.soak_objects ADDRESS SEED`: a client that works until it is killed.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy

import flamezmq as flm
from flamezmq.errors import FlameError

Array = numpy.ndarray[Any, Any]

#: Bytes of a value: in its message, in the store's heap, in segments.
SIZES = (0, 10, 5_000, 60_000, 70_000, 300_000, 2_000_000)
WAIT_SECONDS = 60.0
#: References, and views of their values, that a client keeps for later.
MOST_KEPT = 12
#: What may become of a value while workers and routers are killed.
LOST = (flm.ObjectLost, flm.StoreLost, flm.TaskLost, flm.DependencyFailed, flm.StoreFull)


# --- tasks


def made(seed: int, size: int) -> Array:
    """The value of this seed."""
    return numpy.frombuffer(bytearray(random.Random(seed).randbytes(size)), numpy.uint8)


def check(value: Array, seed: int) -> int:
    """Whether it is the value of this seed; its size."""
    assert numpy.array_equal(value, made(seed, len(value))), f"not the value of {seed}, {len(value)} bytes"
    return len(value)


def check_all(values: dict[int, Array]) -> int:
    """By seed."""
    return sum(check(value, seed) for seed, value in values.items())


def check_twice(value: Array, seed: int, seconds: float) -> int:
    """The second time after a while, in which its object may go."""
    check(value, seed)
    time.sleep(seconds)
    return check(value, seed)


def scribble(value: Array, seed: int) -> Array:
    """Turn each bit over, in place: what came by value is the task's own."""
    check(value, seed)
    numpy.invert(value, out=value)
    return value


# --- a client


class Load:
    """One client after the other; each kind of work checks all values that it gets to see.

    checked  how many that were; lost: what became of the others, by the names of errors
    """

    def __init__(self, address: str, seed: int) -> None:
        self.address = address
        self.random = random.Random(seed)
        self.checked = 0
        self.lost: Counter[str] = Counter()
        self.client: flm.Client
        self._kept: list[tuple[flm.ObjectRef, int, Array]] = []

    def run(self, until_when: float) -> None:
        """Until then; a client whose router is gone is followed by another one."""
        while time.monotonic() < until_when:
            try:
                self.client = flm.Client(self.address, forward_output=False, connect_timeout=WAIT_SECONDS)
                with self.client:
                    self._work(until_when)
            except (flm.RouterLost, flm.ClientClosed) as error:
                self.lost[type(error).__name__] += 1
            self._kept.clear()

    def _work(self, until_when: float) -> None:
        kinds: list[Callable[[], None]] = [
            self.arguments, self.results, self.chained, self.written, self.shared, self.nested, self.kept,
            self.freed, self.closed, self.left, self.long,
        ]  # fmt: skip
        while time.monotonic() < until_when:
            with self.losses():
                self.random.choice(kinds)()

    @contextlib.contextmanager
    def losses(self) -> Iterator[None]:
        try:
            yield
        except LOST as error:
            self.lost[type(error).__name__] += 1

    def draw(self) -> tuple[int, Array]:
        seed = self.random.randrange(1 << 30)
        return seed, made(seed, self.random.choice(SIZES))

    def session(self) -> flm.Session:
        return self.client.session("soak", max_retries=100)

    def expect(self, futures: list[tuple[flm.Future, int]]) -> None:
        """These tasks return so much."""
        for future, size in futures:
            with self.losses():
                assert future.result(WAIT_SECONDS) == size
                self.checked += 1

    def arguments(self) -> None:
        with self.session() as session:
            drawn = [self.draw() for _ in range(10)]
            self.expect([(session.submit(check, value, seed), len(value)) for seed, value in drawn])

    def results(self) -> None:
        with self.session() as session:
            asked = [(self.random.randrange(1 << 30), self.random.choice(SIZES)) for _ in range(10)]
            futures = [session.submit(made, seed, size) for seed, size in asked]
            for future, (seed, size) in zip(futures, asked, strict=True):
                with self.losses():
                    assert check(future.result(WAIT_SECONDS), seed) == size
                    self.checked += 1

    def chained(self) -> None:
        with self.session() as session:
            asked = [(self.random.randrange(1 << 30), self.random.choice(SIZES)) for _ in range(6)]
            futures = {seed: session.submit(made, seed, size) for seed, size in asked}
            self.expect([(session.submit(check_all, futures), sum(size for _, size in asked))])
            self.expect([(session.submit(check, futures[seed], seed), size) for seed, size in asked])

    def written(self) -> None:
        with self.session() as session:
            seed, value = self.draw()
            futures = [session.submit(scribble, value, seed) for _ in range(4)]
            for future in futures:
                with self.losses():
                    check(~future.result(WAIT_SECONDS), seed)
                    self.checked += 1
            check(value, seed)

    def shared(self) -> None:
        with self.session() as session:
            seed, value = self.draw()
            ref = session.put(value)
            self.expect([(session.submit(check, ref, seed), len(value)) for _ in range(6)])
            check(ref.get(), seed)
            check(session.get([ref, ref], copy=True)[1], seed)
            self.checked += 2

    def nested(self) -> None:
        with self.session() as session:
            values = dict(self.draw() for _ in range(5))
            refs = {seed: session.put(value) for seed, value in values.items()}
            size = sum(map(len, values.values()))
            self.expect([(session.submit(check_all, refs), size) for _ in range(3)])

    def kept(self) -> None:
        """Views stay as they are, whatever becomes of their objects."""
        seed, value = self.draw()
        ref = self.client.put(value)
        self._kept.append((ref, seed, ref.get()))
        while len(self._kept) > MOST_KEPT:
            self._kept.pop(self.random.randrange(len(self._kept)))
        for one in list(self._kept):
            ref, seed, view = one
            check(view, seed)
            self.checked += 1
            try:
                check(ref.get(), seed)
            except flm.ObjectLost:
                self._kept.remove(one)
                raise

    def freed(self) -> None:
        seed, value = self.draw()
        ref = self.client.put(value)
        view = ref.get()
        self.client.free(ref)
        check(view, seed)
        with contextlib.suppress(*LOST):
            ref.get()
            raise AssertionError("it was freed, and is there")

    def closed(self) -> None:
        """Values of futures outlive their session."""
        with self.session() as session:
            asked = [(self.random.randrange(1 << 30), self.random.choice(SIZES)) for _ in range(4)]
            futures = [session.submit(made, seed, size) for seed, size in asked]
        for future, (seed, _) in zip(futures, asked, strict=True):
            with self.losses():
                check(future.result(WAIT_SECONDS), seed)
                self.checked += 1

    def left(self) -> None:
        """Nobody waits for these, and nobody wants their values."""
        session = self.session()
        for _ in range(5):
            seed, value = self.draw()
            session.submit(scribble, value, seed)
        session.close(cancel=self.random.random() < 0.5)

    def long(self) -> None:
        with self.session() as session:
            seed, value = self.draw()
            ref = session.put(value)
            futures = [(session.submit(check_twice, what, seed, 0.1), len(value)) for what in (ref, value)]
            del ref  # the task holds it
            self.expect(futures)


def main() -> None:
    """Work until killed, or until the parent is gone."""
    load, parent = Load(sys.argv[1], int(sys.argv[2])), os.getppid()
    while os.getppid() == parent:
        try:
            load.run(time.monotonic() + 1.0)
        except FlameError as error:  # the router is away for longer than a client waits
            print(error, file=sys.stderr)


if __name__ == "__main__":
    main()
