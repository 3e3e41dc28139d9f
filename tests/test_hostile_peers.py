"""Whatever a peer sends to the router: it is answered or dropped, and the others are served on."""

from __future__ import annotations

import itertools
import math
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
import zmq
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import flamezmq as flm
from flamezmq.serialize.values import dump_value
from flamezmq.wire import codec
from flamezmq.wire import messages as m
from tests import hostile
from tests.hostile import Intruder, messages, sealed

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[1]
#: For what takes a moment; the machine may be busy.
WAIT_SECONDS = 20.0
FROM = {
    "client": messages(
        m.Open, m.Submit, m.Cancel, m.Close, m.Query, m.Supply, m.Ask, m.CloseSession, m.CancelTask, m.Pull
    ),
    "executor": messages(  # Ready: see the tests of executors
        m.RoutedResults, m.RoutedPart, m.Begun, m.Retracted, m.Retry, m.Interrupted
    ),
    "worker": messages(m.Register, m.Died, m.Printed),
}
ROUTER = """
import sys
from flamezmq.router import main
main(sys.argv[1], lambda: print("up", flush=True))
"""

many = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # the first failure may be a hang: once is enough
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


class Victim:
    """A router in a process of its own; `client` is served by it, `executor` serves the client."""

    def __init__(self, address: str) -> None:
        program = [sys.executable, "-c", ROUTER, address]
        self.process = subprocess.Popen(
            program, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"up\n"
        self.address = address
        self.context: zmq.Context[Any] = zmq.Context()
        self.client = flm.Client(address)

    def intruder(self) -> Intruder:
        return Intruder(self.context, self.address)

    def close(self) -> None:
        try:
            self.client.close()
            self.context.destroy(0)
        finally:
            assert self.process.stdout is not None
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()

    def serves(self) -> None:
        """The client is served: a session opens, is counted, closes."""
        with self.client.session() as session:
            assert session.status().pending == 0


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    one = Victim(f"ipc://{tmp_path_factory.mktemp('r')}/s")
    yield one
    one.close()


@pytest.fixture(autouse=True)
def router_lives(victim: Victim) -> Iterator[None]:
    yield
    victim.serves()
    assert victim.process.poll() is None


# --- strangers


@many
@given(st.lists(hostile.garbage | hostile.envelopes.map(lambda frame: [frame]), min_size=1, max_size=4))
def test_a_strangers_garbage_harms_nobody(victim: Victim, said: list[list[bytes]]) -> None:
    with victim.intruder() as intruder:
        for frames in said:
            intruder.send(*frames)
        intruder.ask_for_life()
    victim.serves()


def test_a_connection_that_is_no_zeromq_is_dropped(victim: Victim) -> None:
    import socket

    for said in (
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        os.urandom(4096),
        b"\xff" + bytes(8) + b"\x7f\x03" + bytes(60),
    ):
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(victim.address.removeprefix("ipc://"))
            raw.sendall(said)
        victim.serves()


def test_who_has_not_said_hello_is_asked_to(victim: Victim) -> None:
    with victim.intruder() as intruder:
        intruder.say(m.Query(1, 0))
        assert intruder.hear() == (codec.STRANGER, b"")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"protocol": 7, "version": "9.9"}, ["protocol 7", f"protocol {m.PROTOCOL}", "9.9", flm.__version__]),
        ({"python": "3.3"}, ["Python 3.3", f"Python {hostile.PYTHON}"]),
        ({"role": "king"}, ["king"]),
        ({"link": b"x" * 16}, ["does not know you"]),
        ({"received": 5}, ["never sent"]),
        ({"received": -1}, ["never sent"]),
    ],
)
def test_a_hello_that_does_not_fit_is_refused_with_a_sentence(
    victim: Victim, changed: dict[str, Any], words: list[str]
) -> None:
    with victim.intruder() as intruder:
        intruder.send(sealed(codec.HELLO, hostile.hello(**{"role": "client", **changed})))
        reason = intruder.refusal()
        assert all(word in reason for word in words), reason
        intruder.say(m.Query(1, 0))
        assert intruder.hear() == (codec.STRANGER, b""), "who was refused is a stranger"


def test_another_protocol_in_the_envelope_is_refused_with_both_numbers(victim: Victim) -> None:
    with victim.intruder() as intruder:
        intruder.enter("client")
        intruder.send(codec.ENVELOPE.pack(codec.DATA, 9, 1, 1, 0) + b"\x92\x04\x01")
        reason = intruder.refusal()
        assert "protocol 9" in reason
        assert f"protocol {m.PROTOCOL}" in reason


def test_a_refusal_is_a_sentence_however_long_the_complaint(victim: Victim) -> None:
    with victim.intruder() as intruder:
        intruder.send(sealed(codec.HELLO, hostile.hello("x" * 1_000_000)))
        assert len(intruder.refusal()) < 500


# --- peers of each role


@pytest.mark.parametrize("role", list(FROM))
def test_what_a_peer_says_wrongly_harms_nobody(victim: Victim, role: str) -> None:
    others = st.one_of([messages for name, messages in FROM.items() if name != role])
    bodies = st.one_of(
        FROM[role].map(msgspec.msgpack.encode),
        hostile.torn(FROM[role]),
        others.map(msgspec.msgpack.encode),
        hostile.foreign,
    )

    @many
    @given(st.lists(st.tuples(bodies, st.lists(st.binary(max_size=8), max_size=2)), min_size=1, max_size=6))
    def whatever_it_says(said: list[tuple[bytes, list[bytes]]]) -> None:
        with victim.intruder() as intruder:
            intruder.enter(role)
            if role == "client":
                intruder.say(m.Open(1, "one", m.SessionSpec("one")))
            for body, frames in said:
                intruder.say(body, *frames)
            if intruder.ask_for_life() == codec.PONG:
                intruder.send(sealed(codec.BYE))
        victim.serves()

    whatever_it_says()


@many
@given(st.lists(hostile.envelopes, min_size=1, max_size=5))
def test_envelopes_that_do_not_fit_their_link_harm_nobody(victim: Victim, said: list[bytes]) -> None:
    with victim.intruder() as intruder:
        intruder.enter("client")
        intruder.say(m.Open(1, "one", m.SessionSpec("one")))
        for frame in said:
            intruder.send(frame)
            intruder.say(m.Query(1, 0))
        intruder.ask_for_life()
        intruder.send(sealed(codec.BYE))
    victim.serves()


def test_an_acknowledgement_of_what_was_never_sent_is_no_harm(victim: Victim) -> None:
    with victim.intruder() as intruder:
        intruder.enter("client")
        intruder.send(sealed(codec.ACK, ack=2**60))
        intruder.say(m.Open(1, "one", m.SessionSpec("one")))
        assert intruder.expect(codec.DATA, codec.REFUSE)[0] == codec.DATA


def test_hello_again_and_again_leaves_one_peer(victim: Victim) -> None:
    """A connection has one link: the next one takes its place."""
    before = memory(victim)
    with victim.intruder() as intruder:
        tokens = {intruder.enter("client").link for _ in range(5)}
        assert len(tokens) == 5
        for token in list(tokens):
            intruder.send(sealed(codec.HELLO, hostile.hello("client", link=token), epoch=9))
        answers = sorted(intruder.expect(codec.WELCOME, codec.REFUSE)[0] for _ in tokens)
        assert answers.count(codec.REFUSE) >= 4, "the older ones are forgotten"
        for _ in range(20_000):
            intruder.send(sealed(codec.HELLO, hostile.hello("client")))
        intruder.ask_for_life()
    assert memory(victim) - before < 30 << 20


def test_a_frame_that_is_too_large_cuts_its_sender_only(victim: Victim) -> None:
    """It is judged by the length that it announces; nothing of it is taken in."""
    before = memory(victim)
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(WAIT_SECONDS)
        raw.connect(victim.address.removeprefix("ipc://"))
        raw.sendall(hostile.GREETING + hostile.zmtp_ready("DEALER") + hostile.LARGE + bytes(1000))
        while raw.recv(1 << 16):
            pass
    victim.serves()
    assert memory(victim) - before < 64 << 20


def memory(victim: Victim) -> int:
    return int(psutil.Process(victim.process.pid).memory_info().rss)


# --- executors, which are given tasks


_numbers = itertools.count(1)


def an_executor(intruder: Intruder) -> int:
    """Introduce it; returns its number."""
    number = next(_numbers)
    intruder.enter("executor")
    intruder.say(m.Ready("node", "token", number, 1))
    return number


def granted(intruder: Intruder) -> m.Grant:
    while True:
        _, body = intruder.expect(codec.DATA)
        message = msgspec.msgpack.decode(body, type=m.ToExecutor)
        if isinstance(message, m.Grant):
            return message


def serve_one(intruder: Intruder, value: object) -> None:
    """Answer a grant of one task, as an executor does."""
    grant = granted(intruder)
    output = dump_value(value)
    assert isinstance(output, bytes)
    intruder.say(m.Results(grant.session, grant.slices, [], [1.0], [], [output]))


wild = st.sampled_from([0, 1, 2, -1, 2**62, 2**63, -(2**63)])
any_slice = st.builds(m.Slice, wild, wild, wild, st.sampled_from([0, 1, 2]))
# Task 0 at attempt 1 is the one that it holds.
no_result = any_slice.filter(lambda part: (part.first, part.count, part.attempt) != (0, 1, 1))
no_answer = any_slice.filter(lambda part: (part.first, part.count) != (0, 1))
wrong_results = st.builds(
    m.Results,
    st.just(0),
    st.lists(no_result, max_size=3),
    st.lists(wild, max_size=2),
    st.lists(st.floats() | st.floats(0, 1), max_size=3),
    st.lists(wild, max_size=3),
    st.lists(st.binary(max_size=8), max_size=3),
)
wrong_answers = st.builds(m.Retracted, st.just(0), st.lists(no_answer, max_size=3))


@many
@given(st.lists(wrong_results | wrong_answers, max_size=3), st.booleans())
def test_an_executor_that_answers_wrongly_is_replaced_by_one_that_does_not(
    victim: Victim, said: list[Any], asked: bool
) -> None:
    with victim.client.session() as session:
        future = session.submit(abs, -1)
        with victim.intruder() as bad:
            an_executor(bad)
            number = granted(bad).session
            if asked:  # then it has something to answer
                victim.client._tell(m.Cancel(session._calls.alias, [0]))
                bad.expect(codec.DATA)
            for message in said:
                message.session = number
                bad.say(message)
            if bad.ask_for_life() == codec.PONG:
                bad.send(sealed(codec.BYE))
        if asked:  # nobody has the task any more; the first call may meet the answer to what was asked above
            assert future.cancel() or future.cancel()
            return
        with victim.intruder() as good:
            an_executor(good)
            serve_one(good, 41)
            assert future.result(WAIT_SECONDS) == 41
            good.send(sealed(codec.BYE))


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0])
def test_a_run_time_that_is_none_is_refused(victim: Victim, seconds: float) -> None:
    with victim.client.session() as session, victim.intruder() as bad:
        future = session.submit(abs, -1)
        an_executor(bad)
        grant = granted(bad)
        bad.say(m.Results(grant.session, grant.slices, [], [seconds], [], [b""]))
        assert "0" in bad.refusal()
        with victim.intruder() as good:
            an_executor(good)
            serve_one(good, 5)
            assert future.result(WAIT_SECONDS) == 5
            good.send(sealed(codec.BYE))


def test_no_two_executors_have_one_name(victim: Victim) -> None:
    with victim.intruder() as first, victim.intruder() as second:
        number = an_executor(first)
        assert first.ask_for_life() == codec.PONG
        second.enter("executor")
        second.say(m.Ready("node", "token", number, 1))
        assert "is here already" in second.refusal()
        first.send(sealed(codec.BYE))
