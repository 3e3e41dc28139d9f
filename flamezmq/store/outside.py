"""Reading objects from a process that is on no node of its cluster: by ZeroMQ, chunk by chunk."""

from __future__ import annotations

import os
from typing import Any

import zmq

from flamezmq.errors import ObjectLost
from flamezmq.store import mapping, segments
from flamezmq.store.courier import Courier
from flamezmq.store.layout import cut, extent
from flamezmq.wire.handles import Handle

#: A wait is so long at most, so that Ctrl-C is heard, and silence is noticed.
WAIT_MILLISECONDS = 200

_context: zmq.Context[Any] | None = None
_pid = 0


def fetch(handle: Handle) -> list[memoryview]:
    """The pieces of an object, in memory of this process.

    Raises:
        ObjectLost: it can't be had, and why.
    """
    size = extent(handle.sizes)
    ends: list[tuple[str, bool]] = []
    fd = segments.create(size)
    courier = Courier(context(), "", lambda name, why_not, lost: ends.append((why_not, lost)), keeps=False)
    try:
        courier.fetch(handle.id, handle.at, mapping.Target(fd, size, is_fresh=True), size)
        while not ends:
            _wait(courier)
        why_not, lost = ends[0]
        if why_not:
            raise ObjectLost(handle.id.hex(), handle.size, why_not, (handle.node or "?") if lost else "")
        return cut(mapping.private(fd, size) if size else memoryview(bytearray()), handle.sizes)
    finally:
        courier.close()
        os.close(fd)


def _wait(courier: Courier) -> None:
    if courier.turn():
        return
    poller = zmq.Poller()
    for socket in courier.sockets():
        poller.register(socket, zmq.POLLIN)
    poller.poll(WAIT_MILLISECONDS)


def context() -> zmq.Context[Any]:
    """The ZeroMQ context of this process for what concerns objects."""
    global _context, _pid
    if _context is None or _context.closed or _pid != os.getpid():
        _context, _pid = zmq.Context(), os.getpid()
    return _context
