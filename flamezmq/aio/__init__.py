"""flamezmq in asyncio: the client for event loops.

    import asyncio
    import flamezmq as flm

    async def main():
        async with flm.aio.Client() as client:
            print(await client.submit(pow, 2, 10))
            async for value in client.map(abs, range(-3, 3)):
                print(value)

    asyncio.run(main())

Nothing here blocks the event loop: opening and closing happen on a thread, the client's keeper
does the I/O, and what has ended comes to the loop by one wake-up for a whole batch.
"""

from flamezmq.aio.actor import Actor
from flamezmq.aio.client import Client, ServiceSession, Session
from flamezmq.aio.hub import Answer
from flamezmq.aio.mapping import Mapped
from flamezmq.aio.stream import Stream

__all__ = ["Actor", "Answer", "Client", "Mapped", "ServiceSession", "Session", "Stream"]
