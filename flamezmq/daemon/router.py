"""The router as a service: it binds, serves, drains when it is told to stop, and leaves nothing.

The first SIGTERM or SIGINT drains: nobody new is let in, nothing more is
granted, each client is parted from when nothing of its runs any more.  The
second one, or the end of the time for that, ends it at once.
"""

from __future__ import annotations

import gc
import os
import socket
from contextlib import suppress
from dataclasses import replace
from math import inf
from time import monotonic
from typing import Any

import zmq

from flamezmq import processes
from flamezmq.core.members import Limits, Tenant
from flamezmq.daemon.notify import Notifier
from flamezmq.daemon.signals import Signals
from flamezmq.errors import StartFailed
from flamezmq.log import Log
from flamezmq.router import Router
from flamezmq.wire import messages as m

#: How often a router that drains looks whether it may end.
LOOK_SECONDS = 0.05
#: Hosts that only this machine reaches.
_LOOPBACK = ("127.", "localhost:", "[::1]:")


def run(settings: dict[str, Any], tenants: dict[str, dict[str, Any]], log: Log, notifier: Notifier) -> int:
    """Serve until told to stop; returns the exit code.

    Args:
        settings: of the table "router".
        tenants: what each may have, by name.
        log: for the events of the cluster.
        notifier: hears of the bound socket, of each sign of life, and of the end.

    Raises:
        StartFailed: it can't listen there, or must not.
    """
    processes.name_process("flm-router")
    processes.lift_descriptor_limit()  # each peer is a descriptor
    sizes = ("max_tasks", "max_bytes", "max_kept_bytes")
    theirs = {name: Tenant(**terms) for name, terms in tenants.items()}
    limits = replace(Limits(), tenants=theirs, **{name: settings[name] for name in sizes})
    router = Router(limits, log)
    signals = Signals()
    address = farewell = ""
    try:
        address = _bind(router, settings["bind"], settings["insecure"])
        log.info("listening", address=address, protocol=m.PROTOCOL, pid=os.getpid())
        notifier.ready(f"listening at {address}")
        gc.freeze()
        gc.disable()  # as in `flamezmq.router.main`
        _serve(router, signals, notifier)
        farewell = f"the router at {address} was stopped; open a new Client when it is back"
        log.info("draining", signal=signals.last, seconds=settings["drain_seconds"])
        notifier.stopping("running tasks may end")
        _drain(router, signals, notifier, monotonic() + settings["drain_seconds"], farewell)
        log.info("stopped", unfinished=_unfinished(router))
        return 0
    finally:
        gc.enable()
        if address.startswith("ipc://"):  # ZeroMQ leaves the file; before we hang up, it is still ours
            with suppress(OSError):
                os.unlink(address.removeprefix("ipc://"))
        router.close(farewell)
        signals.close()


def _serve(router: Router, signals: Signals, notifier: Notifier) -> None:
    """Until the first signal, of which the router's wait comes back after a second at the latest."""
    while not signals.stops:
        router.turn(notifier.next_sign() or inf)
        notifier.alive(monotonic())
        signals.take()


def _drain(router: Router, signals: Signals, notifier: Notifier, until: float, farewell: str) -> None:
    router.drain()
    while (now := monotonic()) < until and signals.stops < 2 and not router.drained(now, farewell):
        router.turn(min(until, now + LOOK_SECONDS))
        notifier.alive(now)
        signals.take()


def _unfinished(router: Router) -> int:
    found = router.broker.statistics()
    return found["queued"] + found["held"]


def _bind(router: Router, address: str, insecure: bool) -> str:
    scheme, _, place = address.partition("://")
    if scheme == "tcp" and not place.startswith(_LOOPBACK) and not insecure:
        raise StartFailed(
            f"{address} can be reached from other machines, and whoever reaches it may run code on the "
            "workers; listen at 127.0.0.1, or say --insecure if you trust that network"
        )
    if scheme == "ipc" and _somebody_listens(place):
        raise StartFailed(f"can't listen at {address}: another process does; stop it, or --bind elsewhere")
    before = os.umask(0o077)  # an ipc socket is for this user
    try:
        return router.board.bind(address)
    except zmq.ZMQError as error:
        raise StartFailed(f"can't listen at {address}: {error}; --bind elsewhere") from error
    finally:
        os.umask(before)


def _somebody_listens(path: str) -> bool:
    """ZeroMQ would take the socket's file away from its owner without a word."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as end:
        try:
            end.connect(path)
        except OSError:
            return False
        return True
