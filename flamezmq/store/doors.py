"""Where a store listens: for the processes of its node, and for others."""

from __future__ import annotations

import errno
import socket
from typing import NamedTuple

from flamezmq.address import split_door
from flamezmq.store.names import address


class Doors(NamedTuple):
    """How a store is reached: listening sockets.

    at: the ZeroMQ address of `outer`, or "".  node: the name of its node.
    """

    inner: socket.socket
    at: str = ""
    outer: socket.socket | None = None
    node: str = ""


def open_doors(name: str, door: str, node: str = "") -> Doors:
    """Listen on this node; and, with a door (HOST or HOST:PORT), for others; at any free port if it has none.

    A number of this machine is listened at, and no other.  A name, or a number that others know it by
    (behind a translation of addresses), is only told to them, and all of this machine's are listened at.

    Raises:
        OSError: it can't listen there.
    """
    inner = _listen(name)
    if not door:
        return Doors(inner, node=node)
    host, port = split_door(door)
    try:
        outer = _listen_outside(host.strip("[]"), int(port))
    except OSError:
        inner.close()
        raise
    return Doors(inner, f"tcp://{host}:{outer.getsockname()[1]}", outer, node)


def _listen(name: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listener.bind(address(name))
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener


def _listen_outside(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.inet_pton(family, host)
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno not in (None, errno.EADDRNOTAVAIL):
            raise
        return socket.create_server(("", port), family=family)


def host_towards(router: str) -> str:
    """The address of this machine on the way to the router, as other nodes see it; "" if all are on one."""
    if not router.startswith("tcp://"):
        return ""
    host, _, port = router[6:].rpartition(":")
    host = host.strip("[]")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)  # of datagrams: nothing is sent
            return str(probe.getsockname()[0])
    except (OSError, ValueError):
        return ""
