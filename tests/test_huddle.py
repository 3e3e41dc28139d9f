"""The huddle: who sleeps on the router's processor, and when."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

import flamezmq
from flamezmq.core.huddle import ENTER, SHORT_SECONDS, Huddle
from flamezmq.core.members import Effects
from flamezmq.net.berth import Berth, current_cpu
from flamezmq.router import Router
from flamezmq.wire import messages as m

CLIENT, OTHER, EXECUTOR, SECOND = 1, 2, 3, 4


def lonely(huddle: Huddle, rounds: int = ENTER, executor: int = EXECUTOR) -> Effects:
    out: Effects = []
    for _ in range(rounds):
        huddle.on_submit(CLIENT, 1, out)
        huddle.on_results(executor, 1, 1e-6, out)
    return out


def told(out: Effects) -> list[tuple[int, int]]:
    return [(peer, message.cpu) for peer, message, _ in out if type(message) is m.Huddle]


def test_lonely_round_trips_bring_client_and_executor_together() -> None:
    huddle = Huddle(cpu=5)

    assert told(lonely(huddle, ENTER - 1)) == []
    assert told(lonely(huddle, 1)) == [(CLIENT, 5), (EXECUTOR, 5)]
    assert huddle.on
    assert told(lonely(huddle, 100)) == [], "nobody is told twice"


def test_an_executor_that_comes_later_is_told_too() -> None:
    huddle = Huddle(cpu=0)
    lonely(huddle, ENTER)

    assert told(lonely(huddle, 1, SECOND)) == [(SECOND, 0)]


@pytest.mark.parametrize(
    "disturb",
    [
        lambda h, out: h.on_submit(CLIENT, 2, out),
        lambda h, out: h.on_submit(OTHER, 1, out),
        lambda h, out: (h.on_submit(CLIENT, 1, out), h.on_submit(CLIENT, 1, out)),
        lambda h, out: (h.on_submit(CLIENT, 1, out), h.on_results(EXECUTOR, 1, SHORT_SECONDS, out)),
        lambda h, out: h.on_results(SECOND, 1, 0.0, out),
    ],
    ids=["a batch", "another client", "two at a time", "a task that is not short", "a result out of turn"],
)
def test_whatever_does_not_fit_sends_all_apart(disturb: Any) -> None:
    huddle = Huddle(cpu=5)
    lonely(huddle, ENTER)
    out: Effects = []

    disturb(huddle, out)

    assert told(out) == [(CLIENT, -1), (EXECUTOR, -1)]
    assert not huddle.on
    assert told(lonely(huddle, ENTER - 1)) == [], "it takes as long as the first time to come back"


def test_without_a_processor_nobody_is_told() -> None:
    assert lonely(Huddle(), 10 * ENTER) == []


# --- on the machine


def cpus_of(thread: Path) -> str:
    lines = (thread / "status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("Cpus_allowed_list"))


def io_threads(pid: int) -> list[Path]:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [thread for thread in threads if "ZMQbg/IO" in (thread / "comm").read_text()]


def test_a_berth_binds_its_own_io_threads_and_gives_them_back() -> None:
    ours, others = Berth(), Berth()
    sockets = [berth.context.socket(1) for berth in (ours, others)]
    try:
        deadline = monotonic() + 5
        while not (ours._io_threads() and others._io_threads()):
            assert monotonic() < deadline, "the I/O threads have no names"
        before = cpus_of(Path(f"/proc/self/task/{ours._io_threads()[0]}"))
        cpu = current_cpu()

        ours.move(cpu)
        assert cpus_of(Path(f"/proc/self/task/{ours._io_threads()[0]}")) == str(cpu)
        assert cpus_of(Path(f"/proc/self/task/{others._io_threads()[0]}")) == before

        ours.move(-1)
        assert cpus_of(Path(f"/proc/self/task/{ours._io_threads()[0]}")) == before

        ours.move(4095)  # there is none: nothing changes
        assert ours.cpu is None
        assert cpus_of(Path(f"/proc/self/task/{ours._io_threads()[0]}")) == before
    finally:
        for socket, berth in zip(sockets, (ours, others), strict=True):
            socket.close(0)
            berth.context.term()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one processor")
def test_nothing_of_a_process_goes_to_a_processor_that_it_was_kept_away_from() -> None:
    usual = os.sched_getaffinity(0)
    here, there = sorted(usual)[:2]
    berth = Berth()
    os.sched_setaffinity(0, {here})
    socket = berth.context.socket(1)
    try:
        deadline = monotonic() + 5
        while not berth._io_threads():
            assert monotonic() < deadline, "the I/O threads have no names"
        berth.move(there)
        assert berth.cpu is None
        assert os.sched_getaffinity(berth._io_threads()[0]) == {here}
    finally:
        os.sched_setaffinity(0, usual)
        socket.close(0)
        berth.context.term()


def test_a_thread_sleeps_there_and_may_go_everywhere_when_it_wakes() -> None:
    berth = Berth()
    usual = os.sched_getaffinity(0)
    fd = os.eventfd(0)
    sleeper = f"/proc/self/task/{threading.get_native_id()}"
    seen: list[str] = []

    def wake() -> None:
        seen.append(cpus_of(Path(sleeper)))
        os.eventfd_write(fd, 1)

    berth.move(current_cpu())
    assert berth.cpu is not None
    timer = threading.Timer(0.05, wake)
    timer.start()
    try:
        assert berth.poll([(fd, 1)], 5000) == [(fd, 1)]
    finally:
        timer.join()
        os.close(fd)
        berth.context.term()
    assert seen == [str(*berth.cpu)]
    assert os.sched_getaffinity(0) == usual


@pytest.mark.processes
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is only one processor to be on")
def test_one_task_at_a_time_brings_a_real_cluster_together_and_a_burst_sends_it_apart() -> None:
    everywhere = os.sched_getaffinity(0)
    with flamezmq.Client(executors=2) as client:
        router = client.processes()["router"][0]
        at_home = cpus_of(io_threads(router)[0])

        def places() -> set[str]:
            ours = [Path(f"/proc/self/task/{thread}") for thread in client._line.berth._io_threads()]
            return {cpus_of(thread) for thread in [*io_threads(router), *ours]}

        deadline = monotonic() + 20  # on a busy machine a task may not look short
        while len(places()) > 1 or at_home in places():
            assert monotonic() < deadline, "they have not come together"
            for _ in range(ENTER):
                assert client.submit(os.sched_getaffinity, 0).result() == everywhere, "a task is never bound"
                assert os.sched_getaffinity(0) == everywhere, "nor is the user's thread"

        assert [f.result() for f in [client.submit(int, i) for i in range(100)]] == list(range(100))
        deadline = monotonic() + 5
        while places() != {at_home}:
            assert monotonic() < deadline, "they have not gone apart"


def test_a_router_outlives_that_its_processors_are_taken_away() -> None:
    router = Router()
    router._usual = {4095}  # where it began; a cgroup has moved it since
    try:
        router._huddle()
    finally:
        router.close()
    assert os.sched_getaffinity(0)
