"""What the function table warns of and refuses, in words that name the culprit."""

from __future__ import annotations

import functools
import importlib
import math
import pickle
import sys
import time
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from threading import Lock

import numpy as np
import pytest
from notebook import Notebook, pickles

from flamezmq.errors import MissingModule, Unpicklable
from flamezmq.serialize.culprit import unpicklable
from flamezmq.serialize.functions import FunctionTable, HeavyFunction, label, load_function

ROOT = Path(__file__).parents[1]


@pytest.fixture
def table() -> Iterator[FunctionTable]:
    table = FunctionTable()
    yield table
    table.check()


# In another process -------------------------------------------------------


def test_a_heavy_function_warns_once_and_names_what_is_heavy(table: FunctionTable) -> None:
    main = Notebook(
        "weights = list(range(600_000))\nk = 1\ndef g(): return weights, k\ndef f(): return g()\n"
    )
    with pytest.warns(
        HeavyFunction, match=r"__main__\.f takes 2\.\d MiB.*global `weights` \(2\.\d MiB\)"
    ) as caught:
        table.name(main["f"])
    assert caught[0].filename == __file__  # the user's line, not ours
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        main["weights"][0] = 5
        table.name(main["f"])


def test_heavy_partials_and_closures_are_named(table: FunctionTable) -> None:
    data = np.zeros(300_000)
    with pytest.warns(HeavyFunction, match="captured variable `data`"):
        table.name(lambda: data.sum())
    with pytest.warns(HeavyFunction, match="argument 1 of the partial"):
        table.name(functools.partial(np.sum, data))
    with pytest.warns(HeavyFunction, match="its object"):
        table.name(types.MethodType(np.sum, data))


REFUSALS = {
    "a global": ("import threading\nlock = threading.Lock()\ndef f(): return lock", "global `lock`"),
    "a helper's global": (
        "import threading\nlock = threading.Lock()\ndef g(): return lock\ndef f(): return g()",
        "global `g` global `lock`",
    ),
    "inside a global": (
        "import threading\nd = {'a': [1, threading.Lock()]}\ndef f(): return d",
        "global `d`['a'][1]",
    ),
    "a captured variable": (
        "import threading\ndef make():\n    lock = threading.Lock()\n    return lambda: lock\nf = make()",
        "captured variable `lock`",
    ),
    "a default": ("import threading\ndef f(a, b=threading.Lock()): pass", "default of `b`"),
    "a class attribute": (
        "import threading\nclass C: lock = threading.Lock()\ndef f(): return C",
        "global `C`.lock",
    ),
    "past what only leads back": (
        "import threading\n"
        "class C:\n"
        "    def m(self): return C, other\n"
        "    lock = threading.Lock()\n"
        "def other(): return f, C\n"
        "def f(): return other",
        "global `other` global `C`.lock",
    ),
    "a partial's argument": (
        "import threading, functools\ndef g(x): pass\nf = functools.partial(g, threading.Lock())",
        ".args[0]",
    ),
    "a bound method's object": (
        "import threading\n"
        "class C:\n"
        "    def __init__(self): self.lock = threading.Lock()\n"
        "    def m(self): pass\n"
        "f = C().m",
        ".__self__.lock",
    ),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refusal_names_what_the_function_refers_to(table: FunctionTable, kind: str) -> None:
    source, path = REFUSALS[kind]
    f = Notebook(source)["f"]
    with pytest.raises(Unpicklable) as caught:
        table.name(f)
    assert caught.value.what == f"function {label(f)}"
    assert caught.value.path == path
    assert caught.value.reason == "TypeError: cannot pickle '_thread.lock' object"


def test_a_refused_function_can_be_mended(table: FunctionTable) -> None:
    main = Notebook("import threading\nlock = threading.Lock()\ndef f(): return lock")
    with pytest.raises(Unpicklable):
        table.name(main["f"])
    main.run("lock = 5")
    assert load_function(table.name(main["f"]).blob)() == 5


def test_a_missing_module_is_named_with_the_places_that_were_searched(
    table: FunctionTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").write_text("")
    (tmp_path / "my_package" / "tools.py").write_text("def f(x): return x")
    monkeypatch.syspath_prepend(tmp_path)
    name = table.name(importlib.import_module("my_package.tools").f)
    assert load_function(name.blob)(3) == 3
    monkeypatch.undo()
    for module in ("my_package", "my_package.tools"):
        del sys.modules[module]
    with pytest.raises(MissingModule) as caught:
        load_function(name.blob)
    assert caught.value.module == "my_package"
    assert caught.value.searched == tuple(sys.path)
    assert "no module 'my_package'" in str(caught.value)


def test_a_known_function_is_named_without_pickling_in_no_time(table: FunctionTable) -> None:
    """A guard against a slow path, not a benchmark: pickling takes 100 us, this 0.3."""
    main = Notebook("import numpy as np\nk = 3\ndef f(x): return np.sqrt(x) * k + len(x)")
    f, name = main["f"], table.name
    name(f)
    best = math.inf
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(200):
            name(f)
        best = min(best, time.perf_counter() - start)
    assert best / 200 < 5e-6
    assert pickles(table) == 1


# Warnings and refusals ----------------------------------------------------


async def later() -> int:
    return 1


def test_who_returns_a_generator_or_a_coroutine_is_told_what_to_do_with_it() -> None:
    coroutine = later()
    for value, words in (
        (iter_of(3), "stream(...) gives the values of a generator"),
        (coroutine, "a coroutine runs inside the task, by asyncio.run"),
        (Lock(), "make it inside the task"),
    ):
        with pytest.raises(TypeError) as refused:
            pickle.dumps(value)
        assert words in str(unpicklable("the result of f", value, refused.value))
    coroutine.close()


def iter_of(n: int) -> Iterator[int]:
    yield from range(n)
