"""The arguments of clients and sessions: what is wrong with them, and what the router is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any

from flamezmq.address import check
from flamezmq.config import TENANT
from flamezmq.optioned import Options
from flamezmq.optioned import options as make_options
from flamezmq.resources import parse
from flamezmq.serialize.blobs import dump_blob
from flamezmq.serialize.initializer import dump_initializer
from flamezmq.tenant import Tenant
from flamezmq.wire import messages as m

#: What "for ever" is on the wire.
MOST_SECONDS = 1e12
#: Priorities are from -HIGHEST to HIGHEST.
HIGHEST = 1 << 31


def check_client(address: str | None, executors: int | None, connect_timeout: float | None = None) -> None:
    """Raises ValueError as `flm.Client` says."""
    if address is not None:
        check(address)
    if connect_timeout is not None and (
        type(connect_timeout) not in (int, float) or not connect_timeout >= 0
    ):
        raise ValueError(f"`connect_timeout` is a number of seconds from 0, not {connect_timeout!r}")
    if executors is None:
        return
    if address is not None:
        raise ValueError(f"`executors` is for an embedded cluster; this client has an address, {address}")
    if type(executors) is not int or executors < 1:
        raise ValueError(f"`executors` is an integer from 1, not {executors!r}; None takes the usable cores")


def check_tenants(
    tenants: Mapping[str, Tenant] | None, address: str | None
) -> dict[str, dict[str, Any]] | None:
    """What is said of tenants, as the file of settings says it; raises as `flm.Client` says."""
    if tenants is None:
        return None
    if address is not None:
        raise ValueError(
            f"`tenants` is for an embedded cluster, and this client has an address, {address}: there the "
            "router's settings say it, or client.set_tenant(...)"
        )
    found: dict[str, dict[str, Any]] = {}
    usual = Tenant()
    for name, tenant in tenants.items():
        if not isinstance(name, str) or not isinstance(tenant, Tenant):
            raise TypeError(f"`tenants` has names and flm.Tenant(...), not {name!r}: {tenant!r}")
        said = {one.name: getattr(tenant, one.name) for one in TENANT}
        found[name] = {}
        for one in TENANT:
            if said[one.name] != getattr(usual, one.name):
                try:
                    found[name][one.name] = one.check(said[one.name])
                except ValueError as error:
                    raise ValueError(f"`tenants`: {one.name} of {name!r}: {error}") from None
    return found


def options_of_session(options: Options | None, task_timeout: float | None) -> Options | None:
    """What a session says of all its functions, if it says anything; raises as `flm.Client.session` says."""
    if options is not None and not isinstance(options, Options):
        raise TypeError(f"`options` is {options!r}; it must be made by flm.options(...)")
    if task_timeout is None:
        return options
    try:
        timeout = make_options(timeout=task_timeout)
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("`timeout`", "`task_timeout`")) from None
    return timeout if options is None else options.over(timeout)


def waits_for_room(over_quota: str) -> bool:
    """Whether `submit` blocks where a quota is used up; raises ValueError as `flm.Client.session` says."""
    if over_quota not in ("wait", "fail"):
        raise ValueError(f"over_quota is {over_quota!r}; it must be 'wait' or 'fail'")
    return over_quota == "wait"


def runs_of_lineage(lineage: bool, max_retries: int, id: str | None, detached: bool, nested: bool) -> int:
    """How often a lost value is made again; raises TypeError, ValueError as `flm.Client.session` says."""
    if type(lineage) is not bool:
        raise TypeError(f"lineage is {lineage!r}; it must be True or False")
    if not lineage:
        return 0
    if id is not None or detached:
        raise ValueError(
            "lineage=True is for a session of one client, which has the calls: not with `id` or `detached`"
        )
    if nested:
        raise ValueError("lineage=True is not for the sessions of nested tasks: these end with their task")
    if max_retries < 1:
        raise ValueError(
            f"lineage=True runs tasks again, and max_retries={max_retries} forbids it; raise that"
        )
    return max_retries


def of_session(
    *,
    name: str,
    max_retries: int,
    tenant: str | None,
    priority: int,
    weight: float,
    min_executors: int,
    max_executors: int | None,
    delay_release: float,
    resources: str | None,
    preempt_after: float | None,
    initializer: Callable[..., object] | None,
    initargs: Iterable[Any],
    max_tasks_per_child: int | None,
    app: str,
    common_data: Any,
    gang: int,
) -> dict[str, Any]:
    """The fields of a `SessionSpec` that `flm.Client.session` was asked for; raises as it says."""
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ValueError(f"a session's name is a text that is not empty and can be printed, not {name!r}")
    if not isinstance(max_retries, int) or max_retries < 0:
        raise ValueError(f"max_retries is {max_retries!r}; it must be an integer from 0")
    for what, limit in (("max_executors", max_executors), ("max_tasks_per_child", max_tasks_per_child)):
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            raise ValueError(f"{what} is {limit!r}; it must be an integer from 1, or None for no limit")
    check_share(tenant, priority, weight)
    if type(min_executors) is not int or min_executors < 0:
        raise ValueError(f"min_executors is {min_executors!r}; it must be an integer from 0")
    if max_executors is not None and min_executors > max_executors:
        raise ValueError(f"min_executors={min_executors} is more than max_executors={max_executors}")
    check_gang(gang, min_executors, max_executors, resources)
    if type(delay_release) not in (int, float) or not delay_release >= 0:
        raise ValueError(f"delay_release is {delay_release!r}; it must be a number of seconds from 0")
    if preempt_after is not None and (type(preempt_after) not in (int, float) or not 0 < preempt_after < inf):
        raise ValueError(
            f"preempt_after is {preempt_after!r}; it must be a number of seconds above 0, or None"
        )
    if preempt_after is not None and not max_retries:
        raise ValueError("preempt_after needs max_retries: a task that leaves its executor is started again")
    request = request_of(resources)
    if initializer is not None and not callable(initializer):
        raise TypeError("initializer must be a callable")
    if not isinstance(initargs, Iterable):
        raise TypeError(f"initargs is {initargs!r}; it must be the arguments in a tuple, like (5,)")
    if not isinstance(app, str):
        raise TypeError(f"app is {app!r}; it must be the name of an application")
    if app and initializer is not None:
        raise ValueError(
            "a session with an application has no initializer; use on_session_enter of the service"
        )
    if not app and common_data is not None:
        raise ValueError("common_data is for sessions with an application; name it by `app`")
    return {
        "name": name,
        "max_retries": max_retries,
        "tenant": tenant or "",
        "priority": priority,
        "weight": float(weight),
        "min_executors": min_executors,
        "max_executors": max_executors or 0,
        "delay_release": min(float(delay_release), MOST_SECONDS),
        "preempt_after": float(preempt_after or 0.0),
        "resources": request,
        "initializer": b"" if initializer is None else dump_initializer(initializer, tuple(initargs)),
        "max_tasks_per_child": max_tasks_per_child or 0,
        "application": app,
        "common_data": b"" if common_data is None else dump_common_data(common_data),
        "gang": gang,
    }


def request_of(resources: str | None) -> tuple[m.Resource, ...]:
    """What is asked for of a node, as the router is told; raises as `flm.Client.session` says."""
    if resources is not None and not isinstance(resources, str):
        raise TypeError(f"resources is {resources!r}; it must be a text like 'cpu=1,mem=1g,gpu=0', or None")
    request = parse(resources) if resources else {}
    return tuple(m.Resource(name, amount) for name, amount in request.items())


def check_gang(gang: int, least: int, most: int | None, resources: str | None) -> None:
    """Raises ValueError as `flm.Client.session` says; minimum and maximum are rounded to whole gangs."""
    if type(gang) is not int or not 1 <= gang <= 1 << 62:
        raise ValueError(f"gang is {gang!r}; it must be an integer from 1")
    if gang == 1:
        return
    if most is not None and most < gang:
        raise ValueError(f"max_executors={most} is less than one gang of {gang}: the session would get none")
    if most is not None and -(-least // gang) * gang > most:
        whole = f"{most // gang * gang} executors in whole gangs of {gang}"
        raise ValueError(f"max_executors={most} allows {whole}, which is less than min_executors={least}")
    if resources:
        raise ValueError(
            f"gang={gang} and resources={resources!r} can't be had together: each executor of a gang takes "
            "its part of its node; leave one of them out"
        )


def dump_common_data(value: Any) -> bytes:
    """One pickle with its buffers inside: it is sent once to each executor that binds the session.

    Raises:
        Unpicklable, TooLarge: it can't travel.
    """
    return dump_blob("the common data", value)


def check_share(tenant: str | None, priority: int, weight: float) -> None:
    """Raises ValueError as `flm.Client.session` says."""
    if tenant is not None and (not isinstance(tenant, str) or not tenant or not tenant.isprintable()):
        raise ValueError(f"a tenant is a text that is not empty and can be printed, or None, not {tenant!r}")
    if type(priority) is not int or abs(priority) > HIGHEST:
        raise ValueError(f"priority is {priority!r}; it must be an integer, from -{HIGHEST} to {HIGHEST}")
    if type(weight) not in (int, float) or not 0 < weight < inf:
        raise ValueError(f"weight is {weight!r}; it must be a number above 0")
