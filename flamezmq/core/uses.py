"""Which objects the arguments of tasks refer to, as a client tells its router with the tasks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flamezmq.wire import messages as m
from flamezmq.wire.handles import Handle

#: Objects of one task that are told; where its data is shows in a few.
MOST_OBJECTS = 64


class Uses:
    """The columns of one `Submit`."""

    def __init__(self) -> None:
        self._objects: dict[Handle, int] = {}
        self._uses: list[int] = []

    def note(self, position: int, holds: Iterable[Any], needs: Iterable[tuple[Any, Any]]) -> None:
        """The task at this position refers to what these hold, and takes the values of these.

        An object that has no address, for all are on its node, makes no difference, and is not told.
        """
        found: dict[Handle, None] = {}
        for hold in (*holds, *needs):
            handle = _handle_of(hold)
            if handle is not None and handle.at:
                found[handle] = None
        largest = (
            sorted(found, key=_size, reverse=True)[:MOST_OBJECTS] if len(found) > MOST_OBJECTS else found
        )
        for handle in largest:
            self._uses += (position, self._objects.setdefault(handle, len(self._objects)))

    def tell(self, submit: m.Submit) -> None:
        """Write the columns, if there is anything in them."""
        if self._uses:
            submit.objects = [handle.id for handle in self._objects]
            submit.homes = [handle.home for handle in self._objects]
            submit.sizes = [handle.size for handle in self._objects]
            submit.uses = self._uses


def _handle_of(hold: Any) -> Handle | None:
    """Of a hold, of a reference, or of a need (some calls, and a future of theirs), which is a hold, too."""
    if type(hold) is tuple:
        hold = hold[1]._hold
    handle: Handle | None = getattr(hold, "handle", None) or getattr(hold, "_handle", None)
    return handle


def _size(handle: Handle) -> int:
    return handle.size
