"""The four-hop floor: client, ROUTER, worker, ROUTER, client, in bare pyzmq.

What a round trip through a broker costs at least on this machine, now: three
processes, 32 bytes, one message outstanding at a time, blocking calls only.
`flmping -p` prints it beside its own round trip; `perf/floor.py` builds its
other floors from the parts in here, and says what was tried to make it faster.

- The standard library and pyzmq only, nothing of ours: this file can be run alone.
- Children are forked before any ZeroMQ context exists; `measure` starts a fresh
  interpreter, so it may be called from a process with threads and contexts.
- Everything ends: an alarm in every process, children die with their parent and
  are reaped, ipc sockets live in a private folder that is removed.

    python -m flamezmq.cli.four_hop --rounds 2000 --json
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import cycle
from multiprocessing.connection import Connection
from time import clock_gettime_ns, perf_counter_ns
from types import MethodType
from typing import Any, NoReturn

import zmq
from zmq.backend import Socket as Backend

#: Each process of a floor ends itself after this long.
LIMIT_SECONDS = 25
#: 32 bytes: about a small call, and the most that libzmq keeps inside a message.
BODY = b"x" * 32
CLIENT = b"c"
MORE = int(zmq.SNDMORE)  # arithmetic with pyzmq's enums costs a microsecond
_PR_SET_PDEATHSIG = 1

fork = multiprocessing.get_context("fork")

Send = Callable[..., Any]
Receive = Callable[..., Any]
Start = Callable[..., int]


@dataclass(frozen=True, slots=True)
class Trip:
    """Round trips, one outstanding at a time.

    Times in microseconds; `cpu_us` is the CPU of all processes and their I/O
    threads per round trip (0 where the system cannot tell).
    """

    what: str
    transport: str
    one_core: bool
    rounds: int
    p50_us: float
    p90_us: float
    p99_us: float
    cpu_us: float


def measure(rounds: int = 2000, transport: str = "ipc", one_core: bool = False) -> Trip:
    """Client, ROUTER, worker, ROUTER, client, in a fresh interpreter.  About a second.

    transport: "ipc" or "tcp" (the loopback).  one_core: keep all processes on one core.
    """
    words = [sys.executable, "-P", os.path.abspath(__file__), "--json", "--rounds", str(rounds)]
    words += ["--transport", transport, *(["--one-core"] if one_core else [])]
    pipe = subprocess.PIPE
    program = subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    with program:
        try:
            out, complaint = program.communicate(timeout=LIMIT_SECONDS + 10)
        except BaseException:  # Ctrl-C, mostly
            program.terminate()  # not kill: it has a folder to remove
            raise
    if program.returncode:
        raise RuntimeError(f"the four-hop floor failed with code {program.returncode}:\n{complaint}")
    return Trip(**json.loads(out))


def run(rounds: int, transport: str, one_core: bool) -> Trip:
    """The same in this process, which must have neither threads nor a ZeroMQ context."""
    with brokered(transport, one_core, [b"w"]) as (send, recv, cpu):

        def once() -> None:
            send(BODY)
            recv()

        return trip("four-hop", transport, one_core, rounds, once, cpu)


# --- sockets and processes ---------------------------------------------------------------


def plain_socket(
    kind: int, name: bytes = b"", *, bind: str = "", connect: str = ""
) -> tuple[zmq.Socket[bytes], Send, Receive]:
    """A socket without high-water mark, and the backend's own send and recv for it."""
    socket = zmq.Context(io_threads=1).socket(kind)
    socket.linger = 0
    socket.set_hwm(0)
    if name:
        socket.routing_id = name
    if bind:
        socket.bind(bind)
    if connect:
        socket.connect(connect)
    # Bound to the socket here, they skip what zmq.Socket.send does before it calls the same.
    return socket, MethodType(Backend.send, socket), MethodType(Backend.recv, socket)


@contextmanager
def processes(one_core: bool) -> Iterator[tuple[Start, Callable[[], float]]]:
    """Give `start(target, *arguments) -> pid` and `cpu() -> seconds of all of them and of us`.

    Whatever was started is killed and reaped on the way out.
    """
    if one_core:
        _stay_on_one_core()
    running: list[multiprocessing.process.BaseProcess] = []
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def start(target: Callable[..., object], *arguments: object) -> int:
        process = fork.Process(target=_child, args=(prctl, target, arguments), daemon=True)
        process.start()
        running.append(process)
        return process.pid or 0

    def cpu() -> float:
        return sum(map(cpu_seconds, [os.getpid(), *(p.pid or 0 for p in running)]))

    try:
        yield start, cpu
    finally:
        for process in running:
            process.kill()
            process.join()


def _child(
    prctl: Callable[..., int] | None, target: Callable[..., object], arguments: Sequence[object]
) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the default action: it ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.alarm(LIMIT_SECONDS)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    target(*arguments)


def _stay_on_one_core() -> None:
    """Ours and, by inheritance, our children's affinity: the last core that we may use."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def cpu_seconds(pid: int) -> float:
    """CPU seconds of all threads of a process, those that have ended too, to the nanosecond."""
    if sys.platform != "linux":
        return 0.0
    return clock_gettime_ns(~pid << 3 | 2) / 1e9  # what clock_getcpuclockid(3) makes of a pid


@contextmanager
def free_address(transport: str) -> Iterator[str]:
    """Where to bind: a socket in a private folder, or any free port of the loopback."""
    if transport == "tcp":
        yield "tcp://127.0.0.1:*"
        return
    short = len(os.fsencode(tempfile.gettempdir())) < 70  # a socket's path has 107 bytes
    with tempfile.TemporaryDirectory(prefix="flm-floor-", dir=None if short else "/tmp") as folder:
        yield f"ipc://{folder}/socket"


def bound(start: Start, server: Callable[..., object], address: str, *arguments: object) -> str:
    """Start a server that binds `address`; return where others can connect to it.

    Nobody dials before it is bound: that would cost a reconnect interval of 100 ms.
    """
    ours, its = fork.Pipe(duplex=False)
    start(server, its, address, *arguments)
    if not ours.poll(LIMIT_SECONDS):
        raise TimeoutError(f"the floor's server did not bind {address}")
    return str(ours.recv())


def serve(kind: int, ready: Connection, address: str) -> tuple[Send, Receive]:
    socket, send, recv = plain_socket(kind, bind=address)
    ready.send(socket.get_string(zmq.LAST_ENDPOINT))
    return send, recv


def trip(
    what: str,
    transport: str,
    one_core: bool,
    rounds: int,
    once: Callable[[], object],
    cpu: Callable[[], float],
) -> Trip:
    """Time `once` so many times, after a warm-up."""
    took: list[int] = []
    for _ in range(rounds // 10 + 20):
        once()
    spent = cpu()
    for _ in range(rounds):
        began = perf_counter_ns()
        once()
        took.append(perf_counter_ns() - began)
    spent = (cpu() - spent) / rounds * 1e6
    took.sort()
    p50, p90, p99 = (round(took[int(rounds * q)] / 1e3, 1) for q in (0.50, 0.90, 0.99))
    return Trip(what, transport, one_core, rounds, p50, p90, p99, round(spent, 1))


def _worker(address: str, name: bytes) -> NoReturn:
    _, send, recv = plain_socket(zmq.DEALER, name, connect=address)
    send(b"ready")
    while True:
        send(recv())


def _broker(ready: Connection, address: str, workers: Sequence[bytes]) -> NoReturn:
    """Pass the client's messages to the workers in turn, and theirs to the client."""
    send, recv = serve(zmq.ROUTER, ready, address)
    for _ in (CLIENT, *workers):
        recv()
        recv()
    send(CLIENT, MORE)
    send(b"all are here")
    turns = cycle(workers)
    while True:
        to = next(turns) if recv() == CLIENT else CLIENT
        body = recv()
        send(to, MORE)
        send(body)


@contextmanager
def brokered(
    transport: str, one_core: bool, workers: Sequence[bytes]
) -> Iterator[tuple[Send, Receive, Callable[[], float]]]:
    """A broker and its workers, all connected; the client's send and recv, and everybody's CPU."""
    with free_address(transport) as address, processes(one_core) as (start, cpu):
        at = bound(start, _broker, address, workers)
        for name in workers:
            start(_worker, at, name)
        _, send, recv = plain_socket(zmq.DEALER, CLIENT, connect=at)
        send(b"ready")
        recv()
        yield send, recv, cpu


# --- the command line --------------------------------------------------------------------


def main() -> None:
    """Measure it in this process and print it."""
    parser = argparse.ArgumentParser(description="Measure a bare ZeroMQ round trip through a ROUTER.")
    parser.add_argument("--rounds", type=int, default=2000, help="round trips one after another (2000)")
    parser.add_argument("--transport", choices=("ipc", "tcp"), default="ipc")
    parser.add_argument("--one-core", action="store_true", help="keep all processes on one core")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a sentence")
    given = parser.parse_args()
    if given.rounds < 1:
        parser.error("--rounds must be at least 1")
    end_in_time()
    found = asdict(run(given.rounds, given.transport, given.one_core))
    print(json.dumps(found) if given.json else "  ".join(f"{key}={value}" for key, value in found.items()))


def end_in_time() -> None:
    """Whatever happens, this process ends, cleans up, and takes its children along."""
    signal.signal(signal.SIGALRM, _expired)
    signal.signal(signal.SIGTERM, _expired)
    signal.alarm(LIMIT_SECONDS)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))


def _expired(number: int, _frame: object) -> NoReturn:
    raise TimeoutError(f"stopped by {signal.Signals(number).name}")


if __name__ == "__main__":
    main()
