"""What a worker is told that its node has, and what tasks see of it: real daemons."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import flamezmq as flm
from flamezmq import capacity
from flamezmq.resources import parse_offer
from tests.daemons import LIMIT_SECONDS, Daemons, daemons_in, environment, free_port
from tests.waiting import until

pytestmark = pytest.mark.processes


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    with daemons_in(tmp_path) as daemons:
        yield daemons


def devices_after(folder: str, name: str, others: int) -> tuple[str | None, tuple[str, ...]]:
    """What this task sees, when as many as `others` run at the same time."""
    Path(folder, name).touch()
    end = time.monotonic() + LIMIT_SECONDS
    while len(os.listdir(folder)) < others and time.monotonic() < end:
        time.sleep(0.005)
    return os.environ.get("CUDA_VISIBLE_DEVICES"), flm.current().devices


class Seeing:
    def __init__(self) -> None:
        self.seen = os.environ.get("CUDA_VISIBLE_DEVICES")

    def sees(self) -> tuple[str | None, tuple[str, ...]]:
        return self.seen, flm.current().devices

    def dies(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Telling:
    def on_task_invoke(self, ctx: flm.Context, _: object) -> tuple[str, ...]:
        return ctx.devices


def nodes(address: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "flamezmq.cli.ctl", "list", "-n", "-a", address, *words],
        capture_output=True, text=True, timeout=LIMIT_SECONDS, env=environment(), check=True,
    )  # fmt: skip
    return done.stdout


def test_tasks_go_where_the_resources_are_and_see_devices_of_their_own(
    daemons: Daemons, tmp_path: Path
) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    daemons.router(address)
    daemons.worker(address, "--node", "plain", executors=1)
    fast = daemons.worker(
        address, "--node", "fast", "--resources", "gpu=2,fpga=1", executors=3, CUDA_VISIBLE_DEVICES="3,GPU-x"
    )
    fast.wait_for("registered")
    (tmp_path / "seen").mkdir()

    with flm.Client(address) as client:
        until(lambda: "fpga=1" in nodes(address), "the worker's resources are shown")
        shown = {row["name"]: row for row in json.loads(nodes(address, "-o", "json"))}
        assert (shown["fast"]["gpu"], shown["fast"]["resources"]) == (2, {"fpga": 1.0})
        with client.session("gpus", resources="gpu=1") as session:
            futures = [
                session.submit(devices_after, str(tmp_path / "seen"), f"{number}", 2) for number in range(2)
            ]
            seen = sorted(future.result(LIMIT_SECONDS) for future in futures)
            assert seen == [("3", ("3",)), ("GPU-x", ("GPU-x",))]
        with client.session("fpga", resources="fpga=1") as session:
            assert session.submit(devices_after, str(tmp_path), "one", 0).result(LIMIT_SECONDS) == (
                "3,GPU-x",
                (),
            )
        client.register(flm.Application(name="telling", service=Telling))
        with client.session("both", app="telling", resources="gpu=2") as service:
            assert service.submit(None).result(LIMIT_SECONDS) == ("3", "GPU-x")
        with client.session("none", resources="fpga=2") as session:
            future = session.submit(abs, -1)
            assert "fpga=2 (at most 1)" in session.explain(future)
            assert future.cancel()


def test_actors_keep_gpus_of_their_own_until_they_end(daemons: Daemons) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    daemons.router(address)
    daemons.worker(address, "--node", "plain", executors=1)
    fast = daemons.worker(
        address, "--node", "fast", "--resources", "gpu=2", executors=1, CUDA_VISIBLE_DEVICES="3,GPU-x"
    )
    fast.wait_for("registered")

    with flm.Client(address) as client, client.session() as session:
        first = session.actor(Seeing, resources="gpu=1", max_restarts=1)
        second = client.actor(Seeing, resources="gpu=1")
        seen = sorted(actor.sees().result(LIMIT_SECONDS) for actor in (first, second))
        assert seen == [("3", ("3",)), ("GPU-x", ("GPU-x",))]

        third = session.actor(Seeing, resources="gpu=1")
        waits = third.sees()
        with client.session("tasks", resources="gpu=1") as gpus:
            task = gpus.submit(abs, -1)
            until(lambda: "use it for others" in waits._session.explain(waits), "it is said what it lacks")
            assert "use it for others" in gpus.explain(task)
            assert session.submit(abs, -1).result(LIMIT_SECONDS) == 1, "who asks for none goes on"
            assert task.cancel()

        with pytest.raises(flm.ActorDied):
            first.dies().result(LIMIT_SECONDS)
        second.close()
        assert {waits.result(LIMIT_SECONDS), first.sees().result(LIMIT_SECONDS)} == set(seen)

        none = client.actor(Seeing, resources="gpu=3")
        lost = none.sees()
        assert "gpu=3 (at most 2)" in lost._session.explain(lost)
        none.close(cancel=True)
        assert client.actor(Seeing).sees().result(LIMIT_SECONDS)[1] == ()


def test_the_settings_may_say_it_too_and_what_is_wrong_is_one_sentence(
    daemons: Daemons, tmp_path: Path
) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    daemons.router(address)
    settings = tmp_path / "flamezmq.toml"
    settings.write_text('[worker]\nresources = "cpu=3,mem=2g,license=4"\n')
    worker = daemons.start("worker", "--router", address, "--config", str(settings))
    assert worker.wait_for("registered")["executors"] == 3, "one per core"
    (row,) = json.loads(nodes(address, "-o", "json"))
    assert (row["cpu"], row["memory"], row["resources"]) == (3.0, 2 << 30, {"license": 4.0})

    done = subprocess.run(
        [sys.executable, "-P", "-m", "flamezmq.cli.worker", "--resources", "gpu=1.5"],
        capture_output=True, text=True, timeout=LIMIT_SECONDS, env=environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "whole number of GPUs" in done.stderr


# --- what a node has


def test_devices_are_those_of_the_variable_or_those_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dev").mkdir()
    for name in ("nvidia10", "nvidia2", "nvidiactl", "null"):
        (tmp_path / "dev" / name).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert capacity.devices(str(tmp_path)) == ("2", "10")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1, 7,-1")
    assert capacity.devices(str(tmp_path)) == ("GPU-1", "7")


@pytest.mark.parametrize(
    ("said", "devices"),
    [
        ("license=1", ("4", "5")),
        ("gpu=1", ("4",)),
        ("gpu=0", ()),
        ("gpu=3", ("0", "1", "2")),
    ],
)
def test_what_is_said_of_a_node_counts_for_more_than_what_is_seen(
    said: str, devices: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    has = capacity.of_node(parse_offer(said))
    assert has.devices == devices
    assert has.cores == capacity.usable_cores()
    assert has.memory == capacity.memory_limit()


@pytest.mark.parametrize("text", ["gpu=0.5", "cpu=0", "mem=0", "gpu", ""])
def test_an_offer_that_no_node_can_make_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_offer(text)
