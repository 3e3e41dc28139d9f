"""What is an address of a router, and what is wrong with one that is none.

ZeroMQ is no help there: it takes port 99999 for 34463, waits for ever at port 0, and calls all
else an invalid argument.  Nothing is looked up here, so a host that nobody knows is still one.
"""

from __future__ import annotations

import re
from typing import Any

FORMS = "tcp://HOST:PORT or ipc://PATH"
#: Of the store of a node, where others reach it.
DOORS = "HOST, HOST:PORT or none"
NO_DOOR = "none"
#: The kernel keeps the path of a socket in so many bytes, with a zero behind it.
MOST_PATH_BYTES = 107

_HOST = re.compile(r"\[[0-9a-fA-F:.]+(%[\w.-]+)?\]|\w[\w.-]*|\*")


def check(address: Any, *, listens: bool = False) -> str:
    """The address, if it is one.

    Args:
        listens: it is one to listen at, so that port 0 or `*` (any free one) will do.

    Raises:
        ValueError: it is none; the text has it, what was expected, and what is wrong.
    """
    fault = _fault(address, listens)
    if fault is not None:
        raise ValueError(f"{address!r} is not an address ({FORMS})" + (f": {fault}" if fault else ""))
    return str(address)


def _fault(address: Any, listens: bool) -> str | None:
    """None: nothing.  Empty: the whole of it."""
    scheme, found, place = address.partition("://") if isinstance(address, str) else ("", "", "")
    if not found or scheme not in ("tcp", "ipc"):
        return ""
    return _fault_of_path(place) if scheme == "ipc" else _fault_of_place(place, listens)


def _fault_of_path(path: str) -> str | None:
    if not path.strip() or "\0" in path:
        return "it has no path"
    if path.startswith("@"):
        return "a name that begins with @ would be open to every user of this machine"
    if len(path.encode(errors="surrogateescape")) > MOST_PATH_BYTES:
        return f"its path has more than {MOST_PATH_BYTES} bytes"
    return None


def _fault_of_place(place: str, listens: bool) -> str | None:
    host, _, port = place.rpartition(":")
    if listens and port == "*":
        port = "0"
    least = 0 if listens else 1
    if not (port.isascii() and port.isdecimal() and least <= int(port) <= 65535):
        return f"its port must be a number from {least} to 65535"
    if not _HOST.fullmatch(host) or (host == "*" and not listens):
        return "it has no host" if not host else f"{host!r} is no host"
    return None


def check_door(door: str) -> str:
    """A host, with a port or without, or `NO_DOOR`.

    Raises:
        ValueError: it is none of that; the text says what was expected.
    """
    host, port = split_door(door)
    fault = _fault_of_place(f"{host}:{port}", listens=True)
    if door != NO_DOOR and (fault is not None or host == "*"):
        raise ValueError(f"{door!r} is not a host ({DOORS})")
    return door


def split_door(door: str) -> tuple[str, str]:
    """Host and port; "0" if there is no port.  A number of IPv6 keeps its brackets, or gets them."""
    if door.count(":") > 1 and not door.startswith("["):
        return f"[{door}]", "0"
    host, colon, port = door.rpartition(":")
    if not colon or door.endswith("]"):
        return door, "0"
    return host, port


def is_ipv6(address: str) -> bool:
    """Whether its host is a number of IPv6, for which a socket has to be told."""
    return address.startswith("tcp://[")
