"""The grpc shim: what only it does (the rest is in test_shim_servers.py); its messages by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flamezmq.errors import ServiceError
from flamezmq.shims.protobuf import decode, encode
from tests import shim_servers
from tests.shim_servers import Server
from tests.shim_stage import Ctx, running

pytest.importorskip("grpc_tools", reason="needs grpcio-tools, to make a server from flame.proto")
pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    return shim_servers.grpc(tmp_path_factory.mktemp("grpc"))


def test_a_server_gets_tasks_and_sessions(server: Server) -> None:
    ctx = Ctx(common_data={"model": "é"})
    with running(server.app(), ctx) as shim:
        value, pid, common, task, attempt = shim.invoke(ctx, {"size": 1})
        assert (value, common, task, attempt) == ({"size": 1}, [{"model": "é"}], "session-1/0", 1)
        shim.leave(ctx)

        second = Ctx(session_id="session-2")
        shim.enter(second)
        assert shim.invoke(second, 1)[1:3] == [pid, []], "the same process, told of the new session"
        shim.leave(second)
    assert ctx.logged == ["entered session-1 node", "left session-1"]
    assert second.logged == ["entered session-2 node", "left session-2"]


def test_a_status_that_the_server_sets_is_told(server: Server) -> None:
    ctx = Ctx()
    with running(server.app(), ctx) as shim:
        with pytest.raises(ServiceError, match=r"come back later \(gRPC status UNAVAILABLE\)"):
            shim.invoke(ctx, "unavailable")


# --- the messages


@pytest.fixture(scope="module")
def messages(server: Server) -> Any:
    """The classes that protobuf makes of flame.proto."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(server.folder)
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
