"""CPython's own tests of executors, run against FlameExecutor: run, not copied.

What they name is replaced where it has another name here, and nothing else:

    BrokenProcessPool   what becomes of a task that takes its process down, or can't be unpickled
    _RemoteTraceback    the class of our remote tracebacks
    assert_python_ok    the programs that it starts find FlameExecutor in concurrent.futures
    mp_context          is taken and not used
    threading_cleanup   conftest.py looks for threads that were left; this one collects garbage, for seconds

Those that are not about the end of an executor share a cluster: to start one, and to import
CPython's tests in each of its processes, takes longer than most of them.
The tests of `wait` and `as_completed` run twice: with those of the standard library, and with ours.
What is left out, and why, stands in left_out.py.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

import flamezmq as flm
from flamezmq.serialize.failures import RemoteTraceback
from tests.cpython import stdlib
from tests.cpython.left_out import LEFT_OUT

try:
    MODULES, VERSION = stdlib.load()
except stdlib.NotHere as reason:
    pytest.skip(str(reason), allow_module_level=True)

pytestmark = pytest.mark.processes

#: They sleep for a second and a half, and more.
SLOW = {
    "test_20369",
    "test_duplicate_futures",
    "test_first_completed",
    "test_first_completed_some_already_completed",
    "test_first_exception",
    "test_first_exception_one_already_failed",
    "test_first_exception_some_already_complete",
    "test_free_reference_yielded_future",
    "test_hang_gh83386",
    "test_map_timeout",
    "test_timeout",
    "test_zero_timeout",
}
#: CPython's classes -> what they are called here.  They come without the executors that they test.
CLASSES = {
    "ProcessPoolExecutorTest": "FlameExecutorTest",
    "ProcessPoolShutdownTest": "FlameShutdownTest",
    "InitializerMixin": "FlameInitializerTest",
    "FailingInitializerMixin": "FlameFailingInitializerTest",
    "ExecutorDeadlockTest": "FlameDeadlockTest",
    "WaitTests": "FlameWaitTest",
    "AsCompletedTests": "FlameAsCompletedTest",
}
#: The folder that the package `test` was imported from.
LIBRARY = str(Path(sys.modules["test"].__path__[0]).parent)
PRELUDE = f"""
import concurrent.futures, sys
sys.path[:0] = [{str(stdlib.ROOT)!r}, {LIBRARY!r}]
import flamezmq
concurrent.futures.FlameExecutor = flamezmq.FlameExecutor
"""


def find(name: str) -> Any:
    return next(getattr(module, name) for module in MODULES if hasattr(module, name))


def cases(cls: type) -> list[str]:
    return [name for name in dir(cls) if name.startswith("test") and getattr(cls, name) is not None]


class Futures:
    """`concurrent.futures`, but for some names."""

    def __init__(self, **others: Any) -> None:
        self.process = SimpleNamespace(_RemoteTraceback=RemoteTraceback)
        self.__dict__.update(others)

    def __getattr__(self, name: str) -> Any:
        return getattr(concurrent.futures, name)


_assert_python_ok = find("assert_python_ok")


def assert_python_ok(*words: str, **environment: str) -> Any:
    *options, program = words
    return _assert_python_ok(*options, PRELUDE + program, **environment)


class FlameExecutor(flm.FlameExecutor):
    """With a context that it does not use, and the names of what the tests wait for and count."""

    shared = ""  # the address of a cluster

    def __init__(self, max_workers: int | None = None, mp_context: object = None, **others: Any) -> None:
        super().__init__(max_workers, self.shared, **others)

    @property
    def _processes(self) -> dict[int, None]:
        return dict.fromkeys(self._session._client.processes()["executors"])

    @property
    def _executor_manager_thread(self) -> Any:
        return self._closer.thread


class FlameExecutorOnSharedCluster(FlameExecutor):
    """Never more than its `max_workers` of those that are there."""


@pytest.fixture(scope="module", autouse=True)
def shared_cluster() -> Iterator[None]:
    with flm.Client(executors=5) as client:
        FlameExecutorOnSharedCluster.shared = client.address
        yield


REPLACED: dict[str, Any] = {
    "BrokenProcessPool": (flm.TaskLost, SystemExit, pickle.UnpicklingError),
    "assert_python_ok": assert_python_ok,
    "futures": Futures(),
}


class FlameMixin(find("ExecutorMixin")):  # type: ignore[misc]
    """In the place of ProcessPoolForkMixin and its like."""

    executor_type = FlameExecutor
    replaced = REPLACED
    shared = False

    def setUp(self) -> None:
        for module in MODULES:
            for name, value in self.replaced.items():
                if hasattr(module, name):
                    self.enterContext(mock.patch.object(module, name, value))
        threads = sys.modules["test.support.threading_helper"]
        self.enterContext(mock.patch.object(threads, "threading_cleanup"))
        if self.shared:
            self.executor_type = FlameExecutorOnSharedCluster
        super().setUp()

    def get_context(self) -> Any:
        return multiprocessing.get_context("spawn")


def made(name: str, of: str, wanted: set[str], **more: Any) -> type:
    """A class with these cases of one of CPython's."""
    base = find(of)
    nothing = {case: None for case in cases(base) if case not in wanted}
    return type(name, (base, FlameMixin, find("BaseTestCase")), {"__module__": __name__, **nothing, **more})


OURS = {**REPLACED, "futures": Futures(wait=flm.wait, as_completed=flm.as_completed)}
for of, name in CLASSES.items():
    left_out = {case.partition(".")[2] for case in LEFT_OUT if case.startswith(f"{of}.")}
    wanted = set(cases(find(of))) - left_out
    own_cluster = of in ("ProcessPoolExecutorTest", "ProcessPoolShutdownTest")
    kinds: dict[str, dict[str, Any]] = {"": {"shared": not own_cluster}}
    if of in ("WaitTests", "AsCompletedTests"):
        kinds["OfOurs"] = {"shared": True, "replaced": OURS}
    for kind, more in kinds.items():
        globals()[name + kind] = made(name + kind, of, wanted - SLOW, **more)
        if wanted & SLOW:
            slow = made(f"{name}{kind}Slow", of, wanted & SLOW, **more)
            globals()[slow.__name__] = pytest.mark.slow(slow)


def test_what_is_left_out_exists() -> None:
    """Or the list would hide nothing, and nobody would notice."""
    gone = [
        case
        for case, out in LEFT_OUT.items()
        if out.since <= VERSION and case.partition(".")[2] not in cases(find(case.partition(".")[0]))
    ]
    assert not gone, f"the tests of Python {VERSION} have no such cases"


def test_what_is_left_out_has_a_reason() -> None:
    for case, out in LEFT_OUT.items():
        assert case.partition(".")[0] in CLASSES, case
        assert out.reason.endswith("."), case


def test_what_is_not_left_out_runs() -> None:
    run = {(of, case) for of, name in CLASSES.items() for case in cases(globals()[name])}
    run |= {
        (of, case) for of, name in CLASSES.items() for case in cases(globals().get(f"{name}Slow", object))
    }
    for of in CLASSES:
        for case in cases(find(of)):
            assert ((of, case) in run) != (f"{of}.{case}" in LEFT_OUT), f"{of}.{case}"
