"""What a client can do about tenants: look at them, and change what they may have while the router runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from flamezmq import resources as amounts
from flamezmq.client import surroundings
from flamezmq.client.inquiry import exchange
from flamezmq.client.terms import check_share
from flamezmq.errors import Refused
from flamezmq.tenant import Tenant
from flamezmq.wire import messages as m
from flamezmq.wire.tenants import LEAST_WEIGHT, MOST_WEIGHT

#: A number that is no limit any more.
MOST = 1 << 62


@dataclass(frozen=True, slots=True)
class TenantStatus:
    """A tenant, as `Client.tenants` shows it.

    Attributes:
        name: "*" stands for all that are not named; "" is that of sessions that name no tenant.
        terms: what it may have: `terms.weight`, `terms.max_executors`, `terms.resources`,
            `terms.queued_tasks` and `terms.queued_bytes`, as in the settings; 0 or "" is no limit.
        named: whether the settings, or somebody since, have named it; else it has what "*" has.
        sessions: of it that are open.
        executors: that serve them.
        tasks: of these sessions that wait with the router.
        bytes: of their arguments; None where it has no quota of bytes, for nobody counts them.
        waiting: clients that wait for room under its quotas.
    """

    name: str
    terms: Tenant
    named: bool
    sessions: int
    executors: int
    tasks: int
    bytes: int | None
    waiting: int


class TenantsOfClient:
    """The part of `Client` that is about tenants."""

    def tenants(self) -> list[TenantStatus]:
        """Those that the settings name, and those of open sessions, by name: what each may have, and has.

        Raises:
            ClientClosed, RouterLost: there is nobody to ask.
        """
        found: list[TenantStatus] = []
        more = 1
        while more:
            after = found[-1].name if found else None
            page = exchange(self, partial(m.AskTenants, after=after))  # type: ignore[arg-type]
            found += map(status_of, page.rows)
            more = page.more if page.rows and page.rows[-1].name != after else 0
        return found

    def set_tenant(
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
        """Change what a tenant may have from now on, as `flmctl tenants set` does; None leaves it as it is.

        Args:
            name: "*" is each that is not named; "" that of the sessions that name none.
            weight: of its share, among the tenants that have any work; the others' is 1.0.
            max_executors: that may serve its sessions at a time; 0: no limit.
            resources: the most that these may have together, as in "cpu=16,gpu=2"; "": no limit.
            queued_tasks: of all its sessions, that may wait with the router; 0: no limit.
            queued_bytes: of their arguments, in bytes, or as in "1g"; 0: no limit.
            new: it need not be known yet.

        It reaches sessions that are open: what a lower quota leaves over stays queued, and more waits; under
        a higher one the `submit` that waits goes on at once.  Executors above a lower limit are given back
        as their tasks end.  It holds until the router ends; then what its settings say holds again.

        Raises:
            ValueError: an argument is none that it can be, or there is none.
            NotFound: there is no such tenant, and it is not said to be `new`; the text names those there are.
            Refused: the router does not do it.
            ClientClosed, RouterLost: there is nobody to tell.
        """
        changes = checked(name, weight, max_executors, resources, queued_tasks, queued_bytes)
        by = surroundings.who()
        done = exchange(self, lambda request: m.SetTenant(request, name, by, new, **changes))  # type: ignore[arg-type]
        if done.outcome:
            raise Refused(done.text)


def status_of(row: m.TenantRow) -> TenantStatus:
    terms = Tenant(row.queued_tasks, row.queued_bytes, row.weight, row.max_executors, row.resources)
    has = row.sessions, row.executors, row.tasks, row.bytes if row.bytes >= 0 else None
    return TenantStatus(row.name, terms, row.named, *has, row.asking)


def checked(
    name: str,
    weight: float | None,
    max_executors: int | None,
    resources: str | None,
    queued_tasks: int | None,
    queued_bytes: int | str | None,
) -> dict[str, Any]:
    """Those that are given, as the message has them; raises ValueError as `set_tenant` does."""
    check_share(name or None, 0, 1.0)
    if weight is not None and (type(weight) not in (int, float) or not LEAST_WEIGHT <= weight <= MOST_WEIGHT):
        raise ValueError(
            f"weight is {weight!r}; it must be a number from {LEAST_WEIGHT:g} to {MOST_WEIGHT:,.0f}"
        )
    if isinstance(queued_bytes, str):
        queued_bytes = amounts.size(queued_bytes)
    numbers = {"max_executors": max_executors, "queued_tasks": queued_tasks, "queued_bytes": queued_bytes}
    for what, number in numbers.items():
        if number is not None and (type(number) is not int or not 0 <= number <= MOST):
            raise ValueError(f"{what} is {number!r}; it must be an integer from 0, which is no limit")
    if resources is not None and not isinstance(resources, str):
        raise ValueError(f"resources is {resources!r}; it must be a text like 'cpu=16,gpu=2'")
    if resources:
        amounts.parse(resources, zeros=True)
    asked = {**numbers, "weight": None if weight is None else float(weight), "resources": resources}
    changes = {what: value for what, value in asked.items() if value is not None}
    if not changes:
        raise ValueError(
            "nothing was to be set; give a weight, max_executors, resources, queued_tasks or queued_bytes"
        )
    return changes
