"""What simulated payloads hold: text, of which the parts between "#" say what kind of task it is."""

from __future__ import annotations

from typing import Any

from flamezmq.wire.composed import decompose, is_composed


def head(payload: Any) -> bytes:
    """The pickle of a payload, without its buffers; of a composed one that of its call."""
    if is_composed(payload):
        payload = decompose(payload)[0]
    return bytes(payload[0]) if type(payload) is list else payload


def is_stream(payload: Any) -> bool:
    return b"#stream:" in head(payload)


def stream_terms(payload: Any) -> tuple[int, bool]:
    """How many values a stream has, and whether it may be replayed: "#stream:COUNT:REPLAY" at the end."""
    count, replay = head(payload).rpartition(b"#stream:")[2].split(b":")
    return int(count), replay == b"1"
