"""How an executor died, as its worker has reported it and as users see it."""

from __future__ import annotations

from flamezmq.errors import Certificate
from flamezmq.wire import messages as m


def certificate_of(died: m.Died) -> Certificate:
    """What the worker has reported, as users see it."""
    return Certificate(
        f"{died.node}/{died.number}",
        died.node,
        died.pid,
        died.signal,
        died.exit_code,
        died.oom,
        died.rss_bytes,
        died.stderr,
    )
