"""Sessions with lineage, at the client: who looks at a lost value has it made again.

What is to run again is decided in core/lineage.py; here it is asked for and waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import TimeoutError
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import ref

from flamezmq.client.future import DONE, FAILED, Future
from flamezmq.client.session import MOST_BYTES
from flamezmq.core.caller import RAW, VALUE, Calls
from flamezmq.core.lineage import CannotBeMade, Ledger, LineageCalls, Recipe, not_made
from flamezmq.errors import ObjectLost
from flamezmq.serialize.failures import load_lost

if TYPE_CHECKING:
    from flamezmq.client.api import Client


class Lineage:
    """One per client; the `Host` of its `LineageCalls`.

    ledger  of what is kept; empty where no session has lineage
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self.ledger = Ledger()

    # --- as of `Host`

    def calls(self, alias: int, id: str, runs: int) -> LineageCalls:
        """Those of a new session."""
        return LineageCalls(alias, id, self._client._needed, self.ledger, self, runs, MOST_BYTES)

    def future(self, recipe: Recipe) -> Future:
        session = self._client._sessions.get(recipe.calls.alias)
        if session is None:
            raise CannotBeMade(f"{recipe.calls.named} is closed")
        return Future(session)

    def lost(self, output: Any) -> ObjectLost | None:
        return load_lost(output[0] if type(output) is list else output)

    def due(self, calls: Calls) -> None:
        self._client._dirty[calls.alias] = calls
        self._client._pump.arm()

    # --- for those who want a value

    def current(self, future: Future) -> Future:
        """The one that has, or will have, the value of this future, which has ended and has a recipe."""
        recipe = future._recipe
        assert recipe is not None
        with self._client._apply_lock:
            try:
                return recipe.calls.again(recipe)  # type: ignore[no-any-return]
            except CannotBeMade:
                return future  # who needs it will say that it is lost

    def _latest(self, future: Future, error: BaseException) -> BaseException | None:
        """What is wrong with the value that has come in the place of its own, if one has."""
        heir = future._heir
        has_come = heir is not None and heir._state in DONE and isinstance(error, ObjectLost)
        return self.adopt(future) if has_come and future._form == RAW else error

    def begin(self, future: Future, lost: ObjectLost) -> Future | ObjectLost:
        """Have a lost value made again: the future that will have it, or why there is none.

        lost: of the future's own object, or, if one has come in its place, of that one's
        """
        recipe = future._recipe
        assert recipe is not None
        with self._client._apply_lock:
            heir = future._heir
            recipe.calls.lose(heir if heir is not None and heir._state in DONE else future, lost)
            try:
                other = recipe.calls.again(recipe)
            except CannotBeMade as why:
                return not_made(lost, why)
            if other is future:
                return lost
            future._heir = other
            return other  # type: ignore[no-any-return]

    @staticmethod
    def may_help(future: Future) -> bool:
        """Whether a future with a recipe has had a value, and its task has not failed when it ran again."""
        heir = future._heir
        has_failed = heir is not None and heir._state in DONE and (heir.cancelled() or heir._form in FAILED)
        return future._form == RAW and not has_failed

    def made_again(self, future: Future, error: BaseException, timeout: float | None) -> BaseException | None:
        """Wait until its value is there again; None then, else the error.

        Raises:
            TimeoutError: it takes longer.
        """
        deadline = None if timeout is None else monotonic() + timeout
        found = self._latest(future, error)
        while isinstance(found, ObjectLost) and self.may_help(future):  # it may be lost again meanwhile
            other = self.begin(future, found)
            if isinstance(other, ObjectLost):
                return other
            if not self._client._wait(other.done, deadline):
                raise TimeoutError
            found = self.adopt(future)
        return found

    def made_later(
        self, future: Future, error: BaseException, later: Callable[[], object]
    ) -> BaseException | None:
        """None, and `later` is called, once, when there is something to `adopt`; else the error.

        It is called on some other thread, or here.
        """
        found = self._latest(future, error)
        if found is None:
            later()
            return None
        if not (isinstance(found, ObjectLost) and self.may_help(future)):
            return found
        other = self.begin(future, found)
        if isinstance(other, ObjectLost):
            return other
        other.add_done_callback(lambda _: later())
        return None

    @staticmethod
    def adopt(future: Future) -> BaseException | None:
        """Take the value of the one that was made in its place, or say why there is none."""
        heir = future._heir
        if heir is None:  # somebody else has taken it
            return future._settle()
        error = heir._settle()
        if error is None:
            recipe = future._recipe
            assert recipe is not None
            future._value, future._hold, future._form = heir._value, heir._hold, VALUE
            recipe.newest, future._heir = ref(future), None
            return None
        if heir._form == RAW and isinstance(error, ObjectLost):
            return error  # lost, too
        assert future._hold is not None
        handle = future._hold.handle
        lost = ObjectLost(handle.id.hex(), handle.size, "", handle.node)
        lost = not_made(lost, f"its task was run again, and {heir._what_became_of_it()}")
        lost.__cause__ = error
        return lost
