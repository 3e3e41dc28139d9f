"""A dialler's line to a router that is not there, or has just gone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from flamezmq.errors import Refused, RouterLost
from flamezmq.net import line as net_line
from flamezmq.net.line import Line
from flamezmq.wire import codec
from flamezmq.wire import messages as m


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    monkeypatch.setattr(net_line, "HELLO_AGAIN_SECONDS", 0.01)
    line = Line(f"ipc://{tmp_path}/r", "worker", patience_seconds=20.0)
    yield line
    line.close()


@pytest.fixture
def router(line: Line) -> Iterator[zmq.Socket]:
    """Not bound yet."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.linger = 0
        yield socket


def drive(line: Line, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        line.turn(10)


def next_hello(router: zmq.Socket, line: Line) -> tuple[bytes, int]:
    """(route, epoch)"""
    until = time.monotonic() + 10
    while not router.poll(0):
        assert time.monotonic() < until, "no HELLO has come"
        line.turn(10)
    route, frame = router.recv_multipart()
    kind, epoch, _, _ = codec.open_envelope(frame)
    assert kind == codec.HELLO
    return route, epoch


def answer(router: zmq.Socket, line: Line, message: object, kind: int) -> None:
    """Answer the next HELLO, and one that the connection may have it say again; until the line has heard."""
    until = time.monotonic() + 10
    route, epoch = next_hello(router, line)
    while not line.link.up and time.monotonic() < until:
        frame = codec.encode(message)
        codec.seal(frame, kind, epoch, 0, 0)
        router.send_multipart([route, bytes(frame)])
        while not line.link.up and not router.poll(0) and time.monotonic() < until:
            line.turn(10)
        if not line.link.up:
            route, epoch = next_hello(router, line)


def test_who_waits_for_a_router_does_not_pile_up_hellos(line: Line, router: zmq.Socket) -> None:
    line.open()
    drive(line, 0.5)  # as many as fifty, if it said HELLO into the void

    router.bind(line.address)
    next_hello(router, line)
    before = 1
    while router.poll(0):
        router.recv_multipart()
        before += 1

    assert before <= 2, "the one that it began with, and one for the connection"


def test_over_a_connection_hello_is_said_again(line: Line, router: zmq.Socket) -> None:
    router.bind(line.address)
    line.open()
    _, first = next_hello(router, line)

    _, later = next_hello(router, line)

    assert later > first


@pytest.mark.parametrize(("gone", "error"), [(True, RouterLost), (False, Refused)])
def test_a_refusal_says_whether_the_router_is_gone_or_the_peer_at_fault(
    gone: bool, error: type[Exception], line: Line, router: zmq.Socket
) -> None:
    router.bind(line.address)
    line.open()

    with pytest.raises(error, match="for a reason"):
        answer(router, line, m.Refuse("for a reason", gone), codec.REFUSE)


def test_what_is_committed_leaves_before_the_line_is_closed(line: Line, router: zmq.Socket) -> None:
    router.bind(line.address)
    line.open()
    answer(router, line, m.Welcome(b"token", 0), codec.WELCOME)
    line.enqueue(m.Leave())

    line.close(bye=True)

    kinds = []
    while router.poll(1000):
        kinds.append(codec.open_envelope(router.recv_multipart()[1])[0])
    assert kinds[-2:] == [codec.DATA, codec.BYE]


def test_an_interrupt_as_a_socket_is_made_does_not_keep_the_line_from_closing(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(socket: zmq.Socket, option: int) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(zmq.Socket, "get", interrupt)  # called when ZeroMQ has made it, and nobody has it
    try:
        line.open()
    except KeyboardInterrupt:
        line.close()  # while the traceback still holds the socket
    assert line.berth.context.closed
