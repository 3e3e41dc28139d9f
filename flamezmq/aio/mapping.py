"""map for event loops: the slices of client/mapping.py, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from flamezmq.aio.hub import in_loop
from flamezmq.aio.lineage import made_again
from flamezmq.client.mapping import Slices

if TYPE_CHECKING:
    from flamezmq.aio.behind import ClientBehind
    from flamezmq.aio.hub import Hub
    from flamezmq.client.future import Future


class _News:
    """Tells the loop that a slice has ended.  Knows nothing of the map, so that it keeps none alive."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    def _on_end(self, future: Future) -> None:
        self.event.set()


class WatchedSlices(Slices):
    """Slices whose futures a hub watches."""

    def watch(self, hub: Hub, news: _News) -> None:
        """To be called before the first `fill`."""
        self._hub, self._news = hub, news

    def _sent(self, future: Future, count: int) -> None:
        super()._sent(future, count)
        self._hub.watch(future, self._news)


class Mapped:
    """The results of a `map`: an asynchronous iterator, made by `map` of `flm.aio`.

    Where an item has failed its error is raised; the results behind it are had by going on
    (`await anext(mapped)`).  What is left is cancelled when the loop over it is left early, by
    `aclose`, and when the asyncio task that waits for a result is cancelled.
    """

    def __init__(self, client: ClientBehind, slices: WatchedSlices) -> None:
        self._client, self._slices = client, slices
        self._news = _News()
        self._items: Iterator[Any] = iter(())
        hub = client.hub()
        self._loop = hub.loop
        slices.watch(hub, self._news)
        slices.fill()

    def __aiter__(self) -> Mapped:
        return self

    async def __anext__(self) -> Any:
        while True:
            for value in self._items:
                return value
            try:
                await self._next_slice()
            except BaseException:
                self._let_go()
                raise

    async def _next_slice(self) -> None:
        await asyncio.sleep(0)  # others have their turn, however fast results come
        while (future := self._slices.ready()) is None:
            if not self._slices.on_way:
                raise StopAsyncIteration
            self._news.event.clear()
            await self._news.event.wait()
        if future._recipe is not None:
            await made_again(future)
        self._items = iter(self._slices.open(future))

    def on_publish(self, fn: Callable[[Any], object]) -> None:
        """Have the event loop call `fn(value)` for what the items publish; as `Answer.on_publish`."""
        self._slices.on_publish(partial(in_loop, self._loop, fn))

    async def aclose(self) -> None:
        """Stop: what has not ended is cancelled, nothing more is pulled from the inputs.  Does not wait."""
        self._items = iter(())
        self._let_go()

    def __del__(self) -> None:
        if hasattr(self, "_items"):
            self._let_go()

    def _let_go(self) -> None:
        """Cancel what is left, without a lock: the garbage collector may call this, wherever it runs."""
        left = self._slices.drop()
        if left and not self._client._closed:
            self._client.cancel_soon(left)
