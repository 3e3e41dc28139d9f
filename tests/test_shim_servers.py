"""What the shims with servers have in common, http and grpc: each test with a server of either."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from flamezmq import shims
from flamezmq.errors import BadPayload, ServiceError, ServiceFailed, TaskTimeout
from tests import shim_servers
from tests.shim_servers import Server
from tests.shim_stage import App, Ctx, below, interrupted, running
from tests.waiting import until

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module", params=["http", "grpc"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Server:
    if request.param == "grpc":
        pytest.importorskip("grpc_tools", reason="needs grpcio-tools, to make a server from flame.proto")
    made: Server = getattr(shim_servers, request.param)(tmp_path_factory.mktemp("server"))
    return made


def status(server: Server, http: int, grpc: str) -> str:
    """As a pattern."""
    return rf"\(HTTP status {http}\)" if server.shim == "http" else rf"\(gRPC status {grpc}\)"


def test_a_server_without_hooks_is_fine_unless_it_would_miss_common_data(server: Server) -> None:
    ctx = Ctx()
    hookless = server.app({"HOOKLESS": "1"})
    with running(hookless, ctx) as shim:
        assert shim.invoke(ctx, 1)[0] == 1
    with running(hookless) as shim:
        with pytest.raises(ServiceError, match=status(server, 404, "UNIMPLEMENTED")):
            shim.enter(Ctx(common_data=1))


def test_a_session_that_the_server_refuses_is_a_failed_bind(server: Server) -> None:
    with running(server.app()) as shim:
        said = f"'app' says: no such model {status(server, 500, 'INVALID_ARGUMENT')}"
        with pytest.raises(ServiceError, match=said):
            shim.enter(Ctx(common_data="bad"))


def test_a_server_that_says_that_it_needs_time_is_waited_for(server: Server) -> None:
    ctx = Ctx()
    with running(server.app({"SLOW": "0.4"}), ctx) as shim:
        assert shim.invoke(ctx, 1)[0] == 1


@pytest.mark.parametrize(
    ("environment", "timeout", "said"),
    [
        ({"CRASH": "1"}, 20.0, r"did not become ready, and ended \(exit code 1\); .*no model here"),
        ({"SLOW": "100"}, 0.7, r"was not ready 0.7 s after its start \(start_timeout\), so it was ended"),
    ],
)
def test_a_server_that_never_becomes_ready_fails_the_bind(
    server: Server, environment: dict[str, str], timeout: float, said: str
) -> None:
    with running(server.app(environment, start_timeout=timeout)) as shim:
        with pytest.raises(ServiceFailed, match=said):
            shim.enter(Ctx())
        assert [p.name() for p in below()] == ["flm-warden"]


def test_an_error_is_the_tasks_and_the_server_goes_on(server: Server) -> None:
    ctx = Ctx()
    with running(server.app(), ctx) as shim:
        pid = shim.invoke(ctx, 1)[1]
        with pytest.raises(ServiceError, match=f"no such shape {status(server, 500, 'UNKNOWN')}"):
            shim.invoke(ctx, "raise")
        assert shim.invoke(ctx, 1)[1] == pid


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("die", r"has ended \(exit code 5\); its last words: .*that hurts"),
        ("hang", r"has not answered within 1 s \(task_timeout\), so it was ended"),
        ("not json", "answered nonsense: '{' is not JSON"),
        ("cut", r"has cut us off \(.*\), so it was ended"),
    ],
)
def test_a_server_that_fails_is_replaced_at_the_next_task(server: Server, task: str, said: str) -> None:
    ctx = Ctx(common_data="again")
    with running(server.app(task_timeout=1.0), ctx) as shim:
        pid = shim.invoke(ctx, 1)[1]
        with pytest.raises(ServiceFailed, match=said):
            shim.invoke(ctx, task)
        value, other, common, *_ = shim.invoke(ctx, 2)
        assert (value, common) == (2, ["again"])
        assert other != pid


def test_a_task_that_is_interrupted_ends_the_server_and_the_next_one_has_another(server: Server) -> None:
    ctx = Ctx()
    with running(server.app(), ctx) as shim:
        pid = shim.invoke(ctx, 1)[1]
        with pytest.raises(TaskTimeout), interrupted(0.2):
            shim.invoke(ctx, "hang")
        assert shim.invoke(ctx, 1)[1] != pid


def test_a_server_that_dies_while_nobody_asks_it_is_replaced(server: Server) -> None:
    ctx = Ctx()
    with running(server.app(), ctx) as shim:
        pid = shim.invoke(ctx, 1)[1]
        os.kill(pid, signal.SIGKILL)
        until(lambda: not shim._program.alive())  # type: ignore[attr-defined]
        assert shim.invoke(ctx, 1)[1] != pid
    assert any("killed by SIGKILL" in line for line in ctx.logged)


def test_a_schema_is_checked_on_both_sides(server: Server) -> None:
    ctx = Ctx()
    schema: dict[str, object] = {"input": {"type": "integer"}, "output": {"maxItems": 1}}
    with running(server.app(schema=schema), ctx) as shim:
        with pytest.raises(BadPayload, match=r"the input .* at \$: 'x' is not of type 'integer'"):
            shim.invoke(ctx, "x")
        with pytest.raises(BadPayload, match=r"the output .* at \$: .* is too long"):
            shim.invoke(ctx, 1)


@pytest.mark.parametrize(("shim", "module"), [("http", "httpx"), ("grpc", "grpc")])
def test_a_shim_without_its_library_says_which_extra_brings_it(
    shim: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    said = rf"the {shim} shim needs the module '{module}'.*flamezmq\[{shim}\]"
    with pytest.raises(ImportError, match=said):
        shims.make(App(shim, "cat"))
    shims.shim_class(shim).check(App(shim, "cat"))  # who registers it need not have the library
