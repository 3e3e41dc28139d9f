"""The codec: messages survive the wire, and what is no message is a ProtocolError, nothing else."""

from __future__ import annotations

import contextlib
import types
import typing
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flamezmq.errors import ProtocolError
from flamezmq.wire import codec
from flamezmq.wire import messages as m

DIALECTS = {
    "client": m.FromClient,
    "executor": m.FromExecutor,
    "worker": m.FromWorker,
    "to client": m.ToClient,
    "to executor": m.ToExecutor,
    "to worker": m.ToWorker,
}
PAIRS = [(dialect, kind) for dialect, kinds in DIALECTS.items() for kind in typing.get_args(kinds)]

numbers = st.integers(-(2**63), 2**63 - 1)
payloads = st.lists(st.binary(max_size=9) | st.lists(st.binary(max_size=5), min_size=2, max_size=4))


def messages(kind: Any) -> st.SearchStrategy[Any]:
    """Any message of this kind that the wire lets pass; the outputs of a routed one are a column."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return st.builds(kind, **{name: values(hint) for name, hint in hints.items()})


def values(hint: Any) -> st.SearchStrategy[Any]:
    if typing.get_origin(hint) is typing.Annotated:
        (meta,) = hint.__metadata__
        if hint.__origin__ is str:
            return st.text(min_size=meta.min_length, max_size=9)
        least, most = meta.ge if meta.gt is None else meta.gt, meta.le
        if hint.__origin__ is int:
            return st.integers(least, most)
        return st.floats(least, most, exclude_min=meta.gt is not None)
    if hint is msgspec.Raw:
        return st.lists(st.binary(max_size=9), max_size=4).map(
            lambda column: msgspec.Raw(msgspec.msgpack.encode(column))
        )
    if hint is int:
        return numbers
    if hint is float:
        return st.floats(allow_nan=False)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):  # Annotated | None is the second
        return st.one_of(
            [st.none() if kind is type(None) else values(kind) for kind in typing.get_args(hint)]
        )
    if typing.get_origin(hint) is list:
        return st.lists(values(typing.get_args(hint)[0]), max_size=4)
    if typing.get_origin(hint) is tuple:
        return st.lists(values(typing.get_args(hint)[0]), max_size=4).map(tuple)
    if typing.get_origin(hint) is dict:
        key, value = map(values, typing.get_args(hint))
        return st.dictionaries(key, value, max_size=3)
    if hint is Any:
        return st.recursive(st.none() | st.booleans() | st.text(max_size=5), st.lists, max_leaves=3)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return messages(hint)
    return st.from_type(hint)


def frame_of(message: Any) -> bytes:
    frame = codec.encode(message)
    codec.seal(frame, codec.DATA, 7, 8, 9)
    return bytes(frame)


@pytest.mark.parametrize(("dialect", "kind"), PAIRS, ids=lambda value: getattr(value, "__name__", value))
@settings(max_examples=20)
@given(data=st.data())
def test_every_message_comes_out_as_it_went_in(dialect: str, kind: Any, data: Any) -> None:
    message = data.draw(messages(kind))
    frame = frame_of(message)

    assert codec.open_envelope(frame) == (codec.DATA, 7, 8, 9)
    back = codec.decode(dialect, frame)
    assert codec.encode(back) == codec.encode(message)
    assert type(back) is kind
    assert codec.decoder(dialect)(frame).__class__ is kind


@pytest.mark.parametrize("kind", [m.Hello, m.Welcome, m.Refuse])
@given(data=st.data())
def test_the_handshake_comes_out_as_it_went_in(kind: Any, data: Any) -> None:
    message = data.draw(messages(kind))
    decode = {m.Hello: codec.decode_hello, m.Welcome: codec.decode_welcome, m.Refuse: codec.decode_refuse}

    assert decode[kind](codec.encode(message)) == message


@given(message=st.one_of([messages(kind) for _, kind in PAIRS]), cut=st.integers(0, 200))
def test_a_truncated_message_is_a_protocol_error(message: Any, cut: int) -> None:
    frame = frame_of(message)[: codec.SIZE + cut]
    for dialect in DIALECTS:
        try:
            codec.decode(dialect, frame)
        except ProtocolError:
            continue
        tags = [kind.__struct_config__.tag for d, kind in PAIRS if d == dialect]
        assert message.__struct_config__.tag in tags, "read by whom it was not for"


@given(body=st.binary(max_size=300), dialect=st.sampled_from(list(DIALECTS)))
def test_garbage_is_a_protocol_error_or_by_chance_a_message(body: bytes, dialect: str) -> None:
    frame = codec.signal(codec.DATA, 1) + body
    for decode in (codec.decoder(dialect), codec.decode_hello, codec.decode_welcome, codec.decode_refuse):
        with contextlib.suppress(ProtocolError):  # another error fails the test
            decode(frame)


@given(st.binary(max_size=60))
def test_an_envelope_is_read_or_refused(frame: bytes) -> None:
    try:
        kind, epoch, seq, ack = codec.open_envelope(frame)
    except ProtocolError:
        assert len(frame) < codec.SIZE or frame[1] != m.PROTOCOL
        return
    assert frame[: codec.SIZE] == codec.ENVELOPE.pack(kind, frame[1], epoch, seq, ack)


def test_deep_nesting_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        codec.decode("client", codec.signal(codec.DATA, 1) + b"\x91" * 100_000)


@pytest.mark.parametrize("kind", [codec.DATA, codec.WELCOME, codec.ACK, codec.PING, codec.STRANGER])
def test_another_protocol_is_named_except_where_both_must_say_what_they_are(kind: int) -> None:
    def envelope(kind: int) -> bytes:
        return codec.ENVELOPE.pack(kind, m.PROTOCOL + 1, 1, 2, 3)

    with pytest.raises(ProtocolError, match=f"protocol {m.PROTOCOL + 1}; this is protocol {m.PROTOCOL}"):
        codec.open_envelope(envelope(kind))
    assert codec.open_envelope(envelope(codec.HELLO)) == (codec.HELLO, 1, 2, 3)
    assert codec.open_envelope(envelope(codec.REFUSE)) == (codec.REFUSE, 1, 2, 3)


@given(payloads)
def test_payloads_with_buffers_come_out_as_they_went_in(before: list[Any]) -> None:
    column, parts, frames = codec.join_payloads(before)

    assert len(column) == len(before)
    assert codec.split_payloads(column, parts, frames) == before


@given(
    st.lists(st.binary(max_size=3), max_size=4),
    st.lists(st.integers(-2, 5), max_size=6),
    st.lists(st.binary(max_size=3), max_size=5),
)
def test_parts_that_do_not_fit_are_refused_and_no_frame_is_lost(
    column: list[bytes], parts: list[int], frames: list[bytes]
) -> None:
    try:
        payloads = codec.split_payloads(column, parts, frames)
    except ProtocolError:
        return
    again = codec.join_payloads(payloads)
    assert (again[0], again[1], again[2]) == (column, parts, frames)


@pytest.mark.parametrize(
    ("column", "parts", "frames"),
    [
        ([b"a"], [], [b"x"]),
        ([b"a"], [0], [b"x"]),
        ([b"a"], [0, 1], []),
        ([b"a"], [0, 1], [b"x", b"y"]),
        ([b"a"], [0, 0], []),
        ([b"a"], [1, 1], [b"x"]),
        ([b"a"], [-1, 1], [b"x"]),
        ([b"a", b"b"], [1, 1, 0, 1], [b"x", b"y"]),
        ([b"a"], [0, 1, 0, 1], [b"x", b"y"]),
    ],
)
def test_each_way_not_to_fit_is_refused(column: list[bytes], parts: list[int], frames: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        codec.split_payloads(column, parts, frames)
