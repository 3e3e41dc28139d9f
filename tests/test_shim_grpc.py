"""The grpc shim, against a server with the code that grpcio makes of flame.proto; its messages by hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flamezmq import shims
from flamezmq.errors import BadPayload, ServiceError, ServiceFailed, TaskTimeout
from flamezmq.shims.protobuf import decode, encode
from tests.shim_stage import App, Ctx, below, interrupted, running, until

pytest.importorskip("grpc_tools", reason="needs grpcio-tools, to make a server from flame.proto")
pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parent.parent
#: What it does is said by the task.  CRASH, SLOW, HOOKLESS, HEALTH in the environment change how it starts.
SERVER = """
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
        if value == "gone":
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grpc")
    made = [f"--python_out={folder}", f"--grpc_python_out={folder}"]
    proto = ROOT / "flamezmq" / "shims"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{proto}", *made, str(proto / "flame.proto")]
    subprocess.run(command, check=True, timeout=50)
    (folder / "server.py").write_text(SERVER)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> str:
    return str(folder / "server.py")


def app(server: str, environment: dict[str, str] | None = None, **options: object) -> App:
    return App("grpc", sys.executable, (server,), options=dict(options), environment=environment or {})


def test_a_server_gets_tasks_and_sessions(server: str) -> None:
    ctx = Ctx(common_data={"model": "é"})
    with running(app(server), ctx) as shim:
        value, pid, common, task, attempt = shim.invoke(ctx, {"size": 1})
        assert (value, common, task, attempt) == ({"size": 1}, [{"model": "é"}], "session-1/0", 1)
        shim.leave(ctx)

        second = Ctx(session_id="session-2")
        shim.enter(second)
        assert shim.invoke(second, 1)[1:3] == [pid, []], "the same process, told of the new session"
        shim.leave(second)
    assert ctx.logged == ["entered session-1 node", "left session-1"]
    assert second.logged == ["entered session-2 node", "left session-2"]


def test_a_server_without_hooks_is_fine_unless_it_would_miss_common_data(server: str) -> None:
    ctx = Ctx()
    hookless = app(server, {"HOOKLESS": "1"})
    with running(hookless, ctx) as shim:
        assert shim.invoke(ctx, 1)[0] == 1
    with running(hookless) as shim:
        with pytest.raises(ServiceError, match="UNIMPLEMENTED"):
            shim.enter(Ctx(common_data=1))


def test_a_session_that_the_server_refuses_is_a_failed_bind(server: str) -> None:
    with running(app(server)) as shim:
        with pytest.raises(ServiceError, match=r"says: no such model \(gRPC status INVALID_ARGUMENT\)"):
            shim.enter(Ctx(common_data="bad"))


def test_a_server_is_ready_when_its_health_service_says_so(server: str) -> None:
    ctx = Ctx()
    with running(app(server, {"SLOW": "0.5"}), ctx) as shim:
        assert shim.invoke(ctx, 1)[0] == 1


@pytest.mark.parametrize(
    ("environment", "timeout", "said"),
    [
        ({"CRASH": "1"}, 20.0, r"did not become ready, and ended \(exit code 1\); .*no model here"),
        ({"SLOW": "100"}, 1.0, r"was not ready 1 s after its start \(start_timeout\), so it was ended"),
    ],
)
def test_a_server_that_never_becomes_ready_fails_the_bind(
    server: str, environment: dict[str, str], timeout: float, said: str
) -> None:
    with running(app(server, environment, start_timeout=timeout)) as shim:
        with pytest.raises(ServiceFailed, match=said):
            shim.enter(Ctx())
        assert [p.name() for p in below()] == ["flm-warden"]


def test_an_error_is_the_tasks_and_the_server_goes_on(server: str) -> None:
    ctx = Ctx()
    with running(app(server), ctx) as shim:
        pid = shim.invoke(ctx, 1)[1]
        with pytest.raises(ServiceError, match=r"no such shape \(gRPC status UNKNOWN\)"):
            shim.invoke(ctx, "raise")
        with pytest.raises(ServiceError, match=r"come back later \(gRPC status UNAVAILABLE\)"):
            shim.invoke(ctx, "unavailable")
        assert shim.invoke(ctx, 1)[1] == pid


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("die", r"has ended \(exit code 5\); its last words: .*that hurts"),
        ("hang", r"has not answered within 1 s \(task_timeout\), so it was ended"),
        ("not json", "answered nonsense: '{' is not JSON"),
        ("gone", r"has cut us off \(.*\), so it was ended"),
    ],
)
def test_a_server_that_fails_is_replaced_at_the_next_task(server: str, task: str, said: str) -> None:
    ctx = Ctx(common_data="again")
    with running(app(server, task_timeout=1.0), ctx) as shim:
        pid = shim.invoke(ctx, 1)[1]
        with pytest.raises(ServiceFailed, match=said):
            shim.invoke(ctx, task)
        value, other, common, *_ = shim.invoke(ctx, 2)
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


def test_a_schema_is_checked_on_both_sides(server: str) -> None:
    ctx = Ctx()
    schema = {"input": {"type": "integer"}, "output": {"maxItems": 1}}
    with running(App("grpc", sys.executable, (server,), schema=schema), ctx) as shim:
        with pytest.raises(BadPayload, match=r"the input .* at \$: 'x' is not of type 'integer'"):
            shim.invoke(ctx, "x")
        with pytest.raises(BadPayload, match=r"the output .* at \$: .* is too long"):
            shim.invoke(ctx, 1)


def test_a_shim_without_its_library_says_which_extra_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(ImportError, match=r"the grpc shim needs the module 'grpc'.*flamezmq\[grpc\]"):
        shims.make(App("grpc", "cat"))


# --- the messages


@pytest.fixture(scope="module")
def messages(folder: Path) -> Any:
    """The classes that protobuf makes of flame.proto."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        return __import__("flame_pb2")


@given(st.text(), st.text(), st.integers(0, 2**32 - 1), st.binary())
def test_messages_are_those_of_protobuf(
    messages: Any, session: str, task: str, attempt: int, data: bytes
) -> None:
    ours = messages.TaskContext.FromString(encode({1: session, 2: task, 3: attempt, 4: data}))
    theirs = messages.TaskOutput(output=data).SerializeToString()

    assert (ours.session_id, ours.task_id, ours.attempt, ours.input) == (session, task, attempt, data)
    assert decode(theirs).get(1, b"") == data
    assert decode(ours.SerializeToString()).get(3, 0) == attempt


def test_common_data_that_is_empty_is_not_none(messages: Any) -> None:
    assert messages.SessionContext.FromString(encode({4: b""})).HasField("common_data")
    assert not messages.SessionContext.FromString(encode({4: None})).HasField("common_data")


@given(st.binary())
def test_bytes_that_are_no_message_raise_nothing_else_than_value_error(data: bytes) -> None:
    try:
        decode(data)
    except ValueError:
        pass
