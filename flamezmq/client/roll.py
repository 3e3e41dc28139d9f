"""The clients of this process: closed when the interpreter ends, the parent's alone after a fork."""

from __future__ import annotations

import atexit
import os
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from flamezmq.client.api import Client

#: Those that are open.
clients: WeakSet[Client] = WeakSet()


@atexit.register
def _close_all() -> None:
    """Pending tasks are cancelled, clusters of ours end."""
    for client in list(clients):
        client.close()


def _after_fork() -> None:
    for client in list(clients):
        client._forked()


os.register_at_fork(after_in_child=_after_fork)
