"""What the tenants of a run may have, and that they have no more."""

from __future__ import annotations

from dataclasses import replace

from flamezmq.core.broker import Broker
from flamezmq.core.members import Tenant
from tests.sim.plan import Plan


def quotas(plan: Plan) -> dict[str, Tenant]:
    """Of all tenants."""
    tenant = Tenant(max_executors=tenant_executors(plan))
    if plan.has_quotas:
        tenant = replace(tenant, queued_tasks=plan.queued_tasks, queued_bytes=plan.queued_bytes)
    return {"*": tenant}


def tenant_executors(plan: Plan) -> int:
    """Of all tenants; so many at least as a gang or the minima of their sessions may need, 0: any number."""
    least = 3 if plan.gangs or plan.shares else 1
    return max(plan.tenant_executors, least) if plan.tenant_executors else 0


def check(broker: Broker) -> None:
    """None has more executors than it may, actors aside, but where it has just come to be less."""
    for tenant in ("", "other"):
        most = broker.accounts.terms_of(tenant).max_executors
        theirs = [s for s in broker.sessions.values() if s.tenant == tenant and not s.actor]
        serving = sum(len(session.executors) for session in theirs)
        lowered = broker.scheduler._tree.excess
        assert not most or lowered or serving <= most, f"{serving} executors serve tenant {tenant!r}"
