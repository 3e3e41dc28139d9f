"""A session's options: its functions are named as if each had been given them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flamezmq.optioned import Configured, Options
from flamezmq.serialize.functions import FunctionName, FunctionTable

#: Functions that are known by identity; beyond that, all are made again.
MOST_FUNCTIONS = 256


class Defaults:
    """Takes the place of `FunctionTable.name` in a session with options.

    It keeps the functions that the table keeps, and for the same reason: what can
    change in place is pickled each time, and must not be held here.
    """

    def __init__(self, table: FunctionTable, options: Options) -> None:
        self._table, self._options = table, options
        self._known: dict[int, tuple[object, Configured]] = {}  # by id(); the first keeps the id its own

    def name(self, function: Callable[..., Any]) -> FunctionName:
        """As `FunctionTable.name`, of the function with the session's options."""
        known = self._known.get(id(function))
        if known is not None:
            return self._table.name(known[1])  # type: ignore[arg-type]
        whole: Any
        if isinstance(function, Configured):
            whole = function.under(self._options)
        else:
            whole = self._options(function)
        name = self._table.name(whole)
        if self._table.remembers(whole):
            if len(self._known) >= MOST_FUNCTIONS:
                self._known.clear()
            self._known[id(function)] = (function, whole)
        return name
