"""Blocked tasks, and the values that they wait for.  Data only; `needs` decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flamezmq.core.tasks import Function, Run

if TYPE_CHECKING:
    from flamezmq.core.members import Session

#: A task of a client: (the client's number of its session, index).
Key = tuple[int, int]


class Value:
    """The output of a task, for those that take it.

    size   bytes
    users  tasks that have it and are not over; with the last it is let go
    """

    __slots__ = ("payload", "size", "users")

    def __init__(self, payload: Any, size: int) -> None:
        self.payload, self.size = payload, size
        self.users = 0


class Blocked:
    """A task that waits for values.

    needs     the tasks whose values it takes, in the order of its placeholders
    came      when it was submitted, for people
    values    those that are here
    later     those that were let go, with their bytes: they are had from the client again
    fetching  all it lacks are those, and they were asked for
    """

    __slots__ = ("came", "fetching", "function", "index", "later", "needs", "payload", "session", "values")

    def __init__(
        self, session: Session, function: Function, index: int, payload: Any, needs: list[Key], came: float
    ) -> None:
        self.session, self.function, self.index, self.payload = session, function, index, payload
        self.needs, self.came = needs, came
        self.values: dict[Key, Value] = {}
        self.later: dict[Key, int] = {}
        self.fetching = False

    @property
    def lacks(self) -> int:
        """How many of the needed tasks have not ended."""
        return len(self.needs) - len(self.values) - len(self.later)

    def run(self) -> Run:
        """The task as it is, without its values."""
        return Run(self.function, self.index, 1, [self.payload], False, self.came)

    def awaits(self, key: Key) -> bool:
        """Whether the value of this one is to come."""
        return key not in self.values and (self.fetching or key not in self.later)
