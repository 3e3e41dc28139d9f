"""What a client can see of the objects in stores, awaited: client/inventory.py for event loops."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from flamezmq.aio.behind import ClientBehind
from flamezmq.aio.threads import in_thread
from flamezmq.client.inventory import ObjectStatus

if TYPE_CHECKING:
    from flamezmq.aio.client import Session


class ObjectsOfClient:
    """The part of `Client` that shows objects.  A round trip for 256 of them, on a thread."""

    def _opened(self) -> ClientBehind:
        raise NotImplementedError

    async def objects(self, session: Session | str | None = None) -> list[ObjectStatus]:
        """The objects in the stores of all nodes, or of one session; as `flm.Client.objects`."""
        id = session if isinstance(session, str) or session is None else session.id
        found: list[ObjectStatus] = await in_thread(partial(self._opened().objects, id))
        return found
