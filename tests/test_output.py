"""What tasks print has been shown when their session, or the client, is closed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from time import monotonic

import pytest

import flamezmq as flm
from flamezmq.core.broker import Broker
from flamezmq.wire import messages as m
from tests.stateful import is_gone
from tests.waiting import until

ROOT = Path(__file__).resolve().parent.parent
CLIENT, WORKER, EXECUTOR = 1, 2, 3


def closing(forward_output: bool = True, close: bool = True) -> tuple[Broker, list[tuple[int, object]]]:
    """A broker whose client has just closed a session that an executor has served; what it sent then.

    close: else it has not, yet
    """
    broker = Broker()
    out: list[tuple[int, object, list[object]]] = []
    broker.on_client(CLIENT)
    spec = m.SessionSpec("s", forward_output=forward_output)
    for peer, message in (
        (WORKER, m.Register("node", "token", 1, 1.0, 1, 1)),
        (EXECUTOR, m.Ready("node", "token", 1, 7)),
        (CLIENT, m.Open(5, "s-1", spec)),
        (CLIENT, m.Submit(5, [m.NewFunction(1, b"f")], [], [m.Slice(1, 0, 1, 1)], [b"x"], [])),
    ):
        broker.on_message(peer, message, [], 0.0, out)
        broker.on_turn_end(0.0, out)
    out.clear()
    if close:
        broker.on_message(CLIENT, m.Close(5), [], 0.1, out)
    return broker, [(peer, message) for peer, message, _ in out if not isinstance(message, m.Retract)]


def told(broker: Broker, peer: int, message: object) -> list[tuple[int, object]]:
    out: list[tuple[int, object, list[object]]] = []
    broker.on_message(peer, message, [], 0.2, out)
    return [(peer, message) for peer, message, _ in out]


def test_a_session_is_closed_when_its_workers_have_sent_on_what_was_printed() -> None:
    broker, out = closing()
    (interrupted, (peer, flush)) = out
    assert interrupted == (EXECUTOR, m.Interrupt(1, [])), "what still runs is ended"
    assert peer == WORKER
    assert isinstance(flush, m.Flush)

    ((peer, output),) = told(broker, WORKER, m.Printed(1, 1, "late\n", 0))
    assert (peer, output) == (CLIENT, m.Output(5, "node/1", 1, "late\n", 0))
    assert told(broker, WORKER, m.Flushed(flush.request)) == [(CLIENT, m.Closed(5))]
    assert told(broker, WORKER, m.Flushed(flush.request)) == [], "once"
    assert told(broker, WORKER, m.Printed(1, 1, "too late\n", 0)) == []
    broker.check()


def test_what_an_executor_has_printed_is_shown_also_when_it_has_hung_up_before_its_worker_says_so() -> None:
    broker, _ = closing(close=False)
    broker.on_peer_lost(EXECUTOR, 0.1, [])
    assert told(broker, WORKER, m.Printed(1, 1, "late\n", 0)) == [
        (CLIENT, m.Output(5, "node/1", 1, "late\n", 0))
    ]
    assert told(broker, CLIENT, m.Close(5)) == [(WORKER, m.Flush(1))], "there may be more"
    assert told(broker, WORKER, m.Printed(1, 1, "later\n", 0)) == [
        (CLIENT, m.Output(5, "node/1", 1, "later\n", 0))
    ]
    died = m.Died(1, 7, "node", 0, -1, 0, "", 0, False, 0, ())
    assert told(broker, WORKER, died) == []
    assert told(broker, WORKER, m.Flushed(1)) == [(CLIENT, m.Closed(5))]
    assert not broker.buried


def test_a_worker_that_is_lost_has_nothing_more_to_say() -> None:
    broker, _ = closing()
    out: list[tuple[int, object, list[object]]] = []

    broker.on_peer_lost(WORKER, 0.2, out)

    assert (CLIENT, m.Closed(5), []) in out


def test_who_does_not_want_to_hear_it_waits_for_nobody() -> None:
    assert closing(forward_output=False)[1][-1] == (CLIENT, m.Closed(5))


def test_what_a_nested_task_prints_goes_to_the_client_of_the_outermost_session() -> None:
    inner, other = 9, 4
    broker = Broker()
    out: list[tuple[int, object, list[object]]] = []
    for peer in (CLIENT, inner):
        broker.on_client(peer)
    for peer, message in (
        (WORKER, m.Register("node", "token", 1, 1.0, 1, 2)),
        (EXECUTOR, m.Ready("node", "token", 1, 7)),
        (CLIENT, m.Open(5, "s-1", m.SessionSpec("s"))),
        (CLIENT, m.Submit(5, [m.NewFunction(1, b"f")], [], [m.Slice(1, 0, 1, 1)], [b"x"], [])),
        (other, m.Ready("node", "token", 2, 8)),
        (inner, m.Open(1, "nested-1", m.SessionSpec("nested", within="token/1", outer=1))),
        (inner, m.Submit(1, [m.NewFunction(1, b"f")], [], [m.Slice(1, 0, 1, 1)], [b"x"], [])),
    ):
        broker.on_message(peer, message, [], 0.0, out)
        broker.on_turn_end(0.0, out)
    out.clear()

    assert told(broker, WORKER, m.Printed(2, 1, "within\n", 0)) == [
        (CLIENT, m.Output(5, "node/2", 1, "within\n", 0))
    ]
    broker.on_message(CLIENT, m.Close(5), [], 0.1, out)
    assert any(peer == WORKER and isinstance(message, m.Flush) for peer, message, _ in out)
    late = told(broker, WORKER, m.Printed(2, 1, "late\n", 0))
    assert late == [(CLIENT, m.Output(5, "node/2", 1, "late\n", 0))]


def test_nobody_prints_on_the_terminal_of_a_session_that_its_executor_has_not_served() -> None:
    broker, _ = closing()
    broker.on_client(9)
    told(broker, 9, m.Open(1, "sly", m.SessionSpec("sly", within="token/7", outer=1)))
    assert broker.clients[9].sessions[1].root is None


@pytest.mark.processes
def test_all_that_was_printed_is_there_when_the_client_is_closed(capfd: pytest.CaptureFixture[str]) -> None:
    with flm.Client(executors=2) as client, client.session("loud") as session:
        list(session.map(print, range(50), chunksize=5))
        session.submit(print, "no end", end="").result()

    lines = [line.split(") ")[1] for line in capfd.readouterr().out.splitlines()]
    assert sorted(lines) == sorted([*map(str, range(50)), "no end"])


class Careless:
    def on_task_invoke(self, ctx: flm.Context) -> int:
        return os.getpid()

    def on_session_leave(self, ctx: flm.Context) -> None:
        raise RuntimeError("I have left the gas on")


@pytest.mark.processes
def test_what_a_last_hook_prints_is_shown_also_when_its_executor_is_gone_before_its_worker_reads_it(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def go_on(worker: int, executor: int) -> None:
        until(lambda: is_gone(executor))
        os.kill(worker, signal.SIGCONT)

    with flm.testing.cluster(executors=1) as client:
        client.register(flm.Application(name="careless", service=Careless))
        (worker,) = client.processes()["worker"]
        with client.session("s", app="careless") as session:
            pid = session.submit().result(30.0)
            os.kill(worker, signal.SIGSTOP)
            waker = threading.Thread(target=go_on, args=(worker, pid))
            waker.start()
        waker.join()
    assert "RuntimeError: I have left the gas on" in capfd.readouterr().err


@pytest.mark.processes
def test_a_program_that_just_ends_has_shown_it_too() -> None:
    program = "import flamezmq as flm; c = flm.Client(executors=1); c.submit(print, 'seen').result()"

    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=40,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )

    assert done.stdout.endswith(") seen\n"), done.stderr


@pytest.mark.processes
@pytest.mark.parametrize("stuck", ["worker", "router"])
def test_a_close_does_not_wait_long_for_who_is_stuck(stuck: str) -> None:
    client = flm.Client(executors=1)
    client.submit(print, 1).result(20)
    (pid,) = client.processes()[stuck]

    os.kill(pid, signal.SIGSTOP)
    began = monotonic()
    client.close()

    assert monotonic() - began < 6
