"""The options of a shim: known names, right types, or an error that says what was expected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from flamezmq.errors import ShimMissing

if TYPE_CHECKING:
    from flamezmq.shims.roles import Application


class ShimOptions:
    """What an application has set, with the shim's defaults for the rest.

    Raises:
        ValueError: an option that the shim does not know.
    """

    def __init__(self, application: Application, known: Mapping[str, Any]) -> None:
        self._values = {**known, **application.options}
        for name in application.options:
            if name not in known:
                names = ", ".join(sorted(known))
                raise ValueError(f"the shim {application.shim} has no option {name!r}; there are {names}")

    def seconds(self, name: str) -> float | None:
        """A number above 0; None is no limit."""
        value = self._values[name]
        if value is None:
            return None
        if type(value) not in (int, float) or not value > 0:
            raise ValueError(f"the option {name} is a number of seconds above 0, not {value!r}")
        return float(value)

    def flag(self, name: str) -> bool:
        value = self._values[name]
        if type(value) is not bool:
            raise ValueError(f"the option {name} is true or false, not {value!r}")
        return value

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        value = self._values[name]
        if value not in choices:
            raise ValueError(f"the option {name} is one of {', '.join(choices)}, not {value!r}")
        return str(value)

    def text(self, name: str) -> str:
        value = self._values[name]
        if type(value) is not str:
            raise ValueError(f"the option {name} is a text, not {value!r}")
        return value

    def count(self, name: str) -> int:
        """An integer from 1."""
        value = self._values[name]
        if type(value) is not int or value < 1:
            raise ValueError(f"the option {name} is an integer from 1, not {value!r}")
        return value


def check(shim: Callable[[Application], object], application: Application) -> None:
    """Raises ValueError if the shim can't be made; what it needs may be missing here, this is no executor."""
    if getattr(application, "service", b""):
        raise ValueError(f"`service` is for the shim python; the shim {application.shim} starts a `command`")
    try:
        shim(application)
    except ShimMissing:
        pass


def check_command(application: Application) -> None:
    """Raises ValueError if there is none."""
    if not application.command:
        raise ValueError(f"the shim {application.shim} needs a `command`, the program that it starts")
