"""The Controller: a peer that looks at a router and gives orders to it, and runs nothing.

A client without threads, futures or pickles: one line, driven by the thread that asks.
Each call has a bound; what went wrong is an error with a sentence.
"""

from __future__ import annotations

from time import monotonic
from types import TracebackType
from typing import Any

from flamezmq.errors import RouterLost
from flamezmq.net.line import Line

#: How long a router may take to answer.
PATIENCE_SECONDS = 3.0


class Controller:
    """A connection to a router, for people and monitors.

    Args:
        address: "tcp://host:port" or "ipc://path".
        patience_seconds: how long connecting, and each answer, may take.

    Raises:
        RouterLost: nobody answers there, or not in time.
        Refused: the router does not want us, and says why.

    As a context manager it hangs up at the end of the block.  For one thread at a time.
    """

    def __init__(self, address: str, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self.address, self.patience_seconds = address, patience_seconds
        self._line = Line(address, "client", patience_seconds=patience_seconds)
        try:
            self._line.open()
            self._wait(lambda: self._line.link.up, "does not say WELCOME; is it one of flamezmq?")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Hang up.  Idempotent."""
        self._line.close(bye=True)

    def __enter__(self) -> Controller:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self, done: Any, complaint: str) -> None:
        """Drive the line until `done()`, for as long as patience goes."""
        deadline = monotonic() + self.patience_seconds
        while not done():
            left = deadline - monotonic()
            if left <= 0:
                raise RouterLost(f"the router at {self.address} {complaint}")
            self._line.turn(int(left * 1000) + 1)
