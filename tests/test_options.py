"""Options, where no process is needed: what is checked, how they add up, how they travel."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import flamezmq as flm
from flamezmq.client.defaults import Defaults
from flamezmq.optioned import Optioned
from flamezmq.serialize.functions import FunctionTable, label, load_function
from flamezmq.serialize.values import dump_call
from flamezmq.shims import attempts
from flamezmq.shims.attempts import in_place, prepare
from flamezmq.shims.slices import Slicer
from flamezmq.wire import messages as m


class Odd(Exception):
    """Its module is this one, which travels by reference."""


def power(base: int, exponent: int = 2) -> int:
    """A power."""
    return int(base**exponent)


@flm.options(retries=1, name="decorated")
def decorated(x: int) -> int:
    return x + 1


class Model:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    @flm.options(timeout=5)
    def scale(self, x: int) -> int:
        return self.factor * x


# --- what is checked

WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"retries": -1}, ValueError, "`retries` is -1.*from 0"),
    ({"retries": 1.5}, TypeError, "`retries` is 1.5.*integer"),
    ({"retries": True}, TypeError, "`retries` is True"),
    ({"retry_on": "IOError"}, TypeError, "`retry_on` has 'IOError'.*class of exceptions"),
    ({"retry_on": (OSError, 3)}, TypeError, "`retry_on` has 3"),
    ({"retry_on": [OSError]}, TypeError, "`retry_on`"),
    ({"retry_on": KeyboardInterrupt}, ValueError, "`retry_on` has KeyboardInterrupt"),
    ({"retry_on": (OSError, BaseException)}, ValueError, "`retry_on` has BaseException"),
    ({"backoff": -0.1}, ValueError, "`backoff` is -0.1.*from 0"),
    ({"backoff": math.nan}, ValueError, "`backoff`"),
    ({"backoff": "1"}, TypeError, "`backoff` is '1'.*seconds"),
    ({"timeout": 0}, ValueError, "`timeout` is 0.*above 0"),
    ({"timeout": math.nan}, ValueError, "`timeout`"),
    ({"timeout": "10"}, TypeError, "`timeout` is '10'"),
    ({"priority": 1 << 40}, ValueError, "`priority`"),
    ({"priority": 0.5}, TypeError, "`priority` is 0.5"),
    ({"name": ""}, ValueError, "`name`"),
    ({"name": 3}, TypeError, "`name` is 3"),
    ({"retry": 3}, TypeError, "retry"),
]


@pytest.mark.parametrize(("arguments", "kind", "words"), WRONG)
def test_what_can_not_be_meant_is_refused_at_once_and_by_name(
    arguments: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        flm.options(**arguments)


def test_only_what_can_be_called_has_options() -> None:
    with pytest.raises(TypeError, match="int"):
        flm.options(retries=1)(3)  # type: ignore[arg-type]


# --- what it is


def test_a_function_with_options_is_still_the_function() -> None:
    squared = flm.options(retries=2)(power)

    assert (squared(7), squared(2, exponent=5)) == (49, 32)
    assert (squared.__name__, squared.__doc__) == ("power", "A power.")  # type: ignore[attr-defined]
    assert repr(squared) == "<flm.options(retries=2) of power>"
    assert decorated(1) == 2
    assert Model(3).scale(5) == 15


def test_options_that_are_given_twice_add_up_and_the_outer_ones_come_before() -> None:
    inner = flm.options(retries=2, timeout=5)(power)
    outer = flm.options(timeout=7, name="x")(inner)
    assert outer.options == flm.options(retries=2, timeout=7, name="x")
    assert outer.innermost is power


def test_a_class_alone_is_a_reason_and_without_one_every_exception_is() -> None:
    assert flm.options(retries=1, retry_on=OSError).again(FileNotFoundError(), 0)
    assert not flm.options(retries=1, retry_on=OSError).again(ValueError(), 0)
    some = flm.options(retries=2)
    assert [some.again(ValueError(), retried) for retried in range(4)] == [True, True, False, False]
    for error in (KeyboardInterrupt(), SystemExit(), GeneratorExit(), flm.Unpicklable("it", "", "why")):
        assert not some.again(error, 0)


# --- how they travel


@pytest.fixture
def table() -> FunctionTable:
    return FunctionTable()


def test_other_options_are_another_function_and_the_same_ones_are_not(table: FunctionTable) -> None:
    numbers = [
        table.name(function).number
        for function in (
            power,
            flm.options(retries=1)(power),
            flm.options(retries=2)(power),
            flm.options(retries=1)(power),
        )
    ]
    assert numbers == [0, 1, 2, 1]
    table.check()


def test_what_the_router_must_know_stands_beside_the_pickle(table: FunctionTable) -> None:
    kinds = (ValueError, TimeoutError)
    whole = flm.options(retries=2, retry_on=kinds, backoff=0.5, timeout=9, priority=1, name="x")(power)
    name = table.name(whole)
    assert name.options == m.Options(2, 0.5, 9.0, 1, True)
    assert name.label == "x"
    assert table.name(power).options is None
    assert table.name(flm.options(timeout=math.inf)(power)).options == m.Options()


def test_a_function_that_can_be_imported_travels_by_its_name_and_so_it_does_with_options(
    table: FunctionTable,
) -> None:
    """What it uses of its module may be nothing that travels."""
    name = table.name(decorated)
    assert len(name.blob) < 100
    assert load_function(name.blob) is decorated
    assert pickle.loads(pickle.dumps(decorated)) is decorated
    again = load_function(table.name(flm.options(timeout=5)(decorated)).blob)
    assert isinstance(again, Optioned)
    assert again.fn is decorated
    assert again.options == flm.options(retries=1, name="decorated", timeout=5)


def test_a_function_of_here_and_now_travels_with_what_it_uses(table: FunctionTable) -> None:
    factor = 3
    scaled = flm.options(retries=1, retry_on=Odd)(lambda x: x * factor)
    there = load_function(table.name(scaled).blob)
    assert isinstance(there, Optioned)
    assert (there(5), there.options) == (15, scaled.options)


def test_a_function_with_options_may_call_itself(table: FunctionTable) -> None:
    @flm.options(retries=1)
    def factorial(n: int) -> int:
        return 1 if n < 2 else n * factorial(n - 1)

    assert load_function(table.name(factorial).blob)(5) == 120
    table.name(factorial)
    assert table.statistics()["pickled"] == 1


def test_it_is_pickled_once_and_again_when_what_it_uses_has_changed(table: FunctionTable) -> None:
    factor = 3
    scaled = flm.options(retries=1)(lambda x: x * factor)
    first = [table.name(scaled).number for _ in range(5)]
    assert table.statistics()["pickled"] == 1
    factor = 4
    assert table.name(scaled).number not in first


def test_what_can_not_travel_is_named_as_without_options(table: FunctionTable) -> None:
    import threading

    lock = threading.Lock()
    with pytest.raises(flm.Unpicklable) as caught:
        table.name(flm.options(retries=1, name="mine")(lambda: lock))
    assert caught.value.path == "captured variable `lock`"
    assert caught.value.what == "function mine"


def test_the_name_that_options_give_stands_in_errors_about_arguments() -> None:
    import threading

    with pytest.raises(flm.Unpicklable, match=r"argument 1 .*of mine"):
        dump_call((threading.Lock(),), {}, flm.options(name="mine")(power))


def test_a_class_with_words_like_ours_can_have_options(table: FunctionTable) -> None:
    class Labelled:
        label = terms = under = fn = options = "its own"

    whole = flm.options(retries=1)(Labelled)
    assert type(whole()) is Labelled
    assert table.name(whole).options == m.Options(retries=1, retry_timeouts=True)


def test_the_slices_of_a_map_have_the_priority_and_the_timeout_of_its_function(table: FunctionTable) -> None:
    whole = flm.options(retries=2, timeout=9, priority=1, name="x")(power)
    name = table.name(Slicer(whole, False))
    assert name.options == m.Options(timeout=9.0, priority=1)
    assert name.label == "map(x)"
    assert table.name(Slicer(power, False)).options is None
    assert label(Slicer(power, False)) == f"map({label(power)})"


# --- a session's


def test_a_sessions_options_are_those_of_its_functions_and_their_own_come_before(
    table: FunctionTable,
) -> None:
    defaults = Defaults(table, flm.options(retries=3, timeout=9))

    assert defaults.name(power).options == m.Options(retries=3, timeout=9.0, retry_timeouts=True)
    own = flm.options(timeout=math.inf, priority=2)(power)
    assert defaults.name(own).options == m.Options(retries=3, priority=2, retry_timeouts=True)
    assert defaults.name(Slicer(power, False)).options == m.Options(timeout=9.0)
    assert table.name(power).options is None


def test_a_sessions_functions_are_pickled_once_too(table: FunctionTable) -> None:
    defaults = Defaults(table, flm.options(retries=3))
    numbers = {defaults.name(power).number for _ in range(5)}
    assert (len(numbers), table.statistics()["pickled"]) == (1, 1)


def test_what_can_change_in_place_is_not_kept_by_a_session(table: FunctionTable) -> None:
    defaults = Defaults(table, flm.options(retries=3))
    seen: list[int] = []

    def count() -> int:
        return len(seen)

    for number in range(3):
        assert defaults.name(count).number == number
        seen.append(number)
    assert not defaults._known


# --- in an executor


def failing(times: int, error: type[Exception] = ValueError) -> Callable[[], int]:
    """Fails so often, then says how often it was called."""
    calls: list[None] = []

    def fails() -> int:
        calls.append(None)
        if len(calls) <= times:
            raise error(f"call {len(calls)}")
        return len(calls)

    return fails


def test_a_part_of_a_task_runs_again_in_place_with_its_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(attempts, "sleep", pauses.append)
    assert in_place(flm.options(retries=3, backoff=0.5)(failing(3)))() == 4
    assert pauses == [0.5, 1.0, 2.0]


def test_its_last_error_says_how_often_it_was_tried() -> None:
    with pytest.raises(ValueError, match="call 3") as caught:
        in_place(flm.options(retries=2)(failing(9)))()
    assert caught.value.__notes__ == ["flamezmq: it has failed after 3 attempts"]
    with pytest.raises(ValueError, match="call 1") as caught:
        in_place(flm.options(retries=2, retry_on=OSError)(failing(9)))()
    assert not hasattr(caught.value, "__notes__")


def test_a_slice_tries_each_of_its_items() -> None:
    one = failing(1)
    result = Slicer(flm.options(retries=1)(lambda x: x * one()), False)([1, 2, 3])
    assert (result.values, result.errors) == ([2, 6, 12], {})


def test_a_plain_function_is_called_as_it_is() -> None:
    assert prepare(power) == (power, None)
    assert in_place(power) is power
    whole = flm.options(retries=1)(power)
    assert prepare(whole) == (power, whole.options)
