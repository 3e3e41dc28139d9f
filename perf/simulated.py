"""Simulated executors: thousands in one process, real on the wire, with tasks that take no time.

Each has a DEALER socket, a link and a number of its own, says HELLO and Ready,
and answers every grant at once with as many results; their run time is what we
say it is.  They share a ZeroMQ context and one epoll.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import select
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import zmq
from zmq.backend import Socket as Backend

from flamezmq.core.link import Link, Verdict
from flamezmq.processes import die_with_parent
from flamezmq.serialize.values import dump_value
from flamezmq.version import __version__
from flamezmq.wire import codec
from flamezmq.wire import messages as m
from perf.isolate import GRACE_SECONDS

#: How long all of them may take to connect.
LIMIT_SECONDS = 60.0
_NOTHING: Any = dump_value(None)
_send: Any = Backend.send
_recv: Any = Backend.recv


class Simulated:
    """One executor.  `task_seconds` is what it says that each of its tasks has taken."""

    def __init__(self, context: zmq.Context[Any], address: str, number: int, task_seconds: float) -> None:
        self.number, self.task_seconds = number, task_seconds
        self.link = Link()
        self.socket = context.socket(zmq.DEALER)
        self.socket.set_hwm(0)
        self.socket.linger = 0
        self.socket.connect(address)
        self.link.epoch = 1
        python = f"{sys.version_info[0]}.{sys.version_info[1]}"
        hello = codec.encode(m.Hello(m.PROTOCOL, __version__, python, "executor", b"", 0))
        codec.seal(hello, codec.HELLO, 1, 0, 0)
        _send(self.socket, hello, 0, True, False)
        self._say(m.Ready("simulated", "simulated", number, os.getpid()))

    def drain(self) -> bool:
        """Answer all that has come; whether it was welcomed just now."""
        welcomed = False
        while True:
            try:
                frame = _recv(self.socket, zmq.DONTWAIT)
            except zmq.Again:
                return welcomed
            welcomed |= self._on_frame(frame)

    def _on_frame(self, frame: bytes) -> bool:
        kind, epoch, seq, ack = codec.open_envelope(frame)
        link = self.link
        if kind == codec.DATA:
            verdict = link.judge(epoch, seq)
            assert verdict is Verdict.APPLY, "nothing gets lost here"
            link.acknowledged(ack)
            link.applied(seq, len(frame))
            self._on_message(codec.decode("to executor", frame))
        elif kind == codec.WELCOME:
            link.begin(epoch, codec.decode_welcome(frame).received)
            self._flush()
            return True
        elif kind == codec.ACK:
            link.acknowledged(ack)
        elif kind == codec.PING:
            link.acknowledged(ack)
            _send(self.socket, codec.signal(codec.PONG, epoch, 0, link.ack_riding()), 0, True, False)
        elif kind == codec.REFUSE:
            raise RuntimeError(codec.decode_refuse(frame).reason)
        return False

    def _on_message(self, message: Any) -> None:
        if type(message) is m.Grant:
            seconds = [part.count * self.task_seconds for part in message.slices]
            outputs = [_NOTHING] * len(message.inputs)
            self._say(m.Results(message.session, message.slices, [], seconds, [], outputs))
        elif type(message) in (m.Retract, m.Drop):
            self._say(m.Retracted(message.session, []))

    def _say(self, message: Any) -> None:
        body = codec.encode(message)
        self.link.enqueue([body], len(body))
        self._flush()

    def _flush(self) -> None:
        link = self.link
        for number, frames in link.outgoing():
            codec.seal(frames[0], codec.DATA, link.epoch, number, link.ack_riding())
            _send(self.socket, frames[0], 0, True, False)


@contextmanager
def simulated_executors(
    address: str, count: int, helpers: int, task_seconds: float
) -> Iterator[Sequence[int]]:
    """`count` executors that the router at `address` knows, in so many processes; yields their pids.

    To be entered before the calling process has a ZeroMQ context.
    """
    fork = multiprocessing.get_context("fork")
    processes, pipes = [], []
    for helper in range(helpers):
        ours, its = fork.Pipe()
        numbers = range(1 + helper, 1 + count, helpers)
        process = fork.Process(
            target=_serve, args=(address, numbers, task_seconds, its, os.getpid()), daemon=True
        )
        process.start()
        its.close()
        processes.append(process)
        pipes.append(ours)
    try:
        for pipe in pipes:
            if not pipe.poll(LIMIT_SECONDS):
                raise TimeoutError(f"{count} simulated executors did not connect")
            pipe.recv()
        yield [process.pid for process in processes if process.pid is not None]
    finally:
        for process in processes:
            process.kill()
            process.join(GRACE_SECONDS)


def _serve(address: str, numbers: Sequence[int], task_seconds: float, told: Connection, parent: int) -> None:
    die_with_parent(parent)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    context: zmq.Context[Any] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 2 * len(numbers) + 16)
    epoll = select.epoll()
    by_fd: dict[int, Simulated] = {}
    waiting = len(numbers)
    for number in numbers:
        one = Simulated(context, address, number, task_seconds)
        by_fd[one.socket.fileno()] = one
        # The descriptor only tells that something has changed: edge-triggered, and drained each time.
        epoll.register(one.socket.fileno(), select.EPOLLIN | select.EPOLLET)
        waiting -= one.drain()
    while True:
        if not waiting:
            waiting = -1
            told.send("connected")
        for fd, _ in epoll.poll():
            waiting -= by_fd[fd].drain()
