"""Whatever a router sends: who dialled it drops it, or gives up with an error; nobody crashes or hangs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import psutil
import pytest
import zmq
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import flamezmq as flm
from flamezmq import page
from flamezmq.executor import Executor
from flamezmq.executor_config import ExecutorConfig
from flamezmq.net.line import Line
from flamezmq.wire import codec
from flamezmq.wire import messages as m
from tests import hostile
from tests.hostile import Impostor, messages, sealed

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[1]
WAIT_SECONDS = 20.0
TO = {
    "client": messages(
        m.Opened,
        m.Results,
        m.Cancelled,
        m.Closed,
        m.Counts,
        m.Lost,
        m.Begun,
        m.Output,
        m.Wanted,
        m.Unmet,
        m.Answer,
        m.Done,
        m.ClosedBy,
        m.Expired,
    ),
    "executor": messages(m.Bind, m.Grant, m.Retract, m.Drop, m.Interrupt),
    "worker": messages(m.Kill),
}
many = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def context() -> Iterator[zmq.Context[Any]]:
    one: zmq.Context[Any] = zmq.Context()
    yield one
    one.destroy(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("h")


@contextmanager
def impostor(context: zmq.Context[Any], folder: Path) -> Iterator[tuple[Impostor, str]]:
    address = f"ipc://{folder}/s"
    with Impostor(context, address) as one:
        yield one, address


def welcome_it(router: Impostor, turn: Callable[[], object]) -> None:
    """Be its router, while `turn` makes it listen."""
    deadline = monotonic() + WAIT_SECONDS
    greeted = False
    while not greeted:
        assert monotonic() < deadline
        turn()
        heard = router.hear(1)
        if heard is not None and heard[0] == codec.HELLO:
            router.welcome()
            greeted = True


def hear_out(router: Impostor, turn: Callable[[], object]) -> None:
    """Let it take in all that was sent, or give up with an error of ours."""
    router.send(sealed(codec.PING, epoch=router.epoch))
    deadline = monotonic() + WAIT_SECONDS
    with suppress(flm.FlameError):
        while True:
            assert monotonic() < deadline
            turn()
            heard = router.hear(1)
            if heard is not None and heard[0] in (codec.PONG, codec.HELLO):
                return


@pytest.mark.parametrize("role", list(TO))
def test_a_frame_that_is_too_large_is_not_taken_in(folder: Path, role: str) -> None:
    """It is judged by the length that it announces; the connection is cut, and patience counts."""
    before = psutil.Process().memory_info().rss
    with socket.socket(socket.AF_UNIX) as listener, closing(Line(f"ipc://{folder}/l", role)) as line:
        listener.bind(f"{folder}/l")
        listener.listen()
        listener.settimeout(WAIT_SECONDS)
        line.patience_seconds = 1.0
        line.open()
        raw, _ = listener.accept()
        with raw:
            raw.settimeout(WAIT_SECONDS)
            raw.sendall(hostile.GREETING + hostile.zmtp_ready("ROUTER") + hostile.LARGE + bytes(1000))
            while raw.recv(1 << 16):
                pass
        with pytest.raises(flm.RouterLost):
            while True:
                line.turn(100)
    (folder / "l").unlink()
    assert psutil.Process().memory_info().rss - before < 64 << 20


bodies = {
    role: st.one_of(
        good.map(msgspec.msgpack.encode),
        hostile.torn(good),
        st.one_of([other for name, other in TO.items() if name != role]).map(msgspec.msgpack.encode),
        hostile.foreign,
    )
    for role, good in TO.items()
}


@pytest.mark.parametrize("role", list(TO))
def test_a_line_survives_what_a_router_says(context: Any, folder: Path, role: str) -> None:
    said = st.lists(bodies[role] | hostile.envelopes.map(lambda frame: [frame]) | hostile.garbage, max_size=6)

    @many
    @given(said)
    def whatever_it_says(said: list[Any]) -> None:
        with impostor(context, folder) as (router, address), closing(Line(address, role)) as line:
            line.open()

            def turn() -> None:
                line.turn(1)

            welcome_it(router, turn)
            for body in said:
                router.send(*body) if isinstance(body, list) else router.say(body)
            hear_out(router, turn)

    whatever_it_says()


@many
@given(st.lists(st.tuples(bodies["executor"], st.lists(st.binary(max_size=8), max_size=2)), max_size=5))
def test_an_executor_survives_what_a_router_says(context: Any, folder: Path, said: list[Any]) -> None:
    here, path = os.getcwd(), list(sys.path)
    page_fd = page.create()
    try:
        with impostor(context, folder) as (router, address):
            executor = Executor(ExecutorConfig(address, "node", "token", 1, page_fd))
            with closing(executor.line) as line:
                line.open()

                def turn() -> None:
                    line.turn(1)

                welcome_it(router, turn)
                for body, frames in said:
                    router.say(body, *frames)
                hear_out(router, turn)
                executor.words[page.SESSION] = executor.session  # what it does before a task
                assert all(index >= 0 for _, index, _, _ in executor.tasks)
    finally:
        os.close(page_fd)
        os.chdir(here)
        sys.path[:] = path


class Host(threading.Thread):
    """A router for a client: welcomes it, opens its session, answers its first task with `said`."""

    def __init__(self, router: Impostor, said: list[bytes]) -> None:
        super().__init__(daemon=True)
        self.router, self.said = router, said
        self.ending = False

    def run(self) -> None:
        while not self.ending:
            heard = self.router.hear(20)
            if heard is None:
                continue
            kind, body = heard
            if kind == codec.HELLO:
                self.router.welcome()
            elif kind == codec.DATA:
                message = msgspec.msgpack.decode(body, type=m.FromClient)
                if isinstance(message, m.Open):
                    self.router.say(m.Opened(message.session))
                elif isinstance(message, m.Close):
                    self.router.say(m.Closed(message.session))
                elif isinstance(message, m.Submit):
                    for said in self.said:
                        self.router.say(said)
                    self.router.say(m.Cancelled(message.session, [0], []))
                    self.router.send(sealed(codec.PING, epoch=self.router.epoch))

    def __enter__(self) -> Host:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending = True
        self.join()


@contextmanager
def hosted(context: Any, folder: Path, said: list[bytes]) -> Iterator[flm.Client]:
    with impostor(context, folder) as (router, address), Host(router, said):
        with closing(flm.Client(address)) as client:
            yield client


first_session = TO["client"].map(
    lambda message: msgspec.structs.replace(message, session=1) if hasattr(message, "session") else message
)


@settings(many, max_examples=100)
@given(st.lists(first_session.map(msgspec.msgpack.encode) | bodies["client"], max_size=4))
def test_a_future_ends_whatever_a_router_says(context: Any, folder: Path, said: list[bytes]) -> None:
    with hosted(context, folder, said) as client:
        future = client.submit(abs, -1)
        try:
            future.exception(WAIT_SECONDS)
        except (CancelledError, flm.FlameError):
            pass
        assert future.done()


@pytest.mark.parametrize(
    "said",
    [
        m.Results(1, [m.Slice(1, 0, 2**62, 1)], [], [1.0], [], [b""]),
        m.Results(1, [m.Slice(1, 0, 1, 1)], [], [1.0], [], []),
        m.Results(1, [m.Slice(1, 0, 1, 1)], [], [1.0], [7, 7], [b""]),
        [21, 1, [[1, 0, 1, 1]], [], [1.0], [], ["no bytes"]],
        [99],
    ],
)
def test_nonsense_ends_the_client_with_a_sentence(context: Any, folder: Path, said: Any) -> None:
    with hosted(context, folder, [msgspec.msgpack.encode(said)]) as client:
        future = client.submit(abs, -1)
        with pytest.raises(flm.RouterLost, match="sent nonsense"):
            future.result(WAIT_SECONDS)
        with pytest.raises(flm.RouterLost, match="sent nonsense"):
            client.submit(abs, -1)


WORKER = """
import sys
from flamezmq.worker import WorkerConfig, main
sys.exit(main(WorkerConfig(sys.argv[1], "node", 2, 2.0, 1 << 30)))
"""


@contextmanager
def a_worker(context: Any, folder: Path) -> Iterator[tuple[Impostor, subprocess.Popen[str]]]:
    """A worker and, for the first of its connections, its router."""
    with impostor(context, folder) as (router, address):
        program = [sys.executable, "-c", WORKER, address]
        with subprocess.Popen(
            program, text=True, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
        ) as worker:
            try:
                yield router, worker
            finally:
                worker.kill()


def told(router: Impostor, worker: subprocess.Popen[str], say: Callable[[], None]) -> str:
    """Find the worker among those who dial, welcome it and `say` something; returns its last words.

    On a busy machine it may greet twice, and pass over what was said in between.
    """
    deadline = monotonic() + WAIT_SECONDS
    while worker.poll() is None:
        assert monotonic() < deadline
        heard = router.hear(50)
        if heard is not None and heard[0] == codec.HELLO:
            if msgspec.msgpack.decode(heard[1], type=m.Hello).role == "worker":
                router.sent = 0
                router.welcome()
                say()
    return worker.communicate(timeout=WAIT_SECONDS)[0]


@pytest.mark.parametrize("body", [b"\xc1", msgspec.msgpack.encode([99]), msgspec.msgpack.encode([83, "x"])])
def test_a_worker_whose_router_talks_nonsense_ends_in_order(context: Any, folder: Path, body: bytes) -> None:
    with a_worker(context, folder) as (router, worker):
        assert "sent nonsense" in told(router, worker, lambda: router.say(body))
        assert worker.returncode == 3


def test_a_worker_that_is_refused_says_why(context: Any, folder: Path) -> None:
    with a_worker(context, folder) as (router, worker):

        def refuse() -> None:
            router.send(sealed(codec.REFUSE, m.Refuse("we are full"), router.epoch))

        assert "we are full" in told(router, worker, refuse)


def test_a_client_that_is_refused_says_why(context: Any, folder: Path) -> None:
    def refuse(router: Impostor) -> None:
        router.hear()
        router.send(sealed(codec.REFUSE, m.Refuse("we are full"), router.epoch))

    with impostor(context, folder) as (router, address):
        thread = threading.Thread(target=refuse, args=(router,))
        thread.start()
        with pytest.raises(flm.Refused, match="we are full"):
            flm.Client(address)
        thread.join()
