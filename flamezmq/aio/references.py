"""References in event loops: client/references.py, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Any

from flamezmq.aio.hub import Answer
from flamezmq.aio.threads import in_thread
from flamezmq.client import session as sync
from flamezmq.store.refs import ObjectRef


class References:
    """The part of `Client` and `Session` that is about objects.  What may take long is done on a thread."""

    def _objects(self) -> sync.Session:
        """The session that they belong to."""
        raise NotImplementedError

    async def put(self, obj: Any, /, *, name: str = "", pin: bool = False) -> ObjectRef:
        """Keep a copy of `obj` where every task can read it; returns a reference to it.

        As `flm.Session.put`, which explains `name` and `pin`, and what is raised.  `obj` is read on another
        thread: leave it as it is until this returns.
        """
        ref: ObjectRef = await in_thread(partial(self._objects().put, obj, name=name, pin=pin))
        return ref

    async def get(self, refs: ObjectRef | Iterable[ObjectRef], /, *, copy: bool = False) -> Any:
        """The values of these references, in their order; of a single one, its value.

        As `flm.Session.get`, which explains `copy`, and what is raised.  `ref.get()` does the same for
        one, and keeps the event loop waiting meanwhile: some tens of microseconds, if it is on this node.
        """
        return await in_thread(partial(self._objects().get, refs, copy=copy))

    async def gather(self, futures: Iterable[Answer | ObjectRef], /) -> list[Any]:
        """The results of these answers, in their order, when all are there; of references, their values.

        Raises:
            TypeError: something else is among them.
            Exception: the error of a task, as soon as the first has failed; the others go on.
        """
        wanted = list(futures)
        for one in wanted:
            if not isinstance(one, Answer | ObjectRef):
                raise TypeError(f"{one!r} is neither an Answer nor an ObjectRef")
        return await asyncio.gather(*(self.get(one) if isinstance(one, ObjectRef) else one for one in wanted))

    async def free(self, refs: ObjectRef | Iterable[ObjectRef], /) -> None:
        """Have these objects go now, whoever has a reference to them; as `flm.Session.free`."""
        await in_thread(partial(self._objects().free, refs))
