"""flamezmq: a ZeroMQ message-bus engine for very many short tasks.

    import flamezmq as flm

    with flm.Client() as client:
        print(sum(client.map(pow, range(1000), range(1000))))

Importing this package is cheap; what needs ZeroMQ is loaded when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flamezmq.version import __version__

if TYPE_CHECKING:
    from flamezmq import aio, scripts, testing
    from flamezmq.client.actor import Actor
    from flamezmq.client.api import Client
    from flamezmq.client.application import Application
    from flamezmq.client.broken import BrokenActor, BrokenSession
    from flamezmq.client.flame_executor import FlameExecutor
    from flamezmq.client.future import Future
    from flamezmq.client.progress import progress
    from flamezmq.client.service_session import ServiceSession
    from flamezmq.client.session import Session
    from flamezmq.client.waiting import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION, as_completed, wait
    from flamezmq.errors import (
        ActorDied,
        BadPayload,
        Certificate,
        ClientClosed,
        ConfigError,
        DeadlinePassed,
        DependencyFailed,
        FlameError,
        MissingModule,
        NoTask,
        NotFound,
        ObjectLost,
        ProtocolError,
        QuotaExceeded,
        Refused,
        RouterLost,
        ServiceError,
        ServiceFailed,
        SessionClosed,
        SessionMismatch,
        ShimMissing,
        StaleVersion,
        StartFailed,
        StoreFull,
        StoreLost,
        StrayClient,
        StrayFuture,
        TaskCancelled,
        TaskError,
        TaskLost,
        TaskTimeout,
        TooLarge,
        Unpicklable,
    )
    from flamezmq.optioned import options
    from flamezmq.running import current
    from flamezmq.shims.context import Context
    from flamezmq.shims.service import service
    from flamezmq.store.refs import ObjectRef, private
    from flamezmq.store.versioned import Increment
    from flamezmq.tenant import Tenant

_HOMES = {
    "Actor": "flamezmq.client.actor",
    "BrokenActor": "flamezmq.client.broken",
    "BrokenSession": "flamezmq.client.broken",
    "Application": "flamezmq.client.application",
    "Client": "flamezmq.client.api",
    "Context": "flamezmq.shims.context",
    "service": "flamezmq.shims.service",
    "FlameExecutor": "flamezmq.client.flame_executor",
    "ServiceSession": "flamezmq.client.service_session",
    "Session": "flamezmq.client.session",
    "Tenant": "flamezmq.tenant",
    "Future": "flamezmq.client.future",
    "ALL_COMPLETED": "flamezmq.client.waiting",
    "FIRST_COMPLETED": "flamezmq.client.waiting",
    "FIRST_EXCEPTION": "flamezmq.client.waiting",
    "as_completed": "flamezmq.client.waiting",
    "current": "flamezmq.running",
    "progress": "flamezmq.client.progress",
    "wait": "flamezmq.client.waiting",
    "options": "flamezmq.optioned",
    "Increment": "flamezmq.store.versioned",
    "ObjectRef": "flamezmq.store.refs",
    "private": "flamezmq.store.refs",
    "ActorDied": "flamezmq.errors",
    "BadPayload": "flamezmq.errors",
    "Certificate": "flamezmq.errors",
    "ClientClosed": "flamezmq.errors",
    "ConfigError": "flamezmq.errors",
    "DeadlinePassed": "flamezmq.errors",
    "DependencyFailed": "flamezmq.errors",
    "FlameError": "flamezmq.errors",
    "MissingModule": "flamezmq.errors",
    "NoTask": "flamezmq.errors",
    "NotFound": "flamezmq.errors",
    "ObjectLost": "flamezmq.errors",
    "ProtocolError": "flamezmq.errors",
    "QuotaExceeded": "flamezmq.errors",
    "Refused": "flamezmq.errors",
    "RouterLost": "flamezmq.errors",
    "ServiceError": "flamezmq.errors",
    "ServiceFailed": "flamezmq.errors",
    "SessionClosed": "flamezmq.errors",
    "SessionMismatch": "flamezmq.errors",
    "ShimMissing": "flamezmq.errors",
    "StartFailed": "flamezmq.errors",
    "StoreFull": "flamezmq.errors",
    "StaleVersion": "flamezmq.errors",
    "StoreLost": "flamezmq.errors",
    "StrayClient": "flamezmq.errors",
    "StrayFuture": "flamezmq.errors",
    "TaskCancelled": "flamezmq.errors",
    "TaskError": "flamezmq.errors",
    "TaskLost": "flamezmq.errors",
    "TaskTimeout": "flamezmq.errors",
    "TooLarge": "flamezmq.errors",
    "Unpicklable": "flamezmq.errors",
}

__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "Actor",
    "ActorDied",
    "Application",
    "BadPayload",
    "BrokenActor",
    "BrokenSession",
    "Certificate",
    "Client",
    "ClientClosed",
    "ConfigError",
    "Context",
    "DeadlinePassed",
    "DependencyFailed",
    "FlameError",
    "FlameExecutor",
    "Future",
    "Increment",
    "MissingModule",
    "NoTask",
    "NotFound",
    "ObjectLost",
    "ObjectRef",
    "ProtocolError",
    "QuotaExceeded",
    "Refused",
    "RouterLost",
    "ServiceError",
    "ServiceFailed",
    "ServiceSession",
    "Session",
    "SessionClosed",
    "SessionMismatch",
    "ShimMissing",
    "StaleVersion",
    "StartFailed",
    "StoreFull",
    "StoreLost",
    "StrayClient",
    "StrayFuture",
    "TaskCancelled",
    "TaskError",
    "TaskLost",
    "TaskTimeout",
    "Tenant",
    "TooLarge",
    "Unpicklable",
    "__version__",
    "aio",
    "as_completed",
    "current",
    "options",
    "private",
    "progress",
    "scripts",
    "service",
    "testing",
    "wait",
]


#: Modules that need no import of their own.
_MODULES = ("aio", "scripts", "testing")


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"flamezmq.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'flamezmq' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
