"""The cases of CPython's tests that FlameExecutor does not run, each with the reason.

Of the classes that are run (see test_cpython_executors.py).  Those of the thread pool are about
threads, and FutureTests about the class that the standard library makes itself.
"""

from __future__ import annotations

from typing import NamedTuple

_SEMAPHORE = (
    "It shares a semaphore of multiprocessing, which only processes that multiprocessing forks can inherit."
)
_OWN_POOL = "It makes a ProcessPoolExecutor by name and looks at its threads, queues and processes."
_ON_DEMAND = (
    "It counts the processes that were started on demand; a cluster's executors are there from the start."
)


class LeftOut(NamedTuple):
    """`since`: the version of Python whose tests have it first."""

    reason: str
    since: tuple[int, int] = (3, 11)


LEFT_OUT = {
    "ProcessPoolExecutorTest.test_killed_child": LeftOut(
        "It wants the death of a process to break the pool; here it costs the task alone, which runs again."
    ),
    "ProcessPoolExecutorTest.test_saturation": LeftOut(_SEMAPHORE),
    "ProcessPoolExecutorTest.test_idle_process_reuse_one": LeftOut(_ON_DEMAND),
    "ProcessPoolExecutorTest.test_idle_process_reuse_multiple": LeftOut(_ON_DEMAND),
    "ProcessPoolExecutorTest.test_max_tasks_per_child_defaults_to_spawn_context": LeftOut(
        "There is no multiprocessing context; executors are forked by a process without threads."
    ),
    "ProcessPoolExecutorTest.test_ressources_gced_in_workers": LeftOut(
        "A manager of multiprocessing lets only processes in that multiprocessing has started."
    ),
    "ProcessPoolExecutorTest.test_python_finalization_error": LeftOut(
        "It makes the start of the pool's second thread fail, and there is none.", since=(3, 12)
    ),
    "ProcessPoolShutdownTest.test_processes_terminate": LeftOut(_SEMAPHORE),
    "ProcessPoolShutdownTest.test_context_manager_shutdown": LeftOut(_OWN_POOL),
    "ProcessPoolShutdownTest.test_del_shutdown": LeftOut(_OWN_POOL),
    "ProcessPoolShutdownTest.test_shutdown_no_wait": LeftOut(_OWN_POOL),
    "ExecutorDeadlockTest.test_gh105829_should_not_deadlock_if_wakeup_pipe_full": LeftOut(
        "It puts something else in the place of the pool's own thread and pipe.", since=(3, 12)
    ),
}
