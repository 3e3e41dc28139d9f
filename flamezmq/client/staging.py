"""From an outbox into the link, as far as credit and quotas go."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from flamezmq.client import quota, steering
from flamezmq.core.caller import Calls

if TYPE_CHECKING:
    from flamezmq.client.api import Client


def stage_outbox(client: Client, alias: int, calls: Calls) -> bool:
    """Move one outbox into the link, as far as it can go now; whether anything was moved."""
    moved = False
    if calls.broken is not None or calls.closed:  # while a submit was under way
        with client._apply_lock:
            calls.end_all(client._on_end)
    while calls.outbox or calls.staged:
        room = client._room(calls)
        client._no_credit = room <= 0
        if calls.allowance is not None:
            room = min(room, calls.allowance.room(calls.committed, calls.outbox))
        with client._apply_lock:  # nobody takes a task out of the outbox meanwhile
            if not calls.stage(client._line.link, max(room, 0), client._on_end, monotonic()):
                break
        moved = True
    if calls.allowance is not None:
        quota.hold_up(client, calls, calls.allowance)
    if not calls.outbox:
        client._dirty.pop(alias, None)
        if calls.outbox:  # a submit came in between
            client._dirty[alias] = calls
        elif calls.draining:
            steering.say_drained(client, calls)
    return moved
