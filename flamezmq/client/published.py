"""What a task publishes while it runs, as its Future keeps and shows it.

The newest values win: a reader that is slow, or comes late, finds the last
`KEPT_VALUES` of them.  So nothing grows, and no task waits for who looks at it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from flamezmq.serialize.values import dump_value, load_value
from flamezmq.shims.streaming import KEPT_BYTES, KEPT_VALUES, weight

if TYPE_CHECKING:
    from flamezmq.client.future import Future

Position = tuple[int, int]  # attempt, and number in it
_log = logging.getLogger("flamezmq")


class Shown:
    """One task's values; made when the first comes, or when somebody asks.

    kept  the newest ones with their positions, still pickled; replaced as a whole
    """

    def __init__(self) -> None:
        self.kept: list[tuple[Position, Any]] = []
        self.listeners: list[Callable[[], None]] = []  # of event loops that wait
        self._callbacks: list[list[Any]] = []  # [function, position that it has seen]
        self._asked = False  # a call of the functions is due

    @property
    def last(self) -> Position:
        return self.kept[-1][0] if self.kept else (0, 0)

    def add(self, attempt: int, first: int, payloads: list[Any], later: Callable[..., None]) -> None:
        """These came (perhaps once more); `later` has a function called where callbacks may run."""
        last = self.last
        news = [((attempt, number), payload) for number, payload in enumerate(payloads, first + 1)]
        kept = self.kept + [item for item in news if item[0] > last]
        self.kept = _newest(kept[-KEPT_VALUES:])
        if self._callbacks:
            self._ask(later)
        for tell in list(self.listeners):
            tell()

    def _ask(self, later: Callable[..., None]) -> None:
        """Have the functions called, unless that is due already; restartable."""
        if not self._asked:
            self._asked = True
            try:
                later(self._call)
            except BaseException:
                self._asked = False
                raise

    def after(self, position: Position) -> list[tuple[Position, Any]]:
        """What is kept of those behind this position."""
        return [item for item in self.kept if item[0] > position]

    def on_publish(self, fn: Callable[[Any], object], later: Callable[..., None]) -> None:
        check_callback(fn)
        self._callbacks.append([fn, (0, 0)])
        if self.kept:
            self._ask(later)

    def _call(self) -> None:
        """Call each function with what it has not seen; on the errands' thread."""
        self._asked = False  # first: what comes from here on asks again
        for callback in self._callbacks:
            while news := self.after(callback[1]):
                callback[1], payload = news[0]
                try:
                    callback[0](load_value(payload))
                except Exception:
                    _log.exception("exception calling callback for what was published: %r", callback[0])


def check_callback(fn: object) -> None:
    if not callable(fn):
        raise TypeError(f"on_publish needs a function that takes a value, not {fn!r}")


def _newest(items: list[tuple[Position, Any]]) -> list[tuple[Position, Any]]:
    """The last of them, as many as KEPT_BYTES take, and always one."""
    size = sum(weight(payload) for _, payload in items)
    begin = 0
    while size > KEPT_BYTES and begin < len(items) - 1:
        size -= weight(items[begin][1])
        begin += 1
    return items[begin:]


def shown(future: Future) -> Shown:
    """Of this future; made here if there is none yet."""
    with future._session._apply_lock:
        if future._shown is None:
            future._shown = Shown()
        return future._shown


def read(future: Future) -> Iterator[Any]:
    """Values as they come, until the task has ended."""
    here = shown(future)
    position: Position = (0, 0)
    while True:
        ended = future.done()
        news = here.after(position)
        if news:
            position, payload = news[0]
            yield load_value(payload)
        elif ended:
            return
        else:
            future._session._wait(partial(_has_news, future, position), None)


def _has_news(future: Future, position: Position) -> bool:
    return future.done() or shown(future).last > position


def publish_here(future: Future, value: object) -> None:
    """A task that runs in place, in the process of who reads it."""
    payload = dump_value(value, "what is published")
    here = shown(future)
    with future._session._apply_lock:
        here.add(here.last[0] or 1, here.last[1], [payload], future._session._client._errands.add)
