"""Nothing outlives its executor: servers that hang as they are left, programs that ignore SIGTERM."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

import flamezmq as flm
from tests.shim_stage import lives, named, script
from tests.waiting import until

pytestmark = pytest.mark.processes

LIMIT_SECONDS = 30.0
#: Ignores SIGTERM, and has a child that has left its session, and one of that's own.
STUBBORN = """
import os, signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 1000 & wait"], start_new_session=True)
"""
HTTP = """
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b"%d" % os.getpid())
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def do_DELETE(self):
        time.sleep(1000)
    def log_message(self, *args):
        pass

HTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""
GRPC = """
from concurrent import futures
import grpc
from flamezmq.shims.protobuf import encode

def task(request, context):
    return encode({1: b"%d" % os.getpid()})

def leave(request, context):
    time.sleep(1000)

calls = {"OnTaskInvoke": task, "OnSessionEnter": lambda *_: b"", "OnSessionLeave": leave}
handlers = {name: grpc.unary_unary_rpc_method_handler(call) for name, call in calls.items()}
server = grpc.server(futures.ThreadPoolExecutor(2))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("flamezmq.Application", handlers)])
server.add_insecure_port("unix:" + os.environ["SOCKET"])
server.start()
server.wait_for_termination()
"""
SHELL = """
trap '' TERM
setsid sh -c "trap '' TERM; sleep 1000 & wait" &
while read -r line; do echo $$; done
while :; do sleep 1000; done
"""


def all_of(program: int) -> list[psutil.Process]:
    """The program's warden, the program, and whatever that has started."""
    until(lambda: named("sleep"))
    process = psutil.Process(program)
    warden = process.parent()
    assert warden is not None
    assert warden.name() == "flm-warden"
    return [warden, process, *process.children(recursive=True)]


@pytest.mark.parametrize(("shim", "text"), [("http", HTTP), ("grpc", GRPC)])
def test_of_a_server_that_hangs_as_it_is_left_and_ignores_sigterm_nothing_stays(
    tmp_path: Path, shim: str, text: str
) -> None:
    (tmp_path / "server.py").write_text(STUBBORN + text)
    with flm.testing.cluster(executors=1, forward_output=False) as client:
        client.register(
            flm.Application(
                name="stubborn", shim=shim, command=sys.executable, arguments=("server.py",),
                working_directory=str(tmp_path), grace=0.3,
            )
        )  # fmt: skip
        with client.session(app="stubborn") as session:
            started = all_of(session.submit(1).result(LIMIT_SECONDS))
        assert len(started) >= 4, "it has forked"
        until(lambda: not any(map(lives, started)))
        assert client.submit(abs, -1).result(LIMIT_SECONDS) == 1


@pytest.mark.parametrize("victim", ["executors", "zygote", "worker", "launcher"])
def test_a_program_that_ignores_sigterm_and_all_below_it_die_with_who_has_started_it(
    tmp_path: Path, victim: str
) -> None:
    with flm.testing.cluster(executors=1, forward_output=False) as client:
        path = script(tmp_path, SHELL)
        client.register(flm.Application(name="shell", shim="stdio", command=path, grace=0.3))
        session = client.session(app="shell")
        started = all_of(session.submit(1).result(LIMIT_SECONDS))
        assert len(started) >= 4, "it has forked"
        (pid,) = client.processes()[victim]
        os.kill(pid, signal.SIGKILL)
        until(lambda: not any(map(lives, started)))
        if victim == "launcher":
            with pytest.raises(flm.FlameError):
                session.submit(1).result(LIMIT_SECONDS)
        else:
            again = session.submit(2).result(LIMIT_SECONDS)
            assert again != started[1].pid
