"""`flm.testing`: what users have for the tests of their own code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from time import monotonic

import pytest

import flamezmq as flm
from flamezmq.processes import process_table

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parent.parent
LIMIT_SECONDS = 20.0


def run_until(path: str) -> int:
    """Ends when the file is there; says in a file beside it which process it runs in."""
    Path(f"{path}.{os.getpid()}").touch()
    deadline = monotonic() + LIMIT_SECONDS
    while not os.path.exists(path) and monotonic() < deadline:
        time.sleep(0.005)
    return os.getpid()


def test_a_cluster_is_real_private_and_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAMEZMQ_ADDRESS", "tcp://127.0.0.1:1")

    with flm.testing.cluster() as client:
        assert isinstance(client, flm.Client)
        assert client.submit(os.getpid).result(LIMIT_SECONDS) != os.getpid()
        launcher = client.processes()["launcher"]

    assert not os.path.exists(f"/proc/{launcher[0]}")
    with pytest.raises(flm.ClientClosed):
        client.submit(os.getpid)


def test_a_task_that_was_forgotten_does_not_hang_the_test() -> None:
    with flm.testing.cluster(executors=1) as client:
        forgotten = client.submit(time.sleep, 600)

    assert forgotten.cancelled()


def test_what_is_left_is_named_and_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flm.testing, "PATIENCE_SECONDS", 0.1)
    with pytest.raises(flm.testing.Leaked) as caught, flm.testing.cluster(executors=1) as client:
        assert client._cluster is not None
        found = client.processes()
        stop = client._cluster.stop
        monkeypatch.setattr(client._cluster, "stop", lambda: None)
    stop()

    text = str(caught.value)
    assert f"process {found['launcher'][0]} (" in text
    assert f"process {found['router'][0]} (flm-router" in text
    assert "folder " in text
    table = process_table()  # init may take its time to reap them
    assert all(table.get(pid, (0, "", "X"))[2] in "ZX" for role in found.values() for pid in role)


def test_the_error_of_the_block_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flm.testing, "PATIENCE_SECONDS", 0.1)
    with pytest.raises(KeyError) as caught, flm.testing.cluster(executors=1) as client:
        assert client._cluster is not None
        stop = client._cluster.stop
        monkeypatch.setattr(client._cluster, "stop", lambda: None)
        raise KeyError("the test's own")
    stop()

    assert "left behind" in caught.value.__notes__[0]


def test_an_executor_that_is_killed_is_replaced_and_its_task_runs_again(tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    with flm.testing.cluster(executors=2) as client:
        future = client.submit(run_until, gate)
        deadline = monotonic() + LIMIT_SECONDS
        while not (ran := list(tmp_path.iterdir())) and monotonic() < deadline:
            time.sleep(0.005)
        victim = int(ran[0].suffix[1:])

        assert flm.testing.kill_an_executor(client, victim) == victim
        assert not os.path.exists(f"/proc/{victim}")
        assert len(client.processes()["executors"]) == 2
        Path(gate).touch()
        assert future.result(LIMIT_SECONDS) != victim

        first = flm.testing.kill_an_executor(client)
        assert first not in client.processes()["executors"]


def test_who_is_to_be_killed_must_be_an_executor_of_a_cluster_of_ours() -> None:
    with flm.testing.cluster(executors=1) as client:
        with pytest.raises(ValueError, match="none of the cluster's executors"):
            flm.testing.kill_an_executor(client, os.getpid())
        with flm.Client(client.address) as other, pytest.raises(ValueError, match="no cluster of its own"):
            flm.testing.kill_an_executor(other)


def test_without_a_replacement_killing_says_so_in_time() -> None:
    with flm.testing.cluster(executors=1) as client:
        client.submit(abs, 1).result(LIMIT_SECONDS)
        worker = client.processes()["worker"][0]
        os.kill(worker, signal.SIGSTOP)
        try:
            with pytest.raises(TimeoutError, match="no replacement yet"):
                flm.testing.kill_an_executor(client, timeout=0.2)
        finally:
            os.kill(worker, signal.SIGCONT)


def test_a_fixture_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "import flamezmq as flm\n\ncluster = flm.testing.fixture(executors=1)\n"
        "other = flm.testing.fixture(executors=1, scope='function', name='small')\n"
    )
    (tmp_path / "test_it.py").write_text(
        "def test_a(cluster):\n    assert cluster.submit(abs, -1).result(10) == 1\n"
        "    test_a.client = cluster\n"
        "def test_b(cluster, small):\n    assert cluster is test_a.client\n"
        "    assert small.submit(abs, -2).result(10) == 2\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=50,
        cwd=tmp_path,
        env=env,
        check=False,
    )

    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_pytest_is_not_needed_for_anything_but_the_fixture() -> None:
    program = "import flamezmq as flm, sys; flm.testing.cluster; assert 'pytest' not in sys.modules"

    subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=30, check=True)
