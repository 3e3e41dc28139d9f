"""Sleeping on one processor together with those who will wake us (see core/huddle.py).

A thread that runs a user's code is never bound while it does, only while it
sleeps: it wakes up there, and may go everywhere again before anything else
happens.  ZeroMQ's I/O threads, which are ours alone, stay there.

Linux only.  Where the system says no, nothing changes.
"""

from __future__ import annotations

import os
import weakref
from contextlib import suppress
from itertools import count
from typing import Any

import zmq

_numbers = count(1)


def current_cpu() -> int:
    """The processor that the calling thread runs on; -1 where the system can't tell."""
    try:
        with open("/proc/thread-self/stat") as file:
            return int(file.read().rpartition(")")[2].split()[36])
    except OSError:
        return -1


class Berth:
    """Where the threads of one ZeroMQ context sleep.

    cpu  all of them on this processor; None: wherever the system likes
    """

    def __init__(self) -> None:
        number = next(_numbers) % 1000
        self._io_thread = f"{number}/ZMQbg/IO"  # tells ours from those of the user's own contexts
        self.context: zmq.Context[Any] = zmq.Context()
        self.context.set(zmq.THREAD_NAME_PREFIX, number)
        self._sockets: weakref.WeakSet[zmq.Socket[Any]] = weakref.WeakSet()
        self.cpu: set[int] | None = None
        self._usual: dict[int, set[int]] = {}  # I/O thread -> where it may run at other times

    def socket(self, kind: int) -> Any:
        """A socket of the context, which `close` knows even if an exception lands while it is made.

        `Context.socket` tells the context of it at its end; Ctrl-C before that leaves one in the frames
        of the traceback, which nobody closes, and for which `Context.term` waits for ever.
        """
        socket: zmq.Socket[bytes] = zmq.Socket.__new__(zmq.Socket)
        self._sockets.add(socket)
        zmq.Socket.__init__(socket, self.context, kind)
        return socket

    def close(self) -> None:
        """End the context, and close what is left of its sockets, with all that they have not sent."""
        for socket in list(self._sockets):
            socket.close(0)
        self.context.term()

    def move(self, cpu: int) -> None:
        """Sleep there from now on; negative: anywhere."""
        usual, self._usual, self.cpu = self._usual, {}, None
        try:
            for thread, cpus in usual.items():
                os.sched_setaffinity(thread, cpus)
            if cpu < 0:
                return
            allowed = {thread: os.sched_getaffinity(thread) for thread in self._io_threads()}
            if all(cpu in cpus for cpus in allowed.values()):  # the user may have said where (`taskset`)
                self._usual = allowed
                for thread in allowed:
                    os.sched_setaffinity(thread, {cpu})
                self.cpu = {cpu}
        except OSError:
            pass  # it is not among those that we may use

    def _io_threads(self) -> list[int]:
        found = []
        for thread in os.listdir("/proc/self/task"):
            with suppress(OSError), open(f"/proc/self/task/{thread}/comm") as file:  # some other may just end
                if file.read().startswith(self._io_thread):
                    found.append(int(thread))
        return found

    def poll(self, items: list[tuple[Any, int]], timeout_ms: int) -> list[tuple[Any, int]]:
        """`zmq_poll`, asleep on the common processor."""
        usual = os.sched_getaffinity(0)
        if self.cpu is None or not self.cpu <= usual:
            return zmq.zmq_poll(items, timeout_ms)
        try:
            os.sched_setaffinity(0, self.cpu)
            return zmq.zmq_poll(items, timeout_ms)
        finally:
            os.sched_setaffinity(0, usual)
