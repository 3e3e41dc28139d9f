"""One client in many hands: threads, signal handlers, the standard library's waits, the garbage collector."""

from __future__ import annotations

import concurrent.futures as cf
import gc
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

import flamezmq as flm
from flamezmq.client.future import Future
from flamezmq.client.pump import Pump
from flamezmq.serialize import functions
from flamezmq.serialize.values import dump_call
from tests.waiting import until

pytestmark = pytest.mark.processes

WAIT_SECONDS = 10.0


@pytest.fixture(scope="module")
def client() -> Iterator[flm.Client]:
    with flm.Client(executors=2) as one:
        one.submit(abs, -1).result(WAIT_SECONDS)
        yield one


def in_thread(deed: Callable[[], Any]) -> None:
    """Do it in another thread, which must not hang."""
    thread = threading.Thread(target=deed, daemon=True)
    thread.start()
    thread.join(WAIT_SECONDS)
    assert not thread.is_alive()


def wait_for_file(path: Path) -> None:
    while not path.exists():
        sleep(0.001)


def test_the_condition_of_a_future_can_be_had_while_that_of_another_one_is_held(
    client: flm.Client, tmp_path: Path
) -> None:
    """The standard library's `wait` takes all of them, one after the other, while results come in."""
    first, second = client.submit(wait_for_file, tmp_path / "go"), client.submit(abs, -2)
    with first._condition:
        (tmp_path / "go").touch()
        until(client._line.lock.locked)
        until(lambda: first._value is not None)  # the keeper has it, and waits for us
        in_thread(lambda: second._condition)
    assert first.result(WAIT_SECONDS) is None
    assert second.result(WAIT_SECONDS) == 2


def test_the_standard_wait_is_true_while_results_come_in(client: flm.Client) -> None:
    for _ in range(50):
        futures = [client.submit(abs, -i) for i in range(300)]
        assert not cf.wait(futures, WAIT_SECONDS).not_done


def test_no_task_is_taken_out_of_an_outbox_while_it_is_being_sent(
    client: flm.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = client.session()
    calls = session._calls
    prepare, free = calls._prepare, []

    def look(*args: Any) -> Any:
        def try_it() -> None:
            if client._apply_lock.acquire(blocking=False):
                free.append(True)
                client._apply_lock.release()

        in_thread(try_it)
        return prepare(*args)

    monkeypatch.setattr(calls, "_prepare", look)
    assert session.submit(abs, -3).result(WAIT_SECONDS) == 3
    assert not free
    session.close()


def test_a_task_behind_one_that_another_thread_is_just_submitting_is_sent(client: flm.Client) -> None:
    with client.session() as session:
        other = Future(session)
        session._calls.outbox.append((other, session._name(abs), dump_call((-4,), {}, abs)))
        assert session.submit(abs, -5).result(WAIT_SECONDS) == 5
        assert other.result(WAIT_SECONDS) == 4


def test_an_interrupted_submit_hinders_no_cancel(client: flm.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the interrupted message holds is asked for; what it does not hold is simply taken back."""
    with client.session() as session:
        calls = session._calls
        complete = calls._complete

        def interrupt(*_: Any) -> None:
            monkeypatch.setattr(calls, "_complete", complete)
            raise KeyboardInterrupt

        monkeypatch.setattr(calls, "_complete", interrupt)
        with pytest.raises(KeyboardInterrupt):
            session.submit(abs, -1)
        behind = Future(session)
        calls.outbox.append((behind, session._name(abs), dump_call((-4,), {}, abs)))
        assert behind.cancel()
        assert session.submit(abs, -5).result(WAIT_SECONDS) == 5


def test_a_map_may_be_collected_while_results_are_taken_in(client: flm.Client, tmp_path: Path) -> None:
    with client.session() as session:
        maps = [session.map(wait_for_file, [tmp_path, *[tmp_path / "go"] * 100], chunksize=1)]
        assert next(maps[0]) is None

        def collect() -> None:
            client._pump._wanting[0] = None  # whoever drives lets go of the line
            client._line.wake()
            with client._line.lock, client._apply_lock:
                maps.clear()
                gc.collect()
            client._pump._wanting.pop(0)

        in_thread(collect)
        until(lambda: session._calls.unfinished < 10)  # those that had begun are not cancelled
        (tmp_path / "go").touch()


def test_who_watches_many_futures_may_go_on_while_another_thread_looks_for_it() -> None:
    class Line:
        lost = None
        lock = threading.Lock()

        def turn(self, timeout_ms: int) -> list[int]:
            came.append(True)
            return []

    def changing() -> bool:
        raise RuntimeError("dictionary changed size during iteration")

    came: list[bool] = []
    line: Any = Line()
    pump = Pump(line, flush=lambda: None, unsent=lambda: False, fail=lambda error: None)
    asleep = threading.Lock()
    asleep.acquire()
    pump._standby[1] = (changing, asleep)
    assert pump.drive(lambda: bool(came), None)
    assert not asleep.locked()


def test_two_threads_that_wait_at_once_both_look_at_their_own_deadline() -> None:
    """The second one asks for the line while the first one has it, and is not yet known to have it."""
    at_the_lock, woken = threading.Event(), threading.Event()

    class Lock:
        def __init__(self) -> None:
            self.real = threading.Lock()

        def __enter__(self) -> None:
            if threading.current_thread() is second:
                at_the_lock.set()
            self.real.acquire()
            if threading.current_thread() is first:
                second.start()
                assert at_the_lock.wait(WAIT_SECONDS)

        def __exit__(self, *_: object) -> None:
            self.real.release()

        def locked(self) -> bool:
            return self.real.locked()

    class Line:
        lost = None
        lock = Lock()
        wake = woken.set

        def turn(self, timeout_ms: int) -> list[int]:
            woken.wait(WAIT_SECONDS if timeout_ms < 0 else timeout_ms / 1000)
            woken.clear()
            return []

    line: Any = Line()
    pump = Pump(line, flush=lambda: None, unsent=lambda: False, fail=lambda error: None)
    over: list[str] = []
    first = threading.Thread(target=lambda: pump.drive(lambda: bool(over), None))

    def look() -> None:
        pump.drive(lambda: False, monotonic() + 0.01)
        over.append("")

    second = threading.Thread(target=look)
    first.start()
    assert at_the_lock.wait(WAIT_SECONDS)
    second.join(WAIT_SECONDS / 2)
    late = second.is_alive()
    over.append("")
    woken.set()
    first.join(WAIT_SECONDS)
    second.join(WAIT_SECONDS)
    assert not late


# --- signal handlers


@pytest.fixture
def interrupted() -> Iterator[Callable[[flm.Client, Callable[[], Any]], None]]:
    """Has a signal handler do something while the main thread is in a client's wait."""
    before = signal.getsignal(signal.SIGUSR1)
    me = threading.get_ident()

    def prepare(client: flm.Client, deed: Callable[[], Any]) -> None:
        def nag() -> None:
            until(lambda: client._pump._driver == me)
            signal.pthread_kill(me, signal.SIGUSR1)

        signal.signal(signal.SIGUSR1, lambda *_: deed())
        threading.Thread(target=nag).start()

    yield prepare
    signal.signal(signal.SIGUSR1, before)


def test_a_signal_handler_may_close_the_client_that_waits(interrupted: Any) -> None:
    client = flm.Client(executors=1)
    future = client.submit(sleep, 60)
    interrupted(client, client.close)
    with pytest.raises(cf.CancelledError):
        future.result(WAIT_SECONDS)
    assert client._line._socket is None


def test_a_signal_handler_may_submit_but_not_wait(interrupted: Any, tmp_path: Path) -> None:
    with flm.Client(executors=2) as client:
        seen: list[Any] = []

        def handle() -> None:
            seen.append(client.submit(abs, -7))
            with pytest.raises(flm.FlameError, match="signal handler"):
                seen[0].result()
            (tmp_path / "go").touch()

        waiting = client.submit(wait_for_file, tmp_path / "go")
        interrupted(client, handle)
        waiting.result(WAIT_SECONDS)
        assert seen[0].result(WAIT_SECONDS) == 7


# --- what must not pile up


def test_functions_that_come_and_go_are_forgotten(
    client: flm.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functions, "MAX_FUNCTIONS", 20)
    monkeypatch.setattr(functions, "MAX_IDLE_NAMES", 10)
    with client.session() as session:
        kept = session.submit(lambda: "the first one").result(WAIT_SECONDS)
        made = [eval(f"lambda: {number}") for number in range(200)]
        assert [session.submit(one).result(WAIT_SECONDS) for one in made] == list(range(200))
        assert len(session._calls.shipped) < 50
        assert session.submit(made[0]).result(WAIT_SECONDS) == 0
        assert kept == "the first one"


def test_of_a_cancel_nothing_stays_behind(client: flm.Client, tmp_path: Path) -> None:
    with client.session() as session:
        future = session.submit(wait_for_file, tmp_path / "go")
        until(future.running)
        assert not future.cancel()
        (tmp_path / "go").touch()
    assert not client._cancels


def test_a_session_whose_close_was_interrupted_can_be_closed(
    client: flm.Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    session = client.session()
    future = session.submit(wait_for_file, tmp_path / "go")

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(session, "_wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            session.close()
    session.close(cancel=True)
    assert future.cancelled()
    with pytest.raises(flm.ClientClosed):
        session.submit(abs, -1)
    (tmp_path / "go").touch()
