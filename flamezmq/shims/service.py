"""The python shim: an application's class, whose instance is made anew for each session that is bound.

The hooks are those of Flame and IBM Symphony, in Python's spelling.
"""

from __future__ import annotations

import os
from importlib import import_module
from inspect import getattr_static, signature
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

from flamezmq.processes import current_folder
from flamezmq.serialize.functions import dump_function, label, load_function
from flamezmq.shims.base import Shim
from flamezmq.shims.options import ShimOptions
from flamezmq.wire.applications import SESSION_TIMEOUT_SECONDS, Application

if TYPE_CHECKING:
    from flamezmq.shims.roles import Context

Class = TypeVar("Class", bound=type)

#: session_timeout: seconds until `on_session_enter` must have returned; then its process is ended.
OPTIONS: dict[str, Any] = {"session_timeout": SESSION_TIMEOUT_SECONDS}
HOOKS = ("on_session_enter", "on_task_invoke", "on_session_leave")


def service(cls: Class) -> Class:
    """Says that a class, `cls`, is a service, and checks that it is one; use it as a decorator.

    Its hooks: `on_session_enter(self, ctx)`, when an executor is bound to a session, before its first
    task there; `on_task_invoke(self, ctx, ...)` for each task, with what was submitted, its value is
    the result; `on_session_leave(self, ctx)`, when it is unbound.  Only the second one is needed.
    `ctx` is an `flm.Context`.  An instance is made for each bind, without arguments.

    Raises:
        TypeError: it is no class, has no `on_task_invoke`, another method that looks like a hook, or a
            method that can't be called so.
    """
    if not isinstance(cls, type):
        raise TypeError(f"a service is a class, not {cls!r}")
    if not callable(getattr(cls, "on_task_invoke", None)):
        raise TypeError(f"{label(cls)} has no method on_task_invoke(self, ctx, ...), so it can't run tasks")
    for name in vars(cls):
        if name.startswith(("on_session", "on_task")) and name not in HOOKS:
            raise TypeError(f"{label(cls)}.{name} is no hook of a service; these are {', '.join(HOOKS)}")
    _check_calls(cls)
    return cls


#: How each is called: in words, and with how many arguments (of a task, at least).
_CALLS = {
    "__init__": ("without arguments (what it needs may come as common_data)", 1),
    "on_session_enter": ("as (self, ctx)", 2),
    "on_task_invoke": ("as (self, ctx, ...)", 2),
    "on_session_leave": ("as (self, ctx)", 2),
}


def _check_calls(cls: type) -> None:
    """Raises TypeError if it could not be called as it will be; what is no plain method is left alone."""
    for name, (how, count) in _CALLS.items():
        method = getattr_static(cls, name, None)
        if not isinstance(method, FunctionType):
            continue
        takes = signature(method, follow_wrapped=False)
        try:
            (takes.bind_partial if name == "on_task_invoke" else takes.bind)(*[None] * count)
        except TypeError as error:
            raise TypeError(f"{label(cls)}.{name} is called {how}, but {error}") from None


class Named:
    """A service that executors import, "module:Class"; in its pickle is the name only."""

    def __init__(self, name: str) -> None:
        module, _, path = name.partition(":")
        if not module or not path or not all(part.isidentifier() for part in (*module.split("."), path)):
            raise ValueError(f"{name!r} names no `service`; write module:Class")
        self.name = name

    def __reduce__(self) -> Any:
        return find, (self.name,)


def find(name: str) -> type:
    """The class behind "module:Class".

    Raises:
        ModuleNotFoundError, AttributeError: it is not here.
    """
    module, _, path = name.partition(":")
    found: type = getattr(import_module(module), path)
    return service(found)


def check_service(what: type | str) -> type | Named:
    """What is to be pickled for a class, or for the name of one.

    Raises:
        TypeError, ValueError: it is no service.
    """
    return Named(what) if isinstance(what, str) else service(what)


def dump_service(what: type | str) -> bytes:
    """A class, or what finds it, as executors get it.

    Raises:
        Unpicklable: it can't travel.
        TypeError, ValueError: it is no service.
    """
    return dump_function(check_service(what))


class PythonShim(Shim):
    """Runs a service in the executor itself, with the variables and the folder of its application."""

    def __init__(self, application: Application) -> None:
        super().__init__(application)
        self.enter_seconds = ShimOptions(application, OPTIONS).seconds("session_timeout")
        self._pickled = application.service
        self._class: Any = None
        self._instance: Any = None
        self._outside: tuple[str, dict[str, str]] | None = None  # folder and variables, while it is inside

    @classmethod
    def check(cls, application: Application) -> None:  # type: ignore[override]
        if not application.service:
            raise ValueError("an application with the shim python needs a `service`, a class")
        for what in ("command", "arguments", "schema"):
            if getattr(application, what):
                raise ValueError(f"`{what}` is not for the shim python, whose `service` is a class")
        ShimOptions(application, OPTIONS).seconds("session_timeout")

    def start(self) -> None:
        self._class = load_function(self._pickled)

    def enter(self, ctx: Context) -> None:
        self._go_in()
        instance = self._class()
        hook = getattr(instance, "on_session_enter", None)
        if hook is not None:
            hook(ctx)
        self._instance = instance

    def invoke(self, ctx: Context, /, *args: Any, **kwargs: Any) -> Any:
        return self._instance.on_task_invoke(ctx, *args, **kwargs)

    def leave(self, ctx: Context) -> None:
        instance, self._instance = self._instance, None
        hook = getattr(instance, "on_session_leave", None)
        try:
            if hook is not None:
                hook(ctx)
        finally:
            self._go_out()

    def _go_in(self) -> None:
        """To where it is at home.  If it never comes out, its process is replaced."""
        self._outside = current_folder(), dict(os.environ)
        os.environ.update(self.application.environment)
        if self.application.working_directory:
            os.chdir(self.application.working_directory)

    def _go_out(self) -> None:
        if self._outside is not None:
            (folder, variables), self._outside = self._outside, None
            for name in os.environ.keys() - variables.keys():
                del os.environ[name]
            os.environ.update(variables)
            os.chdir(folder)
