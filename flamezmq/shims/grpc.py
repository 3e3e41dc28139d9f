"""The grpc shim: the application's own server on a unix socket, which speaks flame.proto.

Messages are made by hand (protobuf.py), calls by grpcio's generic stubs, so that
only grpcio is needed here.  A status other than OK is an error of the task,
unless the server is gone with it.
"""

from __future__ import annotations

import socket
from typing import Any

from flamezmq.errors import ServiceError, ShimMissing
from flamezmq.shims.payloads import Payloads
from flamezmq.shims.protobuf import decode, encode
from flamezmq.shims.roles import Application, Context
from flamezmq.shims.server import CutOff, Nonsense, ServerShim, TooLate

#: payload: "json", "text" or "bytes".
OPTIONS = {"payload": "json"}
_SERVICE = "/flamezmq.Application/"
_HEALTH = "/grpc.health.v1.Health/Check"
_SERVING = 1  # of HealthCheckResponse.status, its field 1
#: Whether a server that calls itself unavailable is there at all, is asked for so long.
_THERE_SECONDS = 1.0


class Grpc(ServerShim):
    """See the head of this file."""

    def __init__(self, application: Application) -> None:
        super().__init__(application, OPTIONS, needs_folder=True)
        self.payloads = Payloads(application, self.options.choice("payload", ("json", "text", "bytes")))
        try:
            import grpc
        except ImportError:
            raise ShimMissing("the grpc shim", "grpc", "grpc") from None
        self._grpc = grpc
        self._channel: Any = None
        self._calls: dict[str, Any] = {}  # by path
        self._path = ""
        self._starts = 0

    def place(self) -> dict[str, str]:
        self._starts += 1
        self._path = self._keeper.file(f"{self._starts}.sock")
        return {"SOCKET": self._path}

    def connect(self) -> None:
        self._channel = self._grpc.insecure_channel(
            f"unix:{self._path}",
            options=[
                ("grpc.max_receive_message_length", self.most),
                ("grpc.max_send_message_length", -1),
                ("grpc.enable_http_proxy", 0),
                ("grpc.default_authority", "localhost"),  # not every server takes a path for one
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.initial_reconnect_backoff_ms", 50),
                ("grpc.min_reconnect_backoff_ms", 50),
                ("grpc.max_reconnect_backoff_ms", 500),
            ],
        )
        names = ("OnSessionEnter", "OnTaskInvoke", "OnSessionLeave")
        self._calls = {
            path: self._channel.unary_unary(path) for path in [_HEALTH, *map(_SERVICE.__add__, names)]
        }

    def hang_up(self) -> None:
        channel, self._channel, self._calls = self._channel, None, {}
        if channel is not None:
            channel.close()

    def ready(self, seconds: float) -> bool:
        """It listens, and its health service, if it has one, says that it serves."""
        with socket.socket(socket.AF_UNIX) as one:
            try:
                one.connect(self._path)
            except OSError:
                return False
        try:
            answer = decode(self._calls[_HEALTH](b"", timeout=seconds))
        except self._grpc.RpcError as error:
            return bool(error.code() == self._grpc.StatusCode.UNIMPLEMENTED)
        except ValueError:
            return False
        return answer.get(1) == _SERVING

    def check_common_data(self, value: Any) -> None:
        self.payloads.dump("common_data", value)

    def open_session(self, ctx: Context) -> None:
        data = None if ctx.common_data is None else self.payloads.dump("common_data", ctx.common_data)
        if data is None:
            self.payloads.check("common_data", None)
        context = {1: ctx.session_id, 2: ctx.executor_id, 3: ctx.node, 4: data}
        self._ask("OnSessionEnter", context, self.session_timeout, optional=data is None)

    def run_task(self, ctx: Context, value: Any) -> Any:
        data = self.payloads.dump("input", value)
        context = {1: ctx.session_id, 2: ctx.task_id, 3: ctx.attempt, 4: data}
        output = self._ask("OnTaskInvoke", context, self.task_timeout).get(1, b"")
        if not isinstance(output, bytes):
            raise Nonsense("an output that is a number")
        answer = self.payloads.load(output)
        self.payloads.check("output", answer)
        return answer

    def close_session(self, ctx: Context) -> None:
        context = {1: ctx.session_id, 2: ctx.executor_id, 3: ctx.node}
        self._ask("OnSessionLeave", context, self.patience, optional=True)

    def _ask(
        self, name: str, message: dict[int, Any], seconds: float | None, optional: bool = False
    ) -> dict[int, bytes | int]:
        codes = self._grpc.StatusCode
        try:
            return decode(self._calls[_SERVICE + name](encode(message), timeout=seconds))
        except ValueError as error:
            raise Nonsense(f"no message of flame.proto: {error}") from None
        except self._grpc.RpcError as error:
            code, details = error.code(), str(error.details())
        if code == codes.UNIMPLEMENTED and optional:
            return {}
        if code == codes.DEADLINE_EXCEEDED and seconds is not None:
            raise TooLate
        if code in (codes.UNAVAILABLE, codes.CANCELLED, codes.INTERNAL) and not self._is_there():
            raise CutOff(details)
        raise ServiceError(self.application.name, f"{details} (gRPC status {code.name})")

    def _is_there(self) -> bool:
        program = self._program
        return program is not None and program.alive() and self.ready(_THERE_SECONDS)
