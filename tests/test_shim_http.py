"""The http shim: what only it does (the rest is in test_shim_servers.py), and a server in Node.js."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from flamezmq.errors import ServiceError, ServiceFailed
from flamezmq.shims.ports import free_port
from tests import shim_servers
from tests.shim_servers import Server
from tests.shim_stage import App, Ctx, below, named, running

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    return shim_servers.http(tmp_path_factory.mktemp("http"))


@pytest.mark.parametrize("socket", ["tcp", "unix"])
def test_a_server_gets_tasks_and_sessions_on_a_port_or_a_socket(server: Server, socket: str) -> None:
    ctx = Ctx(common_data={"model": "é"})
    with running(server.app(socket=socket), ctx) as shim:
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


def test_a_server_that_does_not_listen_fails_the_bind(server: Server) -> None:
    with running(server.app({"NEVER": "1"}, start_timeout=0.5)) as shim:
        with pytest.raises(ServiceFailed, match=r"was not ready 0.5 s after its start \(start_timeout\)"):
            shim.enter(Ctx())


def test_a_server_whose_port_is_taken_by_another_one_gets_a_second_port(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx, other = Ctx(), Ctx()
    with running(server.app(), other) as first:
        theirs = first.invoke(other, 1)[1]
        taken = first._port  # type: ignore[attr-defined]
        ports = iter([taken, free_port()])
        monkeypatch.setattr("flamezmq.shims.http.free_port", lambda: next(ports))
        with running(server.app(), ctx) as second:
            assert second.invoke(ctx, 1)[1] != theirs
    assert any("Address already in use" in line for line in ctx.logged)
    assert other.logged == ["entered session-1", "left session-1"], "nothing of ours"


def test_an_answer_that_is_no_http_is_nonsense(server: Server) -> None:
    ctx = Ctx()
    with running(server.app(), ctx) as shim:
        with pytest.raises(ServiceFailed, match="answered nonsense: "):
            shim.invoke(ctx, "nonsense")


def test_a_flood_on_stderr_does_not_block_the_server(server: Server) -> None:
    ctx = Ctx()
    with running(server.app(), ctx) as shim:
        assert shim.invoke(ctx, "flood")[0] == "flood"
    assert 1000 <= len(ctx.logged) < 10_000


def test_an_answer_larger_than_allowed_is_nonsense(server: Server) -> None:
    ctx = Ctx()
    with running(server.app(max_bytes=1000), ctx) as shim:
        assert len(shim.invoke(ctx, b"x" * 1000)) == 1000
        with pytest.raises(ServiceFailed, match="a body of more than max_bytes=1000 bytes"):
            shim.invoke(ctx, b"x" * 1001)


def test_nothing_stays_of_a_server_that_ignores_sigterm(tmp_path: Path) -> None:
    path = tmp_path / "server.py"
    path.write_text("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + shim_servers.HTTP)
    ctx = Ctx()
    with running(App("http", sys.executable, (str(path),), grace=0.1), ctx) as shim:
        assert shim.invoke(ctx, 1)[0] == 1
    assert not below()
    assert not named("flm-warden")
