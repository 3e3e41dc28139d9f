"""A real zygote, with other things than `flamezmq.executor.main` to run in what it forks."""

from __future__ import annotations

import atexit
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flamezmq import capacity, page, processes, zygote
from flamezmq.executor_config import ExecutorConfig
from tests.waiting import alive, until

pytestmark = pytest.mark.processes

WAIT_SECONDS = 5.0


class Executor:
    """The worker's side of one: its page, the ends of its pipes, and what was reported."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.page = page.create()
        self.out, self.theirs_out = os.pipe()
        self.err, self.theirs_err = os.pipe()
        self.pid = 0
        self.pidfd = -1

    def given(self) -> list[int]:
        return [self.page, self.theirs_out, self.theirs_err]

    def close(self) -> None:
        for fd in (self.page, self.out, self.err, self.pidfd):
            if fd >= 0:
                os.close(fd)

    def read(self, stream: int = 1) -> str:
        """What it prints until it closes that stream."""
        text, fd = b"", (self.out, self.err)[stream - 1]
        while processes.ready(fd, WAIT_SECONDS):
            piece = os.read(fd, 4096)
            if not piece:
                return text.decode()
            text += piece
        raise AssertionError(f"the stream stays open after {text!r}")

    def read_some(self) -> str:
        assert processes.ready(self.out, WAIT_SECONDS), "it prints nothing"
        return os.read(self.out, 4096).decode()


class Zygote:
    """A zygote that runs `main` in its executors; forked from the test, which has one thread."""

    def __init__(self, main: zygote.ExecutorMain, before: Callable[[], None] = lambda: None) -> None:
        self.end, theirs = zygote.channel()
        self.end.settimeout(WAIT_SECONDS)
        self.executors: list[Executor] = []
        parent = os.getpid()
        self.pid = os.fork()
        if not self.pid:
            processes.run_and_exit(lambda: self._run(parent, theirs, main, before))
        self.pidfd = os.pidfd_open(self.pid)
        theirs.close()

    def _run(
        self, parent: int, theirs: socket.socket, main: zygote.ExecutorMain, before: Callable[[], None]
    ) -> int:
        processes.die_with_parent(parent)
        processes.default_signals()
        processes.close_all_but([theirs.fileno()])
        before()
        return zygote.main(theirs, main)

    def ask(self) -> Executor:
        executor = Executor(len(self.executors) + 1)
        self.executors.append(executor)
        request = zygote.Fork(executor.number, "ipc://nowhere", "node", "token", 1.0)
        zygote.send(self.end, request, executor.given())
        os.close(executor.theirs_out)
        os.close(executor.theirs_err)
        return executor

    def fork(self) -> Executor:
        executor = self.ask()
        report = self.report()
        assert isinstance(report, zygote.Forked)
        executor.pid = report.pid
        return executor

    def report(self) -> zygote.Forked | zygote.Exited | None:
        received = zygote.receive_report(self.end)
        if received is None:
            return None
        report, fds = received
        if fds:
            (self.executors[report.number - 1].pidfd,) = fds
        return report

    def exited(self) -> zygote.Exited:
        report = self.report()
        assert isinstance(report, zygote.Exited), report
        return report

    def wait(self) -> int:
        assert processes.ready(self.pidfd, WAIT_SECONDS), "the zygote stays"
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self) -> None:
        self.end.close()
        if not processes.ready(self.pidfd, WAIT_SECONDS):
            processes.kill(self.pid)
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass  # the test did
        os.close(self.pidfd)
        for executor in self.executors:
            executor.close()


Start = Callable[..., Zygote]


@pytest.fixture
def start() -> Iterator[Start]:
    zygotes: list[Zygote] = []

    def start(main: zygote.ExecutorMain, before: Callable[[], None] = lambda: None) -> Zygote:
        zygotes.append(Zygote(main, before))
        return zygotes[-1]

    yield start
    for one in zygotes:
        one.close()


def idle(_: ExecutorConfig) -> None:
    print("ready")
    while True:
        signal.pause()


# --- what an executor is born with


def test_an_executor_is_told_who_it_is_and_has_nothing_else(start: Start) -> None:
    def main(config: ExecutorConfig) -> None:
        numbers = os.listdir("/proc/self/fd")
        fds = sorted(int(n) for n in numbers if os.path.lexists(f"/proc/self/fd/{n}"))
        print(config.address, config.node, config.token, config.number, config.cores)
        print(fds == [0, 1, 2, config.page_fd], os.readlink("/proc/self/fd/0"), repr(sys.stdin.read()))
        print(os.getsid(0) == os.getpid(), Path("/proc/self/comm").read_text().strip())
        print([name for name in sys.modules["__main__"].__dict__ if not name.startswith("__")], sys.argv)
        print(Path("/proc/self/oom_score_adj").read_text().strip())
        print(signal.getsignal(signal.SIGINT).name, signal.getsignal(signal.SIGTERM).name)  # type: ignore[union-attr]

    executor = start(main).fork()

    assert executor.read().splitlines() == [
        "ipc://nowhere node token 1 1.0",
        "True /dev/null ''",
        "True flm-exec-1",
        "[] ['']",
        "500",
        "SIG_IGN SIG_DFL",
    ]


def test_no_two_executors_draw_the_same_random_numbers(start: Start) -> None:
    def main(_: ExecutorConfig) -> None:
        import numpy as np

        print(random.random(), np.random.random())

    def before() -> None:
        import numpy as np

        random.seed(1)
        np.random.seed(1)

    zygote = start(main, before)
    numbers = [number for _ in range(3) for number in zygote_numbers(zygote)]

    assert len(set(numbers)) == len(numbers) == 6


def zygote_numbers(zygote: Zygote) -> list[str]:
    numbers = zygote.fork().read().split()
    zygote.exited()
    return numbers


def test_a_line_is_seen_when_it_is_printed_and_no_character_is_an_error(start: Start) -> None:
    def main(_: ExecutorConfig) -> None:
        print("half", end="")
        print(" \udc80ä")
        while True:
            signal.pause()

    assert start(main).fork().read_some() == "half \\udc80ä\n"


def test_its_own_exit_handlers_run_and_nobody_elses(start: Start) -> None:
    def main(_: ExecutorConfig) -> None:
        atexit.register(print, "mine")

    def before() -> None:
        atexit.register(print, "the zygote's")

    assert start(main, before).fork().read() == "mine\n"


def test_an_exit_handler_that_hangs_is_not_waited_for(start: Start) -> None:
    def main(_: ExecutorConfig) -> None:
        zygote.FAREWELL_SECONDS = 0.05
        atexit.register(signal.sigwait, {signal.SIGUSR1})

    one = start(main)
    one.fork()

    assert one.exited().signal == "SIGALRM"


# --- how an executor ends


@pytest.mark.parametrize(
    ("end", "name", "code"),
    [
        (lambda: None, "", 0),
        (lambda: sys.exit(3), "", 3),
        (lambda: os._exit(7), "", 7),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "SIGKILL", 0),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), "SIGTERM", 0),
        (lambda: os.kill(os.getpid(), signal.SIGRTMIN + 3), f"SIG{signal.SIGRTMIN + 3}", 0),
    ],
)
def test_it_is_reported_how_an_executor_ended(
    start: Start, end: Callable[[], object], name: str, code: int
) -> None:
    one = start(lambda _: end() and None)
    executor = one.fork()

    report = one.exited()

    assert (report.number, report.pid) == (1, executor.pid)
    assert (report.signal, report.exit_code, report.oom) == (name, code, False)
    assert 1 << 20 < report.rss_bytes < 1 << 34
    assert processes.ready(executor.pidfd)


def test_an_error_in_its_main_is_in_its_last_words(start: Start) -> None:
    one = start(lambda _: print(1 // 0))
    executor = one.fork()

    assert "ZeroDivisionError" in executor.read(2)
    assert one.exited().exit_code == 1


def test_a_crash_leaves_a_short_stack_in_its_last_words(start: Start) -> None:
    def main(_: ExecutorConfig) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    one = start(main)
    words = one.fork().read(2)

    assert "Segmentation fault" in words
    assert "in main" in words
    assert "in _on_request" not in words, "the zygote's stack is not its own"
    assert one.exited().signal == "SIGSEGV"


def test_a_kill_is_out_of_memory_only_if_the_kernel_counted_one(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter([5, 6, 6, 7])  # at the start, and at each death
    monkeypatch.setattr(capacity, "oom_kills", lambda: next(counts))
    one = start(lambda config: os.kill(os.getpid(), signal.SIGKILL) if config.number < 3 else None)

    ends = []
    for _ in range(3):
        one.fork()
        ends.append(one.exited())

    assert [(end.signal, end.oom) for end in ends] == [("SIGKILL", True), ("SIGKILL", False), ("", False)]


def test_what_it_wrote_into_its_page_outlives_a_sigkill(start: Start) -> None:
    def main(config: ExecutorConfig) -> None:
        words = page.open_words(config.page_fd)
        words[page.SESSION], words[page.RUNNING], words[page.FINISHED] = 5, 18, 41
        os.kill(os.getpid(), signal.SIGKILL)

    one = start(main)
    executor = one.fork()
    one.exited()

    assert list(page.open_words(executor.page)[:3]) == [5, 18, 41]


def test_what_a_task_started_dies_with_its_executor(start: Start) -> None:
    def main(_: ExecutorConfig) -> None:
        print(subprocess.Popen(["sleep", "100"]).pid)
        os.kill(os.getpid(), signal.SIGKILL)

    one = start(main)
    grandchild = int(one.fork().read_some())
    one.exited()

    until(lambda: not alive(grandchild), "the grandchild's death")


def test_a_fork_that_fails_is_a_death_with_a_reason(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_fork() -> int:
        raise BlockingIOError("too many processes")

    def before() -> None:
        monkeypatch.setattr(os, "fork", no_fork)

    one = start(idle, before)
    executor = one.ask()

    report = one.exited()
    assert (report.number, report.pid, report.exit_code) == (1, 0, 1)
    assert "too many processes" in executor.read(2)


# --- how the zygote ends


def test_a_stop_lets_executors_end_by_themselves(start: Start) -> None:
    def main(config: ExecutorConfig) -> None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
        idle(config)

    one = start(main)
    for executor in [one.fork(), one.fork()]:
        executor.read_some()
    zygote.send(one.end, zygote.Stop(WAIT_SECONDS))

    assert [one.exited().exit_code for _ in range(2)] == [9, 9]
    assert one.report() is None
    assert one.wait() == 0


def test_a_stop_kills_who_does_not_listen(start: Start) -> None:
    def main(config: ExecutorConfig) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        idle(config)

    one = start(main)
    one.fork().read_some()
    zygote.send(one.end, zygote.Stop(0.05))

    assert one.exited().signal == "SIGKILL"
    assert one.wait() == 0


def test_nothing_lives_on_when_the_worker_hangs_up(start: Start) -> None:
    def main(config: ExecutorConfig) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(subprocess.Popen(["sleep", "100"]).pid, flush=True)
        idle(config)

    one = start(main)
    executor = one.fork()
    grandchild = int(executor.read_some().split()[0])
    one.end.close()

    assert one.wait() == 0
    assert processes.ready(executor.pidfd)
    until(lambda: not alive(grandchild), "the grandchild's death")


def test_executors_die_with_a_zygote_that_is_killed(start: Start) -> None:
    one = start(idle)
    executors = [one.fork(), one.fork()]
    for executor in executors:
        executor.read_some()
    os.kill(one.pid, signal.SIGKILL)

    assert one.report() is None
    for executor in executors:
        assert processes.ready(executor.pidfd, WAIT_SECONDS)
    assert one.wait() == -signal.SIGKILL


def test_a_burst_of_requests_is_served(start: Start) -> None:
    one = start(idle)
    for _ in range(16):
        one.ask()

    reports = [one.report() for _ in range(16)]
    assert [report.number for report in reports if isinstance(report, zygote.Forked)] == list(range(1, 17))
