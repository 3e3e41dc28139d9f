"""The http shim, against servers in Python and in Node.js."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from flamezmq import shims
from flamezmq.errors import BadPayload, ServiceError, ServiceFailed, TaskTimeout
from flamezmq.shims.ports import free_port
from tests.shim_stage import App, Ctx, below, interrupted, named, running, until

pytestmark = pytest.mark.processes

#: What it does is said by the task.  CRASH, NEVER, SLOW, HOOKLESS in the environment change how it starts.
SERVER = """
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
            return self.answer(b"", 500 if common == ["bad"] else 200)
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
        if value == "error":
            return self.answer(b"it is broken", 500, "text/plain")
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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("http") / "server.py"
    path.write_text(SERVER)
    return str(path)


def app(server: str, environment: dict[str, str] | None = None, **options: object) -> App:
    return App("http", sys.executable, (server,), options=dict(options), environment=environment or {})


@pytest.mark.parametrize("socket", ["tcp", "unix"])
def test_a_server_gets_tasks_and_sessions_on_a_port_or_a_socket(server: str, socket: str) -> None:
    ctx = Ctx(common_data={"model": "é"})
    with running(app(server, socket=socket), ctx) as shim:
        value, pid, common, task = shim.invoke(ctx, {"size": 1})
        assert (value, common, task) == ({"size": 1}, [{"model": "é"}], "session-1/0")
        assert shim.invoke(ctx, b"abc") == b"cba"
        assert shim.invoke(ctx, "text") == "é"
        assert shim.invoke(ctx, "none") is None
        shim.leave(ctx)

        second = Ctx(session_id="sitzung-ä %-2")
        shim.enter(second)
        assert shim.invoke(second, 1)[1:3] == [pid, [None]], "the same process, told of the new session"
        shim.leave(second)
    assert ctx.logged == ["entered session-1", "left session-1"]
    assert second.logged == ["entered sitzung-%C3%A4 %25-2", "left sitzung-%C3%A4 %25-2"]


def test_a_server_in_node_js(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node.js (node) here")
    (tmp_path / "server.js").write_text("""
        const http = require("http");
        let common = null;
        http.createServer((request, response) => {
          const chunks = [];
          request.on("data", (chunk) => chunks.push(chunk));
          request.on("end", () => {
            const body = chunks.length ? JSON.parse(Buffer.concat(chunks)) : null;
            const say = (value) => {
              response.setHeader("Content-Type", "application/json");
              response.end(JSON.stringify(value));
            };
            if (request.method === "GET") return say("ready");
            if (request.method === "DELETE") { common = null; return say(null); }
            if (request.url === "/session") { common = body; return say(null); }
            if (body === "throw") { response.statusCode = 500; return response.end("it threw"); }
            if (body === "die") process.abort();
            say({ squares: body.map((x) => x * x * common) });
          });
        }).listen(process.env.PORT, process.env.HOST);
    """)
    ctx = Ctx(common_data=2)
    with running(App("http", node, (str(tmp_path / "server.js"),)), ctx) as shim:
        assert shim.invoke(ctx, [1, 2, 3]) == {"squares": [2, 8, 18]}
        with pytest.raises(ServiceError, match=r"'app' says: it threw .HTTP status 500."):
            shim.invoke(ctx, "throw")
        with pytest.raises(ServiceFailed, match=r"has died .killed by SIGABRT"):
            shim.invoke(ctx, "die")
        assert shim.invoke(ctx, [3]) == {"squares": [18]}, "a fresh server has the common data, too"


def test_a_server_without_hooks_is_fine_unless_it_would_miss_common_data(server: str) -> None:
    ctx = Ctx()
    hookless = app(server, {"HOOKLESS": "1"})
    with running(hookless, ctx) as shim:
        assert shim.invoke(ctx, 1)[0] == 1
    with running(hookless) as shim:
        with pytest.raises(ServiceError, match=r"no such thing .HTTP status 404."):
            shim.enter(Ctx(common_data=1))


def test_a_session_that_the_server_refuses_is_a_failed_bind(server: str) -> None:
    with running(app(server)) as shim:
        with pytest.raises(ServiceError, match="HTTP status 500"):
            shim.enter(Ctx(common_data="bad"))


def test_a_server_that_needs_time_is_waited_for(server: str) -> None:
    ctx = Ctx()
    with running(app(server, {"SLOW": "0.3"}), ctx) as shim:
        assert shim.invoke(ctx, 1)[0] == 1


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"CRASH": "1"}, r"did not become ready, and ended \(exit code 1\); .*no model here"),
        ({"NEVER": "1"}, r"was not ready 0.5 s after its start \(start_timeout\), so it was ended"),
        ({"SLOW": "100"}, r"was not ready 0.5 s after its start"),
    ],
)
def test_a_server_that_never_becomes_ready_fails_the_bind(
    server: str, environment: dict[str, str], said: str
) -> None:
    timeout = 20.0 if "CRASH" in environment else 0.5
    with running(app(server, environment, start_timeout=timeout)) as shim:
        with pytest.raises(ServiceFailed, match=said):
            shim.enter(Ctx())
        assert [p.name() for p in below()] == ["flm-warden"]


def test_a_server_whose_port_is_taken_by_another_one_gets_a_second_port(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx, other = Ctx(), Ctx()
    with running(app(server), other) as first:
        theirs = first.invoke(other, 1)[1]
        taken = first._port  # type: ignore[attr-defined]
        ports = iter([taken, free_port()])
        monkeypatch.setattr("flamezmq.shims.http.free_port", lambda: next(ports))
        with running(app(server), ctx) as second:
            assert second.invoke(ctx, 1)[1] != theirs
    assert any("Address already in use" in line for line in ctx.logged)
    assert other.logged == ["entered session-1", "left session-1"], "nothing of ours"


def test_an_error_is_the_tasks_and_the_server_goes_on(server: str) -> None:
    ctx = Ctx()
    with running(app(server), ctx) as shim:
        pid = shim.invoke(ctx, 1)[1]
        with pytest.raises(ServiceError, match=r"'app' says: it is broken .HTTP status 500."):
            shim.invoke(ctx, "error")
        assert shim.invoke(ctx, 1)[1] == pid


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("die", r"has ended \(exit code 5\); its last words: .*that hurts"),
        ("hang", r"has not answered within 1 s \(task_timeout\), so it was ended"),
        ("nonsense", "answered nonsense: "),
        ("not json", "answered nonsense: '{' is not JSON"),
        ("cut", r"has cut us off \(.*\), so it was ended"),
    ],
)
def test_a_server_that_fails_is_replaced_at_the_next_task(server: str, task: str, said: str) -> None:
    ctx = Ctx(common_data="again")
    with running(app(server, task_timeout=1.0), ctx) as shim:
        pid = shim.invoke(ctx, 1)[1]
        with pytest.raises(ServiceFailed, match=said):
            shim.invoke(ctx, task)
        value, other, common, _ = shim.invoke(ctx, 2)
        assert (value, common) == (2, ["again"])
        assert other != pid


def test_a_task_that_is_interrupted_ends_the_server_and_the_next_one_has_another(server: str) -> None:
    ctx = Ctx()
    with running(app(server), ctx) as shim:
        pid = shim.invoke(ctx, 1)[1]
        with pytest.raises(TaskTimeout), interrupted(0.2):
            shim.invoke(ctx, "hang")
        assert shim.invoke(ctx, 1)[1] != pid


def test_a_server_that_dies_while_nobody_asks_it_is_replaced(server: str) -> None:
    ctx = Ctx()
    with running(app(server), ctx) as shim:
        pid = shim.invoke(ctx, 1)[1]
        os.kill(pid, signal.SIGKILL)
        until(lambda: not shim._program.alive())  # type: ignore[attr-defined]
        assert shim.invoke(ctx, 1)[1] != pid
    assert any("killed by SIGKILL" in line for line in ctx.logged)


def test_a_flood_on_stderr_does_not_block_the_server(server: str) -> None:
    ctx = Ctx()
    with running(app(server), ctx) as shim:
        assert shim.invoke(ctx, "flood")[0] == "flood"
    assert 1000 <= len(ctx.logged) < 10_000


def test_an_answer_larger_than_allowed_is_nonsense(server: str) -> None:
    ctx = Ctx()
    with running(app(server, max_bytes=1000), ctx) as shim:
        assert len(shim.invoke(ctx, b"x" * 1000)) == 1000
        with pytest.raises(ServiceFailed, match="a body of more than max_bytes=1000 bytes"):
            shim.invoke(ctx, b"x" * 1001)


def test_a_schema_is_checked_on_both_sides(server: str) -> None:
    ctx = Ctx()
    schema = {"input": {"type": ["string", "integer"]}, "output": {"minItems": 5}}
    with running(App("http", sys.executable, (server,), schema=schema), ctx) as shim:
        with pytest.raises(BadPayload, match=r"the input .* at \$: 1.5 is not of type"):
            shim.invoke(ctx, 1.5)
        with pytest.raises(BadPayload, match=r"the output .* at \$: .* is too short"):
            shim.invoke(ctx, 1)
        assert shim.invoke(ctx, "text") == "é"


def test_nothing_stays_of_a_server_that_ignores_sigterm(tmp_path: Path) -> None:
    path = tmp_path / "server.py"
    path.write_text("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SERVER)
    ctx = Ctx()
    with running(App("http", sys.executable, (str(path),), grace=0.1), ctx) as shim:
        assert shim.invoke(ctx, 1)[0] == 1
    assert not below()
    assert not named("flm-warden")


def test_a_shim_without_its_library_says_which_extra_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(ImportError, match=r"the http shim needs the module 'httpx'.*flamezmq\[http\]"):
        shims.make(App("http", "cat"))
    shims.shim_class("http").check(App("http", "cat"))  # who registers it need not have the library
