"""A task's exception arrives as itself, with its story; or as a TaskError with the same words."""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flamezmq.errors import Certificate, FlameError, TaskError, TaskLost, Unpicklable
from flamezmq.serialize import failures
from flamezmq.serialize.failures import RemoteTraceback, dump_error, load_error
from flamezmq.serialize.functions import dump_function, load_function

ROOT = Path(__file__).parents[1]


def raised(task: Callable[[], object]) -> BaseException:
    """What the task raises, as the executor catches it."""
    try:
        task()
    except BaseException as error:
        return error
    raise AssertionError("the task raised nothing")


def travelled(error: BaseException) -> BaseException:
    return load_error(dump_error(error))


def shown(error: BaseException) -> str:
    """What a user sees when nobody catches it."""
    return "".join(traceback.format_exception(error))


def divide() -> float:
    return 1 / len("")


class Custom(Exception):
    """Its __init__ takes other arguments than it gives to Exception."""

    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(f"code {code} ({hint})")
        self.code = code


class Rewording(Exception):
    """Made again from its args it would say "code code 5"."""

    def __init__(self, code: object) -> None:
        super().__init__(f"code {code}")
        self.code = code


class Holding(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


def test_an_exception_arrives_as_itself_with_the_remote_traceback_as_its_cause() -> None:
    error = travelled(raised(divide))
    assert type(error) is ZeroDivisionError
    assert error.args == ("division by zero",)
    assert isinstance(error.__cause__, RemoteTraceback)
    text = str(error.__cause__)
    assert "return 1 / len" in text
    assert text.rstrip('"').rstrip().endswith("ZeroDivisionError: division by zero")
    assert "The above exception was the direct cause" in shown(error)
    assert "return 1 / len" in shown(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a", 2, None),
        KeyError(("k", 1)),
        OSError(2, "No such file", "/x"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        StopIteration(5),
        KeyboardInterrupt(),
        SystemExit(3),
        GeneratorExit(),
        FlameError("x"),
        TaskError("a.B", "text", "trace"),
        TaskLost("7", 2, Certificate("e1", "n1", 5, "SIGKILL")),
        Unpicklable("x", "['a']", "because"),
    ],
)
def test_exceptions_of_all_kinds_arrive_as_they_were(error: BaseException) -> None:
    back = travelled(error)
    assert type(back) is type(error)
    assert back.args == error.args
    assert str(back) == str(error)
    assert isinstance(back.__cause__, RemoteTraceback)


def test_attributes_and_notes_arrive() -> None:
    error = ValueError("x")
    error.reading = [1, {"a": 2}]  # type: ignore[attr-defined]
    error.add_note("while reading line 3")
    back: Any = travelled(error)
    assert back.reading == [1, {"a": 2}]
    assert back.__notes__ == ["while reading line 3"]
    assert "while reading line 3" in str(back.__cause__)


def test_the_chain_of_causes_and_contexts_is_in_the_text() -> None:
    def chained() -> None:
        try:
            try:
                divide()
            except ZeroDivisionError:
                raise KeyError("second")  # noqa: B904 - the context is what is tested
        except KeyError as error:
            raise ValueError("third") from error

    text = str(travelled(raised(chained)).__cause__)
    order = [
        "ZeroDivisionError",
        "During handling",
        "KeyError: 'second'",
        "direct cause",
        "ValueError: third",
    ]
    assert [text.index(words) for words in order] == sorted(text.index(words) for words in order)


def test_a_failure_of_a_nested_task_tells_both_stories() -> None:
    child = travelled(raised(divide))

    def parent() -> None:
        raise child

    text = str(travelled(raised(parent)).__cause__)
    assert "return 1 / len" in text
    assert "in parent" in text


def test_a_cycle_of_causes_ends() -> None:
    first, second = ValueError("one"), ValueError("two")
    first.__cause__, second.__cause__ = second, first
    assert "two" in str(travelled(first).__cause__)


def test_an_exception_group_arrives_with_its_members() -> None:
    group = ExceptionGroup("both", [ValueError("a"), ExceptionGroup("inner", [KeyError("b")])])
    back = travelled(group)
    assert isinstance(back, ExceptionGroup)
    assert isinstance(back.exceptions[0], ValueError)
    assert isinstance(back.exceptions[1].exceptions[0], KeyError)
    assert "KeyError: 'b'" in str(back.__cause__)


def test_a_function_that_travels_by_value_still_shows_its_lines() -> None:
    """A closure, as one of `__main__`, is made anew from its code; the lines are in its file."""
    divisor = 0

    def by_value() -> float:
        return 1 / divisor  # this line

    copy = load_function(dump_function(by_value))
    text = str(travelled(raised(copy)).__cause__)

    assert f'File "{__file__}"' in text
    assert "return 1 / divisor  # this line" in text


def test_what_can_not_be_pickled_is_caught_as_pickles_own_error_and_as_a_type_error() -> None:
    error = Unpicklable("the result", "", "no")
    assert isinstance(error, pickle.PicklingError)
    assert isinstance(error, TypeError)


def test_a_class_of_main_arrives_as_itself_in_another_process() -> None:
    main: dict[str, Any] = {"__name__": "__main__"}
    exec(
        "class Odd(ValueError):\n    def twice(self): return self.args[0] * 2\ndef task(): raise Odd('x')",
        main,
    )
    program = (
        "import sys\n"
        "from flamezmq.serialize.failures import load_error\n"
        "error = load_error(sys.stdin.buffer.read())\n"
        "print(type(error).__name__, error.twice(), isinstance(error, ValueError))\n"
        "print('in task' in str(error.__cause__))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        input=dump_error(raised(main["task"])),
        capture_output=True,
        cwd="/",
        env={"PYTHONPATH": str(ROOT)},
        check=True,
    )
    assert run.stdout.decode().split() == ["Odd", "xx", "True", "True"]
    assert type(travelled(raised(main["task"]))) is main["Odd"]  # so `except Odd` works in the client


def test_what_cannot_be_made_again_arrives_as_a_task_error_with_the_same_words() -> None:
    def task() -> None:
        raise Custom(5, hint="look")

    back = travelled(raised(task))
    assert isinstance(back, TaskError)
    assert back.type_name == f"{__name__}.Custom"
    assert back.text == "code 5 (look)"
    assert "in task" in back.traceback
    assert "code 5 (look)" in shown(back)


@pytest.mark.parametrize("error", [Holding("held"), ExceptionGroup("g", [Holding("held")])])
def test_what_cannot_be_pickled_arrives_as_a_task_error(error: Exception) -> None:
    back = travelled(error)
    assert isinstance(back, TaskError)
    assert back.text == str(error)
    assert "held" in back.traceback


def test_an_unpicklable_argument_makes_a_task_error_too() -> None:
    back = travelled(ValueError("x", threading.Lock()))
    assert isinstance(back, TaskError)
    assert back.type_name == "ValueError"


def test_an_exception_of_a_module_that_the_client_lacks_is_a_task_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import types

    module = types.ModuleType("only_there")
    exec("class Theirs(Exception): pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_there", module)
    data = dump_error(module.Theirs("words"))
    monkeypatch.delitem(sys.modules, "only_there")
    back = load_error(data)
    assert isinstance(back, TaskError)
    assert (back.type_name, back.text) == ("only_there.Theirs", "words")


def test_a_class_that_words_its_arguments_says_the_same_again() -> None:
    back = travelled(Rewording(5))
    assert isinstance(back, Rewording)
    assert str(back) == "code 5"
    assert back.code == 5


def test_a_class_that_cannot_say_what_it_is_arrives() -> None:
    back = travelled(Unspeakable(1))
    assert isinstance(back, Unspeakable)
    assert back.args == (1,)


def test_something_that_unpickles_to_no_exception_is_a_task_error() -> None:
    class Liar(Exception):
        def __reduce__(self) -> Any:
            return str, ("only words",)

    assert isinstance(travelled(Liar("only words")), TaskError)


def test_deep_recursion_arrives_and_its_text_is_short() -> None:
    def forever(n: int) -> int:
        return forever(n + 1)

    back = travelled(raised(lambda: forever(0)))
    assert type(back) is RecursionError
    assert "Previous line repeated" in str(back.__cause__)

    def ping() -> None:
        pong()

    def pong() -> None:
        ping()

    back = travelled(raised(ping))
    assert type(back) is RecursionError
    assert len(str(back.__cause__)) < failures.MAX_TEXT_CHARS + 200


def test_a_dump_without_stack_left_still_tells_the_type() -> None:
    dumped: list[bytes] = []

    def down() -> None:
        try:
            down()
        except RecursionError as error:
            if not dumped:
                try:
                    dumped.append(dump_error(error))
                except RecursionError:
                    pass  # not even room for the call: the frame above tries again
            raise

    with pytest.raises(RecursionError):
        down()
    back = load_error(dumped[0])
    assert isinstance(back, RecursionError) or (
        isinstance(back, TaskError) and back.type_name == "RecursionError"
    )


def test_texts_are_cut_in_the_middle() -> None:
    def task() -> None:
        raise ValueError("begin" + "x" * 1_000_000 + "end")

    error = raised(task)
    data = dump_error(error)
    back = load_error(data)
    assert isinstance(back, ValueError)
    assert back.args == error.args  # the exception itself is whole
    text = str(back.__cause__)
    assert len(text) < failures.MAX_TEXT_CHARS + 200
    assert "in task" in text
    assert "characters cut" in text
    assert text.rstrip().rstrip('"').rstrip().endswith("end")


def test_an_exception_that_carries_a_lot_of_data_arrives_as_words() -> None:
    error = ValueError(bytes(failures.MAX_PICKLE_BYTES + 1))
    data = dump_error(error)
    assert len(data) < 4 * failures.MAX_TEXT_CHARS
    back = load_error(data)
    assert isinstance(back, TaskError)
    assert back.type_name == "ValueError"


def test_frames_of_flamezmq_are_cut_from_the_top(monkeypatch: pytest.MonkeyPatch) -> None:
    source = "def execute(task): return task()\n"
    ours: dict[str, Any] = {}
    exec(compile(source, failures._PACKAGE + "executor.py", "exec"), ours)
    error = raised(lambda: ours["execute"](divide))
    outer = error.__traceback__
    assert outer is not None
    error.__traceback__ = outer.tb_next.tb_next  # type: ignore[union-attr]  # as caught in the executor
    text = str(travelled(error).__cause__)
    assert "executor.py" not in text
    assert "in divide" in text
    our_own = raised(lambda: ours["execute"](None))
    our_own.__traceback__ = our_own.__traceback__.tb_next.tb_next  # type: ignore[union-attr]
    assert "executor.py" in str(travelled(our_own).__cause__)  # no frame of a user: keep them


def test_a_dump_leaves_the_exception_as_it_was_and_keeps_nothing_of_it() -> None:
    class Thing:
        pass

    def task() -> None:
        thing = Thing()
        things.append(weakref.ref(thing))
        raise ValueError("x")

    things: list[Any] = []
    error = raised(task)
    before = (error.__traceback__, error.__cause__, error.args, dict(error.__dict__))
    dump_error(error)
    assert (error.__traceback__, error.__cause__, error.args, dict(error.__dict__)) == before
    del error, before
    gc.collect()
    assert things[0]() is None


def test_remote_tracebacks_can_be_pickled_again() -> None:
    cause = RemoteTraceback("text")
    assert str(pickle.loads(pickle.dumps(cause))) == str(cause)


@given(st.lists(st.none() | st.integers() | st.text() | st.binary() | st.lists(st.text())))
def test_any_arguments_arrive(args: list[Any]) -> None:
    back = travelled(RuntimeError(*args))
    assert type(back) is RuntimeError
    assert back.args == tuple(args)
