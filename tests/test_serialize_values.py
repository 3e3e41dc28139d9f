"""Arguments, results and slices: what goes in comes out, copied once, with the rules of cloudpickle."""

from __future__ import annotations

import collections
import copyreg
import dataclasses
import enum
import functools
import gc
import pickle
import subprocess
import sys
import threading
import types
import weakref
from fractions import Fraction
from pathlib import Path
from typing import Any

import cloudpickle.cloudpickle as cloud
import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from notebook import in_another_process

from flamezmq.errors import MissingModule, TooLarge, Unpicklable
from flamezmq.serialize import culprit, values
from flamezmq.serialize.values import (
    Payload,
    dump_call,
    dump_slice,
    dump_value,
    load_call,
    load_slice,
    load_value,
)

ROOT = Path(__file__).parents[1]
#: Elements of a float64 array that travels out of band, with room.
BIG = 10_000


def notebook(source: str) -> dict[str, Any]:
    """Run a cell as `__main__` would, so that what it defines is pickled by value."""
    cell: dict[str, Any] = {"__name__": "__main__"}
    exec(source, cell)
    return cell


def elsewhere(payload: Payload, expression: str) -> str:
    """What another process, which has only flamezmq, makes of `value`; its printed words."""
    load = (
        "import pickle\n"
        "from flamezmq.serialize.values import dump_value, load_value\n"
        "value = load_value(pickle.loads(sys.stdin.buffer.read()))"
    )
    return in_another_process(load, pickle.dumps(payload), expression)


def in_native_order(array: Any) -> Any:
    """numpy's own pickles keep the values and, for strided arrays, not the byte order."""
    native = array.dtype.newbyteorder("=")
    return array if native == array.dtype else array.astype(native)


def same(a: Any, b: Any) -> bool:
    """Equal, of the same types, all the way down; nan equals nan."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ma.MaskedArray):
        return same(a.data, b.data) and same(np.ma.getmaskarray(a), np.ma.getmaskarray(b))
    if isinstance(a, np.ndarray):
        a, b = in_native_order(a), in_native_order(b)
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a.items(), b.items(), strict=True))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b or (a != a and b != b))


numbers = st.booleans() | st.integers() | st.floats() | st.complex_numbers()
atoms = st.none() | numbers | st.text() | st.binary()
dtypes = (
    hnp.scalar_dtypes()
    | hnp.array_dtypes(max_size=3, allow_subarrays=True)
    | hnp.unicode_string_dtypes(max_len=4)
)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Any dtype without objects, any order, zero sizes, strided, small or large."""
    dtype = draw(dtypes)
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    if draw(st.booleans()):
        shape = (*shape, 5_000)
    size = int(np.prod(shape, dtype=int)) * dtype.itemsize
    seed = draw(st.integers(0, 255))
    raw = np.full(size, seed, dtype=np.uint8) if dtype.kind != "U" else np.zeros(size, dtype=np.uint8)
    array = np.ndarray(shape, dtype=dtype, buffer=bytearray(raw.tobytes() or b"\0"))
    form = draw(st.sampled_from(["C", "F", "T", "strided", "reversed", "masked"]))
    if form == "F":
        return np.asfortranarray(array)
    if form == "T":
        return array.T
    if form == "strided" and array.ndim:
        return array[..., ::2]
    if form == "reversed" and array.ndim:
        return array[::-1]
    if form == "masked" and dtype.kind in "iufb":
        return np.ma.masked_array(array, mask=np.zeros(shape, bool) if not size else array == array.flat[0])
    return array


trees = st.recursive(
    atoms | arrays(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(trees)
@settings(max_examples=200, deadline=None)
def test_a_tree_of_builtins_and_arrays_comes_back_the_same(tree: Any) -> None:
    assert same(load_value(dump_value(tree)), tree)


@given(
    st.lists(atoms | arrays(), max_size=4).map(tuple),
    st.dictionaries(st.text(max_size=3), trees, max_size=3),
)
@settings(max_examples=100, deadline=None)
def test_a_call_comes_back_the_same(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    assert same(load_call(dump_call(args, kwargs)), (args, kwargs))


@given(st.lists(trees, max_size=5) | st.lists(st.tuples(atoms, atoms)))
@settings(max_examples=100, deadline=None)
def test_a_slice_comes_back_the_same(items: list[Any]) -> None:
    assert same(load_slice(dump_slice(items)), items)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), ((1, "a", None), {}), ((), {"k": 2.5}), ((1,), {"k": b"x"}), ((), {"args": {}}), (((),), {})],
)
def test_calls_with_and_without_keywords_are_told_apart(args: Any, kwargs: Any) -> None:
    assert load_call(dump_call(args, kwargs)) == (args, kwargs)


def test_a_subclass_of_an_atom_keeps_its_type() -> None:
    cell = notebook("class Metres(float): pass")
    payload = dump_value(cell["Metres"](3))
    assert elsewhere(payload, "type(value).__name__, value + 1") == "('Metres', 4.0)"


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int8, np.bool_, np.complex128, np.longlong])
def test_numpy_scalars_of_a_slice_keep_type_and_value_and_are_packed(kind: type) -> None:
    items = [kind(i % 2) for i in range(1_000)]
    payload = dump_slice(items)
    loaded = load_slice(payload)
    assert type(loaded) is list
    assert loaded == items
    assert {type(item) for item in loaded} == {type(pickle.loads(pickle.dumps(items[0])))}
    assert sum(map(len, [payload] if isinstance(payload, bytes) else payload)) < 17 * len(items)


def test_mixed_scalars_of_a_slice_stay_as_they_are() -> None:
    items = [np.float64(1), 2, np.float32(3), np.datetime64("2026-01-01", "D"), np.str_("x"), [np.float64(4)]]
    loaded = load_slice(dump_slice(items))
    assert loaded == items
    assert [type(x) for x in loaded] == [type(x) for x in items]


# Buffers ------------------------------------------------------------------


def test_a_payload_is_bytes_unless_a_buffer_is_large() -> None:
    assert isinstance(dump_value(np.zeros(10)), bytes)
    assert isinstance(dump_value(np.zeros(2_047)), bytes)
    large = dump_value([np.zeros(2_048), np.zeros(3), np.ones(4_096)])
    assert isinstance(large, list)
    assert [len(buffer) for buffer in large[1:]] == [2_048 * 8, 4_096 * 8]
    assert len(large[0]) < 1_000


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [10, BIG])
def test_changing_an_array_after_the_dump_does_not_change_the_payload(size: int, stride: int) -> None:
    array = np.arange(size * stride, dtype=float)[::stride]
    before = array.copy()
    payload = dump_call((array, {"again": array[:5]}), {})
    array[:] = -1
    (loaded, _), _ = load_call(payload)
    assert (loaded == before).all()


@pytest.mark.parametrize(
    "strided",
    [np.arange(2.0 * BIG)[::2], np.arange(24_000.0).reshape(20, 30, 40).transpose(1, 0, 2)],
)
def test_a_large_strided_array_leaves_the_pickle_with_one_copy(strided: np.ndarray) -> None:
    payload = dump_value(strided)
    assert same(load_value(payload), strided)
    assert isinstance(payload, list)
    assert len(payload[0]) < 1_000
    # The frame is the contiguous copy itself: it is no bytes object made from it.
    assert isinstance(payload[1], memoryview)
    assert payload[1].nbytes == strided.nbytes


def test_large_bytes_leave_the_pickle_without_a_copy() -> None:
    data = bytes(BIG * 8)
    calls: list[tuple[Payload, Any]] = [
        (dump_value(data), load_value),
        (dump_call((1, data), {}), lambda p: load_call(p)[0][1]),
        (dump_call((), {"data": data}), lambda p: load_call(p)[1]["data"]),
    ]
    for payload, load in calls:
        assert isinstance(payload, list)
        assert payload[1] is data
        assert load(payload) is data  # and back, when the transport hands over bytes
        frames = [zmq.Frame(part).buffer for part in payload]
        assert type(load(frames)) is bytes
        assert load(frames) == data


def test_an_array_is_writable_when_its_buffer_is() -> None:
    payload = dump_value(np.zeros(BIG))
    assert isinstance(payload, list)
    assert not load_value(payload).flags.writeable  # bytes: no copy is made, so read-only
    for received in (
        [payload[0], bytearray(payload[1])],
        [zmq.Frame(part).buffer for part in payload],
        tuple(map(bytearray, payload)),
    ):
        array = load_value(received)
        array[0] = 7
        assert array[0] == 7


def test_a_loaded_array_is_a_view_of_the_buffer_that_was_received() -> None:
    payload = dump_value(np.zeros(BIG))
    assert isinstance(payload, list)
    buffer = bytearray(payload[1])
    array = load_value([payload[0], buffer])
    array[0] = 1.0
    assert np.frombuffer(buffer)[0] == 1.0


def test_a_small_array_is_writable_and_a_read_only_one_stays_read_only() -> None:
    assert load_value(dump_value(np.zeros(3))).flags.writeable
    fixed = np.zeros(BIG)
    fixed.flags.writeable = False
    payload = dump_value(fixed)
    assert isinstance(payload, list)
    assert not load_value([bytearray(part) for part in payload]).flags.writeable


def test_frames_survive_a_real_socket() -> None:
    tree = {"a": np.arange(BIG), "b": [np.ones((50, 50)).T, "text"], "c": bytes(BIG * 2)}
    payload = dump_value(tree)
    assert isinstance(payload, list)
    with zmq.Context() as context, context.socket(zmq.PAIR) as left, context.socket(zmq.PAIR) as right:
        left.bind("inproc://frames")
        right.connect("inproc://frames")
        left.send_multipart(payload)
        frames = [frame.buffer for frame in right.recv_multipart(copy=False)]
        assert same(load_value(frames), tree)


def test_arrays_of_objects_follow_the_rules_of_cloudpickle() -> None:
    cell = notebook("def double(x): return 2 * x")
    array = np.array([cell["double"], None], dtype=object)
    assert elsewhere(dump_value(array), "value[0](21)") == "42"


# By value, by reference ---------------------------------------------------


def test_functions_and_instances_of_main_work_in_another_process() -> None:
    cell = notebook(
        "import dataclasses\n"
        "k = 3\n"
        "def scale(x): return k * x\n"
        "class Base:\n"
        "    def scaled(self): return scale(self.x)\n"
        "@dataclasses.dataclass\n"
        "class Point(Base):\n"
        "    x: int\n"
    )
    value = [cell["scale"], cell["Point"](5), {"deep": (lambda y: y + 1,)}]
    payload = dump_value(value)
    assert elsewhere(payload, "value[0](2), value[1].scaled(), value[1], value[2]['deep'][0](1)") == (
        "(6, 15, Point(x=5), 2)"
    )


def test_a_cached_function_of_main_goes_by_value_though_it_refers_to_itself() -> None:
    cell = notebook(
        "import functools\n"
        "@functools.lru_cache(maxsize=77)\n"
        "def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)\n"
    )
    words = elsewhere(dump_value(cell["fib"]), "value(50), value.cache_parameters()['maxsize']")
    assert words == "(12586269025, 77)"


def test_what_is_importable_goes_by_reference() -> None:
    assert load_value(dump_value(Fraction)) is Fraction
    assert load_value(dump_value(cached)) is cached
    assert load_value(dump_value(np.mean)) is np.mean
    assert load_value(dump_value(np.add)) is np.add
    assert len(dump_value(collections.OrderedDict)) < 60
    payload = dump_call((Metal.IRON, Ore(Metal.IRON, 2)), {})
    assert isinstance(payload, bytes)
    assert b"test_serialize_values" in payload
    assert b"co_code" not in payload
    assert load_call(payload) == ((Metal.IRON, Ore(Metal.IRON, 2)), {})


@functools.cache
def cached() -> None:
    """Goes by reference like any other function of a module."""


class Metal(enum.Enum):
    IRON = 1


@dataclasses.dataclass
class Ore:
    metal: Metal
    tonnes: int


def test_a_class_that_comes_back_does_not_overwrite_the_one_it_was_made_from() -> None:
    cell = notebook("class Model:\n    rate = 1\n    def which(self): return 'mine'\n")
    model = cell["Model"]
    payload = dump_value(model())
    model.rate = 2
    method = vars(model)["which"]
    back = load_value(payload)
    assert type(back) is model
    assert model.rate == 2
    assert vars(model)["which"] is method


def test_a_class_that_changes_here_changes_where_it_was_sent() -> None:
    cell = notebook("class Model: rate = 1")
    first = dump_value(cell["Model"])
    cell["Model"].rate = 2
    second = dump_value(cell["Model"])
    program = f"value.rate, load_value(dump_value(value)).rate, load_value({second!r}).rate, value.rate"
    assert elsewhere(first, program) == "(1, 1, 2, 2)"


def test_reducers_registered_with_copyreg_are_used_whenever_they_come() -> None:
    class Handle:
        pass

    dump_value([Handle])  # a pickler is at rest now
    copyreg.pickle(Handle, lambda handle: (str, ("reduced",)))  # type: ignore[arg-type, return-value]
    try:
        assert load_value(dump_value([Handle()])) == ["reduced"]
    finally:
        del copyreg.dispatch_table[Handle]


def test_a_reducer_may_dump_in_its_turn() -> None:
    class Outer:
        def __reduce__(self) -> Any:
            return load_value, (dump_value([1, "inner", [2]]),)

    assert load_value(dump_value([Outer(), "after"])) == [[1, "inner", [2]], "after"]


def test_nothing_of_one_dump_leaks_into_the_next() -> None:
    text, array = "a rather long string", np.arange(BIG)
    first = dump_value([text, array, notebook("def f(): return f")["f"]])
    second = dump_value([text, array])
    assert same(load_value(second), [text, array])
    assert load_value(first)[0] == text
    with pytest.raises(Unpicklable):
        dump_value([text, threading.Lock()])
    assert same(load_value(dump_value([text, array])), [text, array])


def test_the_globals_of_one_dump_do_not_reach_the_next() -> None:
    cell = notebook("__file__ = 'old.py'\ndef f(): pass")
    dump_value(cell["f"])
    cell["__file__"] = "new.py"
    assert load_value(dump_value(cell["f"])).__globals__["__file__"] == "new.py"


def test_a_dump_keeps_nothing_alive() -> None:
    class Thing:
        pass

    gc.disable()  # cycles would only go with the collector
    try:
        array, thing = np.zeros(BIG), Thing()
        references: list[Any] = [weakref.ref(array), weakref.ref(thing)]
        payload = dump_call((array, thing, [array]), {})
        strided = dump_value(array[::2])
        references += [weakref.ref(strided[1].obj)]  # type: ignore[union-attr]
        del array, thing, payload, strided
        assert [reference() for reference in references] == [None, None, None]
    finally:
        gc.enable()


def test_threads_do_not_share_a_pickler() -> None:
    failures: list[object] = []

    def dump_often(mark: int) -> None:
        for count in range(300):
            tree: Any = [mark, count, [mark] * 50, np.full(3_000, mark), {"k": (mark, Fraction(mark, 7))}]
            if not same(load_value(dump_value(tree)), tree):
                failures.append(tree)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=dump_often, args=(mark,)) for mark in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not failures


# Refusals -----------------------------------------------------------------


def work(path: str, lock: object, *rest: object, option: object = None) -> None:
    """Only its signature matters."""


def test_a_refusal_names_the_argument_and_the_place_in_it() -> None:
    with pytest.raises(Unpicklable) as caught:
        dump_call(("x", {"a": [0, 1, 2, threading.Lock()]}), {}, work)
    error = caught.value
    assert error.what == "argument 2 (`lock`) of work"
    assert error.path == "['a'][3]"
    assert error.reason == "TypeError: cannot pickle '_thread.lock' object"
    assert str(error).startswith("argument 2 (`lock`) of work can't be pickled at ['a'][3]: TypeError: ")
    assert isinstance(error.__cause__, TypeError)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    ("args", "kwargs", "what", "path"),
    [
        (("x", 1, 2, threading.Lock()), {}, "argument 4 of work", ""),
        (("x", 1), {"option": (1, {2: threading.Lock()})}, "keyword argument `option` of work", "[1][2]"),
        ((Ore(Metal.IRON, threading.Lock()),), {}, "argument 1 (`path`) of work", ".tonnes"),  # type: ignore[arg-type]
        (({1, threading.Lock()}, 2), {}, "argument 1 (`path`) of work", "member <"),
        ((np.array([1, threading.Lock()], dtype=object),), {}, "argument 1 (`path`) of work", ".flat[1]"),
        ((ValueError("x", threading.Lock()),), {}, "argument 1 (`path`) of work", ".args[1]"),
    ],
)
def test_refusals_in_all_places(args: tuple[Any, ...], kwargs: dict[str, Any], what: str, path: str) -> None:
    with pytest.raises(Unpicklable) as caught:
        dump_call(args, kwargs, work)
    assert caught.value.what == what
    assert caught.value.path.startswith(path)
    assert bool(caught.value.path) == bool(path)


def test_a_refusal_reaches_into_captured_variables() -> None:
    lock = threading.Lock()
    with pytest.raises(Unpicklable) as caught:
        dump_call(([lambda: lock],), {}, None)
    assert (caught.value.what, caught.value.path) == ("argument 1", "[0] captured variable `lock`")


def test_refusals_of_results_and_slices() -> None:
    with pytest.raises(Unpicklable, match=r"^the result of task 3 can't be pickled: TypeError.*generator"):
        dump_value((item for item in [1]), "the result of task 3")
    with pytest.raises(Unpicklable, match=r"^the slice can't be pickled at \[2\]\[0\]: TypeError"):
        dump_slice([1, 2, (threading.Lock(),)])


def test_refusals_end_for_cycles_for_depth_and_for_breadth(monkeypatch: pytest.MonkeyPatch) -> None:
    cycle: list[Any] = [threading.Lock()]
    cycle.insert(0, cycle)
    with pytest.raises(Unpicklable, match=r"at \[1\]: TypeError"):
        dump_value(cycle)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(Unpicklable, match=r"^the result can't be pickled: RecursionError"):
        dump_value(deep)
    broad: list[Any] = [[i] for i in range(101)] + [threading.Lock()]
    with pytest.raises(Unpicklable, match=r"at \[101\]: TypeError"):
        dump_value(broad)
    monkeypatch.setattr(culprit, "MAX_TRIES", 100)
    with pytest.raises(Unpicklable, match=r"^the result can't be pickled: TypeError"):
        dump_value(broad)


def test_whatever_a_reducer_raises_becomes_a_refusal_and_an_interrupt_does_not() -> None:
    class Bad:
        error: BaseException = ZeroDivisionError("in my reducer")

        def __reduce__(self) -> Any:
            raise self.error

    with pytest.raises(Unpicklable, match=r"at \[0\]: ZeroDivisionError: in my reducer"):
        dump_value([Bad()])
    Bad.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        dump_value([Bad()])


def test_arguments_of_a_missing_module_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("only_here")
    exec("class Thing: pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    payload = dump_call((module.Thing(),), {})
    monkeypatch.delitem(sys.modules, "only_here")
    with pytest.raises(MissingModule) as caught:
        load_call(payload)
    assert caught.value.module == "only_here"
    assert caught.value.searched == tuple(sys.path)


# What we borrow -----------------------------------------------------------


def test_numpy_is_not_imported_by_flamezmq() -> None:
    program = (
        "import sys\n"
        "from flamezmq.serialize import failures, functions\n"
        "from flamezmq.serialize.values import *\n"
        "assert load_value(dump_value([1, (2, object)])) == [1, (2, object)]\n"
        "assert 'numpy' not in sys.modules, 'numpy'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd="/", env={"PYTHONPATH": str(ROOT)})


def test_arrays_are_met_when_numpy_is_imported_after_the_first_dump() -> None:
    program = (
        "from flamezmq.serialize.values import *\n"
        "dump_value([1]); dump_value([object()])\n"
        "import numpy as np\n"
        "payload = dump_value(np.arange(100_000)[::2])\n"
        "assert type(payload[1]) is memoryview and load_value(payload).sum() == 2_499_950_000\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd="/", env={"PYTHONPATH": str(ROOT)})


def test_cloudpickle_still_has_the_private_parts_that_we_use() -> None:
    """An upgrade that moves them must fail here, by name, and not in a user's submit."""
    assert isinstance(cloud._PICKLE_BY_VALUE_MODULES, set)
    assert isinstance(cloud.Pickler._dispatch_table, dict)
    assert cloud._lookup_module_and_qualname(Fraction) == (sys.modules["fractions"], "Fraction")
    assert not cloud._is_registered_pickle_by_value(sys.modules["fractions"])
    assert cloud._should_pickle_by_reference(sys)
    assert "same" in cloud._extract_code_globals(same.__code__)
    assert callable(cloud._class_setstate)


def test_a_large_pickle_is_a_frame_of_its_own() -> None:
    text = "x" * ((1 << 16) + 1)
    for payload in (dump_call((text,), {}), dump_call((text, [1]), {}), dump_call((), {"k": text})):
        assert payload[0] == b""
        args, kwargs = load_call(payload)
        assert text in (*args, *kwargs.values())
    assert load_value(dump_value(text)) == text


def test_what_no_message_takes_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "MOST_PIECE_BYTES", 100_000)
    with pytest.raises(TooLarge, match=r"the call of len is too large: .* divide it"):
        dump_call(("x" * 200_000,), {}, len)
    with pytest.raises(TooLarge, match="the result"):
        dump_value(bytes(200_000))
    dump_call((bytes(100_000), bytes(100_000)), {}, len)
