"""The pump: who drives the client's socket, and when.

A thread that waits drives the I/O itself; there is no hand-off on the way of a
result.  One thread at a time owns the line.  The keeper, a background thread,
drives when nobody else has for a while; it also sends what lingers in an
outbox.  It calls nothing of the user's (client/errands.py does).  A thread that
finds another one driving stands by and is woken when its own condition holds.

Every wait has a bound: a wake-up that gets lost (an interrupt may land
anywhere) costs `STANDBY_SECONDS`, not a hang.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

from flamezmq.client.errands import start
from flamezmq.errors import FlameError
from flamezmq.net.line import Line

#: Without a caller for so long, the keeper drives.
GRACE_SECONDS = 0.005
#: The longest that a task lingers in the outbox while nobody waits.
LINGER_SECONDS = 0.0005
#: And a task whose arguments were put into a store, which takes as long as that: some shall share a message.
LARGE_LINGER_SECONDS = 0.002
#: How often the keeper looks again at what could not go: it needs what is cancelled here, perhaps,
#: while what the router says is seen at once.
STUCK_MILLISECONDS = 50
#: How long a thread stands by before it looks for itself.
STANDBY_SECONDS = 0.05

Done = Callable[[], bool]


class Pump:
    """flush: stage what the outboxes hold; unsent: whether they hold anything; fail: the line is lost."""

    grace_seconds = GRACE_SECONDS

    def __init__(
        self,
        line: Line,
        flush: Callable[[], None],
        unsent: Callable[[], bool],
        fail: Callable[[Exception], None],
    ) -> None:
        self.line = line
        self._flush, self._unsent, self._fail = flush, unsent, fail
        self._driver = 0  # ident of the caller that drives; 0 when none does
        self._sitting = False  # the keeper is in its wait, with the lock held
        self._wanting: dict[int, None] = {}  # callers about to take the lock
        self._standby: dict[int, tuple[Done, threading.Lock]] = {}
        self._last_driven = 0.0
        self._armed = False
        self._linger = LINGER_SECONDS  # from when it was armed
        self._closing = False
        self._bell = threading.Lock()
        self._bell.acquire()
        self.hand_offs = 0
        self.keeper = threading.Thread(target=self._keep, name="flm-keeper", daemon=True)

    def start(self) -> None:
        start(self.keeper)

    # --- callers

    def drive(self, done: Done, deadline: float | None) -> bool:
        """Do I/O until `done()`; False when the deadline passes first.

        Raises:
            RouterLost: the line is gone for good (futures have been failed before).
            FlameError: this is a signal handler, and what it has interrupted is doing I/O.
        """
        me = threading.get_ident()
        while not done():
            if self._driver == me and self.is_interrupted():
                raise FlameError(
                    "a signal handler can't wait for a client that it has interrupted in its wait"
                )
            if deadline is not None and monotonic() >= deadline:
                return False
            if self.line.lost is not None:
                self._fail(self.line.lost)
                if done():
                    return True
                raise self.line.lost
            others = self._driver not in (0, me) or (self._wanting and set(self._wanting) != {me})
            if others and self._stand_by(me, done, deadline):
                continue
            try:
                self._take_over(me, done, deadline)
            except FlameError:
                if self.line.lost is None:
                    raise
        return True

    def _take_over(self, me: int, done: Done, deadline: float | None) -> None:
        self._wanting[me] = None
        try:
            if self._sitting or self._driver:
                self.line.wake()
            with self.line.lock:
                self._driver = me
                self._wanting.pop(me, None)
                try:
                    self._turns(done, deadline)
                finally:
                    self._driver = 0
                    self._last_driven = monotonic()
        finally:
            self._wanting.pop(me, None)
            if self._standby:
                self._wake_standby(True)

    def _turns(self, done: Done, deadline: float | None) -> None:
        flush, turn = self._flush, self.line.turn
        while not done():  # another thread may have taken in all, while this one waited for the lock
            flush()
            if self._wanting:  # of before they could see who drives: they have woken nobody
                turn(0)
            elif deadline is None:
                turn(-1)
            else:
                left = deadline - monotonic()
                if left <= 0:
                    return
                turn(int(left * 1000) + 1)
            if self._standby:
                self._wake_standby(False)
            if self._wanting:
                return

    def _stand_by(self, me: int, done: Done, deadline: float | None) -> bool:
        """Wait until the driver has news; False when it is time to look for oneself."""
        lock = threading.Lock()
        lock.acquire()
        self._standby[me] = (done, lock)
        self.hand_offs += 1
        try:
            wait = STANDBY_SECONDS
            if deadline is not None:
                wait = min(wait, max(deadline - monotonic(), 0.0))
            if self._unsent():
                self.line.wake()
            return done() or lock.acquire(timeout=wait)
        finally:
            self._standby.pop(me, None)

    def _wake_standby(self, leaving: bool) -> None:
        """Release those whose condition holds; a leaving driver also calls one to take its place."""
        called = not leaving
        for done, lock in list(self._standby.values()):
            if not lock.locked():
                continue
            try:
                holds = done()
            except RuntimeError:  # its thread is awake, and has changed what `done` was looking at
                holds = True
            if holds or not called:
                called = called or not holds
                try:
                    lock.release()
                except RuntimeError:
                    pass  # somebody else has released it just now

    def is_interrupted(self) -> bool:
        """Whether the calling thread does I/O already, further up its stack: this is a signal handler."""
        return self._driver == threading.get_ident() and self.line.lock.locked()

    def push(self, look: bool = True) -> None:
        """Send what the outboxes hold, now if the line is free, else by whoever has it.

        look: take in what came, too.
        """
        me = threading.get_ident()
        if self._driver not in (0, me) or self.is_interrupted():
            self.line.wake()
            return
        self._wanting[me] = None
        try:
            if self._sitting:
                self.line.wake()
            with self.line.lock:
                self._wanting.pop(me, None)
                self._flush()
                if look:
                    self.line.turn(0)
                else:
                    self.line.transmit()
                self._last_driven = monotonic()
        finally:
            self._wanting.pop(me, None)

    def arm(self, linger: float = LINGER_SECONDS) -> None:
        """Something lies in an outbox: see that it goes out soon."""
        if not self._armed:
            self._linger = linger
            self._armed = True
            sits = self._sitting
            if sits:
                self.line.wake()
            if not sits or linger <= LINGER_SECONDS:  # else it would be awake twice, and not linger
                self._ring()
        elif linger < self._linger:
            self._ring()  # what is there already goes along

    def _ring(self) -> None:
        try:
            self._bell.release()
        except RuntimeError:
            pass  # it rings already

    # --- the keeper

    def _keep(self) -> None:
        while not self._closing:
            try:
                self._keep_once()
            except FlameError as error:
                self._fail(error)
                self._bell.acquire(timeout=1.0)
            except Exception as error:  # ours: must not end the thread that everybody relies on
                self._fail(error)
                self._bell.acquire(timeout=0.1)

    def _keep_once(self) -> None:
        if self._armed:
            self._bell.acquire(timeout=self._linger)
            self._armed = False  # first: what is submitted from here on arms anew
            if self._unsent():
                if self._driver:
                    self.line.wake()  # it sends it, and may wait for long otherwise
                    return
                with self.line.lock:
                    self._flush()
                    self.line.turn(0)
            return
        idle = monotonic() - self._last_driven
        if self._driver or self._wanting or idle < self.grace_seconds:
            self._bell.acquire(timeout=GRACE_SECONDS)
            return
        with self.line.lock:
            self._sitting = True
            try:
                while not (self._wanting or self._armed or self._closing):
                    self._flush()
                    self.line.turn(STUCK_MILLISECONDS if self._unsent() else -1)
                    if self._standby:
                        self._wake_standby(False)
            finally:
                self._sitting = False

    def stop(self, timeout: float) -> None:
        """End the keeper."""
        self._closing = True
        self.line.wake()
        self._ring()
        if self.keeper.is_alive():
            self.keeper.join(timeout)
