"""An engine that fails in every way but one, for test_perf_peers.py."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import sleep

from perf.compare.face import Peer
from perf.tasks import identity, length, spin


class Engine(Peer):
    title = "a fake"
    chosen = "nothing"
    program = "print(8)"
    sizes = {"short": 7}
    cannot = {"nested": "fakes have no children"}

    def __init__(self, workers):
        print("engines may print")  # which must not be taken for an answer
        self.kept = multiprocessing.get_context("spawn").Semaphore()  # a file, and a process that removes it

    def each(self, function, arguments):
        if function is length:
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)
            sleep(1000)
        if function is identity:
            return iter([7] * len(arguments))
        if function is spin:
            return (function(*some) for some in arguments)
        return (None for _ in arguments)

    def one(self, function, *arguments):
        raise RuntimeError("no way there\nand none back")

    @contextmanager
    def batch(self) -> Iterator:
        print("the last words", file=sys.stderr, flush=True)
        os._exit(3)
        yield
