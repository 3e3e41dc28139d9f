"""Programs behind shims in a real cluster: warm in executors, replaced when they fail, gone with them."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import flamezmq as flm
from flamezmq import shims
from tests.shim_stage import App, below, lives, named, script
from tests.waiting import until

pytestmark = pytest.mark.processes

LIMIT_SECONDS = 30.0
#: Answers with its pid and the task; some tasks have their own way.
SHELL = """
while read -r line; do
    case $line in
    '"die"') echo "it hurts" >&2; exit 3;;
    '"hang"') sleep 1000;;
    '"say"') echo "a word" >&2;;
    esac
    echo "[$$, $line]"
done
"""
HTTP = """
import os
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b"[%d, %s]" % (os.getpid(), body))
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    do_DELETE = do_GET
    def log_message(self, *args):
        pass

HTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""
GRPC = """
import os
from concurrent import futures
import grpc
from flamezmq.shims.protobuf import decode, encode

def task(request, context):
    return encode({1: b"[%d, %s]" % (os.getpid(), decode(request)[4])})

calls = {"OnTaskInvoke": grpc.unary_unary_rpc_method_handler(task)}
server = grpc.server(futures.ThreadPoolExecutor(1))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("flamezmq.Application", calls)])
server.add_insecure_port("unix:" + os.environ["SOCKET"])
server.start()
server.wait_for_termination()
"""


@pytest.fixture
def cluster() -> Iterator[flm.Client]:
    with flm.testing.cluster(executors=2) as client:
        yield client


def register(client: flm.Client, folder: Path, **more: Any) -> None:
    """A shell script, called "shell"."""
    path = script(folder, SHELL)
    client.register(flm.Application(name="shell", shim="stdio", command=path, **more))


def opened(client: flm.Client, **terms: Any) -> Any:
    return client.session(**terms)


@pytest.mark.parametrize(("shim", "text"), [("http", HTTP), ("grpc", GRPC)])
def test_a_server_serves_the_tasks_of_sessions(
    cluster: flm.Client, tmp_path: Path, shim: str, text: str
) -> None:
    (tmp_path / "server.py").write_text(text)
    cluster.register(
        flm.Application(
            name=shim,
            shim=shim,
            command=sys.executable,
            arguments=["server.py"],
            working_directory=str(tmp_path),
        )
    )
    with opened(cluster, app=shim) as session:
        answers = list(session.map(range(50), timeout=LIMIT_SECONDS))

    assert [value for _, value in answers] == list(range(50))
    assert 1 <= len({pid for pid, _ in answers}) <= 2, "one for each executor"


def test_a_program_stays_warm_for_later_sessions_of_its_tenant_and_is_never_another_tenants(
    tmp_path: Path,
) -> None:
    with flm.testing.cluster(executors=1) as client:
        register(client, tmp_path)

        def process_of(tenant: str) -> int:
            with opened(client, app="shell", tenant=tenant) as session:
                pids = {session.submit(n).result(LIMIT_SECONDS)[0] for n in range(3)}
                assert len(pids) == 1
                return int(pids.pop())

        red = process_of("red")
        assert process_of("red") == red
        assert process_of("blue") != red
        until(lambda: len(named("service.sh")) == 1)


def test_an_application_may_have_a_program_for_each_session(tmp_path: Path) -> None:
    with flm.testing.cluster(executors=1) as client:
        register(client, tmp_path, isolation="session")
        pids = set()
        for _ in range(2):
            with opened(client, app="shell") as session:
                pids.add(session.submit(1).result(LIMIT_SECONDS)[0])
        assert len(pids) == 2


def test_a_program_that_dies_fails_its_task_and_no_other(cluster: flm.Client, tmp_path: Path) -> None:
    register(cluster, tmp_path)
    with opened(cluster, app="shell", max_executors=1) as session:
        futures = [session.submit(task) for task in (1, "die", 2)]

        error = futures[1].exception(LIMIT_SECONDS)
        assert isinstance(error, flm.ServiceFailed)
        assert (error.application, error.exit_code, error.stderr) == ("shell", 3, ("it hurts",))
        first, second = (futures[n].result(LIMIT_SECONDS) for n in (0, 2))
        assert (first[1], second[1]) == (1, 2)
        assert first[0] != second[0]


def test_a_task_whose_program_hangs_is_ended_by_its_timeout_and_one_that_has_failed_may_run_again(
    tmp_path: Path,
) -> None:
    with flm.testing.cluster(executors=1) as client:
        register(client, tmp_path)
        with opened(client, app="shell", options=flm.options(timeout=0.3, retries=1)) as session:
            with pytest.raises(flm.TaskTimeout):
                session.submit("hang").result(LIMIT_SECONDS)
            error = session.submit("die").exception(LIMIT_SECONDS)
            assert isinstance(error, flm.ServiceFailed)
            assert error.__notes__ == ["flamezmq: it has failed after 2 attempts"]
            assert session.submit(1).result(LIMIT_SECONDS)[1] == 1


def test_a_running_task_that_is_cancelled_ends_its_program_and_the_next_one_has_another(
    tmp_path: Path,
) -> None:
    with flm.testing.cluster(executors=1) as client:
        register(client, tmp_path)
        with opened(client, app="shell") as session:
            first, _ = session.submit(1).result(LIMIT_SECONDS)
            hangs = session.submit("hang")
            until(lambda: named("sleep"))
            assert hangs.cancel(running=True)
            second, _ = session.submit(1).result(LIMIT_SECONDS)
            assert first != second
            assert not named("sleep")


def test_what_a_program_writes_to_stderr_is_the_output_of_its_task(
    cluster: flm.Client, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    register(cluster, tmp_path)
    with opened(cluster, app="shell") as session:
        session.submit("say").result(LIMIT_SECONDS)
    cluster.close()

    (line,) = [line for line in capfd.readouterr().err.splitlines() if "a word" in line]
    assert line.endswith(") a word"), "after the executor's name, as the program wrote it"


def test_a_command_that_is_not_there_breaks_the_session_with_its_name(cluster: flm.Client) -> None:
    cluster.register(flm.Application(name="none", shim="stdio", command="/nowhere/at-all", bind_retries=2))
    with opened(cluster, app="none") as session:
        error = session.submit(1).exception(LIMIT_SECONDS)

    assert isinstance(error, flm.BrokenSession)
    assert error.binds == 2
    assert "No such file or directory: '/nowhere/at-all'" in error.text


def test_a_program_has_no_stream_and_that_is_said(cluster: flm.Client) -> None:
    cluster.register(flm.Application(name="echo", shim="stdio", command="cat"))
    with opened(cluster, app="echo") as session:
        with pytest.raises(TypeError, match=r"an on_task_invoke that yields; stream\(echo\) gave int"):
            list(session.stream(3))
        assert session.submit(3).result(LIMIT_SECONDS) == 3


def test_a_program_dies_with_its_executor_and_the_task_runs_elsewhere(
    cluster: flm.Client, tmp_path: Path
) -> None:
    register(cluster, tmp_path)
    with opened(cluster, app="shell", max_executors=1) as session:
        first, _ = session.submit(1).result(LIMIT_SECONDS)
        program = psutil.Process(first)
        warden = program.parent()
        assert warden is not None
        flm.testing.kill_an_executor(cluster, pid=warden.ppid())
        until(lambda: not lives(program) and not lives(warden))
        assert session.submit(2).result(LIMIT_SECONDS)[1] == 2


def test_a_program_that_hangs_is_gone_with_its_cluster(tmp_path: Path) -> None:
    with flm.testing.cluster(executors=1) as client:
        register(client, tmp_path)
        session = opened(client, app="shell")
        future = session.submit("hang")
        until(lambda: named("sleep"))
        left = [*named("sleep"), *named("service.sh"), *named("flm-warden")]
        assert not future.done()
    assert len(left) == 3
    until(lambda: not any(map(lives, left)))


def test_a_router_that_is_killed_takes_the_programs_with_it(tmp_path: Path) -> None:
    with flm.testing.cluster(executors=2) as client:
        register(client, tmp_path)
        session = opened(client, app="shell")
        session.submit("hang")
        until(lambda: named("sleep"))
        started = [*named("sleep"), *named("service.sh"), *named("flm-warden")]
        assert len(started) == 3
        (router,) = named("flm-router")
        router.kill()
        until(lambda: not any(map(lives, started)))


def test_programs_go_even_if_all_of_the_cluster_is_killed_at_once(tmp_path: Path) -> None:
    with flm.testing.cluster(executors=2, forward_output=False) as client:
        register(client, tmp_path)
        session = opened(client, app="shell")
        future = session.submit("hang")
        until(lambda: named("sleep"))
        started = [*named("sleep"), *named("service.sh"), *named("flm-warden")]
        assert len(started) == 3
        ours = [p for p in below() if p not in started]
        for process in ours:
            process.suspend()  # none of them may notice the end of another
        for process in ours:
            process.kill()
        until(lambda: not any(map(lives, started)))
        assert isinstance(future.exception(LIMIT_SECONDS), flm.RouterLost)


def test_executors_may_be_killed_at_any_moment_and_all_tasks_are_done(tmp_path: Path) -> None:
    seed = random.randrange(1000)
    print("seed", seed)  # shown if it fails
    dice = random.Random(seed)
    with flm.testing.cluster(executors=2, forward_output=False) as client:
        register(client, tmp_path, bind_retries=50)  # a kill may well hit a bind
        with opened(client, app="shell", max_retries=50) as session:
            futures: list[Any] = []
            for _ in range(6):
                futures += [session.submit(n) for n in range(len(futures), len(futures) + 1500)]
                time.sleep(dice.uniform(0.0, 0.05))
                flm.testing.kill_an_executor(client)
            assert [future.result(LIMIT_SECONDS)[1] for future in futures] == list(range(9000))
        left = [*named("service.sh"), *named("flm-warden")]
        assert len(left) <= 4, "those of two executors"


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ({"shim": "stdio"}, "the shim stdio needs a `command`"),
        ({"shim": "http", "command": "x", "options": {"port": 1}}, "the shim http has no option 'port'"),
        ({"shim": "stdio", "command": "x", "service": "module:Class"}, "`service` is for the shim python"),
        ({"shim": "ftp", "command": "x"}, "ftp"),
    ],
)
def test_an_application_that_no_shim_could_run_is_refused_where_it_is_made(
    terms: dict[str, Any], said: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        flm.Application(name="a", **terms)


def test_common_data_that_a_shim_would_refuse_at_each_bind_opens_no_session(cluster: flm.Client) -> None:
    cluster.register(flm.Application(name="takes-none", shim="stdio", command="/bin/cat"))
    with pytest.raises(flm.BadPayload, match="the program takes none; set the option common_data"):
        cluster.session("one", app="takes-none", common_data={"model": 1})

    takes = flm.Application(
        name="takes-words", shim="stdio", command="/bin/cat", options={"common_data": True},
        schema={"common_data": {"type": "string"}},
    )  # fmt: skip
    cluster.register(takes)
    with pytest.raises(flm.BadPayload, match="'string'"):
        cluster.session("one", app="takes-words", common_data=5)
    with pytest.raises(flm.Refused, match="knows no application"):
        cluster.session("one", app="unheard-of", common_data=5)
    with cluster.session("one", app="takes-words", common_data="five") as session:
        assert session.submit("back").result(LIMIT_SECONDS) == "back"


def test_the_other_shims_look_at_common_data_before_they_start_anything() -> None:
    http = shims.make(App("http", "/bin/true", schema={"common_data": {"type": "integer"}}))
    http.check_common_data(5)
    with pytest.raises(flm.BadPayload, match="'integer'"):
        http.check_common_data("five")
    grpc = shims.make(App("grpc", "/bin/true", options={"payload": "bytes"}))
    grpc.check_common_data(b"five")
    with pytest.raises(flm.BadPayload, match="bytes or str is expected"):
        grpc.check_common_data(5)
    shims.make(App("stdio", "/bin/cat", options={"common_data": True})).check_common_data([5])
