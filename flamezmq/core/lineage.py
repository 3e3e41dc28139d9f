"""Lineage: a value that was lost with its node is made again, by running the task again that had made it.

The client's affair alone: it has the calls and knows the futures; to the router a
task that runs again is a new one.  For each value that lies in a store, as long as
its future lives or another one was made of it, the call is kept: a `Recipe`.  The
arguments of a recipe that have recipes themselves are made again first, if they
are lost, too, or if nobody has kept them.

A task that has found an argument gone has not begun.  It goes back into the outbox,
with what makes that argument again in its place, and so do those that waited for it
at the router: their futures stay as they are.

Restartable, as `Calls` is: a task that is put back twice is there once, and a run
that is ordered twice is wasted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakValueDictionary, ref

from flamezmq.core.caller import (
    DONE,
    ERROR,
    FINISHED,
    PENDING,
    RAW,
    RUNNING,
    Calls,
    Dependent,
    Need,
    Record,
    Tell,
    weight,
)
from flamezmq.errors import ObjectLost
from flamezmq.wire.codec import split_payloads

if TYPE_CHECKING:
    from flamezmq.core.caller import Staged
    from flamezmq.core.link import Link
    from flamezmq.wire import messages as m

#: What is made again for something else that is made again, and so on: so far, and no farther.
MOST_DEPTH = 64
#: What a recipe takes of memory beside the call's bytes, about.
RECIPE_BYTES = 1024


class CannotBeMade(Exception):
    """Why a value can't be made again."""


class Host(Protocol):
    """The client."""

    def future(self, recipe: Recipe) -> Any:
        """A new future of the recipe's session, which nobody has."""

    def lost(self, output: Any) -> ObjectLost | None:
        """What is pickled in the output of a failed task, if it is that."""

    def due(self, calls: Calls) -> None:
        """Something lies in an outbox."""


class Recipe:
    """How a value was made that lies in a store.

    calls     of the session that it belongs to
    function  what the outbox calls so
    call      pickled, with a placeholder for each of `inputs`; None: it is kept no more
    inputs    recipes; or, where the value is not in a store, or has none, the future and its calls
    holds     what keeps objects of the call in their store
    left      so often it may be made again
    newest    the future that has the value, or will have it, if that lives
    gone      its object is lost
    age       of the task, of all that the client has sent with lineage: needs are older than what needs them
    """

    __slots__ = (
        "__weakref__", "age",
        "call",
        "calls",
        "function",
        "gone",
        "holds",
        "inputs",
        "left",
        "newest",
        "size",
    )  # fmt: skip

    def __init__(self, calls: LineageCalls, record: Record, left: int) -> None:
        future, self.function, call = record
        needs: list[Need] = []
        self.holds: Any = ()
        if type(call) is Dependent:
            call, needs, self.holds = call.payload, call.needs, call.holds
        self.calls, self.call, self.left = calls, call, left
        self.inputs: list[Recipe | Need] = [need[1]._recipe or need for need in needs]
        self.newest: Callable[[], Any] = ref(future)
        self.gone = False
        self.age = future._age
        self.size = RECIPE_BYTES + weight(call) + sum(map(_weight_of, self.inputs))

    def forget(self) -> None:
        """Keep it no more; what was made of it can't be made again."""
        self.call, self.inputs, self.holds = None, [], ()
        self._release()

    def _release(self) -> None:
        self.calls.ledger.released.append(self.size)
        self.size = 0

    def __del__(self) -> None:
        self._release()  # only notes: it may run anywhere


def _weight_of(made_of: Recipe | Need) -> int:
    """Bytes that are kept for a recipe, and counted nowhere else."""
    if isinstance(made_of, Recipe):
        return 0
    need = made_of[1]
    return weight(need._value) if need._form == RAW else 0


class Ledger:
    """The recipes of a client, oldest first, and their bytes.

    released  sizes of recipes that are gone; they are taken off when somebody looks
    """

    def __init__(self) -> None:
        self.recipes: WeakValueDictionary[int, Recipe] = WeakValueDictionary()
        self.released: deque[int] = deque()
        self._bytes = self._last = self._age = 0

    def next_age(self) -> int:
        """Of a task that is sent for the first time."""
        self._age += 1
        return self._age

    @property
    def bytes(self) -> int:
        """What all of them keep."""
        while self.released:
            self._bytes -= self.released.popleft()
        return self._bytes

    def add(self, recipe: Recipe, most: int) -> None:
        """Keep it, and forget the oldest ones as far as all have more than `most` bytes."""
        self._last += 1
        self.recipes[self._last] = recipe
        self._bytes += recipe.size
        while self.bytes > most and self.recipes:
            number, oldest = next(iter(self.recipes.items()))
            oldest.forget()
            del self.recipes[number]

    def lose_home(self, home: str) -> None:
        """All that lies in this store is lost."""
        for recipe in list(self.recipes.values()):
            newest = recipe.newest()
            if newest is not None and newest._hold is not None and newest._hold.handle.home == home:
                recipe.gone = True


class LineageCalls(Calls):
    """The tasks of a session with lineage.

    records  index -> record, of what is on its way
    runs     how often what a task has made may be made again
    most     bytes that recipes and outbox may have together
    """

    def __init__(
        self, alias: int, id: str, needed: Any, ledger: Ledger, host: Host, runs: int, most: int
    ) -> None:
        super().__init__(alias, id, needed)
        self.ledger, self._host = ledger, host
        self.runs, self.most = runs, most
        self.records: dict[int, Record] = {}

    # --- what is kept

    def _complete(self, link: Link, staged: Staged) -> None:
        if self.outbox and self.outbox[0] is staged.first_record:
            records = self.outbox[: staged.records]
            for future, _, _ in records:
                future._age = future._age or self.ledger.next_age()
            self.records.update(zip(range(self.committed, staged.after), records, strict=False))
        super()._complete(link, staged)

    def _remove(self, indices: Iterable[int]) -> None:
        super()._remove(indices)
        if self.records:
            for index in indices:
                self.records.pop(index, None)

    def _take_over(
        self, message: m.Results, outputs: list[Any], take_over: Callable[[Any, Any], None]
    ) -> None:
        def with_recipe(future: Any, output: Any) -> None:
            take_over(future, output)
            self._note(future)

        super()._take_over(message, outputs, with_recipe)

    def _note(self, future: Any) -> None:
        """Its value lies in a store: keep how it was made, if that is not known."""
        record = self.records.get(future._index)
        if record is None or future._recipe is not None:
            return
        future._recipe = Recipe(self, record, self.runs)
        self.ledger.add(future._recipe, self.most - self.outbox_bytes)

    # --- making it again

    def lose(self, future: Any, lost: ObjectLost) -> None:
        """The value of this future can't be read; with a node all that lay there is lost.

        Or it could not be, by who had the handle of its object: maybe it is another's by now.
        """
        recipe = future._recipe
        newest = recipe.newest()
        if newest is future or (newest is not None and _has(newest, lost)):
            recipe.gone = True
        if lost.node and _has(future, lost):
            self.ledger.lose_home(future._hold.handle.home)

    def again(self, recipe: Recipe, depth: int = 0) -> Any:
        """The future that has the value of this recipe, or will have it; if need be the task is run again.

        Raises:
            CannotBeMade: why not.
        """
        newest = recipe.newest()
        if newest is not None and not (newest._state in DONE and recipe.gone):
            return newest
        _check(recipe, depth)
        needs = [
            (one.calls, self.again(one, depth + 1)) if isinstance(one, Recipe) else one
            for one in recipe.inputs
        ]
        future = self._host.future(recipe)
        future._recipe, future._depth, future._age = recipe, depth, recipe.age
        call = Dependent(recipe.call, needs, recipe.holds) if needs or recipe.holds else recipe.call
        recipe.calls._put((future, recipe.function, call))
        if newest is not None:
            newest._heir = future  # lives as long
        recipe.newest, recipe.gone = ref(future), False
        recipe.left -= 1
        return future

    def _put(self, record: Record) -> None:
        """Into the outbox, in its place by age: what a task needs is older, and has to go before it.

        So it is with all outboxes of a client taken together, and none of them waits for another for ever.
        """
        if not any(other[0] is record[0] for other in self.outbox):
            place = self.unsent()
            while place < len(self.outbox) and 0 < self.outbox[place][0]._age < record[0]._age:
                place += 1
            self.outbox.insert(place, record)
            self.outbox_bytes += weight(record[2])
        self._host.due(self)

    # --- tasks that have found an argument gone

    def on_results(self, message: m.Results, frames: list[Any], tell: Tell) -> int:
        if message.failed:
            self._look_at_failed(message, frames, tell)
        return super().on_results(message, frames, tell)

    def _look_at_failed(self, message: m.Results, frames: list[Any], tell: Tell) -> None:
        outputs = split_payloads(message.outputs, message.parts, frames)
        failed = {position for position in message.failed if position < len(outputs)}
        position = 0
        for part in message.slices:
            for index in range(part.first, part.first + part.count) if part.attempt else ():
                at = position + index - part.first
                if at in failed and index in self.records:
                    self._look_at(index, outputs[at], tell)
            position += part.count

    def _look_at(self, index: int, output: Any, tell: Tell) -> None:
        future, function, call = self.records[index]
        lost = self._host.lost(output)
        if lost is None or lost.task_id != f"{self.id}/{index}" or future._state in DONE:
            return
        if type(call) is not Dependent or not call.needs or future._inflow is not None:
            return  # it was in the arguments as they were submitted, or others read the values as they come
        try:
            needs = self._replaced(call.needs, lost, future._depth)
        except CannotBeMade as why:
            error = not_made(lost, why)
            self._finish(future, ERROR, error, FINISHED, tell)
            self.faults += 1
            return
        if needs is not None:
            self._put_back(index, (future, function, Dependent(call.payload, needs, call.holds)))

    def _replaced(self, needs: list[Need], lost: ObjectLost, depth: int) -> list[Need] | None:
        """The same, with what makes it again in the place of what is lost; None: it is none of them."""
        known = False
        for calls, need in needs:
            if _has(need, lost):
                known = True
                if need._recipe is None:
                    raise CannotBeMade(
                        f"task {calls.id}/{need._index} has made it, in a session without lineage"
                    )
                self.lose(need, lost)
        if not known:
            return None
        return [
            (calls, need)
            if need._recipe is None
            else (need._recipe.calls, self.again(need._recipe, depth + 1))
            for calls, need in needs
        ]

    def _put_back(self, index: int, record: Record) -> None:
        """It goes to the router again, as a new task."""
        self._put(record)
        record[0]._index = -1
        if record[0]._state is RUNNING:  # it was announced, and then found that it can't begin
            record[0]._state = PENDING
        self._remove((index,))
        self.failed -= 1  # the router has counted it, and it is not over

    def on_unmet(self, index: int, needed: tuple[int, int], tell: Tell) -> None:
        record = self.records.get(index)
        if record is not None and record[0]._state not in DONE:
            held = record[2].needs if type(record[2]) is Dependent else ()
            if not any((calls.alias, need._index) == needed for calls, need in held):
                self._put_back(index, record)  # what it needs was put back, and has another number now
                return
        super().on_unmet(index, needed, tell)

    def check(self) -> None:
        super().check()
        assert set(self.records) == set(self.pending)


def _has(future: Any, lost: ObjectLost) -> bool:
    return future._hold is not None and future._hold.handle.id.hex() == lost.id


def _check(recipe: Recipe, depth: int) -> None:
    """Raises CannotBeMade if it is so."""
    calls, label = recipe.calls, recipe.function.label
    if recipe.call is None:
        raise CannotBeMade(
            f"the call of {label} that has made it is kept no more, for newer ones had no room"
        )
    if calls.closed or calls.draining or calls.broken is not None:
        raise CannotBeMade(f"{calls.named}, whose task ({label}) has made it, is closed")
    if depth >= MOST_DEPTH:
        raise CannotBeMade(f"more than {MOST_DEPTH} tasks, each for the next one, would have to run again")
    if recipe.left <= 0:
        times = "once" if calls.runs == 1 else f"{calls.runs} times"
        raise CannotBeMade(f"the task ({label}) has been run again {times} already (max_retries)")


def not_made(lost: ObjectLost, why: object) -> ObjectLost:
    """The error for an object that could not be made again."""
    reason = (
        f"{lost.reason}; it can't be made again: {why}" if lost.reason else f"it can't be made again: {why}"
    )
    return ObjectLost(lost.id, lost.size, reason, lost.node, lost.task_id)
