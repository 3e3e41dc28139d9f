"""Streams, and what tasks publish, for event loops: `client/stream.py`, `client/published.py`, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from flamezmq.client import stream as sync
from flamezmq.client.published import Position, shown
from flamezmq.serialize.values import load_value

if TYPE_CHECKING:
    from flamezmq.aio.behind import ClientBehind
    from flamezmq.aio.hub import Answer
    from flamezmq.client.future import Future

#: After so many values that were there already, others have their turn.
TURN_VALUES = 64


class _News:
    """Wakes whoever waits on the loop: once, however much has come before it has looked.

    Knows nothing of the stream, so that it keeps none alive.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.event = asyncio.Event()
        self._loop = loop
        self._woken = False

    def __call__(self) -> None:
        """On the thread that does the I/O."""
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._look)
            except RuntimeError:
                pass  # the loop is closed, and nobody waits

    def _look(self) -> None:
        self._woken = False  # first: what comes from here on wakes again
        self.event.set()

    def _on_end(self, _future: Future) -> None:
        self.event.set()


class Stream:
    """The values of a task that streams: an asynchronous iterator, made by `stream` of `flm.aio`.

    Where the generator has raised an error it is raised here, behind the values that came before.  The
    generator is closed on its executor when the loop over it is left early, by `aclose`, and when the
    asyncio task that waits for a value is cancelled.
    """

    def __init__(self, client: ClientBehind, stream: sync.Stream) -> None:
        self._client, self._stream = client, stream
        self._turn = 0
        hub = client.hub()
        self._news = stream._inflow.on_news = _News(hub.loop)
        hub.watch(stream.future, self._news)

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Any:
        stream, event = self._stream, self._news.event
        try:
            self._turn += 1
            if self._turn % TURN_VALUES == 0:
                await asyncio.sleep(0)
            while True:
                event.clear()
                ended = stream.future.done()  # first: all values have come before
                try:
                    payload = stream._inflow.take()
                    break
                except IndexError:
                    if ended or stream._inflow.closed:
                        stream._end()
                    await event.wait()
        except StopIteration:
            raise StopAsyncIteration from None
        except asyncio.CancelledError:
            self._let_go()
            raise
        if stream._inflow.owes() and not ended:
            stream._tell_taken()
        return load_value(payload)

    async def aclose(self) -> None:
        """Close the generator, and wait until it has cleaned up, for a second at most.  Idempotent."""
        self._let_go()
        event, future = self._news.event, self._stream.future
        try:
            async with asyncio.timeout(sync.CLOSE_SECONDS):
                while not (future.done() or self._client._closed):
                    event.clear()
                    await event.wait()
        except TimeoutError:
            pass

    def _let_go(self) -> None:
        self._stream._over = True
        if not self._client._closed:
            self._client._errands.add(sync.stop, self._stream.future)


async def read(answer: Answer) -> AsyncIterator[Any]:
    """What its task publishes, as it comes, until it has ended."""
    here = shown(answer._light)
    news = _News(answer.get_loop())
    here.listeners.append(news)
    position: Position = (0, 0)

    def look(_: object) -> None:
        news.event.set()

    answer.add_done_callback(look)
    try:
        while True:
            news.event.clear()
            ended = answer.done()
            fresh = here.after(position)
            if fresh:
                position, payload = fresh[0]
                yield load_value(payload)
            elif ended:
                return
            else:
                await news.event.wait()
    finally:
        answer.remove_done_callback(look)
        here.listeners.remove(news)
