"""The ways to run user code in an executor.

Functions run as they are.  The service of an application runs behind a `Shim`
(shims/base.py): `make` builds the one that the application names.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from flamezmq.shims.base import Shim
    from flamezmq.shims.roles import Application

#: Name of a shim -> where its class stands.
HOMES = {
    "python": "flamezmq.shims.service:PythonShim",
    "stdio": "flamezmq.shims.stdio:Stdio",
    "http": "flamezmq.shims.http:Http",
    "grpc": "flamezmq.shims.grpc:Grpc",
}


def shim_class(name: str) -> type[Shim]:
    """The class of the shim of this name.

    Raises:
        ValueError: there is none.
    """
    home = HOMES.get(name)
    if home is None:
        raise ValueError(f"there is no `shim` {name!r}; those that there are: {', '.join(HOMES)}")
    module, _, found = home.partition(":")
    return getattr(import_module(module), found)  # type: ignore[no-any-return]


def make(application: Application) -> Shim:
    """The shim of an application; nothing is started yet."""
    return shim_class(application.shim)(application)
