"""Shims: what asking a service costs per task, in the executor: in Python, by pipes, by gRPC and by HTTP.

Each is asked to give back the same small value, without a cluster around it.  The programs behind the
pipes are `cat`, so nearly all of their figure is ours; the servers are in Python, and have their share.
The floor is a bare pipe to `cat` and back.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from statistics import median
from typing import Any

from perf.engines import OURS
from perf.measure import Costs, descendants, percentile, sample, times
from perf.report import Report
from perf.settings import Settings

VALUE = {"size": 12, "name": "small", "list": [1, 2, 3]}
FLOOR = "bare pipe, to `cat` and back"
#: figure -> shim, program, options, what is sent, how often.  The servers are SERVERS.
WAYS: dict[str, tuple[str, tuple[str, ...], dict[str, Any], object, int]] = {
    "python": ("python", (), {}, VALUE, 20_000),
    "stdio, frames of bytes": ("stdio", ("cat",), {"framing": "frames"}, b"x" * 40, 5000),
    "stdio, lines of JSON": ("stdio", ("cat",), {}, VALUE, 5000),
    "grpc": ("grpc", (sys.executable, "-c"), {}, VALUE, 2000),
    "http, unix socket": ("http", (sys.executable, "-c"), {"socket": "unix"}, VALUE, 1000),
    "http, port": ("http", (sys.executable, "-c"), {}, VALUE, 1000),
    "stdio, one-shot": ("stdio", ("cat",), {"one_shot": True, "payload": "json"}, VALUE, 200),
}
SERVERS = {
    "grpc": """
import os
from concurrent import futures
import grpc
from flamezmq.shims.protobuf import decode, encode
def task(request, context):
    return encode({1: decode(request)[4]})
calls = {"OnTaskInvoke": grpc.unary_unary_rpc_method_handler(task)}
server = grpc.server(futures.ThreadPoolExecutor(1))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("flamezmq.Application", calls)])
server.add_insecure_port("unix:" + os.environ["SOCKET"])
server.start()
server.wait_for_termination()
""",
    "http": """
import os, socket
if "SOCKET" in os.environ:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.environ["SOCKET"])
else:
    listener = socket.socket()
    listener.bind(("127.0.0.1", int(os.environ["PORT"])))
listener.listen()
while True:
    peer, _ = listener.accept()
    file = peer.makefile("rb")
    while (request := file.readline()):
        length = 0
        while (line := file.readline()) not in (b"\\r\\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        body = file.read(length)
        head = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n"
        peer.sendall(head % len(body) + body)
""",
}
LIMIT_SECONDS = 60.0


def run(settings: Settings, report: Report) -> None:
    if OURS not in settings.engines:
        return
    rounds = settings.pick(5000, 200)
    floor = report.attempt(FLOOR, "floor", "us", None, bare_pipe, rounds, limit=LIMIT_SECONDS)
    if floor:
        _add(report, FLOOR, "floor", floor, None)
    for figure, (_, _, _, _, rounds) in WAYS.items():
        count = settings.pick(rounds, max(rounds // 20, 20))
        found = report.attempt(figure, OURS, "us", None, asked, figure, count, limit=LIMIT_SECONDS)
        if found:
            _add(report, figure, OURS, found[0], found[1])


def _add(report: Report, figure: str, engine: str, seconds: list[float], costs: Costs | None) -> None:
    note = f"p99 {percentile(seconds, 0.99) * 1e6:,.0f}; {len(seconds):,} tasks"
    report.add(figure, engine, median(seconds) * 1e6, "us", None, note, costs)


def bare_pipe(rounds: int) -> list[float]:
    """Seconds of each round trip of 40 bytes."""
    data = b"x" * 40
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat:
        assert cat.stdin is not None
        assert cat.stdout is not None
        there, back = cat.stdin.fileno(), cat.stdout.fileno()

        def once() -> None:
            os.write(there, data)
            assert len(os.read(back, 100)) == 40

        return times(once, rounds)


def asked(figure: str, rounds: int) -> tuple[list[float], Costs]:
    """Seconds of each task; CPU per task here and in the program."""
    from flamezmq import shims
    from flamezmq.shims.context import Context
    from flamezmq.shims.service import dump_service
    from flamezmq.wire.messages import Application

    name, command, options, value, _ = WAYS[figure]
    if command:
        arguments = (*command[1:], SERVERS[name]) if name in SERVERS else ()
        application = Application("echo", name, command=command[0], arguments=arguments, options=options)
    else:
        application = Application("echo", service=dump_service(Echo))
    ctx = Context("echo", "session-1", "node/1")
    shim = shims.make(application)
    try:
        shim.start()
        shim.enter(ctx)
        return _measured(lambda: shim.invoke(ctx, value), value, rounds)
    finally:
        shim.stop()


def _measured(once: Callable[[], object], value: object, rounds: int) -> tuple[list[float], Costs]:
    for _ in range(max(rounds // 10, 5)):
        assert once() == value
    seconds: list[float] = []
    me = os.getpid()
    pids = {"executor": [me], "program": descendants(me)}
    return seconds, sample(pids, lambda: seconds.extend(times(once, rounds))).costs(rounds)


class Echo:
    """A service."""

    def on_task_invoke(self, ctx: object, value: object) -> object:
        return value
