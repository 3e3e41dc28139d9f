"""The floors: what bare pyzmq, a pipe, a memcpy and a pickle cost on this machine, now.

A figure "times the floor" is worth what its floor is worth, so each program here
is the fastest we found, and none may be slowed down later.  Rules of this file:

- the standard library and pyzmq only.  The four-hop echo, which flmping prints
  too, and the parts that all floors share are in flamezmq/cli/four_hop.py, under
  the same rule; nothing else of ours: `python -m perf.floor four-hop --rounds 2000 --json`;
- every public function starts a fresh interpreter, which forks its children
  before any ZeroMQ context exists.  So it may be called from a process that has
  threads and contexts of its own;
- everything ends: an alarm in every process, children die with their parent and
  are reaped, ipc sockets live in a private folder that is removed.

What was tried, as ratios of p50 to the form that was kept (so more is worse; medians of
7 to 15 runs; pyzmq 27.3, Python 3.11, a KVM guest with 2 Xeon cores), once with all
processes on one core and once spread over two idle ones (where 10 % is noise):

    four-hop                          one core  spread
      kept: one ROUTER, blocking        1         1     (45 to 67 us; 250 us)
        recv, the backend's send and
        recv frame by frame, one frame
        of body, peers known by name
      pyzmq's own Socket.send, recv     1.0-1.15  1.03  (5.8 us against 3.1 us for 4 frames)
      send_multipart, recv_multipart    1.8       1.5   (22 us against 3.1 us for 4 frames:
                                                         arithmetic on Python enums)
      the peer's address in a frame     1.2       1.0   (a frame more each way)
      poll, then recv                   1.4-1.5   1.2
      two ROUTER sockets and a Poller   1.2-1.4   1.3
      zmq.proxy (ROUTER, DEALER; in C)  1.5       1.4   (two sockets, a zmq_poll for each)
      copy=False                        1.1       0.9
      2 I/O threads                     1.0-1.2   1.3
      spin 50 / 200 us before recv                1.4 / 2.3
      tcp instead of ipc                1.4       1.2
      RCVTIMEO, ZMQ_IMMEDIATE, ROUTER_MANDATORY, 1 MiB socket buffers: 0.94 to 1.1, noise
    two-hop: the same order (multipart 1.2-1.4, poll 1.3, copy=False 1.1, recv_into 1.0)

and as ratios of rates (so less is worse):

    pipelined                         kept: all sent, then all received
      pyzmq's own send and recv         0.59
      send_multipart, recv_multipart    0.20 (30,000/s: the figure one usually sees)
      copy=False                        0.57
      window of 100 / 1,000 / 5,000     0.40 / 0.79 / 0.99
      recv with NOBLOCK after a poll    0.96
      2 I/O threads                     0.77
    push-pull                         kept: the backend's send and recv, no HWM
      pyzmq's own send and recv         0.86
      copy=False at sender / receiver   0.74 / 0.53
      recv_into / NOBLOCK after a poll  0.77 / 0.89
      HWM 1,000 / 2 I/O threads         0.98 / 1.06, noise
    pipe (time)                       kept: Connection.send_bytes on two one-way pipes
      one duplex Pipe (a socketpair)    1.4
      Connection.send of an object      2 to 5
    memcpy: memoryview assignment and numpy.copyto are equal

**Placement decides.**  A four-hop round trip is 12 wake-ups (application, I/O thread, I/O
thread, application, in each hop).  p50 is 45 to 67 us and CPU 47 to 74 us when all land on
one core; 200 to 320 us and 180 to 330 us of CPU when they spread over two.  The kernel
spreads them when both cores are idle and keeps them together when another job has the other
core, so an unpinned run does either, and a busy machine looks five times *faster*.  Hence
`one_core=True`, which is steady; compare round trips only between runs that were placed alike.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NoReturn

import zmq

from flamezmq.cli.four_hop import (
    BODY,
    LIMIT_SECONDS,
    Trip,
    bound,
    brokered,
    end_in_time,
    fork,
    free_address,
    plain_socket,
    processes,
    serve,
    trip,
)
from flamezmq.cli.four_hop import measure as four_hop
from flamezmq.cli.four_hop import run as _four_hop

__all__ = [
    "Call",
    "Copy",
    "Floor",
    "Rate",
    "Space",
    "Trip",
    "fallocate",
    "four_hop",
    "memcpy",
    "pickled",
    "pipe",
    "pipelined",
    "push_pull",
    "two_hop",
]

#: The checkout.
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Rate:
    """Many at once: the median rate of some repeats, and CPU microseconds for each."""

    what: str
    transport: str
    count: int
    per_second: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class Copy:
    """A memcpy of `megabytes`, in GB/s: into touched memory, and into fresh mappings."""

    what: str
    megabytes: int
    touched_gb_s: float
    fresh_shared_gb_s: float
    fresh_private_gb_s: float


@dataclass(frozen=True, slots=True)
class Space:
    """How fast the system makes `megabytes` of zeroed shared memory by fallocate, in GB/s."""

    what: str
    megabytes: int
    gb_s: float


@dataclass(frozen=True, slots=True)
class Call:
    """Microseconds to pickle and unpickle the arguments of a small call."""

    what: str
    pickle_us: float


Floor = Trip | Rate | Copy | Space | Call


# --- the public functions: each runs in a fresh interpreter ------------------------------


def two_hop(rounds: int = 2000, transport: str = "ipc", one_core: bool = False) -> Trip:
    """DEALER to DEALER and back, two processes."""
    return Trip(**_fresh("two-hop", rounds=rounds, transport=transport, one_core=one_core))


def pipe(rounds: int = 2000, one_core: bool = False) -> Trip:
    """One process to another and back over multiprocessing's pipes."""
    return Trip(**_fresh("pipe", rounds=rounds, one_core=one_core))


def pipelined(count: int = 20_000, transport: str = "ipc") -> Rate:
    """The four-hop echo with two workers and `count` round trips outstanding, a message each."""
    return Rate(**_fresh("pipelined", count=count, transport=transport))


def push_pull(count: int = 200_000, transport: str = "ipc") -> Rate:
    """Messages of 100 bytes, one way, two processes."""
    return Rate(**_fresh("push-pull", count=count, transport=transport))


def memcpy(megabytes: int = 256) -> Copy:
    """Copy a buffer into memory that is touched, and into memory that is not."""
    return Copy(**_fresh("memcpy", megabytes=megabytes))


def fallocate(megabytes: int = 256) -> Space:
    """Have the system make shared memory, without a copy."""
    return Space(**_fresh("fallocate", megabytes=megabytes))


def pickled(count: int = 20_000) -> Call:
    """`pickle.loads(pickle.dumps(arguments))` of a small call."""
    return Call(**_fresh("pickled", count=count))


def _fresh(name: str, **options: object) -> dict[str, Any]:
    words = [sys.executable, "-m", "perf.floor", name, "--json"]
    for key, value in options.items():
        flag = "--" + key.replace("_", "-")
        words += ([flag] if value else []) if isinstance(value, bool) else [flag, str(value)]
    done = subprocess.run(
        words, check=False, capture_output=True, text=True, timeout=LIMIT_SECONDS + 10, cwd=ROOT
    )
    if done.returncode:
        raise RuntimeError(f"floor {name} failed with code {done.returncode}:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# --- the floors themselves ---------------------------------------------------------------


def _two_hop(rounds: int, transport: str, one_core: bool) -> Trip:
    with free_address(transport) as address, processes(one_core) as (start, cpu):
        at = bound(start, _echo_bound, address)
        _, send, recv = plain_socket(zmq.DEALER, connect=at)

        def once() -> None:
            send(BODY)
            recv()

        return trip("two-hop", transport, one_core, rounds, once, cpu)


def _echo_bound(ready: Connection, address: str) -> NoReturn:
    send, recv = serve(zmq.DEALER, ready, address)
    while True:
        send(recv())


def _pipelined(count: int, transport: str) -> Rate:
    with brokered(transport, False, [b"w1", b"w2"]) as (send, recv, cpu):

        def burst(size: int) -> float:
            began = perf_counter()
            for _ in range(size):
                send(BODY)
            for _ in range(size):
                recv()
            return perf_counter() - began

        burst(500)  # warm
        spent = cpu()
        seconds = median(burst(count) for _ in range(5))
        spent = (cpu() - spent) / (5 * count)
        return Rate("pipelined", transport, count, round(count / seconds), round(spent * 1e6, 2))


def _push_pull(count: int, transport: str) -> Rate:
    with free_address(transport) as address, processes(False) as (start, cpu):
        ours, its = fork.Pipe(duplex=False)
        at = bound(start, _pull, address, its, count)
        _, send, _ = plain_socket(zmq.PUSH, connect=at)
        body = b"x" * 100

        def burst() -> float:
            for _ in range(count):
                send(body)
            if not ours.poll(LIMIT_SECONDS):
                raise TimeoutError("the floor's receiver did not report")
            return float(ours.recv())

        burst()  # warm
        spent = cpu()
        seconds = median(burst() for _ in range(3))
        spent = (cpu() - spent) / (3 * count)
        return Rate("push-pull", transport, count, round(count / seconds), round(spent * 1e6, 2))


def _pull(ready: Connection, address: str, report: Connection, count: int) -> NoReturn:
    """Report the seconds from the first message of a burst to its last."""
    _, recv = serve(zmq.PULL, ready, address)
    while True:
        recv()
        began = perf_counter()
        for _ in range(count - 1):
            recv()
        report.send(perf_counter() - began)


def _pipe(rounds: int, one_core: bool) -> Trip:
    with processes(one_core) as (start, cpu):
        its_in, our_out = fork.Pipe(duplex=False)
        our_in, its_out = fork.Pipe(duplex=False)
        start(_echo_pipe, its_in, its_out)

        def once() -> None:
            our_out.send_bytes(BODY)
            our_in.recv_bytes()

        return trip("pipe", "pipe", one_core, rounds, once, cpu)


def _echo_pipe(source: Connection, sink: Connection) -> NoReturn:
    while True:
        sink.send_bytes(source.recv_bytes())


def _memcpy(megabytes: int) -> Copy:
    size = megabytes << 20
    source = memoryview(bytearray(b"\1") * size)
    touched = memoryview(bytearray(b"\2") * size)

    def into(target: memoryview) -> float:
        began = perf_counter()
        target[:] = source
        return perf_counter() - began

    def into_fresh(flag: int) -> float:
        with mmap.mmap(-1, size, flags=flag | mmap.MAP_ANONYMOUS) as fresh, memoryview(fresh) as view:
            return into(view)

    def speed(copy: Callable[[], float]) -> float:
        return round(size / median(copy() for _ in range(5)) / 1e9, 2)

    return Copy(
        "memcpy",
        megabytes,
        touched_gb_s=speed(lambda: into(touched)),
        fresh_shared_gb_s=speed(lambda: into_fresh(mmap.MAP_SHARED)),
        fresh_private_gb_s=speed(lambda: into_fresh(mmap.MAP_PRIVATE)),
    )


def _fallocate(megabytes: int) -> Space:
    size = megabytes << 20

    def once() -> float:
        fd = os.memfd_create("floor", os.MFD_CLOEXEC)
        try:
            began = perf_counter()
            os.posix_fallocate(fd, 0, size)
            return perf_counter() - began
        finally:
            os.close(fd)

    return Space("fallocate", megabytes, round(size / median(once() for _ in range(5)) / 1e9, 2))


def _pickled(count: int) -> Call:
    arguments = (3, 4.5, "seven")
    dumps, loads = pickle.dumps, pickle.loads

    def round_trips() -> float:
        began = perf_counter()
        for _ in range(count):
            loads(dumps(arguments, 5))
        return (perf_counter() - began) / count * 1e6

    return Call("pickled", round(median(round_trips() for _ in range(9)), 3))


# --- the command line --------------------------------------------------------------------

FLOORS: dict[str, Callable[..., Floor]] = {
    "two-hop": _two_hop,
    "four-hop": _four_hop,
    "pipelined": _pipelined,
    "push-pull": _push_pull,
    "pipe": _pipe,
    "memcpy": _memcpy,
    "fallocate": _fallocate,
    "pickled": _pickled,
}
#: Each option, and its default where a floor takes it.
DEFAULTS = {"rounds": 2000, "transport": "ipc", "one_core": False, "megabytes": 256}
COUNTS = {"pipelined": 20_000, "push-pull": 200_000, "pickled": 20_000}


def main() -> None:
    """Measure one floor in this process and print it."""
    parser = argparse.ArgumentParser(description="Measure one floor of this machine.")
    parser.add_argument("floor", choices=FLOORS)
    parser.add_argument("--rounds", type=int, help="round trips one after another")
    parser.add_argument("--count", type=int, help="messages, round trips or calls in one go")
    parser.add_argument("--transport", choices=("ipc", "tcp"))
    parser.add_argument(
        "--one-core", action="store_true", default=None, help="keep all processes on one core"
    )
    parser.add_argument("--megabytes", type=int)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a sentence")
    given = vars(parser.parse_args())
    name, as_json = given.pop("floor"), given.pop("json")
    run = FLOORS[name]
    takes = run.__code__.co_varnames[: run.__code__.co_argcount]
    unknown = [key for key, value in given.items() if value is not None and key not in takes]
    if unknown:
        parser.error(f"{name} takes no --{unknown[0].replace('_', '-')}")
    defaults = DEFAULTS | {"count": COUNTS.get(name, 0)}
    end_in_time()
    found = asdict(run(**{key: defaults[key] if given[key] is None else given[key] for key in takes}))
    print(json.dumps(found) if as_json else "  ".join(f"{key}={value}" for key, value in found.items()))


if __name__ == "__main__":
    main()
