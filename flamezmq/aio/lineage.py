"""Values that were lost and are made again, for event loops: nobody waits for them on the loop's thread."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from flamezmq.aio.hub import in_loop
from flamezmq.client.future import Future


async def made_again(light: Future) -> None:
    """Until the value of a future that has a recipe is here, or is known to be lost for good."""
    loop, lineage = asyncio.get_running_loop(), light._session._client._lineage
    error = light._settle()
    while error is not None:
        there = asyncio.Event()
        later = partial(in_loop, loop, partial(_tell, there), None)
        if lineage.made_later(light, error, later) is not None:
            return
        await there.wait()
        error = lineage.adopt(light)


def _tell(there: asyncio.Event, _: Any) -> None:
    there.set()
