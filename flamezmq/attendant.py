"""The attendant: the executor's second thread, which serves the line while a task runs for long.

It looks now and then whether the same task still runs; if so it stands in for
the main thread: it sends what has ended, answers the router, and rings for
interrupts, as far as the GIL lets it.  When the main thread wants the line it
says so before it looks whether the attendant has it, and the attendant says that
it attends before it looks for such a claim: so one of the two sees the other.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from flamezmq import page
from flamezmq.errors import FlameError
from flamezmq.shims.interrupts import AGAIN_MILLISECONDS, interrupts
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.executor import Executor

#: How often it looks while nothing runs, before it sleeps until there is work.
IDLE_LOOKS = 4


class Attendant:
    """One thread; what it shares with the main thread are plain attributes.

    attending  it serves the line
    parked     it sleeps: whoever begins to work is to `rouse` it
    claims     the main thread is about to take the line
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.attending = False
        self.parked = False
        self.claims = False
        self._announced = (0, 0)  # the task that was said to have begun
        self._rest = threading.Lock()  # released when it is to look
        self._rest.acquire()

    def start(self) -> None:
        threading.Thread(target=self._attend, name="flm-attendant", daemon=True).start()

    # --- the main thread

    def claim(self) -> threading.Lock:
        """The line's lock, for the main thread: the attendant lets go of it, until `claims` is unset."""
        self.claims = True
        if self.attending:
            self._executor.line.wake()
        return self._executor.line.lock

    def rouse(self) -> None:
        """Have it look now."""
        self.parked = False
        try:
            self._rest.release()
        except RuntimeError:
            pass  # it has not even looked since the last time

    # --- its own

    def _attend(self) -> None:
        """Look now and then whether a task runs for long; if so, serve the line until it ends."""
        words, outlet, rest = self._executor.words, self._executor.outlet, self._rest
        idle = 0
        while True:
            before, moves = (words[page.RUNNING], words[page.FINISHED]), outlet.moves
            if rest.acquire(timeout=outlet.tick_seconds) and not outlet.wants:
                idle = 0
                continue
            if not words[page.RUNNING]:
                idle += 1
                if idle > IDLE_LOOKS:
                    self.parked = True
                    if not words[page.RUNNING] and not self._executor.tasks:
                        rest.acquire(timeout=1.0)  # a task that began right now waits no longer
                    self.parked = False
                    idle = 0
                continue
            idle = 0
            if (words[page.RUNNING], words[page.FINISHED]) == before and outlet.moves == moves:
                try:
                    self._stand_in(before, moves)
                except FlameError as error:
                    os.write(2, f"flamezmq: {error}\n".encode())
                    os._exit(70)

    def _stand_in(self, task: tuple[int, int], moves: int) -> None:
        """Hold the line for the main thread while this task runs, and has nothing for it."""
        executor, line = self._executor, self._executor.line
        words, outlet = executor.words, executor.outlet

        def is_over() -> bool:
            ended = (words[page.RUNNING], words[page.FINISHED]) != task
            return ended or outlet.moves != moves or self.claims

        self.attending = True  # first, see above
        try:
            while not is_over():
                with line.lock:
                    if is_over():
                        return
                    executor._commit(keep_open=True)
                    if self._announced != task and executor.ended:
                        begun = m.Begun(executor.session, task[0] - 1, executor.ended[-1].attempt)
                        line.enqueue(begun)
                        self._announced = task
                    line.turn(0)
                    if not is_over():
                        again = interrupts.ring(executor.session, task)
                        line.turn(AGAIN_MILLISECONDS if again else 1000)
        finally:
            self.attending = False
