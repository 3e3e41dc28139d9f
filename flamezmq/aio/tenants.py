"""What a client can do about tenants, awaited: client/tenants.py for event loops."""

from __future__ import annotations

from functools import partial

from flamezmq.aio.behind import ClientBehind
from flamezmq.aio.threads import in_thread
from flamezmq.client.tenants import TenantStatus


class TenantsOfClient:
    """The part of `Client` that is about tenants.  Each is a round trip, on a thread."""

    def _opened(self) -> ClientBehind:
        raise NotImplementedError

    async def tenants(self) -> list[TenantStatus]:
        """What each tenant may have, and has; as `flm.Client.tenants`."""
        found: list[TenantStatus] = await in_thread(self._opened().tenants)
        return found

    async def set_tenant(
        self,
        name: str,
        *,
        weight: float | None = None,
        max_executors: int | None = None,
        resources: str | None = None,
        queued_tasks: int | None = None,
        queued_bytes: int | str | None = None,
        new: bool = False,
    ) -> None:
        """Change what a tenant may have from now on.

        Args:
            name, weight, max_executors, resources, queued_tasks, queued_bytes, new: as
                `flm.Client.set_tenant` explains.

        Raises what that raises.
        """
        limits = partial(self._opened().set_tenant, name, weight=weight, max_executors=max_executors)
        quotas = partial(limits, resources=resources, queued_tasks=queued_tasks, queued_bytes=queued_bytes)
        await in_thread(partial(quotas, new=new))
