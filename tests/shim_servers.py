"""Servers for the tests of shims, each an application's own, one for each shim that has servers.

What they do is said by the task: "die", "hang", "raise", "not json", "cut"; any other is answered with it,
their pid, the common data, the task.  CRASH, SLOW, HOOKLESS in the environment change how they start.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.shim_stage import App

ROOT = Path(__file__).resolve().parent.parent
GRPC = """
import json, os, sys, time
from concurrent import futures
import grpc
import flame_pb2, flame_pb2_grpc

class Tasks(flame_pb2_grpc.ApplicationServicer):
    def OnTaskInvoke(self, request, context):
        value = json.loads(request.input)
        if value == "die":
            print("that hurts", file=sys.stderr, flush=True)
            os._exit(5)
        if value == "hang":
            time.sleep(1000)
        if value == "not json":
            return flame_pb2.TaskOutput(output=b"{")
        if value == "raise":
            raise ValueError("no such shape")
        if value == "unavailable":
            context.abort(grpc.StatusCode.UNAVAILABLE, "come back later")
        if value == "cut":
            server.stop(None)
            time.sleep(1000)
        answer = [value, os.getpid(), common, request.task_id, request.attempt]
        return flame_pb2.TaskOutput(output=json.dumps(answer).encode())

class Sessions(Tasks):
    def OnSessionEnter(self, request, context):
        common[:] = [json.loads(request.common_data)] if request.HasField("common_data") else []
        if common == ["bad"]:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no such model")
        print("entered", request.session_id, request.node, file=sys.stderr, flush=True)
        return flame_pb2.Done()

    def OnSessionLeave(self, request, context):
        print("left", request.session_id, file=sys.stderr, flush=True)
        return flame_pb2.Done()

def health(request, context):
    return bytes([8, 1 if time.monotonic() > ready_at else 2])

common = []
if "CRASH" in os.environ:
    sys.exit("no model here")
ready_at = time.monotonic() + float(os.environ.get("SLOW", 0))
server = grpc.server(futures.ThreadPoolExecutor(2))
flame_pb2_grpc.add_ApplicationServicer_to_server(Tasks() if "HOOKLESS" in os.environ else Sessions(), server)
if "SLOW" in os.environ:
    handler = grpc.unary_unary_rpc_method_handler(health)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler})]
    )
server.add_insecure_port("unix:" + os.environ["SOCKET"])
server.start()
server.wait_for_termination()
time.sleep(1000)
"""

HTTP = """
import json, os, socket, socketserver, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

common = []

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, body, status=200, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(b"", 503 if time.monotonic() < ready_at else 200)

    def do_DELETE(self):
        print("left", self.headers["Flame-Session"], file=sys.stderr, flush=True)
        self.answer(b"")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != "Bearer " + os.environ["FLAMEZMQ_TOKEN"]:
            return self.answer(b"who are you?", 401, "text/plain")
        if self.path == "/session":
            if "HOOKLESS" in os.environ:
                return self.answer(b"no such thing", 404, "text/plain")
            common[:] = [json.loads(body)]
            print("entered", self.headers["Flame-Session"], file=sys.stderr, flush=True)
            if common == ["bad"]:
                return self.answer(b"no such model", 500, "text/plain")
            return self.answer(b"")
        if self.headers["Content-Type"] == "application/octet-stream":
            return self.answer(body[::-1], 200, "application/octet-stream")
        value = json.loads(body)
        if value == "die":
            print("that hurts", file=sys.stderr, flush=True)
            os._exit(5)
        if value == "hang":
            time.sleep(1000)
        if value == "nonsense":
            return self.wfile.write(b"what?\\r\\n\\r\\n")
        if value == "not json":
            return self.answer(b"{", 200)
        if value == "raise":
            return self.answer(b"no such shape", 500, "text/plain")
        if value == "text":
            return self.answer("é".encode(), 200, "text/plain; charset=utf-8")
        if value == "none":
            self.send_response(204)
            return self.end_headers()
        if value == "cut":
            self.close_connection = True
            return self.connection.shutdown(socket.SHUT_RDWR)
        if value == "flood":
            for i in range(50_000):
                print("line", i, file=sys.stderr)
        self.answer(json.dumps([value, os.getpid(), common, self.headers["Flame-Task"]]).encode())

    def log_message(self, *args):
        pass

    def address_string(self):
        return ""

class UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

if "CRASH" in os.environ:
    sys.exit("no model here")
if "NEVER" in os.environ:
    time.sleep(1000)
ready_at = time.monotonic() + float(os.environ.get("SLOW", 0))
if "SOCKET" in os.environ:
    UnixServer(os.environ["SOCKET"], Handler).serve_forever()
ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""


@dataclass(frozen=True)
class Server:
    """One in `folder`, and the shim that is for it."""

    shim: str
    folder: Path

    @property
    def path(self) -> str:
        return str(self.folder / "server.py")

    def app(
        self,
        environment: dict[str, str] | None = None,
        schema: dict[str, object] | None = None,
        **options: object,
    ) -> App:
        return App(
            self.shim,
            sys.executable,
            (self.path,),
            options=dict(options),
            environment=environment or {},
            schema=schema or {},
        )


def http(folder: Path) -> Server:
    server = Server("http", folder)
    Path(server.path).write_text(HTTP)
    return server


def grpc(folder: Path) -> Server:
    """With the code that grpcio makes of flame.proto, which lies beside it."""
    server = Server("grpc", folder)
    made = [f"--python_out={folder}", f"--grpc_python_out={folder}"]
    proto = ROOT / "flamezmq" / "shims"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{proto}", *made, str(proto / "flame.proto")]
    subprocess.run(command, check=True, timeout=50)
    Path(server.path).write_text(GRPC)
    return server
