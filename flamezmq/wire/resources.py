"""What nodes have and sessions ask for, as it travels."""

from __future__ import annotations

import msgspec

from flamezmq.wire.ranges import Amount


class Resource(msgspec.Struct, array_like=True, frozen=True):
    """So much of something that a node has: "cpu" (cores), "mem" (bytes), "gpu", or what it calls its own."""

    name: str
    amount: Amount
