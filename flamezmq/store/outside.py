"""Reading objects from a process that is on no node of its cluster: by ZeroMQ, chunk by chunk."""

from __future__ import annotations

import threading
import zlib
from typing import Any

import zmq

from flamezmq.errors import ObjectLost, ProtocolError
from flamezmq.store.courier import KNOCK_SECONDS, MOST_REPEATS, SILENCE_SECONDS, WINDOW
from flamezmq.store.knocking import Knock
from flamezmq.store.layout import cut, extent
from flamezmq.wire import transfer as t
from flamezmq.wire.handles import Handle

#: A wait is so long at most, so that Ctrl-C is heard.
WAIT_MILLISECONDS = 200

_lock = threading.Lock()
_context: zmq.Context[Any] | None = None


def fetch(handle: Handle) -> list[memoryview]:
    """The pieces of an object, in memory of this process.

    Raises:
        ObjectLost: it can't be had, and why.
    """
    size = extent(handle.sizes)
    memory = memoryview(bytearray(size))
    socket = _shared_context().socket(zmq.DEALER)
    knock = Knock(handle.at)
    try:
        socket.linger = 0
        socket.connect(handle.at)
        _fill(socket, knock, handle, memory)
    finally:
        socket.close(0)
        knock.close()
    return cut(memory, handle.sizes)


def _fill(socket: zmq.Socket[bytes], knock: Knock, handle: Handle, memory: memoryview) -> None:
    size, asked = len(memory), 0
    missing: dict[int, int] = {}
    silent = 0.0

    def ask(offset: int) -> None:
        missing[offset] = missing.get(offset, 0) + 1
        socket.send(t.encode(t.Want(handle.id, offset, min(t.CHUNK_BYTES, size - offset))))

    while missing or asked < size:
        while asked < size and len(missing) < WINDOW:
            ask(asked)
            asked += t.CHUNK_BYTES
        if not socket.poll(WAIT_MILLISECONDS):
            silent += WAIT_MILLISECONDS / 1000
            if silent >= KNOCK_SECONDS and knock.refused():
                why = f"nobody listens at {handle.at} any more"
                raise ObjectLost(handle.id.hex(), handle.size, why, handle.node)
            if silent >= SILENCE_SECONDS:
                why = f"its store, at {handle.at}, does not answer"
                raise ObjectLost(handle.id.hex(), handle.size, why, handle.node)
            continue
        silent = 0.0
        frames = socket.recv_multipart()
        answer = t.decode_answer(frames[0])
        if isinstance(answer, t.Missing):
            raise ObjectLost(handle.id.hex(), handle.size)
        if len(frames) != 2 or answer.offset not in missing:
            raise ProtocolError("a store has answered what was not asked")
        data = frames[1]
        if len(data) == min(t.CHUNK_BYTES, size - answer.offset) and zlib.crc32(data) == answer.check:
            memory[answer.offset : answer.offset + len(data)] = data
            del missing[answer.offset]
        elif missing[answer.offset] >= MOST_REPEATS:
            raise ObjectLost(handle.id.hex(), handle.size, "it came damaged, again and again")
        else:
            ask(answer.offset)


def _shared_context() -> zmq.Context[Any]:
    global _context
    with _lock:
        if _context is None or _context.closed:
            _context = zmq.Context()
        return _context
