"""The http shim: the application's own server, which we start, ask, and end.

    GET  /health path   until it answers with less than 500; only while it starts
    POST /session       a session is bound; the body is its common data
    POST /task          one task; the body is its input, the answer's its value
    DELETE /session     the session is unbound

It listens where PORT (of 127.0.0.1) or SOCKET (a path) in its environment says.
Bytes travel as application/octet-stream, everything else as application/json;
an answer is read by its own Content-Type: JSON, text, or bytes.  Any status but
2xx is an error of the task.  A server without `/session` (404, 405) is fine, as
long as there is no common data for it.

Who we are talking for is in headers: Flame-Session, Flame-Executor, Flame-Task,
Flame-Attempt; what is not ASCII in them is %-encoded.  Others on the machine can
reach a port, so each request also carries `Authorization: Bearer` with what
FLAMEZMQ_TOKEN says.
"""

from __future__ import annotations

import secrets
import socket
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from flamezmq.errors import FlameError, ServiceError, ShimMissing
from flamezmq.shims.payloads import Payloads, from_json
from flamezmq.shims.ports import HOST, free_port, is_free, listens
from flamezmq.shims.roles import Application, Context
from flamezmq.shims.server import CutOff, Nonsense, ServerShim, TooLate

if TYPE_CHECKING:
    import httpx

#: socket: "tcp" or "unix".
#: health: the path that says whether it is ready.
OPTIONS = {"socket": "tcp", "health": "/"}
#: A connection that was idle for longer is not used again: servers close them after 2 to 75 seconds, and
#: may do so just when a task comes.
KEEPALIVE_SECONDS = 1.5
_BYTES, _JSON = "application/octet-stream", "application/json"
#: What of an error's body is shown.
_SHOWN = 2000
#: A server without hooks for sessions answers so.
_NO_HOOKS = (404, 405, 501)


class Http(ServerShim):
    """See the head of this file."""

    def __init__(self, application: Application) -> None:
        super().__init__(application, OPTIONS, needs_folder=True)
        self.unix = self.options.choice("socket", ("tcp", "unix")) == "unix"
        self.health = self.options.text("health")
        self.payloads = Payloads(application, "json")
        try:
            import httpx
        except ImportError:
            raise ShimMissing("the http shim", "httpx", "http") from None
        self._httpx = httpx
        self._client: httpx.Client | None = None
        self._token = ""
        self._port = 0
        self._path = ""
        self._starts = 0

    def place(self) -> dict[str, str]:
        self._token = secrets.token_urlsafe(24)
        self._starts += 1
        if self.unix:
            self._path = self._keeper.file(f"{self._starts}.sock")
            return {"SOCKET": self._path, "FLAMEZMQ_TOKEN": self._token}
        self._port = free_port()
        return {"PORT": str(self._port), "HOST": HOST, "FLAMEZMQ_TOKEN": self._token}

    def misplaced(self) -> bool:
        return not self.unix and not is_free(self._port)

    def ours(self) -> bool:
        return self.unix or listens(self._port, self._keeper.tree())

    def connect(self) -> None:
        httpx = self._httpx
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(
                uds=self._path if self.unix else None,
                limits=httpx.Limits(max_connections=1, keepalive_expiry=KEEPALIVE_SECONDS),
                trust_env=False,  # a proxy has no part in this
            ),
            base_url=f"http://{HOST}:{self._port}" if not self.unix else "http://localhost",
            headers={"Authorization": f"Bearer {self._token}"},
            trust_env=False,
        )

    def hang_up(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def ready(self, seconds: float) -> bool:
        assert self._client is not None
        if not self._listens(seconds):
            return False
        try:
            return self._client.get(self.health, timeout=seconds).status_code < 500
        except self._httpx.TransportError:
            return False

    def _listens(self, seconds: float) -> bool:
        """Asked before httpx is, which leaves a socket to the garbage collector where nobody listens."""
        with socket.socket(socket.AF_UNIX if self.unix else socket.AF_INET) as one:
            one.settimeout(seconds)
            try:
                one.connect(self._path if self.unix else (HOST, self._port))
            except OSError:
                return False
        return True

    def check_common_data(self, value: Any) -> None:
        if isinstance(value, bytes | bytearray | memoryview):
            self.payloads.check("common_data", value)
        else:
            self.payloads.dump("common_data", value)

    def open_session(self, ctx: Context) -> None:
        self.payloads.check("common_data", ctx.common_data)
        status, _, body = self._ask(
            "POST", "/session", ctx, "common_data", ctx.common_data, self.session_timeout
        )
        if status in _NO_HOOKS and ctx.common_data is None:
            return
        self._check_status(status, body)

    def run_task(self, ctx: Context, value: Any) -> Any:
        self.payloads.check("input", value)
        status, kind, body = self._ask("POST", "/task", ctx, "input", value, self.task_timeout)
        self._check_status(status, body)
        answer = _loaded(kind, body)
        self.payloads.check("output", answer)
        return answer

    def close_session(self, ctx: Context) -> None:
        status, _, body = self._ask("DELETE", "/session", ctx, "", None, self.patience)
        if status not in _NO_HOOKS:
            self._check_status(status, body)

    def _ask(
        self, method: str, path: str, ctx: Context, part: str, value: Any, seconds: float | None
    ) -> tuple[int, str, bytes]:
        """Status, content type and body of the answer."""
        httpx, client = self._httpx, self._client
        assert client is not None
        deadline = None if seconds is None else monotonic() + seconds
        headers = {"Flame-Session": _quoted(ctx.session_id), "Flame-Executor": _quoted(ctx.executor_id)}
        content = b""
        if part == "input":
            headers |= {"Flame-Task": _quoted(ctx.task_id), "Flame-Attempt": str(ctx.attempt)}
        if isinstance(value, bytes | bytearray | memoryview):
            headers["Content-Type"], content = _BYTES, bytes(value)
        elif part:
            headers["Content-Type"], content = _JSON, self.payloads.dump(part, value)
        try:
            request = client.build_request(method, path, content=content, headers=headers, timeout=seconds)
            response = client.send(request, stream=True)
            try:
                body = self._body(response, deadline)
            finally:
                response.close()
        except httpx.HTTPError as error:
            raise self._what_happened(error) from None
        return response.status_code, response.headers.get("Content-Type", ""), body

    def _what_happened(self, error: httpx.HTTPError) -> BaseException:
        httpx = self._httpx
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, FlameError):
                return cause  # a TaskTimeout was raised amid a read, and taken for the socket's
            cause = cause.__cause__ or cause.__context__
        if isinstance(error, httpx.TimeoutException):
            return TooLate()
        text = str(error) or type(error).__name__
        nonsense = isinstance(error, httpx.RemoteProtocolError | httpx.DecodingError)
        return Nonsense(text) if nonsense and "disconnected" not in text else CutOff(text)

    def _body(self, response: httpx.Response, deadline: float | None) -> bytes:
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > self.most:
                raise Nonsense(f"a body of more than max_bytes={self.most} bytes")
            if deadline is not None and monotonic() > deadline:
                raise TooLate
        return bytes(body)

    def _check_status(self, status: int, body: bytes) -> None:
        if not 200 <= status < 300:
            text = body[:_SHOWN].decode("utf-8", "backslashreplace").strip()
            raise ServiceError(self.application.name, f"{text or 'nothing'} (HTTP status {status})")


def _quoted(name: str) -> str:
    """Sessions may be called anything, headers are ASCII."""
    return quote(name, safe=" !#$&'()*+,/:;=?@[]~")


def _loaded(kind: str, body: bytes) -> Any:
    """An answer, by its Content-Type.  Raises NotJson."""
    kind, _, parameters = (part.strip().lower() for part in kind.partition(";"))
    if kind == _JSON or kind.endswith("+json"):
        return from_json(body)
    if kind.startswith("text/"):
        charset = parameters.partition("charset=")[2].strip('"') or "utf-8"
        try:
            return body.decode(charset)
        except (UnicodeDecodeError, LookupError) as error:
            raise Nonsense(f"text that is not {charset}: {error}") from None
    return body if body or kind else None
