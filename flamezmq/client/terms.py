"""The arguments of clients and sessions: what is wrong with them, and what the router is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flamezmq.address import check
from flamezmq.optioned import Options
from flamezmq.optioned import options as make_options
from flamezmq.serialize.initializer import dump_initializer


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


def of_session(
    *,
    name: str,
    max_retries: int,
    max_executors: int | None,
    initializer: Callable[..., object] | None,
    initargs: Iterable[Any],
    max_tasks_per_child: int | None,
) -> dict[str, Any]:
    """The fields of a `SessionSpec` that `flm.Client.session` was asked for; raises as it says."""
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ValueError(f"a session's name is a text that is not empty and can be printed, not {name!r}")
    if not isinstance(max_retries, int) or max_retries < 0:
        raise ValueError(f"max_retries is {max_retries!r}; it must be an integer from 0")
    for what, limit in (("max_executors", max_executors), ("max_tasks_per_child", max_tasks_per_child)):
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            raise ValueError(f"{what} is {limit!r}; it must be an integer from 1, or None for no limit")
    if initializer is not None and not callable(initializer):
        raise TypeError("initializer must be a callable")
    return {
        "name": name,
        "max_retries": max_retries,
        "max_executors": max_executors or 0,
        "initializer": b"" if initializer is None else dump_initializer(initializer, tuple(initargs)),
        "max_tasks_per_child": max_tasks_per_child or 0,
    }
