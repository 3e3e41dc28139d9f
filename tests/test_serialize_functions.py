"""Functions by number: pickled once, and again when, and only when, what they refer to has changed."""

from __future__ import annotations

import functools
import gc
import hashlib
import math
import operator
import random
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
from notebook import Notebook, elsewhere, pickles

from flamezmq.serialize import functions
from flamezmq.serialize.captures import Watch
from flamezmq.serialize.functions import FunctionTable, label, load_function

ROOT = Path(__file__).parents[1]


@pytest.fixture
def table() -> Iterator[FunctionTable]:
    table = FunctionTable()
    yield table
    table.check()


def module_function(x: int) -> int:
    return x + 1


# In another process -------------------------------------------------------


def test_all_that_main_defines_runs_in_another_process(table: FunctionTable) -> None:
    main = Notebook(
        "import math, functools\n"
        "k = 10\n"
        "def plain(x): return k * x\n"
        "fn_lambda = lambda x: x + k\n"
        "def adder(n):\n"
        "    def add(x, *, m=k): return x + n + m\n"
        "    return add\n"
        "closure = adder(3)\n"
        "def factorial(n): return 1 if n < 2 else n * factorial(n - 1)\n"
        "def even(n): return True if n == 0 else odd(n - 1)\n"
        "def odd(n): return False if n == 0 else even(n - 1)\n"
        "class Shape:\n"
        "    sides = 0\n"
        "    def name(self): return f'{type(self).__name__} {self.sides}'\n"
        "class Square(Shape):\n"
        "    sides = 4\n"
        "    def __init__(self, a): self.a = a\n"
        "    def area(self): return plain(self.a)\n"
        "    def name(self): return 'a ' + super().name()\n"
        "    def __call__(self, x): return self.a * x\n"
        "    @staticmethod\n"
        "    def static(x): return x * k\n"
        "    @classmethod\n"
        "    def make(cls, a): return cls(a).area()\n"
        "def use_class(a): return Square(a).name()\n"
        "class Lazy:\n"
        "    @functools.cached_property\n"
        "    def twice(self): return Lazy, 2 * k\n"
        "def use_lazy():\n"
        "    lazy = Lazy()\n"
        "    return lazy.twice[1], lazy.__dict__['twice'][1]\n"
        "def deep(x): return [(lambda y: math.floor(y) * k)(x)]\n"
    )
    cases: list[tuple[Any, str, str]] = [
        (main["plain"], "f(2)", "20"),
        (main["fn_lambda"], "f(2)", "12"),
        (main["closure"], "f(1)", "14"),
        (main["factorial"], "f(5)", "120"),
        (main["even"], "f(10)", "True"),
        (main["use_class"], "f(2)", "'a Square 4'"),
        (main["deep"], "f(2.5)", "[20]"),
        (main["use_lazy"], "f()", "(20, 20)"),
        (main["Square"], "f(3).area()", "30"),
        (main["Square"](3).area, "f()", "30"),
        (main["Square"](3), "f(5)", "15"),
        (main["Square"].static, "f(5)", "50"),
        (main["Square"].make, "f(5)", "50"),
        (functools.partial(main["plain"], 7), "f()", "70"),
        (sum, "f([1, 2])", "3"),
        (math.sqrt, "f(4)", "2.0"),
        ([1, 2].count, "f(2)", "1"),
        (int, "f('7')", "7"),
        (np.add, "int(f(1, 2))", "3"),
        (np.sum, "int(f([1, 2]))", "3"),
        (operator.itemgetter(1), "f('ab')", "'b'"),
    ]
    for function, expression, expected in cases:
        assert elsewhere(table.name(function), expression) == expected


def test_a_label_says_what_it_is(table: FunctionTable) -> None:
    main = Notebook("class K:\n    def m(self): pass\n    def __call__(self): pass\n")
    assert table.name(module_function).label == f"{__name__}.module_function"
    assert label(main["K"]().m) == "__main__.K.m"
    assert label(main["K"]()) == "__main__.K"
    assert label(functools.partial(math.sqrt, 2)) == "partial(math.sqrt)"
    assert label(np.add) == "numpy.add"
    assert label(sum) == "builtins.sum"


# Numbers ------------------------------------------------------------------


def test_numbers_are_dense_and_the_same_function_keeps_its_number(table: FunctionTable) -> None:
    main = Notebook("def f(): return 1\ndef g(): return 2\n")
    assert [table.name(fn).number for fn in (main["f"], main["g"], main["f"], sum)] == [0, 1, 0, 2]
    name = table.name(main["f"])
    assert name.digest == hashlib.blake2b(name.blob, digest_size=16).digest()
    assert load_function(name.blob)() == 1
    assert pickles(table) == 3


def test_two_function_objects_with_the_same_pickle_share_a_number(table: FunctionTable) -> None:
    main = Notebook()
    source = compile("def f(x): return x * 2\n", "<cell>", "exec")
    exec(source, main.globals)
    first = main["f"]
    exec(source, main.globals)
    assert main["f"] is not first
    assert table.name(first) is table.name(main["f"])
    assert table.statistics()["names"] == 1


def test_what_is_not_callable_is_refused(table: FunctionTable) -> None:
    with pytest.raises(TypeError, match="a task needs a function, not int"):
        table.name(5)  # type: ignore[arg-type]


# Changes ------------------------------------------------------------------

#: (first cell, second cell, result of f(1) before, after): one edit each, and the pickle must follow.
EDITS = {
    "a global": ("k = 1\ndef f(x): return x + k", "k = 2", 2, 3),
    "a global to an equal one of another type": ("k = 1\ndef f(x): return repr(k)", "k = True", "1", "True"),
    "a global to None": ("k = 1\ndef f(x): return k", "k = None", 1, None),
    "a global from None": ("k = None\ndef f(x): return k", "k = 0", None, 0),
    "a global that was None, deleted": (
        "k = None\ndef f(x):\n    try: return k\n    except NameError: return 'gone'",
        "del k",
        None,
        "gone",
    ),
    "what a builtin method is bound to": (
        "t = [1]\ncount = t.count\ndef f(x): return count(x)",
        "t.append(1)",
        1,
        2,
    ),
    "a global of a helper": ("k = 1\ndef g(x): return x + k\ndef f(x): return g(x)", "k = 2", 2, 3),
    "the helper itself": ("def g(x): return x\ndef f(x): return g(x)", "def g(x): return -x", 1, -1),
    "a global of a nested function": ("k = 1\ndef f(x): return [x + k for _ in 'a'][0]", "k = 2", 2, 3),
    "a tuple": ("t = (1, 2)\ndef f(x): return t", "t = (1, 3)", (1, 2), (1, 3)),
    "a builtin's name": ("def f(x): return abs(x)", "def abs(x): return 'mine'", 1, "mine"),
    "a builtin's name, freed": ("def abs(x): return 'mine'\ndef f(x): return abs(x)", "del abs", "mine", 1),
    "a list in place": ("t = [1]\ndef f(x): return t", "t.append(2)", [1], [1, 2]),
    "a dict in a tuple in place": ("t = ({},)\ndef f(x): return t", "t[0][1] = 2", ({},), ({1: 2},)),
    "an instance": (
        "class C: pass\nc = C(); c.v = 1\ndef f(x): return c.v",
        "c.v = 2",
        1,
        2,
    ),
    "an array in place": (
        "import numpy\na = numpy.zeros(2)\ndef f(x): return a.tolist()",
        "a[0] = 1",
        [0.0, 0.0],
        [1.0, 0.0],
    ),
    "a class attribute": ("class C: v = 1\ndef f(x): return C.v", "C.v = 2", 1, 2),
    "a class attribute added": (
        "class C: pass\ndef f(x): return getattr(C, 'v', 0)",
        "C.v = 2",
        0,
        2,
    ),
    "a method": (
        "class C:\n    def m(self): return 1\ndef f(x): return C().m()",
        "C.m = lambda self: 2",
        1,
        2,
    ),
    "a global of a method": (
        "k = 1\nclass C:\n    def m(self): return k\ndef f(x): return C().m()",
        "k = 2",
        1,
        2,
    ),
    "a global of a dunder method": (
        "k = 1\nclass C:\n    def __call__(self): return k\ndef f(x): return C()()",
        "k = 2",
        1,
        2,
    ),
    "a global of a property": (
        "k = 1\nclass C:\n    @property\n    def m(self): return k\ndef f(x): return C().m",
        "k = 2",
        1,
        2,
    ),
    "a list in a class": ("class C: v = [1]\ndef f(x): return C.v", "C.v.append(2)", [1], [1, 2]),
    "an attribute of a base class": (
        "class B: v = 1\nclass C(B): pass\ndef f(x): return C.v",
        "B.v = 2",
        1,
        2,
    ),
    "a default": ("def f(x, y=1): return y", "f.__defaults__ = (2,)", 1, 2),
    "a mutable default": ("def f(x, y=[1]): return y", "f.__defaults__[0].append(2)", [1], [1, 2]),
    "a keyword default": ("def f(x, *, y=1): return y", "f.__kwdefaults__['y'] = 2", 1, 2),
    "its code, as autoreload does": (
        "def f(x): return 1",
        "def h(x): return 2\nf.__code__ = h.__code__",
        1,
        2,
    ),
    "an attribute of itself": ("def f(x): return f.v\nf.v = 1", "f.v = 2", 1, 2),
    "a first attribute of itself": ("def f(x): return getattr(f, 'v', 0)", "f.v = 2", 0, 2),
    "a first attribute of a helper": (
        "def g(): pass\ndef f(x): return getattr(g, 'v', 0)",
        "g.v = 2",
        0,
        2,
    ),
    "a closure cell": (
        "def make():\n"
        "    n = 1\n"
        "    def f(x): return n\n"
        "    def set(m): nonlocal n; n = m\n"
        "    return f, set\n"
        "f, set_n = make()",
        "set_n(2)",
        1,
        2,
    ),
    "a list in a closure": (
        "def make():\n    n = [1]\n    return (lambda x: n), n.append\nf, add = make()",
        "add(2)",
        [1],
        [1, 2],
    ),
    "what a partial holds": (
        "import functools\nt = [1]\ndef g(t, x): return t\nf = functools.partial(g, t)",
        "t.append(2)",
        [1],
        [1, 2],
    ),
    "a global under a partial": (
        "import functools\nk = 1\ndef g(y, x): return y + k\nf = functools.partial(g, 1)",
        "k = 2",
        2,
        3,
    ),
    "a keyword of a partial": (
        "import functools\ndef g(x, y): return y\nf = functools.partial(g, y=1)",
        "f.keywords['y'] = 2",
        1,
        2,
    ),
    "a global under a cache": (
        "import functools\nk = 1\n@functools.cache\ndef f(x): return x + k",
        "k = 2",
        2,
        3,
    ),
    "an enum": (
        "import enum\nclass E(enum.Enum): A = 1\ndef f(x): return E.A.value",
        "class E(enum.Enum): A = 2",
        1,
        2,
    ),
    "a submodule imported later": (
        "import xml\ndef f(x): return hasattr(xml, 'sax') and xml.sax.__name__",
        "import xml.sax",
        False,
        "xml.sax",
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_between_two_submits_is_seen(table: FunctionTable, edit: str) -> None:
    before, after, first, second = EDITS[edit]
    main = Notebook(before)
    f = main["f"]
    for module in [name for name in sys.modules if name.startswith("xml.sax")]:
        del sys.modules[module]
    old = table.name(f)
    assert table.name(f) is old  # nothing has changed yet
    main.run(after)
    new = table.name(f)
    assert new.number != old.number
    assert table.name(f) is new
    if (
        "class " not in before and "xml" not in before
    ):  # in this process the class would be the one that was edited
        assert repr(load_function(old.blob)(1)) == repr(first)
        assert repr(load_function(new.blob)(1)) == repr(second)
    else:
        assert elsewhere(old, "f(1)") == repr(first)
        assert elsewhere(new, "f(1)") == repr(second)


def test_an_edit_that_is_taken_back_has_its_old_number_again(table: FunctionTable) -> None:
    main = Notebook("k = 1\ndef f(): return k")
    numbers = []
    for k in (1, 2, 1, 2, 3):
        main.run(f"k = {k}")
        numbers.append(table.name(main["f"]).number)
    assert numbers == [0, 1, 0, 1, 2]


STEADY = {
    "atoms, strings, modules": "import math\nk, s = 1.5, 'x'\ndef f(x): return math.floor(k), s, len(s)",
    "tuples": "t = (1, ('a', None), frozenset({2}))\ndef f(x): return t",
    "importable functions and classes": (
        "from fractions import Fraction\nfrom math import sqrt\ndef f(x): return Fraction(sqrt(x))"
    ),
    "numpy": "import numpy as np\neps = np.float64(1)\nadd = np.add\ndef f(x): return np.sum(add(x, eps))",
    "dates, paths and other values of the library": (
        "import datetime as d, decimal, fractions, pathlib, re, uuid, zoneinfo\n"
        "t = (d.date.min, d.datetime.min, d.time.min, d.timedelta(1), d.timezone.utc)\n"
        "u = (decimal.Decimal(1), fractions.Fraction(1), pathlib.Path('x'), re.compile('x'))\n"
        "v = (uuid.UUID(int=1), zoneinfo.ZoneInfo('UTC'))\n"
        "def f(x): return t, u, v\n"
    ),
    "a logger": "import logging\nlog = logging.getLogger('x')\ndef f(x): log.info(x)",
    "itself": "def f(n): return n and f(n - 1)",
    "two that call each other": "def f(n): return n and g(n - 1)\ndef g(n): return n and f(n - 1)",
    "classes": (
        "import dataclasses, abc, enum, functools, typing\n"
        "class Colour(enum.Enum): RED = 1\n"
        "T = typing.TypeVar('T')\n"
        "class Base(abc.ABC):\n"
        "    @abc.abstractmethod\n"
        "    def m(self): ...\n"
        "@dataclasses.dataclass\n"
        "class P(Base):\n"
        "    x: int = 1\n"
        "    colour: Colour = Colour.RED\n"
        "    def m(self): return super().m() or P\n"
        "    @property\n"
        "    def p(self): return 1\n"
        "    @functools.cached_property\n"
        "    def c(self): return 1\n"
        "    @classmethod\n"
        "    def k(cls): return 1\n"
        "    @staticmethod\n"
        "    def s(): return 1\n"
        "class S:\n"
        "    __slots__ = ('a',)\n"
        "def f(x): return P(x), S(), Colour.RED\n"
    ),
    "closures": "def make(n):\n    def f(x): return x + n\n    return f\nf = make(3)",
    "partials": "import functools\ndef g(x, y, z): return x\nf = functools.partial(g, 1, z='a')",
    "a cache": "import functools\n@functools.cache\ndef f(n): return n and f(n - 1)",
}


@pytest.mark.parametrize("kind", STEADY)
def test_a_function_that_refers_to_nothing_mutable_is_pickled_once(table: FunctionTable, kind: str) -> None:
    f = Notebook(STEADY[kind])["f"]
    names = {table.name(f) for _ in range(5)}
    assert len(names) == 1
    assert pickles(table) == 1
    assert not Watch(f).volatile


def test_a_function_of_an_importable_module_is_pickled_once_whatever_it_refers_to(
    table: FunctionTable,
) -> None:
    assert {table.name(module_function) for _ in range(5)} == {table.name(module_function)}
    assert len(table.name(module_function).blob) < 100
    assert pickles(table) == 1


def test_bound_methods_and_instances_are_pickled_each_time_and_keep_their_number(
    table: FunctionTable,
) -> None:
    main = Notebook(
        "class C:\n    v = 1\n    def m(self): return self.v\n    def __call__(self): return self.v\nc = C()"
    )
    c = main["c"]
    assert table.name(c.m).number == table.name(c.m).number == 0
    assert table.name(c).number == table.name(c).number == 1
    assert pickles(table) == 4
    c.v = 2
    method, instance = table.name(c.m), table.name(c)
    assert (method.number, instance.number) == (2, 3)
    assert load_function(method.blob)() == load_function(instance.blob)() == 2


def test_a_module_registered_by_value_after_the_first_submit_goes_by_value(
    table: FunctionTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("my_library")
    monkeypatch.setitem(sys.modules, "my_library", module)
    exec("k = 1\ndef helper(x): return x + k\ndef f(x): return helper(x)", module.__dict__)
    by_reference = table.name(module.f)
    cloudpickle.register_pickle_by_value(module)
    try:
        by_value = table.name(module.f)
        assert by_value.number != by_reference.number
        assert elsewhere(by_value, "f(1)") == "2"
        module.__dict__["k"] = 5
        assert elsewhere(table.name(module.f), "f(1)") == "6"
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    assert table.name(module.f) is by_reference


def test_a_change_made_while_the_function_is_pickled_is_not_missed(table: FunctionTable) -> None:
    main = Notebook(
        "k = 1\n"
        "class Meddler(str):\n"  # pickled with f, and changes k while that goes on
        "    def __reduce__(self):\n"
        "        global k\n"
        "        k = 2\n"
        "        return str, ('x',)\n"
        "def f(): return k\n"
    )
    main["f"].__doc__ = main["Meddler"]("doc")  # in the pickle, and not watched
    table.name(main["f"])
    assert load_function(table.name(main["f"]).blob)() == 2


def test_cyclic_captures_come_to_an_end(table: FunctionTable) -> None:
    main = Notebook(
        "import functools\n"
        "class A:\n    def m(self): return B, f, A\n"
        "class B(A): pass\n"
        "@functools.cache\n"
        "def g(): return g, f\n"
        "def f(): return A, B, g, f\n"
    )
    assert table.name(main["f"]) is table.name(main["f"])
    loop: list[Any] = []
    loop.append(loop)
    main.globals["loop"] = loop
    main.run("def h(): return len(loop[0][0])")
    assert load_function(table.name(main["h"]).blob)() == 1


def test_a_long_chain_of_helpers_can_be_watched() -> None:
    lines = [f"def f{i}(): return f{i + 1}()" for i in range(5_000)]
    main = Notebook("\n".join(lines) + "\nlast = []\ndef f5000(): return last")
    assert Watch(main["f0"]).volatile


# Bounds -------------------------------------------------------------------


def make_functions(count: int) -> list[Callable[[], int]]:
    main = Notebook("def make(n):\n    def f(): return n\n    return f\n")
    return [main["make"](n) for n in range(count)]


def test_evicted_numbers_are_reported_and_never_used_again(
    table: FunctionTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functions, "MAX_FUNCTIONS", 4)
    monkeypatch.setattr(functions, "MAX_IDLE_NAMES", 2)
    made = make_functions(8)
    assert [table.name(f).number for f in made] == list(range(8))
    assert table.take_evicted() == [0, 1]  # 2 and 3 are idle, 4 to 7 held
    assert table.take_evicted() == []
    assert table.name(made[3]).number == 3  # its pickle came back in time
    assert table.name(made[0]).number == 8  # this one's did not
    table.check()
    assert table.statistics()["functions"] == 4


def test_a_function_in_use_outlives_the_others(table: FunctionTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "MAX_FUNCTIONS", 4)
    monkeypatch.setattr(functions, "MAX_IDLE_NAMES", 1)
    favourite, *others = make_functions(40)
    for other in others:
        assert table.name(favourite).number == 0
        table.name(other)
    assert pickles(table) == 40
    assert 0 not in table.take_evicted()


def test_idle_blobs_are_bounded_in_bytes_and_the_newest_stays(
    table: FunctionTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functions, "MAX_IDLE_BYTES", 1_000)
    main = Notebook("data = bytearray(10_000)\ndef f(): return len(data)")
    for count in range(3):
        main["data"][0] = count
        name = table.name(main["f"])
        assert table.name(main["f"]) is name
    assert table.take_evicted() == [0, 1]
    assert table.statistics()["idle_names"] == 1


def test_the_table_keeps_no_big_captured_data_alive(table: FunctionTable) -> None:
    class Data:
        pass

    def closure(data: Data) -> Callable[[], Data]:
        return lambda: data

    data = Data()
    watched = weakref.ref(data)
    table.name(closure(data))
    del data
    gc.collect()
    assert watched() is None


def test_a_known_function_keeps_its_identity_while_it_is_known(table: FunctionTable) -> None:
    """A function made at the address of a dead one must not get its number."""
    main = Notebook("def make(n):\n    def f(): return n\n    return f\n")
    for n in range(2_000):
        name = table.name(main["make"](n))
        assert load_function(name.blob)() == n


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_edits_and_submits_keeps_the_table_right(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(functions, "MAX_FUNCTIONS", chance.randint(1, 5))
    monkeypatch.setattr(functions, "MAX_IDLE_NAMES", chance.randint(0, 4))
    table, main = FunctionTable(), Notebook("k = 0\nt = [0]\n")
    main.run(
        "def make(n):\n    def f(): return n, k, None\n    def g(): return n, k, list(t)\n    return f, g\n"
    )
    made = [function for n in range(5) for function in main["make"](n)]
    blobs: dict[int, bytes] = {}
    evicted: set[int] = set()
    for _ in range(300):
        choice = chance.random()
        if choice < 0.1:
            main.globals["k"] = chance.randint(0, 2)
        elif choice < 0.2:
            main["t"][0] = chance.randint(0, 2)
        function = chance.choice(made)
        name = table.name(function)
        assert load_function(name.blob)() == function(), f"seed {seed}"
        assert name.number not in evicted, f"seed {seed}"
        assert blobs.setdefault(name.number, name.blob) == name.blob, f"seed {seed}"
        evicted.update(table.take_evicted())
        table.check()
    assert sorted(blobs) == list(range(len(blobs)))


def test_threads_agree_on_numbers(table: FunctionTable) -> None:
    made = make_functions(50)
    seen: list[list[int]] = []

    def name_all() -> None:
        order = made[:]
        random.Random(threading.get_ident()).shuffle(order)
        numbers = {id(f): table.name(f).number for f in order * 3}
        seen.append([numbers[id(f)] for f in made])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=name_all) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(seen) == 4
    assert all(numbers == seen[0] for numbers in seen)
    assert sorted(seen[0]) == list(range(50))
