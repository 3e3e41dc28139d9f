"""Peers that do not keep to the protocol, and what they may send: for the tests of both sides."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import zmq
from hypothesis import strategies as st

from flamezmq.wire import codec
from flamezmq.wire import messages as m

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
#: What a peer gets to answer in; the machine may be busy.
ANSWER_MS = 5000


def hello(role: str, **changed: Any) -> m.Hello:
    return msgspec.structs.replace(m.Hello(m.PROTOCOL, "0", PYTHON, role), **changed)


def sealed(kind: int, body: Any = None, epoch: int = 1, seq: int = 0, ack: int = 0) -> bytes:
    """A first frame; `body` is a message, or bytes that pass for one."""
    envelope = codec.signal(kind, epoch, seq, ack)
    if body is None:
        return envelope
    return envelope + (body if isinstance(body, bytes) else msgspec.msgpack.encode(body))


#: What ZeroMQ says before the first frame, and the head of a frame of a tebibyte.
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + b"\x00" + bytes(31)
LARGE = b"\x02" + (1 << 40).to_bytes(8, "big")


def zmtp_ready(kind: str) -> bytes:
    """The other half of ZeroMQ's handshake, for a socket of this kind."""
    body = b"\x05READY\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind.encode()
    return b"\x04" + len(body).to_bytes(1, "big") + body


class Intruder:
    """One DEALER socket, spoken by hand."""

    def __init__(self, context: zmq.Context[Any], address: str) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.set_hwm(0)
        self.socket.linger = 200  # what was sent must arrive
        self.socket.connect(address)
        self.sent = self.received = 0

    def __enter__(self) -> Intruder:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *frames: bytes) -> None:
        self.socket.send_multipart(frames)

    def say(self, body: Any, *frames: bytes) -> None:
        """DATA, with the next number."""
        self.sent += 1
        self.send(sealed(codec.DATA, body, seq=self.sent, ack=self.received), *frames)

    def hear(self, timeout_ms: int = ANSWER_MS) -> tuple[int, bytes] | None:
        """(kind, body) of the next message, None if none comes."""
        if not self.socket.poll(timeout_ms):
            return None
        frame, *_ = self.socket.recv_multipart()
        kind, _, seq, _ = codec.open_envelope(frame)
        self.received = max(self.received, seq)
        return kind, frame[codec.SIZE :]

    def enter(self, role: str, **changed: Any) -> m.Welcome:
        """Say HELLO as everybody does."""
        self.send(sealed(codec.HELLO, hello(role, **changed)))
        _, body = self.expect(codec.WELCOME)
        return msgspec.msgpack.decode(body, type=m.Welcome)

    def expect(self, *kinds: int) -> tuple[int, bytes]:
        """The next message of one of these kinds; others are passed over."""
        while (heard := self.hear()) is not None:
            if heard[0] in kinds:
                return heard
            assert heard[0] != codec.REFUSE, heard
        raise AssertionError(f"none of {kinds} came")

    def refusal(self) -> str:
        _, body = self.expect(codec.REFUSE)
        return msgspec.msgpack.decode(body, type=m.Refuse).reason

    def ask_for_life(self) -> int:
        """PING; the kind of the answer shows that all before it was taken in."""
        self.send(sealed(codec.PING))
        return self.expect(codec.PONG, codec.STRANGER, codec.REFUSE)[0]


class Impostor:
    """A ROUTER socket, spoken by hand, with one dialler."""

    TOKEN = b"t" * 16

    def __init__(self, context: zmq.Context[Any], address: str) -> None:
        self.socket = context.socket(zmq.ROUTER)
        self.socket.set_hwm(0)
        self.socket.linger = 0
        self.socket.bind(address)
        self.peer = b""
        self.epoch = self.sent = self.received = 0

    def __enter__(self) -> Impostor:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def hear(self, timeout_ms: int = ANSWER_MS) -> tuple[int, bytes] | None:
        """(kind, body) of the next message, None if none comes."""
        if not self.socket.poll(timeout_ms):
            return None
        self.peer, frame, *_ = self.socket.recv_multipart()
        kind, epoch, seq, _ = codec.open_envelope(frame)
        if kind == codec.HELLO:
            self.epoch = epoch
        self.received = max(self.received, seq)
        return kind, frame[codec.SIZE :]

    def send(self, *frames: bytes) -> None:
        self.socket.send_multipart([self.peer, *frames])

    def say(self, body: Any, *frames: bytes) -> None:
        """DATA, with the next number."""
        self.sent += 1
        self.send(sealed(codec.DATA, body, self.epoch, self.sent, self.received), *frames)

    def welcome(self, **changed: Any) -> None:
        """Answer a HELLO as a router does."""
        welcome = m.Welcome(self.TOKEN, self.received, 1000, 1 << 20)
        self.send(sealed(codec.WELCOME, msgspec.structs.replace(welcome, **changed), self.epoch))


# --- what they send

whole_numbers = st.one_of(st.integers(-2, 5), st.integers(-(2**63), 2**64 - 1))
texts = st.text(max_size=5)
_plain: dict[Any, Any] = {
    int: whole_numbers,
    float: st.floats(),
    bool: st.booleans(),
    str: texts,
    bytes: st.binary(max_size=8),
}


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Of the right type and of any size: what the codec lets in, and the broker must judge."""
    if kind in _plain:
        return _plain[kind]
    if kind is msgspec.Raw:
        return st.lists(st.binary(max_size=8), max_size=3).map(
            lambda column: msgspec.Raw(msgspec.msgpack.encode(column))
        )
    info = msgspec.inspect.type_info(kind)
    if isinstance(info, msgspec.inspect.StructType):
        hints = {field.name: field.type for field in info.fields}
        return st.builds(kind, **{name: _of(hint) for name, hint in hints.items()})
    return _of(info)


def _of(info: Any) -> st.SearchStrategy[Any]:
    inspect = msgspec.inspect
    if isinstance(info, inspect.StructType):
        return values(info.cls)
    if isinstance(info, (inspect.ListType, inspect.VarTupleType)):
        kind: Any = tuple if isinstance(info, inspect.VarTupleType) else list
        return st.lists(_of(info.item_type), max_size=4).map(kind)
    simple: dict[Any, Any] = {
        inspect.IntType: int,
        inspect.FloatType: float,
        inspect.BoolType: bool,
        inspect.StrType: str,
        inspect.BytesType: bytes,
    }
    return values(simple.get(type(info), msgspec.Raw))


def messages(*kinds: type) -> st.SearchStrategy[Any]:
    return st.sampled_from(kinds).flatmap(values)  # its repr is short, however many there are


def torn(bodies: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """Messages that were cut off, or have some bytes that are not theirs."""

    def tear(encoded: bytes, at: int, patch: bytes, cut: bool) -> bytes:
        at %= len(encoded) + 1
        return encoded[:at] + patch + (b"" if cut else encoded[at + len(patch) :])

    encoded = bodies.map(msgspec.msgpack.encode)
    return st.builds(tear, encoded, st.integers(0, 2000), st.binary(max_size=3), st.booleans())


_scalars = st.none() | st.booleans() | whole_numbers | st.floats() | texts | st.binary(max_size=8)
#: msgpack that is no message.
foreign = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
).map(msgspec.msgpack.encode)

garbage = st.lists(st.binary(max_size=64), min_size=1, max_size=3)
envelopes = st.builds(
    lambda kind, protocol, epoch, seq, ack, body: codec.ENVELOPE.pack(kind, protocol, epoch, seq, ack) + body,
    st.integers(0, 10) | st.integers(0, 255),
    st.sampled_from([m.PROTOCOL, m.PROTOCOL, 0, 2, 255]),
    st.integers(0, 3) | st.integers(0, 2**32 - 1),
    st.integers(0, 3) | st.integers(0, 2**64 - 1),
    st.integers(0, 3) | st.integers(0, 2**64 - 1),
    st.binary(max_size=16) | foreign | torn(st.just(hello("client"))),
)
