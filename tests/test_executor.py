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
from flamezmq.serialize.initializer import Assigned
from flamezmq.serialize.values import dump_call
from tests.hostile import Impostor
from tests.test_hostile_router import welcome_it


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
