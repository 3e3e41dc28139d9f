"""What a client can do about applications, awaited: client/applications.py for event loops."""

from __future__ import annotations

from functools import partial

from flamezmq.aio.behind import ClientBehind
from flamezmq.aio.threads import in_thread
from flamezmq.client.application import Application
from flamezmq.client.applications import ApplicationInfo


class ApplicationsOfClient:
    """The part of `Client` that is about applications.  Each is a round trip, on a thread."""

    def _opened(self) -> ClientBehind:
        raise NotImplementedError

    async def register(self, application: Application) -> None:
        """Make an application known to the router; as `flm.Client.register`, with what that raises."""
        await in_thread(partial(self._opened().register, application))

    async def update(self, application: Application) -> None:
        """Put an application in the place of the registered one of its name; as `flm.Client.update`."""
        await in_thread(partial(self._opened().update, application))

    async def unregister(self, name: str) -> None:
        """Have the router forget the application of this name; as `flm.Client.unregister`."""
        await in_thread(partial(self._opened().unregister, name))

    async def applications(self) -> list[ApplicationInfo]:
        """Those that are registered; as `flm.Client.applications`."""
        found: list[ApplicationInfo] = await in_thread(self._opened().applications)
        return found
