"""Versions of objects whose home is on another node: asked for, and made, by ZeroMQ."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

import zmq

from flamezmq.errors import ObjectLost, ProtocolError, StoreFull
from flamezmq.store import gateway, outside
from flamezmq.store import messages as s
from flamezmq.store.courier import Line
from flamezmq.wire import amendments as a
from flamezmq.wire import transfer as t
from flamezmq.wire.handles import Handle

#: A home that says nothing for so long is given up; before that it is asked again, for an answer may be lost.
SILENCE_SECONDS = 10.0
AGAIN_SECONDS = 2.5
#: How often a connection that was cut is made anew.
MOST_DIALS = 2

_requests = itertools.count(1)


def since(handle: Handle, after: int) -> a.Parts:
    """As of `Access.since`.  Raises ObjectLost: the home does not answer."""
    answer = _ask(handle, a.Since(handle.id, after))
    assert isinstance(answer, a.Parts)
    return answer


def amend(handle: Handle, session: str, amend: a.Amend, pieces: Sequence[Any]) -> a.Amended:
    """As of `Access.amend`.

    session: whose the object is

    Raises:
        ObjectLost: the home does not answer; whether the version was made is not known then.
        StoreFull: it has no room for the part.
    """
    if sum(amend.sizes) < s.INLINE_BYTES:
        amend.data = b"".join(pieces)
    elif not _bring(handle, t.Offer(amend.part, session, amend.sizes), pieces):
        since(handle, 0)  # which says so, if the home is gone
        raise StoreFull(sum(amend.sizes), 0, f"the object's home, at {handle.at}, does not take it in")
    answer = _ask(handle, amend)
    assert isinstance(answer, a.Amended)
    return answer


def _bring(handle: Handle, offer: t.Offer, pieces: Sequence[Any]) -> bool:
    try:
        return gateway.bring(handle.at, offer, pieces)
    except gateway.Refused:
        return False


def _ask(handle: Handle, question: a.Question) -> a.Answer:
    question.request = next(_requests)
    end = monotonic() + SILENCE_SECONDS
    why = "does not answer"
    for _ in range(MOST_DIALS):
        line = gateway.take(handle.at)
        try:
            answer = _hear(line, question, end)
        except BaseException:  # an answer may be on its way
            line.close()
            raise
        if answer is not None:
            gateway.give(line)
            return answer
        why = line.fault() or why
        line.close()
        if monotonic() > end:
            break
    raise ObjectLost(handle.id.hex(), handle.size, f"its home, at {handle.at}, {why}", handle.node or "?")


def _hear(line: Line, question: a.Question, end: float) -> a.Answer | None:
    """The answer; None: there is none."""
    again = 0.0
    while (now := monotonic()) < end:
        if now > again:
            with suppress(zmq.Again):
                line.socket.send(t.encode(question), zmq.DONTWAIT)
            again = now + AGAIN_SECONDS
        if line.socket.poll(outside.WAIT_MILLISECONDS):
            try:
                answer = t.decode_answer(line.socket.recv_multipart()[0])
            except ProtocolError:
                return None
            if isinstance(answer, a.Parts | a.Amended) and answer.request == question.request:
                return answer
        elif line.fault():
            return None
    return None
