"""What an executor does between its tasks, in this process: its router is a socket that listens."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest
import zmq

from flamezmq import page
from flamezmq.executor import Executor, Function
from flamezmq.executor_config import ExecutorConfig
from flamezmq.optioned import options
from flamezmq.serialize.initializer import Assigned, dump_initializer
from flamezmq.serialize.values import dump_call
from flamezmq.wire import messages as m
from tests.hostile import Impostor
from tests.test_hostile_router import welcome_it


def fail() -> None:
    raise OSError("not this time")


@pytest.mark.parametrize("trust", [0, -1])
def test_what_has_finished_is_sent_before_a_task_that_may_be_long(tmp_path: Path, trust: int) -> None:
    """Not after it: beside one that holds the GIL nobody else could send anything."""
    context, address, page_fd = zmq.Context(), f"ipc://{tmp_path}/r", page.create()
    known, doubtful = Function(1, b"", Assigned()), Function(2, b"", Assigned())
    known.trust, doubtful.trust = 5, trust
    waiting: list[int] = []
    known.call = lambda: None
    try:
        with Impostor(context, address) as router:
            executor = Executor(ExecutorConfig(address, "node", "token", 1, page_fd))
            doubtful.call = lambda: waiting.append(sum(len(run.outputs) for run in executor.ended))
            with closing(executor.line) as line:
                line.open()
                welcome_it(router, lambda: line.turn(10))
                functions = (known, doubtful, known, known)
                payload = dump_call((), {})
                executor.tasks.extend((fn, index, 1, payload) for index, fn in enumerate(functions))
                executor._work()
    finally:
        context.term()
        os.close(page_fd)
    assert waiting == [0]


def test_when_a_task_that_is_sent_back_was_the_last_the_next_sessions_begin_as_they_should(
    tmp_path: Path,
) -> None:
    """The router may answer while it is still being told: with another session, and its initializer."""
    page_fd = page.create()
    flaky, other = Function(1, b"", Assigned()), Function(2, b"", Assigned())
    flaky.options = options(retries=3)(fail).options
    flaky.call, other.call = fail, lambda: begun.append(executor.words[page.SESSION])
    begun: list[int] = []
    payload = dump_call((), {})

    def answered_at_once(more: object = None, wait: bool = False) -> None:
        if isinstance(more, m.Retry):
            initializer = dump_initializer(begun.append, (-1,))
            executor._apply(m.Bind(2, m.Environment("elsewhere", "/", ()), "s2", initializer), [])
            executor.tasks.append((other, 0, 1, payload))

    try:
        executor = Executor(ExecutorConfig(f"ipc://{tmp_path}/r", "node", "token", 1, page_fd))
        with closing(executor.line):
            executor._flush = answered_at_once  # type: ignore[method-assign]
            executor.session = 1
            executor.tasks.append((flaky, 0, 1, payload))
            executor._work()
        assert begun == []
        assert list(executor.bindings.due) == [2]
        assert len(executor.tasks) == 1
    finally:
        os.close(page_fd)
