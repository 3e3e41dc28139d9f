"""The handshake: what the two ends of a fresh connection say first.

They stand outside of all numbering, and have no tags: the kind in the envelope says which it is.
"""

from __future__ import annotations

import msgspec

#: Bumped when a message changes its meaning; both sides must agree on it.
PROTOCOL = 1


class Hello(msgspec.Struct, array_like=True):
    """Dialler -> router, first on every connection.

    protocol  the version of the protocol, an integer
    version   of flamezmq, for people
    python    "major.minor"
    role      "client", "executor" or "worker"
    link      the token of the link it had, or empty for a new one
    received  the last message it has applied on that link
    """

    protocol: int
    version: str
    python: str
    role: str
    link: bytes = b""
    received: int = 0


class Welcome(msgspec.Struct, array_like=True):
    """Router -> dialler: the epoch has begun.

    link       the link's token
    received   the last message that the router has applied on it
    max_tasks  how many tasks a client may have with the router
    max_bytes  bytes of large payloads that a client may have with the router
    """

    link: bytes
    received: int
    max_tasks: int = 0
    max_bytes: int = 0


class Refuse(msgspec.Struct, array_like=True):
    """Router -> dialler: go away, and why (a sentence).

    gone  nothing is wrong with the peer: the router that it knew is gone, or goes
    """

    reason: str
    gone: bool = False
