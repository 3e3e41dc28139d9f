"""What a new executor is told by its worker.  A file of its own, so that both sides can import it."""

from __future__ import annotations

import msgspec


class ExecutorConfig(msgspec.Struct, frozen=True):
    """address: the router's.  node, token, number: what it introduces itself by.

    page_fd: the page that it shares with its worker (flamezmq.page), as a memfd.
    cores: its share of the node's, at least what its numeric libraries may use.
    """

    address: str
    node: str
    token: str
    number: int
    page_fd: int
    cores: float = 1.0
